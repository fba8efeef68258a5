"""A client with an empty home submits, attaches, follows, stops and resumes, with or without access to the storage."""

from __future__ import annotations

import json
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from support.commands import Run, in_process, start, wait_until

from benchmarks.services.local_cluster import LocalCluster
from olfl_ray import remote, study
from olfl_ray.driver import STARTED
from olfl_ray.errors import StudyError
from olfl_ray.ledger import DriverStarted, Ledger
from olfl_ray.spec import StudySpec, parse_spec
from olfl_ray.storage import open_storage

BUILDER = """
import time
from torch import nn


class Slow(nn.Linear):
    def forward(self, x):
        if not self.training:
            time.sleep(0.2)
        return super().forward(x.flatten(1))


def build(input_shape, outputs):
    return Slow(64, outputs)
"""


@pytest.fixture
def olfl(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], cluster: LocalCluster, laptop: Path
) -> Run:
    """Run a command in this process; returns its exit code, output and errors, which must never contain the token."""

    command = in_process(monkeypatch, capfd, laptop)

    def run(*arguments: object) -> tuple[int, str, str]:
        code, out, err = command(*arguments)
        assert token(cluster) not in out + err
        return code, out, err

    return run


def token(cluster: LocalCluster) -> str:
    return Path(cluster.environment["RAY_AUTH_TOKEN_PATH"]).read_text().strip()


def spec_file(laptop: Path, name: str, evaluations: int, storage: object) -> Path:
    """Two trials of a user's base learner that sleeps at each evaluation."""
    (laptop / "mine").mkdir()
    (laptop / "mine" / "__init__.py").touch()
    (laptop / "mine" / "slow.py").write_text(BUILDER)
    spec = {
        "name": name,
        "task": {"dataset": "digits", "model": "mine.slow:build", "batch_size": 16},
        "learner": {"method": "baseline", "steps": 10 * evaluations},
        "eval": {"every": 10},
        "checkpoint": {"every_steps": 10},
        "replicates": 1,
        "search": {"pruner": "none", "parameters": {"learner.optimizer.lr": {"min": 0.01, "max": 0.1}}},
        "arms": {"baseline": {"trials": 2}},
        "confirm": {"seeds": 0},
        "storage": storage,
    }
    path = laptop / "spec.yaml"
    path.write_text(json.dumps(spec))
    return path


def changed(spec: Path, *overrides: str) -> StudySpec:
    return parse_spec(spec.read_bytes(), overrides=overrides)


