"""A sweep on a real cluster survives the loss of its nodes and its driver, and can be watched from anywhere."""

from __future__ import annotations

import json
import os
import re
import signal
from collections import Counter, deque
from pathlib import Path
from typing import Any

import psutil
from mlflow import MlflowClient
from support.commands import olfl, start, wait_until

from benchmarks.chaos.nodes import TRIAL_PROCESSES
from benchmarks.services.local_cluster import LocalCluster, Node
from olfl_ray.ledger import Committed, DriverStarted, Event, Ledger, StudyState
from olfl_ray.storage import open_storage

TRIALS = {"baseline/0", "baseline/1", "baseline/c0", "online/0", "online/1", "online/c0"}
OWN = Path(__file__).parent / "own"


def write_spec(folder: Path, name: str, **changes: Any) -> Path:
    """A small sweep of a user's base learner, whose trials wait halfway while the file `gate` exists."""
    (folder / "gate").touch()
    spec = {
        "name": name,
        "task": {
            "dataset": "digits",
            "model": {"name": "gated:build", "gate": str(folder / "gate")},
            "batch_size": 16,
        },
        "learner": {"steps": 100},
        "meta": {"init_steps": 10},
        "eval": {"every": 10},
        "checkpoint": {"every_steps": 10},
        "replicates": 1,
        "search": {
            "metric": "selection/error",
            "pruner": "none",
            "parameters": {"learner.optimizer.lr": {"min": 0.01, "max": 0.1}},
        },
        "arms": {"baseline": {"set": {"learner.method": "baseline"}, "trials": 2}, "online": {"trials": 2}},
        "confirm": {"seeds": 1},
        **changes,
    }
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(spec))
    return path


class Watcher:
    """Follows a study's ledger, which may not exist yet."""

    def __init__(self, url: str) -> None:
        self.storage = open_storage(url)
        self._ledger: Ledger | None = None

    @property
    def state(self) -> StudyState | None:
        self._look()
        return self._ledger.state if self._ledger is not None else None

    @property
    def events(self) -> tuple[Event, ...]:
        self._look()
        return self._ledger.events if self._ledger is not None else ()

    def running_trials(self) -> int:
        """Number of running trials with a commit."""
        trials = self.state.trials.values() if self.state is not None else ()
        return sum(trial.state == "running" and bool(trial.commits) for trial in trials)

    def has_resumed(self) -> bool:
        """Whether a trial that lost its worker has committed again."""
        return any(isinstance(event, Committed) and event.attempt > 1 for event in self.events)

    def kill_driver(self) -> None:
        """Kill the newest driver's process without Ray's knowledge."""
        os.kill([event.pid for event in self.events if isinstance(event, DriverStarted)][-1], signal.SIGKILL)

    def _look(self) -> None:
        if self._ledger is not None:
            deque(self._ledger.news(), maxlen=0)
        elif self.storage.keys("ledger/"):
            self._ledger = Ledger.load(self.storage)


def runs_a_trial(node: Node) -> bool:
    found = False
    for process in psutil.Process(node.pid).children(recursive=True):
        try:
            found = found or "".join(process.cmdline()[:1]).startswith(TRIAL_PROCESSES)
        except psutil.NoSuchProcess:
            continue
    return found


def check_once(study: Watcher, tracking_uri: str, name: str) -> None:
    """Every trial is recorded exactly once in the ledger and in MLflow, and nothing is running."""
    assert study.state is not None
    assert {name: trial.state for name, trial in study.state.trials.items()} == dict.fromkeys(TRIALS, "finished")
    commits = Counter((event.trial, event.step) for event in study.events if isinstance(event, Committed))
    assert max(commits.values()) == 1
    client = MlflowClient(tracking_uri)
    experiment = client.get_experiment_by_name("olfl")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], f"tags.`olfl.study` = '{name}'")
    assert sorted(str(run.info.run_name) for run in runs) == sorted([*TRIALS, name])
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in runs:
        if run.info.run_name != name:
            points = client.get_metric_history(run.info.run_id, "selection/error")
            assert len({point.step for point in points}) == len(points)


