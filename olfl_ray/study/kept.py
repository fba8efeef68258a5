"""Where a study is kept: its spec, ledger and storage, found by its name or its spec, up to the newest event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from olfl_ray.driver import check_same, load, resolved, spec_in, status_of, storage_of
from olfl_ray.errors import StudyError, UserError
from olfl_ray.ledger import Ledger
from olfl_ray.remote import locate
from olfl_ray.spec import StudySpec
from olfl_ray.storage import Storage
from olfl_ray.study.remote_study import RemoteStudy
from olfl_ray.study.results import Results

__all__ = ["Kept"]


class Kept(Results):
    """A study that is given by its spec, or by its name. It is read once; later only newer events are."""

    _given: StudySpec | None
    """Its spec, where it was given."""
    _elsewhere: str | None
    """The storage that was named for it."""
    _remote: RemoteStudy | None = None
    _kept: tuple[StudySpec, Ledger, Storage] | None = None
    _as_recorded: Mapping[str, Any]
    """The spec of its ledger when it was last read."""

    @property
    def remote(self) -> RemoteStudy | None:
        """Its side on a cluster; None: it runs here."""
        return self._remote

    @property
    def begun(self) -> bool:
        """Whether it was started before."""
        if self._given is None:
            return True
        if self._remote is None:
            return bool(self._storage(self._given).keys("ledger/"))
        try:
            self._load()
        except StudyError:
            return False
        return True

    @property
    def location(self) -> str:
        """URL of the storage that keeps it."""
        if self._given is not None and self._remote is None:
            return self._storage(self._given).url
        return self._load()[2].url

    @property
    def spec(self) -> StudySpec:
        """Its resolved spec: as it was last run; before that, as it was given."""
        return self._load()[0] if self.begun or self._given is None else resolved(self._given)

    @property
    def status(self) -> str:
        """new, running, finished, stopped, or interrupted: its driver exited without reporting a result."""
        if not self.begun:
            return "new"
        _, ledger, storage = self._load()
        return status_of(ledger, storage)

    def __repr__(self) -> str:
        try:
            if not self.begun:
                return f"Study({self.name!r}, not begun)"
            trials = self.state.trials.values()
            return f"Study({self.name!r}, {sum(trial.ended for trial in trials)} of {self.total} trials ended)"
        except UserError:
            return f"Study({self.name!r})"

    def _load(self) -> tuple[StudySpec, Ledger, Storage]:
        if self._kept is None or not self._kept[1].is_current():
            self._kept = None
            self._kept = self._found()
            self._as_recorded = self._kept[1].live.spec
        _, ledger, storage = self._kept
        ledger.catch_up()
        if ledger.live.spec is not self._as_recorded:  # a driver, perhaps this handle's own, has revised it
            self._as_recorded = ledger.live.spec
            self._kept = spec_in(self._as_recorded, self.name), ledger, storage
        return self._kept

    def _found(self) -> tuple[StudySpec, Ledger, Storage]:
        if self._remote is not None or self._elsewhere is not None:
            cluster = None if self._remote is None else self._remote.cluster
            locate(self.name, home=self.home, cluster=cluster, storage=self._elsewhere)
        elif self._given is not None:
            storage = self._storage(self._given)
            if not storage.keys("ledger/"):
                raise StudyError(f"study {self.name!r} has not begun; run it first")
            ledger = Ledger.load(storage)
            check_same(self._given, ledger.state.spec, ledger.state.digest)
            return spec_in(ledger.state.spec, self.name), ledger, storage
        found = load(self.name, self.home)
        if self._given is not None:
            check_same(self._given, found[1].state.spec, found[1].state.digest)
        return found

    def _storage(self, given: StudySpec) -> Storage:
        return storage_of(resolved(given), self.home)