def test_repeated_submissions_run_one_attempt_and_a_new_one_resumes_after_a_crash(
    cluster: LocalCluster, laptop: Path, olfl: Run
) -> None:
    there, mine = ("--address", cluster.address), ("--py-module", laptop / "mine")
    spec = spec_file(laptop, "long", 1000, f"{cluster.storage}/client")
    ray = remote.RayCluster.connect(cluster.address)

    def submit(_: int) -> remote.Submission:
        return remote.submit(changed(spec), cluster=ray, code=remote.Code(py_modules=(laptop / "mine",)))

    with ThreadPoolExecutor() as pool:
        both = list(pool.map(submit, range(2)))
    assert {submission.attempt.id for submission in both} == {"olfl-long-1"}
    assert sorted(submission.attached for submission in both) == [False, True]
    assert remote.accepted(both[0].attempt, cluster=ray).live

    with pytest.raises(StudyError, match=r"first difference: learner\.steps was 10000, is 9"):
        remote.submit(changed(spec, "learner.steps=9"), cluster=ray)
    code, out, err = olfl("sweep", "submit", spec, *there, "--set", "arms.baseline.trials=3")
    assert code == 0, err
    assert "attached to job olfl-long-1" in out
    assert "first difference: arms.baseline.trials was 2, is 3" in out

    follower = start("sweep", "submit", spec, *there, "--follow", cwd=laptop, log="follow.log")
    wait_until(lambda: STARTED in (laptop / "follow.log").read_text())
    commands = " ".join(word for process in psutil.process_iter(["cmdline"]) for word in process.info["cmdline"] or ())
    assert "sweep submit" in commands
    assert token(cluster) not in commands
    follower.send_signal(signal.SIGINT)
    assert follower.wait(30) == 130
    assert "detached: the study continues" in (laptop / "follow.log").read_text()
    for command, wanted in (
        (("resume", "long", "--failed"), "is running on the cluster (job olfl-long-1), so `resume --failed` must wait"),
        (("retry", "long", "baseline/9", "--from-scratch"), "study 'long' has no trial 'baseline/9'"),
        (("extend", "long", "--trials", "0"), "trials: must be at least 1"),
    ):
        code, _, err = olfl("sweep", *command, *there)
        assert (code, err.count("\n")) == (2, 1)
        assert wanted in err
    assert ray.newest("long").live

    kept = open_storage(f"{cluster.storage}/client/long")
    wait_until(lambda: [bool(trial.commits) for trial in Ledger.load(kept).state.trials.values()] == [True, True])
    os.kill([event.pid for event in Ledger.load(kept).events if isinstance(event, DriverStarted)][-1], signal.SIGKILL)
    wait_until(lambda: not ray.newest("long").live)
    code, out, err = olfl("sweep", "status", "long", *there, "--home", laptop / "other")
    assert code == 0, err
    assert "attempt 1" in out
    assert "driver exited" in out
    assert "failed  1 attempt: its driver was killed" in olfl("sweep", "list", *there)[1]
    assert f"olfl sweep resume long --address {cluster.address}" in out

    code, out, err = olfl("sweep", "resume", "long", *there, *mine)
    assert code == 0, err
    assert "submitted as job olfl-long-2" in out
    wait_until(lambda: {trial.attempt for trial in Ledger.load(kept).state.trials.values()} == {2})
    code, out, err = olfl("sweep", "stop", "long", *there, "--home", laptop / "third")
    assert code == 0, err
    state = Ledger.load(kept).state
    assert not state.driving
    assert {trial.attempt for trial in state.trials.values()} == {2}
    code, out, err = olfl("sweep", "list", *there)
    assert re.search(r"^long  0 of 2 trials ended  [-0-9]+ [:0-9]+  stopped  2 attempts$", out, re.MULTILINE)
    code, out, err = olfl("sweep", "list", "--storage", f"{cluster.storage}/client", "--home", laptop / "fourth")
    assert "  stopped  2 attempts" in out  # even if the cluster is gone
    assert "resumes from step" in olfl("sweep", "logs", "long", *there)[1]
    assert "resumes from step" not in olfl("sweep", "logs", "long", *there, "--attempt", 1)[1]
    code, _, err = olfl("sweep", "stop", "long", *there)
    assert (code, err.count("\n")) == (2, 1)
    assert "is not running" in err


