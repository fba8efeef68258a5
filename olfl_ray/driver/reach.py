"""On a cluster of several machines, a study's storage must be visible from all of them; a folder is checked from each."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from olfl_ray.driver.home import Home
from olfl_ray.errors import SetupError
from olfl_ray.spec import StudySpec
from olfl_ray.storage import LocalStorage, Storage
from olfl_ray.tracking import TrackedStudy, trackers_of

if TYPE_CHECKING:
    from olfl_ray.sweep.cluster import Cluster

__all__ = ["check_reach"]


def check_reach(spec: StudySpec, home: Home, storage: Storage, cluster: Cluster) -> None:
    """Refuse what would lie on the disk of one machine out of several.

    Only the driver writes to the tracking store, so that a home folder's SQLite file works wherever the driver runs; but
    it would be lost with that machine, and its runs with it. So it is refused, unless the home folder itself is shared. A
    spec that names a SQLite file is trusted.

    Raises:
        SetupError: The storage or the tracking store is such, or a machine does not see the folder that is said to be shared.
    """
    machines = cluster.machines
    if len(machines) == 1 and not spec.resources.may_join:
        return
    there = f"the cluster has {len(machines)} machines ({_some(machines)})"
    if len(machines) == 1:
        there = "the cluster has 1 machine, and others may join (resources.may_join)"
    shared_home = spec.storage.shared and spec.storage.url is None
    if isinstance(storage, LocalStorage):
        if not spec.storage.shared:
            raise SetupError(
                f"storage: {there}, but {storage.root} is a folder on one of them; keep studies on an object store "
                "(storage: s3://bucket/folder), or in a folder that all of them see (storage: {url: FOLDER, shared: true})"
            )
        _check_shared(storage, cluster)
    for tracker in trackers_of(TrackedStudy(spec=spec, storage=storage, home=home.path)):
        if (reason := tracker.confined()) and not shared_home:
            raise SetupError(f"tracking: {there}, and {reason}")


def _check_shared(storage: LocalStorage, cluster: Cluster) -> None:
    root = LocalStorage(storage.root.parent)
    key, content = f"probe-{secrets.token_hex(8)}", secrets.token_bytes(16)
    root.write(key, content)
    try:
        unable = cluster.unable_to_read(root.root / key, content)
    finally:
        root.delete(key)
    if unable:
        shown = "; ".join(f"{machine}: {reason}" for machine, reason in list(unable.items())[:3])
        raise SetupError(
            f"storage: {root.root} is declared shared, but {len(unable)} of the cluster's {len(cluster.workers)} machines "
            f"can't read there what this one wrote ({shown}); mount it on each under that path, or use s3://bucket/folder"
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
