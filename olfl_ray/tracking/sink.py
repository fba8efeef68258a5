"""The MLflow sink: delivers what the ledger says in a thread of its own; training never waits for it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from olfl_ray.errors import SetupError
from olfl_ray.ledger import Event, StudyState, TrialState
from olfl_ray.spec import without_secrets
from olfl_ray.storage import Storage
from olfl_ray.tracking.runs import Runs

__all__ = ["Sink", "undelivered"]

MARKS = "tracking/delivered.json"
MARK_SECONDS = 5.0
"""Time between two writings of the marks, in seconds; a kill makes that much be delivered again."""
GATHER_SECONDS = 0.5
"""What follows an event within this time, in seconds, is delivered with it: one call of the store in place of several."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0
"""Seconds between two tries to reach a store that is down."""


def undelivered(storage: Storage, state: StudyState, uri: str) -> list[TrialState]:
    """The trials that a tracking store may lack: all but those whose end was delivered there."""
    marks = _marks(storage, uri)
    return [trial for trial in state.trials.values() if marks.get(str(trial.id), -1.0) != trial.ended_at]


def _marks(storage: Storage, uri: str) -> dict[str, float]:
    """When each trial ended whose end was delivered to a store; without them, everything is delivered again."""
    try:
        found = json.loads(storage.read(MARKS))
        return {str(name): float(ended) for name, ended in found[without_secrets(uri)].items()}
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return {}


class Sink:
    """Keeps the newest state of each trial until the store has it.

    Args:
        connect: Opens the study's runs; tried again while the store is down.
        storage: The study's storage.
        uri: Tracking URI.
    """

    def __init__(self, connect: Callable[[], Runs], storage: Storage, uri: str) -> None:
        self._connect, self._storage, self._uri = connect, storage, uri
        self._runs: Runs | None = None
        self._marks = _marks(storage, uri)
        self._marked = time.monotonic()
        self._waiting: dict[str, TrialState] = {}
        self._before: frozenset[str] = frozenset()
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self.problem = ""
        self._thread = threading.Thread(target=self._work, name="mlflow-sink", daemon=True)

    def start(self, state: StudyState) -> None:
        """Begin to deliver; what the store may lack is sent first."""
        self._before = frozenset(state.trials)
        self._waiting = {str(trial.id): trial for trial in undelivered(self._storage, state, self._uri)}
        self._thread.start()

    def observe(self, event: Event, state: StudyState) -> None:
        """Take an event of the ledger; returns at once."""
        name = getattr(event, "trial", None)
        if name is not None:
            with self._changed:
                self._waiting[name] = state.trials[name]
                self._changed.notify()

    def close(self, files: Mapping[str, Path], *, finished: bool, patience: float = 60.0) -> int:
        """Deliver what is left and end the parent run.

        Args:
            files: Folders that become artifacts of the parent run.
            finished: Whether the study is finished.
            patience: Seconds without any delivery after which it gives up.

        Returns:
            Number of runs that could not be delivered, the study's own among them; the next start delivers them.
        """
        self._closing.set()
        with self._changed:
            self._changed.notify()
        left = -1
        while self._thread.is_alive() and left != len(self._waiting):
            left = len(self._waiting)
            self._thread.join(patience)
        missing = len(self._waiting)
        if not missing and not self._thread.is_alive():
            try:
                self._connected().close(files, finished=finished)
            except Exception as error:
                self.problem = _first_line(error)
                missing = 1
        return missing

    def _work(self) -> None:
        wait = FIRST_WAIT
        while True:
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
                self._connected().deliver(trial, new=name not in self._before)
            except Exception as error:
                self.problem = _first_line(error)
                with self._changed:
                    self._waiting[name] = self._waiting.pop(name)  # another trial may be let in where this one is not
                if self._closing.wait(wait):
                    break
                wait = min(2 * wait, LONGEST_WAIT)
                continue
            wait = FIRST_WAIT
            with self._changed:
                if self._waiting.get(name) is trial:
                    del self._waiting[name]
            if trial.ended_at is not None:
                self._marks[name] = trial.ended_at
                if time.monotonic() - self._marked > MARK_SECONDS:
                    self._write_marks()
        self._write_marks()

    def _connected(self) -> Runs:
        if self._runs is None:
            self._runs = self._connect()
        return self._runs

    def _write_marks(self) -> None:
        self._marked = time.monotonic()
        try:
            self._storage.write(MARKS, json.dumps({without_secrets(self._uri): self._marks}).encode())
        except SetupError as error:
            self.problem = _first_line(error)


def _first_line(error: Exception) -> str:
    return without_secrets(str(error) or type(error).__name__).splitlines()[0]