def test_study_is_found_by_its_storage_or_by_mlflow_alone(
    cluster: LocalCluster, laptop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = f"{cluster.storage}/client"
    for name, storage in (("by-storage", root), ("by-mlflow", None)):
        home = study.Home.find(laptop / name)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", cluster.tracking_uri)
        assert remote.locate("long", home=home, storage=storage).url == f"{root}/long"
        assert study.Study.open("long", home=home).state.name == "long"


def test_study_that_only_the_cluster_can_access_is_followed_by_its_log_and_stopped_by_a_signal(
    cluster: LocalCluster, laptop: Path, olfl: Run
) -> None:
    there, mine = ("--address", cluster.address), ("--py-module", laptop / "mine")
    spec = spec_file(laptop, "hidden", 50, {"shared": True})
    code, out, err = olfl("sweep", "submit", spec, *there, *mine)
    assert code == 0, err
    assert "stop:   olfl sweep stop hidden" in out
    code, _, err = olfl("sweep", "status", "hidden", *there)
    assert (code, err.count("\n")) == (2, 1)
    assert "which this machine can't access" in err
    assert "olfl sweep logs hidden" in err
    reader = start("sweep", "logs", "hidden", *there, "--follow", cwd=laptop, log="reader.log")
    wait_until(lambda: STARTED in (laptop / "reader.log").read_text())
    reader.send_signal(signal.SIGINT)
    assert reader.wait(30) == 130
    assert "Traceback" not in (laptop / "reader.log").read_text()
    code, _, err = olfl("sweep", "stop", "hidden", *there)
    assert code == 0, err
    assert remote.RayCluster.connect(cluster.address).newest("hidden").state == "stopped"

    code, out, err = olfl("sweep", "resume", "hidden", *there, *mine, "--follow")
    assert code == 0, err
    assert "baseline/1 finished at step 500" in out
    assert "best settings" in out
    code, out, err = olfl("sweep", "submit", spec, *there, *mine)
    assert code == 0, err
    assert "nothing to do: the study is finished" in out
    code, out, err = olfl("sweep", "extend", "hidden", "--trials", "1", *there, *mine, "--follow")
    assert code == 0, err
    assert "baseline/2 finished at step 500" in out
    assert "hidden  trials not seen from here  finished  4 attempts" in olfl("sweep", "list", *there)[1]


def test_target_sets_address_token_storage_and_tracking(
    cluster: LocalCluster, laptop: Path, olfl: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_file(laptop, "aimed", 10, None)
    lab = {"address": cluster.address, "storage": f"{cluster.storage}/lab", "tracking": cluster.tracking_uri}
    lab["token_file"] = cluster.environment["RAY_AUTH_TOKEN_PATH"]
    (laptop / "config.yaml").write_text(json.dumps({"default": "lab", "targets": {"lab": lab}}))
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/nowhere")
    code, out, err = olfl("sweep", "submit", spec, "--dry-run")
    assert code == 0, err
    assert f"url: {cluster.storage}/lab" in out
    assert f"uri: {cluster.tracking_uri}" in out
    assert f"would be submitted to {cluster.address}" in out
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of-another-cluster")
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")  # overrides the default, but not a name
    assert "127.0.0.1:9 can't be reached" in olfl("sweep", "submit", spec, "--dry-run")[2]
    assert olfl("sweep", "list", "--address", "lab")[0] == 0


WRONG = {
    "no token": ({"RAY_AUTH_TOKEN_PATH": None}, "list", "token, and none was found"),
    "a wrong token": ({"RAY_AUTH_TOKEN": "wrong"}, "list", "refuses the token of RAY_AUTH_TOKEN"),
    "an unknown study to extend": ({}, "extend nobody --trials 1", "there is no study 'nobody' in the cluster http://"),
    "an unknown study": ({}, "status nobody", "there is no study 'nobody' in the cluster http://"),
    "an unknown study's log": ({}, "logs nobody", "has no study 'nobody'"),
    "a folder that is not there": ({}, "submit spec.yaml --working-dir gone", "gone: is not a folder"),
    "a path that depends on the job": ({}, "submit spec.yaml --set storage=results", "storage.url: 'results'"),
    "a SQLite file of the job's": ({}, "submit spec.yaml --set tracking.uri=sqlite:///x.db", "tracking.uri: 'sqlite"),
    "more than any node has": (
        {},
        "submit spec.yaml --py-module mine --set resources.cpu=99",
        "resources.cpu: a trial takes 99 CPU",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_user_error_is_one_sentence(
    cluster: LocalCluster, laptop: Path, olfl: Run, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    variables, command, wanted = WRONG[kind]
    spec_file(laptop, kind.replace(" ", "-").replace("'", ""), 10, f"{cluster.storage}/wrong")
    monkeypatch.setenv("HOME", str(laptop))
    for name, value in variables.items():
        monkeypatch.setenv(name, value) if value is not None else monkeypatch.delenv(name)
    code, out, err = olfl("sweep", *command.split(), "--address", cluster.address)
    assert code == 2, out + err
    assert err.count("\n") == 1
    assert err.startswith("olfl: ")
    assert wanted in err
