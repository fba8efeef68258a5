"""A small study in a home: the command that starts each change of it, and the one that a user runs after a loss."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.chaos.driver import Driver
from benchmarks.chaos.stores import Store
from olfl_ray.ledger import StudyState
from olfl_ray.study import Study

__all__ = ["Sweep", "Verb"]

Verb = Literal["run", "extend", "retry", "deliver"]
"""`deliver`: resume a finished study whose tracking store was lost."""
FAILED = "failing/0"
"""The trial that is retried."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A study with its files.

    Args:
        home: Its home folder.
        name: Its name.
        spec: Its spec's file.
        store: Store of its runs.
        log: File of its drivers' output.
    """

    home: Path
    name: str
    spec: Path
    store: Store
    log: Path

    def start(self, verb: Verb) -> Driver:
        """Start a change of the study."""
        own = ("--home", self.home)
        if verb == "extend":
            return self._driver("extend", self.name, "--trials", "1", *own)
        if verb == "retry":
            return self._driver("retry", self.name, FAILED, *own)
        if verb == "deliver":
            return self._driver("resume", self.name, *own)
        store = ("--set", f"tracking.uri={self.store.uri}") if self.store.shared else ()
        return self._driver("run", self.spec, "--name", self.name, *store, *own)

    def start_again(self, verb: Verb) -> Driver:
        """What a user does after a loss: the same command again, but `resume` if the study has recorded the change."""
        if verb in ("run", "deliver") or self._lacks(verb):
            return self.start(verb)
        return self._driver("resume", self.name, "--home", self.home)

    @property
    def state(self) -> StudyState:
        """The study's state."""
        return Study.open(self.name, home=self.home).state

    def _lacks(self, verb: Verb) -> bool:
        """Whether a change of the study was not recorded before its driver ended."""
        if verb == "extend":
            return bool(self.state.spec["arms"]["baseline"]["trials"] == 1)
        return not self.state.trials[FAILED].ended or self.state.trials[FAILED].state == "failed"

    def _driver(self, *command: str | Path) -> Driver:
        return Driver("sweep", *command, log=self.log)