def test_every_trial_is_recorded_once_after_a_node_and_the_driver_die(cluster: LocalCluster, laptop: Path) -> None:
    study = Watcher(f"{cluster.storage}/lost/dies")
    spec = write_spec(laptop, "dies", storage=f"{cluster.storage}/lost")
    for home in ("first", "second", "third"):
        (laptop / home).mkdir()
    submit = ("sweep", "submit", spec, "--address", cluster.address, "--working-dir", OWN, "--follow")

    follower = start(*submit, cwd=laptop / "first", log="follow.log")
    try:
        wait_until(lambda: study.running_trials() == 2)
        cluster.nodes[max(cluster.nodes)].lose()
        joined = cluster.add_node()
        wait_until(study.has_resumed)
        assert runs_a_trial(joined)
        study.kill_driver()
        assert follower.wait(60) != 0
    finally:
        (laptop / "gate").unlink()
        follower.kill()
        follower.wait()
    assert "resumes from step" in (laptop / "first" / "follow.log").read_text()

    done = olfl(*submit, cwd=laptop / "second")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Each arm's winner" in done.stdout

    elsewhere = {"cwd": laptop / "third"}
    status = olfl("sweep", "status", "dies", "--address", cluster.address, **elsewhere)
    assert status.returncode == 0, status.stderr
    assert "study dies" in status.stdout
    report = olfl("sweep", "report", "dies", "--address", cluster.address, **elsewhere)
    assert report.returncode == 0, report.stderr
    page = Path(report.stdout.strip())
    assert page.is_relative_to(laptop / "third")
    test_error = re.search(r"online +\S+ +(0\.\d+) +1", done.stdout)
    assert test_error is not None
    assert test_error[1] in page.read_text()
    check_once(study, cluster.tracking_uri, "dies")


def test_study_in_a_shared_folder_stops_and_resumes(cluster: LocalCluster, laptop: Path) -> None:
    folder = laptop / "shared"
    study = Watcher(str(folder / "shared"))
    spec = write_spec(laptop, "shared", storage={"url": str(folder), "shared": True})
    for home in ("first", "second"):
        (laptop / home).mkdir()

    there = ("--address", cluster.address)
    submitted = olfl("sweep", "submit", spec, "--working-dir", OWN, *there, cwd=laptop / "first")
    assert submitted.returncode == 0, submitted.stderr
    wait_until(study.running_trials)
    stopper = start("sweep", "stop", "shared", *there, cwd=laptop / "second", log="stop.log")
    wait_until(lambda: study.storage.keys("stop/"))
    (laptop / "gate").unlink()
    assert stopper.wait(60) == 0
    assert study.state is not None
    assert not study.state.driving
    assert not all(trial.ended for trial in study.state.trials.values())

    resumed = olfl("sweep", "resume", "shared", "--working-dir", OWN, *there, "--follow", cwd=laptop / "second")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    check_once(study, cluster.tracking_uri, "shared")


def test_missing_bucket_and_a_host_that_mlflow_refuses_are_one_line_each(cluster: LocalCluster, laptop: Path) -> None:
    port = cluster.tracking_uri.rpartition(":")[2]
    wrong = {
        "nobodys-bucket": ("s3://nobodys-bucket/studies", cluster.tracking_uri),
        "--allowed-hosts": (cluster.storage, f"http://127.1:{port}"),  # 127.0.0.1, by another name
    }
    clients = {}
    for number, (word, (storage, tracking)) in enumerate(wrong.items()):
        spec = write_spec(laptop, f"refused-{number}", storage=storage, tracking={"uri": tracking})
        arguments = ("submit", spec, "--working-dir", OWN, "--address", cluster.address, "--home", f"home-{number}")
        clients[word] = start("sweep", *arguments, cwd=laptop, log=f"{number}.log")
    for number, (word, client) in enumerate(clients.items()):
        assert client.wait(300) == 2
        (line,) = (
            line for line in (laptop / f"{number}.log").read_text().splitlines() if not line.startswith("study ")
        )
        assert line.startswith("olfl: ")
        assert word in line
