"""On a cluster of several machines, what a study needs is looked for on each of them before anything starts."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster
from support.object_store import BUCKET, point_at, relay

from olfl_ray.driver import check_study
from olfl_ray.driver.look import storage_of
from olfl_ray.driver.reach import check_reach
from olfl_ray.errors import SetupError
from olfl_ray.spec import Resources, StudySpec, parse_spec
from olfl_ray.study import Home, Study
from olfl_ray.sweep.cluster import check_resources, connected, running_ray
from olfl_ray.sweep.embedded import LOOPBACK

NODE = {"object_store_memory": 100 * 2**20}
SPEC: dict[str, Any] = {
    "name": "wide",
    "task": {"dataset": "digits", "model": {"name": "linear"}, "batch_size": 16},
    "learner": {"method": "baseline", "steps": 40},
    "eval": {"every": 20},
    "replicates": 1,
    "search": {"pruner": "none", "parameters": {"learner.optimizer.lr": {"min": 0.01, "max": 0.1}}},
    "arms": {"baseline": {"trials": 2}},
    "confirm": {"seeds": 0},
}


@dataclass(frozen=True, kw_only=True)
class Machines:
    """A cluster, what was asked of its object store, and each node's cache."""

    address: str
    asked: list[tuple[str, str]]
    caches: list[Path]

    def count(self, method: str, part: str) -> int:
        return sum(found == method and part in path for found, path in self.asked)


