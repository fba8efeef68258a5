"""The progress of a driver, seen from outside: the time, its home's files and its study's ledger, the tracking store."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks.chaos.stores import Store
from olfl_ray.ledger import Ledger
from olfl_ray.study import Home

__all__ = ["Trigger", "Watch", "after", "always", "phase", "recorded", "schema", "written"]

CLOCK_NS = 20_000_000
"""Resolution of file times, in nanoseconds."""


class Watch:
    """What has happened since a driver was started; created just before that.

    Args:
        home: Home folder of the driver.
        study: Name of its study.
        store: Its tracking store.
    """

    def __init__(self, home: Path, study: str, store: Store) -> None:
        self.home, self.store = home, store
        self.folder = home / "studies" / study
        self._ledger = self._load()
        self._noted: Counter[str] = Counter()
        self._began, self._since = time.monotonic(), time.time_ns() - CLOCK_NS

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def recorded(self, kind: str) -> int:
        """Number of events of a kind that the ledger has recorded since the start."""
        if self._ledger is None:
            self._ledger = self._load()
            if self._ledger is not None:
                self._noted.update(type(event).__name__ for event in self._ledger.events)
        if self._ledger is not None:
            self._noted.update(type(event).__name__ for event in self._ledger.news())
        return self._noted[kind]

    def written(self, pattern: str) -> bool:
        """Whether a file of the study's folder was written since the start."""
        try:
            return any(path.stat().st_mtime_ns >= self._since for path in self.folder.glob(pattern))
        except FileNotFoundError:  # a temporary file that has been removed again
            return False

    def _load(self) -> Ledger | None:
        if not (self.folder / "ledger" / "000000001.json").exists():
            return None
        return Ledger.load(Home(self.home).storage(self.folder.name))


Trigger = Callable[[Watch], bool]


def always(watch: Watch) -> bool:
    """At once."""
    return True


def schema(watch: Watch) -> bool:
    """The tracking store is being created."""
    return watch.store.begun()


def after(seconds: float) -> Trigger:
    """This many seconds after the start."""
    return lambda watch: watch.seconds >= seconds


def recorded(kind: str, times: int = 1) -> Trigger:
    """The ledger has recorded this many events of a kind."""
    return lambda watch: watch.recorded(kind) >= times


def written(pattern: str) -> Trigger:
    """A file of the study's folder is written."""
    return lambda watch: watch.written(pattern)


def phase(watch: Watch) -> str:
    """The progress of a first start, in words."""
    if not watch.home.exists():
        return "nothing is on disk"
    if watch.recorded("Began"):
        return "a trial has begun"
    if watch.recorded("DriverStarted"):
        return "the study is begun, Ray starts"
    if watch.store.begun():
        return "MLflow's store is made"
    return "data are prepared"
