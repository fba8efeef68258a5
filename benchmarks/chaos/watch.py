"""How far a driver is, seen from outside: the time, what its home's files and its study's ledger show, the tracking store."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks.chaos.stores import Store
from olfl_ray.ledger import Ledger
from olfl_ray.study import Home

__all__ = ["Trigger", "Watch", "after", "always", "noted", "phase", "schema", "written"]

CLOCK_NS = 20_000_000
"""How coarse the times of files are, in nanoseconds."""


class Watch:
    """What has happened since a driver was started; made just before that.

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

    def noted(self, kind: str) -> int:
        """Events of a kind that the ledger has noted since the start."""
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
        except FileNotFoundError:  # a temporary file that is gone again
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
    """The tracking store is being made."""
    return watch.store.begun()


def after(seconds: float) -> Trigger:
    """So many seconds after the start."""
    return lambda watch: watch.seconds >= seconds


def noted(kind: str, times: int = 1) -> Trigger:
    """The ledger has noted so many events of a kind."""
    return lambda watch: watch.noted(kind) >= times


def written(pattern: str) -> Trigger:
    """A file of the study's folder is written."""
    return lambda watch: watch.written(pattern)


def phase(watch: Watch) -> str:
    """How far a first start is, in words."""
    if not watch.home.exists():
        return "nothing is on disk"
    if watch.noted("Began"):
        return "a trial has begun"
    if watch.noted("DriverStarted"):
        return "the study is begun, Ray starts"
    if watch.store.begun():
        return "MLflow's store is made"
    return "data are prepared"
