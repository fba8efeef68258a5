"""Without access to a study's storage: stop, resume and follow through the cluster, on jobs that only wait."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.commands import start, wait_until
from support.conducting import SPEC, study

from benchmarks.services.local_cluster import LocalCluster
from olfl_ray.ledger import DriverStarted, Ledger, StopRequest
from olfl_ray.remote import RayCluster, resume_on, stop_on
from olfl_ray.remote.jobs import Attempt
from olfl_ray.storage import Lease, Storage, open_storage
from olfl_ray.study import Home

Submit = Callable[..., Attempt]


@pytest.fixture
def ray(cluster: LocalCluster, laptop: Path) -> RayCluster:
    return RayCluster.connect(cluster.address)


@pytest.fixture
def submit(ray: RayCluster, laptop: Path) -> Iterator[Submit]:
    """Submit a first attempt that is not a driver."""
    started = []

    def submitted(name: str, entrypoint: str = "sleep 600", **about: object) -> Attempt:
        about = {"digest": "", "storage": str(laptop / "there"), "shared": True, "spec": "", **about}
        attempt = ray.server.start(name, 1, entrypoint, **about)
        assert attempt is not None
        started.append(attempt)
        return attempt

    yield submitted
    for attempt in started:
        ray.server.stop(attempt)


def begin(place: str | Path, name: str) -> Storage:
    """A study that a driver has taken over."""
    spec = study(name=name)
    storage = open_storage(f"{place}/{name}")
    ledger = Ledger.create(storage, spec.model_dump(mode="json", by_alias=True), spec.digest, name, {})
    ledger.append(DriverStarted(epoch=1, host="elsewhere", pid=1))
    return storage


def test_study_that_has_not_started_is_stopped_by_a_signal(ray: RayCluster, submit: Submit, laptop: Path) -> None:
    submit("fresh")
    stop_on("fresh", cluster=ray, home=Home.find(laptop / "home"), patience=30)
    assert ray.newest("fresh").state == "stopped"


def test_attempt_waiting_for_a_dead_drivers_lease_is_stopped_by_a_signal(
    ray: RayCluster, submit: Submit, laptop: Path
) -> None:
    begin(laptop / "there", "orphan")
    submit("orphan")
    stop_on("orphan", cluster=ray, home=Home.find(laptop / "home"), patience=30)
    assert ray.newest("orphan").state == "stopped"


def test_driver_that_takes_over_meanwhile_is_requested_to_stop(ray: RayCluster, submit: Submit, laptop: Path) -> None:
    place = begin(laptop / "there", "heir")
    attempt = submit("heir")
    with Lease.acquire(place, "a driver"), ThreadPoolExecutor() as pool:
        stopper = pool.submit(stop_on, "heir", cluster=ray, home=Home.find(laptop / "home"), patience=30)
        wait_until(StopRequest(place, 1).made)
        Ledger.load(place).append(DriverStarted(epoch=2, host="elsewhere", pid=2))
        wait_until(StopRequest(place, 2).made)
        ray.server.stop(attempt)
        stopper.result()


@pytest.mark.parametrize("name", ["without-its-store", "behind-another"])
def test_study_without_access_to_its_storage_is_stopped_and_resumed(
    ray: RayCluster, submit: Submit, cluster: LocalCluster, laptop: Path, name: str
) -> None:
    home, there = Home.find(laptop / "home"), "s3://nobodys-bucket/studies"
    if name == "behind-another":
        there = f"{cluster.storage}/unseen"
        begin(there, name)
        begin(home.studies, name)
    submit(name, digest="abc", storage=there, shared=False)
    stop_on(name, cluster=ray, home=home, patience=30)
    assert ray.newest(name).state == "stopped"
    second = resume_on(name, cluster=ray, home=home)
    ray.server.stop(second.attempt)
    assert not second.attached
    assert (second.attempt.number, second.attempt.digest, second.attempt.storage) == (2, "abc", there)


def test_study_with_the_name_of_a_local_one_is_followed_by_its_log(
    ray: RayCluster, submit: Submit, laptop: Path
) -> None:
    spec = laptop / "spec.yaml"
    spec.write_text(json.dumps({**SPEC, "name": "twice", "storage": {"url": str(laptop / "there"), "shared": True}}))
    for place in (laptop / "there", laptop / ".olfl" / "studies"):
        begin(place, "twice")
    waits = f"echo driver started; until [ -e {laptop}/seen ]; do sleep 0.1; done; echo the last of its lines"
    submit("twice", waits, digest=study(name="twice").digest)
    follower = start("sweep", "submit", spec, "--address", ray.name, "--follow", cwd=laptop, log="follow.log")
    wait_until(lambda: "attached to job olfl-twice-1" in (laptop / "follow.log").read_text())
    (laptop / "seen").touch()
    assert follower.wait(60) == 0, (laptop / "follow.log").read_text()
    assert "the last of its lines" in (laptop / "follow.log").read_text()
