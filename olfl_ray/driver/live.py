"""The report of a running study: a thread updates it from time to time, and an error in it never fails the study."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from threading import Thread

from olfl_ray.ledger import Ended, Event, StudyState

__all__ = ["LiveReport"]

PAUSE_SECONDS = 30.0
"""Least time between the end of one report and the start of the next; a shorter study has only its last one."""
SHARE = 0.02
"""Largest share of one core's time that writing may take."""


class LiveReport:
    """Writes the report again when a trial has ended, but not too often.

    Args:
        write: Writes the report of a state; what it raises is ignored, since the last report of a study says what is wrong.
        pause: Least number of seconds between two reports.
    """

    def __init__(self, write: Callable[[StudyState], object], *, pause: float = PAUSE_SECONDS) -> None:
        self._write, self._pause = write, pause
        self._thread: Thread | None = None
        self._next = time.monotonic() + pause

    def observe(self, event: Event, state: Callable[[], StudyState]) -> None:
        """Take an event; `state` is called only if a report is due."""
        busy = self._thread is not None and self._thread.is_alive()
        if busy or not isinstance(event, Ended) or time.monotonic() < self._next:
            return
        self._thread = Thread(target=self._run, args=(state(),), name="live report", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Wait until no report is being written."""
        if self._thread is not None:
            self._thread.join()

    def _run(self, state: StudyState) -> None:
        began, used = time.monotonic(), time.thread_time()
        with suppress(Exception):
            self._write(state)
        seconds, work = time.monotonic() - began, time.thread_time() - used
        self._next = time.monotonic() + max(self._pause, seconds, work / SHARE)
