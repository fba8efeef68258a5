"""Studies on a cluster, from any machine: its job server, and where its studies are stored."""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from olfl_ray.driver.home import Home
from olfl_ray.errors import StudyError
from olfl_ray.remote.targets import Target, find_target, token_of
from olfl_ray.storage import LocalStorage, Storage, expanded, open_storage
from olfl_ray.tracking.mlflow import FROM_ENVIRONMENT, storage_in_runs

if TYPE_CHECKING:
    from olfl_ray.remote.jobs import Attempt, JobServer

__all__ = ["RayCluster", "Unseen", "locate"]


@dataclass(frozen=True)
class RayCluster:
    """A running cluster.

    Args:
        name: Its URL, or the name of its target: what `--address` takes.
        target: Its settings.
        server: Its job server.
    """

    name: str
    target: Target
    server: JobServer

    @classmethod
    def connect(cls, address: str | None = None) -> RayCluster:
        """Connect to a cluster.

        Args:
            address: URL of Ray's job server, or the name of a target in the settings file; None: `RAY_ADDRESS` if it is
                such a URL, else the settings' default.

        Raises:
            UserError: There is no such cluster, or it refuses the token.
        """
        from olfl_ray.remote.jobs import JobServer

        name, target = find_target(address)
        token = token_of(target)
        authority = expanded(target.ca_file) if target.ca_file is not None else None
        server = JobServer(target.address, token=token.value, token_source=token.source, ca_file=authority)
        return cls(name, target, server)

    def newest(self, name: str) -> Attempt:
        """A study's newest attempt.

        Raises:
            StudyError: The cluster has no such study.
        """
        attempt = self.server.newest(name)
        if attempt is None:
            known = ", ".join(sorted({attempt.study for attempt in self.server.attempts()})) or "none yet"
            raise StudyError(f"study: the cluster {self.name} has no study {name!r}; it has: {known}")
        return attempt

    def sees(self, attempt: Attempt) -> bool:
        """Whether this machine can access an attempt's storage: a folder is the same on the cluster's own machines, and where it
        is shared.
        """
        if not attempt.storage:
            return False
        local = isinstance(open_storage(attempt.storage), LocalStorage)
        return not local or attempt.shared or socket.gethostname() in self.server.host_names()


def locate(name: str, *, home: Home, cluster: RayCluster | None = None, storage: str | None = None) -> Storage:
    """Find a study that was started elsewhere, and record its storage in the home folder.

    It is searched for in `storage` if given; else where the cluster's newest attempt keeps it, then in the target's storage,
    then in MLflow. Anyone with write access to MLflow controls what it says, so a study found only there can be read, but
    `Home.refuse_untrusted` prevents running it.

    Args:
        name: The study.
        home: The home folder.
        cluster: The cluster that runs or ran it.
        storage: The storage that holds its folder, such as s3://bucket/studies.

    Raises:
        StudyError: It is not found.
        Unseen: This machine can't access its storage, or the home folder has another study of that name.
        SetupError: The cluster or the storage can't be reached.
    """
    own = LocalStorage(home.study_folder(name))
    looked = [f"the cluster {cluster.name}"] if cluster is not None and storage is None else []
    for root, untrusted in _roots(name, cluster, storage):
        place = open_storage(f"{root.rstrip('/')}/{name}")
        if place.keys("ledger/"):
            if place.url != own.url and own.keys("ledger/"):
                raise Unseen(
                    f"study: {home.path} holds another study {name!r} itself; choose another home folder with `home=`"
                )
            home.point_to(name, place, untrusted=untrusted)
            return place
        looked.append(root)
    raise StudyError(
        f"study: there is no study {name!r} in {', '.join(dict.fromkeys(looked))}; check the name, or give the storage that its "
        "spec names with `storage=`"
    )


def _roots(name: str, cluster: RayCluster | None, storage: str | None) -> Iterator[tuple[str, bool]]:
    """Storages that may hold a study, the most likely first; each with whether only MLflow names it."""
    if storage is not None:
        yield storage, False
        return
    attempt = cluster.server.newest(name) if cluster is not None else None
    if cluster is not None and attempt is not None:
        if not cluster.sees(attempt):
            where = f"in {attempt.storage}" if attempt.storage else "in the home folder of its driver's machine"
            raise Unseen(
                f"study: {name!r} is kept {where} on the cluster, which this machine can't access; run olfl there, read "
                f"`olfl sweep logs {name} --address {shlex.quote(cluster.name)}`, or keep studies on s3://... that both see"
            )
        yield attempt.storage, False
    if cluster is not None and cluster.target.storage.url is not None:
        yield cluster.target.storage.url, False
    uri = (cluster.target.tracking if cluster is not None else None) or os.environ.get(FROM_ENVIRONMENT)
    if uri is not None:
        yield from ((root, True) for root in storage_in_runs(uri, name))


class Unseen(StudyError):
    """A study is stored where this machine, or this home folder, has no access."""
