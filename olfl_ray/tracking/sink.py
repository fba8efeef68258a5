"""A sink: delivers the ledger's state to a tracker in a separate thread; training never waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from olfl_ray.ledger import Event, StudyState, TrialState
from olfl_ray.spec import without_secrets
from olfl_ray.tracking.tracker import TrackedArm, Tracker

__all__ = ["Sink", "parent_status"]

GATHER_SECONDS = 0.5
"""Events within this many seconds are delivered together: one call of the store instead of several."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0
"""First and maximum pause in seconds between two attempts to reach a store that is down."""


class Sink:
    """Queues the newest state of each trial until the store has it.

    Args:
        tracker: Opened by the thread; retried while its store is down.
        identity: The study's identity.
        fenced: Whether another driver has taken over the study, so that this one must not deliver any more.
    """

    def __init__(self, tracker: Tracker, identity: str, fenced: Callable[[], bool] = lambda: False) -> None:
        self._tracker, self._identity, self._fenced = tracker, identity, fenced
        self._open = self._drained = False
        self._waiting: dict[str, TrialState] = {}
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._abandoned = False
        self.problem = ""
        self._thread = threading.Thread(target=self._work, name="tracker-sink", daemon=True)

    def start(self, state: StudyState) -> None:
        """Start the thread; first it delivers what the store lacks."""
        self._waiting = dict(state.trials)
        self._thread.start()

    def observe(self, event: Event, state: StudyState) -> None:
        """Queue an event of the ledger; returns at once."""
        name = getattr(event, "trial", None)
        if name is not None:
            with self._changed:
                self._waiting[name] = state.trials[name]
                self._changed.notify()

    def drain(self, patience: float = 60.0) -> None:
        """Deliver what is queued, and end the thread.

        Args:
            patience: Seconds without any delivery after which it gives up.
        """
        self._close()
        left: int | None = None
        while not self._drained and self._thread.is_alive() and left != len(self._waiting):
            left = len(self._waiting)
            self._thread.join(patience)
        self._drained = True

    def links(self) -> Mapping[str, str]:
        """As the tracker's, once it is drained; empty if its store does not respond."""
        if not self._thread.is_alive():
            with suppress(Exception):
                return self._connected().links()
        return {}

    def close(
        self, files: Mapping[str, Path], *, status: str, arms: Sequence[TrackedArm] = (), patience: float = 60.0
    ) -> int:
        """Deliver what is queued and close the tracker.

        Args:
            files: Folders with files of the complete study.
            status: Status of the study: FINISHED, FAILED or KILLED.
            arms: Each arm's outcome.
            patience: Seconds without any delivery after which it gives up.

        Returns:
            Number of trials that could not be delivered, including the study itself; the next start delivers them.
        """
        self.drain(patience)
        missing = len(self._waiting)
        if self._thread.is_alive():
            return missing + 1
        try:
            self._connected().summarise(arms)
            # If trials are missing, the study stays open, so that the next start knows that something is left to deliver.
            self._connected().close(files, status="KILLED" if missing else status)
        except Exception as error:
            self.problem = _first_line(error)
            missing += 1
        return missing

    def abandon(self) -> None:
        """Stop delivering: another driver, or the next start, will deliver the rest."""
        self._abandoned = True
        self._close()

    def _close(self) -> None:
        self._closing.set()
        with self._changed:
            self._changed.notify()

    def _work(self) -> None:
        wait, in_vain = FIRST_WAIT, 0
        while not self._abandoned:
            with self._changed:
                idle = not self._waiting
                while not self._waiting and not self._closing.is_set():
                    self._changed.wait()
            if idle:
                self._closing.wait(GATHER_SECONDS)
            with self._changed:
                if not self._waiting:
                    break
                name, trial = next(iter(self._waiting.items()))
            try:
                if self._fenced():
                    break
                self._connected().deliver(trial)
            except Exception as error:
                self.problem = _first_line(error)
                in_vain += 1
                with self._changed:
                    self._waiting[name] = self._waiting.pop(name)  # the store may accept another trial
                    hopeless = not self._open or in_vain >= len(self._waiting)
                if self._closing.is_set() and hopeless:
                    break
                self._closing.wait(wait)
                wait = min(2 * wait, LONGEST_WAIT)
                continue
            wait, in_vain = FIRST_WAIT, 0
            with self._changed:
                if self._waiting.get(name) is trial:
                    del self._waiting[name]

    def _connected(self) -> Tracker:
        if not self._open:
            self._tracker.open(self._identity)
            self._open = True
        return self._tracker


def parent_status(state: StudyState) -> str:
    """A study's status once it is complete: FAILED if no trial finished."""
    return "FINISHED" if any(trial.state == "finished" for trial in state.trials.values()) else "FAILED"


def _first_line(error: Exception) -> str:
    return without_secrets(str(error) or type(error).__name__).splitlines()[0]