@pytest.fixture(scope="module")
def machines(s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """A head without CPUs and two nodes, each with an address and a cache of its own as three machines have."""
    asked: list[tuple[str, str]] = []

    def note(method: str, path: str) -> None:
        asked.append((method, path))

    caches = [tmp_path_factory.mktemp("node") / "cache" for _ in range(2)]
    head = {**NODE, "num_cpus": 0, "include_dashboard": False, "node_ip_address": "127.0.0.2"}
    with relay(s3_endpoint, note) as url, pytest.MonkeyPatch.context() as patch:
        point_at(patch, url)
        cluster = Cluster(initialize_head=True, connect=False, head_node_args=head)
        try:
            own = [{"OLFL_CACHE": str(cache)} for cache in caches]
            cluster.add_node(num_cpus=2, node_ip_address="127.0.0.3", env_vars=own[0], **NODE)
            cluster.add_node(num_cpus=1, node_ip_address="127.0.0.4", env_vars=own[1], resources={"scanner": 2}, **NODE)
            yield Machines(address=cluster.address, asked=asked, caches=caches)
        finally:
            cluster.shutdown()


@pytest.fixture
def home(machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("RAY_ADDRESS", machines.address)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs.db")
    return Home.find(tmp_path / "home")


def spec(**changes: object) -> StudySpec:
    return parse_spec(json.dumps({**SPEC, **changes}).encode())


def test_a_folder_of_one_machine_is_refused(home: Home) -> None:
    with pytest.raises(
        SetupError, match=r"^storage: the cluster has 3 machines \(127\.0\.0\.2, 127\.0\.0\.3, "
    ) as caught:
        check_study(spec(), home)
    assert "s3://bucket/folder" in str(caught.value)
    assert "shared: true" in str(caught.value)
    assert not home.studies.exists()


def test_a_shared_folder_is_looked_at_from_every_machine(home: Home, tmp_path: Path) -> None:
    check_study(spec(storage={"url": str(tmp_path / "nfs"), "shared": True}), home)
    assert list((tmp_path / "nfs").iterdir()) == []


def test_a_folder_that_the_others_do_not_see_is_refused_by_their_names(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # /proc/self/cwd leads each process to a folder of its own, as a disk of its own would
    with pytest.raises(SetupError) as caught:
        check_study(spec(storage={"url": "/proc/self/cwd/nfs", "shared": True}), home)
    assert "storage: /proc/self/cwd/nfs is declared shared, but 2 of the cluster's 2 machines" in str(caught.value)
    assert "127.0.0.3: it is not there; 127.0.0.4: it is not there" in str(caught.value)


def test_the_home_folders_tracking_store_is_refused_unless_the_home_folder_is_shared(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(SetupError, match=r"^tracking: the cluster has 3 machines.*\(http://HOST:PORT\)"):
        check_study(spec(storage={"url": str(tmp_path / "nfs"), "shared": True}), home)
    shared = spec(storage={"shared": True})
    with connected() as cluster:
        assert cluster is not None
        check_reach(shared, home, storage_of(shared, home), cluster)


@pytest.mark.parametrize(
    ("resources", "wanted"),
    [
        ({"cpu": 3}, "resources.cpu: a trial takes 3 CPU, but no node has more than 2 CPU"),
        ({"gpu": 0.5}, "resources.gpu: a trial takes 0.5 GPU, but no node has more than 0 GPU"),
        ({"custom": {"scanner": 3}}, "resources.custom.scanner: a trial takes 3 scanner, but no node has more than 2"),
        ({"custom": {"tape": 1}}, "resources.custom.tape: a trial takes 1 tape, but no node has more than 0 tape"),
        ({"memory": 2**50}, "resources.memory: a trial takes 1048576.00 GiB of memory, but no node"),
    ],
)
def test_what_no_node_can_hold_is_refused_with_what_the_cluster_has(
    home: Home, resources: dict[str, Any], wanted: str
) -> None:
    with pytest.raises(SetupError) as caught:
        check_study(spec(storage={"shared": True}, resources=resources), home)
    assert str(caught.value).startswith(wanted)
    for kind in ("1 x 0 CPU, 0 GPU", "1 x 2 CPU, 0 GPU", "1 x 1 CPU, 0 GPU", "2 scanner", "may_join: true"):
        assert kind in str(caught.value)


@pytest.mark.parametrize("resources", [{"custom": {"scanner": 0.5}}, {"cpu": 64, "may_join": True}])
def test_what_a_node_has_is_enough_and_what_may_join_is_waited_for(home: Home, resources: dict[str, Any]) -> None:
    with connected() as cluster:
        check_resources(Resources(**resources), cluster)


def test_data_reach_each_node_once_and_losses_come_from_the_studies_beside(home: Home, machines: Machines) -> None:
    place = f"s3://{BUCKET}/lab/studies"
    first = spec(
        storage=place,
        learner={"method": "online", "steps": 200},
        meta={"init_steps": 20},
        arms={"online": {"trials": 4}},
        concurrency=3,
    )
    done = Study.from_spec(first, home=home).run(progress=False)
    assert done.finished
    assert {trial.state for trial in done.state.trials.values()} == {"finished"}
    prepared = [path for path in home.cache.iterdir() if path.suffix == ".arrow"]
    assert [path.name[:7] for path in prepared] == ["digits-"]
    shared = f"/{BUCKET}/lab/studies/_data/{prepared[0].name}"
    assert machines.count("PUT", shared) == 1
    used = [cache for cache in machines.caches if cache.exists() and any(cache.iterdir())]
    assert used, "a busy machine may run all trials on one node"
    assert machines.count("GET", shared) == len(used)
    for cache in used:
        assert (cache / prepared[0].name).read_bytes() == prepared[0].read_bytes()
    assert not any(entry.name == "wide" and (entry / "ledger").exists() for entry in home.studies.iterdir())

    from_it = spec(
        name="after",
        storage=place,
        learner={"method": "offline", "steps": 40},
        loss={"from": "wide/online/0"},
        arms={"offline": {"trials": 1}},
    )
    after = Study.from_spec(from_it, home=home).run(progress=False)
    assert {trial.state for trial in after.state.trials.values()} == {"finished"}
    assert machines.count("PUT", shared) == 1
    used = [cache for cache in machines.caches if cache.exists() and any(cache.iterdir())]
    assert machines.count("GET", shared) == len(used)


def test_an_empty_address_names_no_cluster_and_the_embedded_ray_is_small_and_stays_on_loopback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "")
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with connected() as cluster:
        assert cluster is None
    with running_ray():
        assert {node["NodeManagerAddress"] for node in ray.nodes()} == {LOOPBACK}
        assert ray.get(ray.remote(lambda: os.getpid()).remote()) != os.getpid()
        children = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
        started = " ".join(word for child in children for word in child.cmdline())
    assert "raylet" in started
    assert not re.search(r"/(dashboard|monitor|log_monitor)\.py", started)
