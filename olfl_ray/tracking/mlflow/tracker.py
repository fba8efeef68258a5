"""MLflow as a tracker: a parent run for the study, and a child run for each trial."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from olfl_ray.errors import StudyError
from olfl_ray.ledger import StudyState, TrialState
from olfl_ray.spec import PRINTABLE, Strict, StudySpec, TrackerSpec, checked_options, without_secrets
from olfl_ray.tracking.mlflow.existing import remove_runs, storage_of_runs, undelivered
from olfl_ray.tracking.mlflow.runs import Runs
from olfl_ray.tracking.mlflow.sqlite_file import absolute_uri, file_of
from olfl_ray.tracking.mlflow.store import (
    FROM_ENVIRONMENT,
    artifacts_in,
    check_store,
    embedded_uri,
    open_store,
    store_uri,
)
from olfl_ray.tracking.tracker import TrackedArm, Tracker

__all__ = ["NAME", "Mlflow", "experiment_of", "with_uri"]

NAME = "mlflow"


class Mlflow(Tracker):
    """Runs in an MLflow server, a database or an SQLite file."""

    class Config(Strict):
        """Its settings."""

        uri: Annotated[str, Field(pattern=PRINTABLE)] | None = None
        """MLflow tracking URI; null: the environment's MLFLOW_TRACKING_URI, else SQLite in the home folder."""
        experiment: Annotated[str, Field(pattern=PRINTABLE)] = "olfl"
        """MLflow experiment."""
        models: bool = False
        """Whether each confirming trial's run gets its trained model, with signature and input example, for MLflow's registry and
        serving."""

    @classmethod
    def resolve(cls, config: Config, before: Config | None = None) -> Config:
        given, before_uri = config.uri, before.uri if before is not None else None
        if given is None or (wanted := absolute_uri(given)) == given:
            return config
        if before_uri not in (None, given, wanted) and (file := file_of(str(before_uri))) is not None and file.exists():
            raise StudyError(
                f"tracking.uri: {given!r} is {wanted} here, but the study's runs are in {before_uri}; give the intended one "
                "as an absolute path"
            )
        return config.model_copy(update={"uri": wanted})

    @property
    def uri(self) -> str:
        """The tracking URI, including a password if it has one."""
        return store_uri(self.config.uri, self.study.home)

    @property
    def location(self) -> str:
        return without_secrets(self.uri)

    def confined(self) -> str:
        if self.config.uri is not None or self.uri != embedded_uri(self.study.home):
            return ""
        return (
            "the home folder's SQLite file would be lost with this machine; name an MLflow server by tracking.uri or "
            f"{FROM_ENVIRONMENT} (http://HOST:PORT), put --home in a folder that all of them see with "
            "storage: {shared: true}, or name a file (sqlite:////FOLDER/mlflow.db) to keep it on this machine"
        )

    def check(self) -> None:
        check_store(self.uri, self.config.experiment)

    def prepare(self) -> None:
        open_store(self.uri, self.config.experiment, artifacts_in(self.study.home))

    def open(self, identity: str) -> None:
        client = open_store(self.uri, self.config.experiment, artifacts_in(self.study.home))
        self._runs = Runs(client, self.study, identity, self.config.experiment, models=self.config.models)

    def deliver(self, trial: TrialState) -> None:
        self._runs.deliver(trial)

    def summarise(self, arms: Sequence[TrackedArm]) -> None:
        self._runs.summarise(arms)

    def links(self) -> Mapping[str, str]:
        page = f"{self.location.rstrip('/')}/#/" if self.uri.startswith(("http://", "https://")) else ""
        return self._runs.links(page)

    def close(self, files: Mapping[str, Path], *, status: str) -> None:
        self._runs.close(files, status=status)

    def remove(self, identity: str) -> int:
        return sum(remove_runs(uri, self.config.experiment, identity) for uri in self._stores)

    def kept_in(self, identity: str) -> set[str]:
        return {storage_of_runs(uri, self.config.experiment, identity) for uri in self._stores} - {""}

    @property
    def _stores(self) -> list[str]:
        """Every store in which the study's runs may be."""
        named = os.environ.get(FROM_ENVIRONMENT)
        stores = [self.config.uri] if self.config.uri is not None else [named, embedded_uri(self.study.home)]
        return [uri for uri in dict.fromkeys(stores) if uri]

    def undelivered(self, state: StudyState) -> int:
        return undelivered(self.uri, self.config.experiment, state)


def experiment_of(spec: StudySpec) -> str:
    """The MLflow experiment of a study."""
    own = next((named for named in spec.tracking if named.name == NAME), TrackerSpec(name=NAME))
    return checked_options(Mlflow.Config, own.options, "tracking").experiment


def with_uri(tracking: tuple[TrackerSpec, ...], uri: str) -> tuple[TrackerSpec, ...]:
    """The trackers of a spec, with `uri` for MLflow if the spec gives none."""
    return tuple(
        TrackerSpec.model_validate({**named.model_dump(), "uri": uri})
        if named.name == NAME and named.options.get("uri") is None
        else named
        for named in tracking
    )
