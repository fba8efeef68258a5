"""The studies of a home folder, of a cluster, or of a storage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from olfl_ray import remote
from olfl_ray.driver import Home, load, status_of
from olfl_ray.errors import UserError
from olfl_ray.remote import Standing

__all__ = ["list_studies"]


def list_studies(
    *, home: str | Path | Home | None = None, cluster: str | None = None, storage: str | None = None
) -> list[Standing]:
    """The state of each study: of a cluster or a storage where one is named, else of the home folder.

    Args:
        home: The home folder; None: `OLFL_HOME`, else `./.olfl`.
        cluster: URL of Ray's job server, or a target of the settings file.
        storage: Storage that holds studies, such as s3://bucket/studies.

    Raises:
        UserError: The cluster or the storage can't be read.
    """
    if cluster is not None or storage is not None:
        there = None if cluster is None else remote.RayCluster.connect(cluster)
        return list(remote.list_on(there, storage))
    return list(_here(home if isinstance(home, Home) else Home.find(home)))


def _here(home: Home) -> Iterator[Standing]:
    for name in home.names():
        try:
            _, ledger, storage = load(name, home)
        except UserError as error:
            yield Standing(name=name, attempts=0, state="unreadable", ended=None, trials=0, problem=str(error))
            continue
        attempts, state = ledger.live.epoch, status_of(ledger, storage)
        yield Standing(name=name, attempts=attempts, state=state, **remote.counted(ledger))
