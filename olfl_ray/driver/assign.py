"""A worker's assignment; on a cluster, the data that it needs are first stored where every node sees them."""

from __future__ import annotations

from collections.abc import Mapping

from olfl_ray import data
from olfl_ray.driver.check import device_of
from olfl_ray.driver.home import Home, data_root
from olfl_ray.ledger import Examined, TrialState
from olfl_ray.spec import NamedBuilder, StudySpec, TrialConfig
from olfl_ray.storage import Lease, LocalStorage, Storage, open_storage
from olfl_ray.worker import Assignment

__all__ = ["Assigner"]

SHARED_DATA = "_data"
"""Folder next to the studies; no study can have this name."""


class Assigner:
    """Makes a trial's assignment.

    Args:
        spec: The study.
        home: The driver's home folder.
        storage: The study's storage.
        epoch: Epoch of the driver's lease.
        facts: For each arm its data, task and code.
        cluster: Whether trials may run on other machines than the driver's.
    """

    def __init__(
        self,
        spec: StudySpec,
        home: Home,
        storage: Storage,
        epoch: int,
        facts: Mapping[str, Examined],
        *,
        cluster: bool,
    ) -> None:
        self._facts = facts
        self._spec, self._home, self._storage, self._epoch = spec, home, storage, epoch
        self._root = storage.url.rpartition("/")[0]
        self._shared: Storage | None = None
        if cluster and not (isinstance(storage, LocalStorage) and not spec.storage.shared):
            at_home = spec.storage.url is None  # a home folder that is shared has them already
            self._shared = LocalStorage(home.cache) if at_home else open_storage(f"{self._root}/{SHARED_DATA}")
        self._put: set[str] = set()

    def __call__(self, trial: TrialState, config: TrialConfig) -> Assignment:
        """The assignment of a trial with these settings.

        Raises:
            UserError: Its data can't be put where other machines see them.
        """
        spec, root = self._spec, data_root()
        self._share(config.task.dataset, self._data_of(trial))
        return Assignment(
            study=self._storage.url,
            trial=str(trial.id),
            config=config.model_dump_json(by_alias=True),
            cache=str(self._home.cache),
            shared_data="" if self._shared is None else self._shared.url,
            data_root=str(root) if root else None,
            studies=str(self._home.studies),
            studies_url="" if spec.storage.url is None else self._root,
            device=device_of(spec),
            threads=spec.resources.cpu,
            commit_every=spec.checkpoint.every_steps,
            pruner=None if trial.id.confirming else spec.search.pruner.model_dump_json(),
            max_seconds=spec.budget.trial_seconds,
            epoch=self._epoch,
            recorded=tuple(commit.commit for commit in trial.commits),
            scratch=trial.scratch,
            alone=trial.alone,
            gpu=spec.resources.gpu,
            data=self._data_of(trial),
            witness=Lease.key(self._epoch) if isinstance(self._storage, LocalStorage) else "",
        )

    def _data_of(self, trial: TrialState) -> str:
        """Fingerprint of the trial's data; empty where its point sets an option of the data set."""
        searched = any(field.startswith("task.dataset") for field in trial.params)
        return "" if searched else self._facts[trial.id.arm].data

    def _share(self, dataset: NamedBuilder, fingerprint: str) -> None:
        if self._shared is None or (what := f"{dataset.model_dump_json()}{fingerprint}") in self._put:
            return
        data.share(
            dataset.name,
            cache=self._home.cache,
            root=data_root(),
            storage=self._shared,
            options=dataset.options,
            fingerprint=fingerprint,
        )
        self._put.add(what)
