"""One driver at a time: it is stopped and resumed, a second is refused, a paused one is fenced off, MLflow may be down."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from support.commands import SUPPORT, Run, command, environment, olfl, start, state_of, wait_until

from benchmarks.services.servers import MlflowServer
from olfl_ray.ledger import StudyState
from olfl_ray.storage import Lease
from olfl_ray.study import Home

SLOW = {"name": "misbehaving:build", "how": "sleeps"}
"""A base learner whose trials last, without a processor of their own."""
SPEC = {
    "name": "s",
    "task": {"dataset": "digits", "model": SLOW, "batch_size": 16},
    "learner": {"method": "baseline", "steps": 60_000},
    "eval": {"every": 50},
    "replicates": 1,
    "search": {"pruner": "none", "parameters": {"learner.optimizer.lr": {"min": 0.001, "max": 0.1}}},
    "arms": {"baseline": {"trials": 2}},
    "confirm": {"seeds": 0},
    "checkpoint": {"every_steps": 200},
    "tracking": [],
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(SUPPORT)
    (tmp_path / "spec.yaml").write_text(json.dumps(SPEC))
    return tmp_path


def begun(home: Path, commits: int = 1) -> bool:
    state = state_of(home, "s")
    return (
        state is not None and len(state.trials) == 2 and all(len(t.commits) >= commits for t in state.trials.values())
    )


def short(home: Path) -> list[str]:
    """Settings that let a study end soon; they affect results, so they are another study's."""
    return ["--set", "learner.steps=2000", "--set", "tracking=mlflow", "--name", "short", "--home", str(home)]


def drive(home: Path, log: str) -> subprocess.Popen[str]:
    """Start the study, or resume it, in a process group of its own."""
    with (home / log).open("w") as file:
        run = command("sweep", "run", "spec.yaml", "--home", home)
        return subprocess.Popen(
            run, stdout=file, stderr=file, text=True, cwd=home, env=environment(), start_new_session=True
        )


def recorded(home: Path) -> StudyState:
    state = state_of(home, "s")
    assert state is not None
    return state


def continues(home: Path, before: StudyState) -> StudyState:
    """Wait until each trial has more commits than before; it has kept the earlier ones."""
    commits = 1 + max(len(trial.commits) for trial in before.trials.values())
    wait_until(lambda: begun(home, commits))
    now = recorded(home)
    for name, trial in before.trials.items():
        assert now.trials[name].commits[: len(trial.commits)] == trial.commits
    return now


def test_a_study_continues_after_signals_a_second_driver_a_full_disk_and_a_pause(home: Path, here: Run) -> None:
    driver = drive(home, "first")
    wait_until(lambda: begun(home))
    code, _, err = here("sweep", "resume", "s", "--home", home)
    assert code == 2
    assert f"process {driver.pid}" in err
    os.killpg(driver.pid, signal.SIGTERM)  # to the whole group, as `timeout` and batch systems do: trials still commit
    assert driver.wait(60) == 130, (home / "first").read_text()
    stopped = recorded(home)
    assert {trial.state for trial in stopped.trials.values()} == {"stopped"}
    assert "resume:" in (home / "first").read_text()

    driver = drive(home, "full")
    now = continues(home, stopped)
    assert {trial.attempt for trial in now.trials.values()} == {2}
    processes = [psutil.Process(driver.pid), *psutil.Process(driver.pid).children(recursive=True)]
    for process in processes:
        if process.pid == driver.pid or process.cmdline()[:1] == ["ray::ResourceTrainable.train"]:
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
    assert driver.wait(120) == 2
    said = (home / "full").read_text()
    assert "cannot write it (File too large)" in said
    assert "Traceback" not in said
    full = recorded(home)
    assert not any(trial.ended for trial in full.trials.values())

    paused = drive(home, "paused")
    continues(home, full)
    paused.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: psutil.Process(paused.pid).status() == psutil.STATUS_STOPPED)
        epoch = recorded(home).epoch
        place, lease = Home(home).storage("s"), Lease.key(epoch)
        claim = json.loads(place.read(lease))
        place.write(lease, json.dumps({**claim, "beat": claim["beat"] - 60}).encode())  # as if paused for a minute
        before = recorded(home)
        driver = drive(home, "other")
        wait_until(lambda: recorded(home).epoch == epoch + 1)
        continues(home, before)
    finally:
        paused.send_signal(signal.SIGCONT)
    assert paused.wait(90) == 2
    said = (home / "paused").read_text()
    assert "another driver took it over" in said
    assert "Traceback" not in said

    code, _, err = here("sweep", "stop", "s", "--home", home)
    assert code == 0, err
    assert driver.wait(60) == 130
    assert recorded(home).epoch == epoch + 1
    assert {trial.state for trial in recorded(home).trials.values()} == {"stopped"}


def test_mlflow_may_go_down_and_is_complete_after_the_next_start_and_the_study_may_be_extended(
    home: Path, monkeypatch: pytest.MonkeyPatch, here: Run
) -> None:
    from mlflow.tracking import MlflowClient

    server = MlflowServer(f"sqlite:///{home / 'store.db'}", home / "server")
    server.start()
    try:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri.replace("://", "://olfl:hunter2@"))
        driver = start("sweep", "run", "spec.yaml", *short(home), cwd=home, log="first")
        wait_until(lambda: (state := state_of(home, "short")) is not None and state.trials)
        server.kill()
        assert driver.wait(200) == 1, (home / "first").read_text()
        said = (home / "first").read_text()
        assert "not tracked yet" in said
        assert "Traceback" not in said
        server.start()
        code, out, err = here("sweep", "resume", "short", "--home", home)
        assert code == 0, err
        assert f"runs:   {server.uri.replace('://', '://***@')}" in out
        client = MlflowClient(server.uri)
        runs = client.search_runs([client.get_experiment_by_name("olfl").experiment_id])  # type: ignore[union-attr]
        study = next(run for run in runs if run.data.tags["olfl.trial"] == "study")
        assert study.data.tags["olfl.storage"] == (home / "studies").as_uri()
        assert sorted(run.data.tags["olfl.trial"] for run in runs) == ["baseline/0", "baseline/1", "study"]
        assert {run.info.status for run in runs} == {"FINISHED"}
        for run in runs:
            if run.data.tags["olfl.trial"] != "study":
                points = client.get_metric_history(run.info.run_id, "selection/error")
                assert [point.step for point in points] == list(range(50, 2001, 50))
                assert [dataset.dataset.name for dataset in run.inputs.dataset_inputs] == ["digits"]
        assert "nothing to do" in here("sweep", "resume", "short", "--home", home)[1]
        for path in (path for path in home.rglob("*") if path.is_file()):
            assert b"hunter2" not in path.read_bytes(), path
        more = ["--set", "arms.baseline.trials=3", "--set", "concurrency=1"]  # what may change
        extended = olfl("sweep", "run", "spec.yaml", *short(home), *more, cwd=home)
        assert extended.returncode == 0, extended.stderr
        state = state_of(home, "short")
        assert state is not None
        assert len(state.trials) == 3
        assert state.spec["arms"]["baseline"]["trials"] == 3
        code, _, err = here("sweep", "run", "spec.yaml", *short(home), "--set", "learner.clip_norm=1.0")
        assert code == 2
        assert "first difference: learner.clip_norm was None, is 1.0" in err
    finally:
        server.kill()
