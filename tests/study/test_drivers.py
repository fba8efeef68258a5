"""One driver at a time: it is stopped and resumed, a second is refused, a paused one is fenced off, MLflow may be down."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from support.commands import command, environment, olfl, start, state_of, wait_until

from benchmarks.services.servers import MlflowServer
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
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "spec.yaml").write_text(json.dumps(SPEC))
    return tmp_path


def begun(home: Path, commits: int = 1) -> bool:
    state = state_of(home, "s")
    return (
        state is not None and len(state.trials) == 2 and all(len(t.commits) >= commits for t in state.trials.values())
    )


def short(home: Path) -> list[str]:
    """Settings that let a study end soon; they affect results, so they are another study's."""
    return ["--set", "learner.steps=2000", "--name", "short", "--home", str(home)]


def test_a_driver_is_stopped_by_a_signal_or_a_command_refuses_a_second_and_goes_on(home: Path) -> None:
    driver = start("sweep", "run", "spec.yaml", "--home", home, cwd=home, log="first")
    wait_until(lambda: begun(home))
    second = olfl("sweep", "resume", "s", "--home", home, cwd=home)
    assert second.returncode == 2
    assert f"process {driver.pid}" in second.stderr
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(60) == 130
    first = state_of(home, "s")
    assert first is not None
    assert {trial.state for trial in first.trials.values()} == {"stopped"}
    assert "resume:" in (home / "first").read_text()

    driver = start("sweep", "resume", "s", "--home", home, cwd=home, log="second")
    wait_until(lambda: begun(home, len(first.trials["baseline/0"].commits) + 1))
    stopped = olfl("sweep", "stop", "s", "--home", home, cwd=home)
    assert stopped.returncode == 0, stopped.stderr
    assert driver.wait(60) == 130
    now = state_of(home, "s")
    assert now is not None
    for name, trial in now.trials.items():
        assert trial.commits[: len(first.trials[name].commits)] == first.trials[name].commits
        assert trial.attempt == 2


def test_a_paused_driver_that_wakes_up_after_another_took_over_stops_and_changes_nothing(home: Path) -> None:
    paused = start("sweep", "run", "spec.yaml", "--home", home, cwd=home, log="paused")
    wait_until(lambda: begun(home))
    paused.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: psutil.Process(paused.pid).status() == psutil.STATUS_STOPPED)
        place, lease = Home(home).storage("s"), Lease.key(1)
        claim = json.loads(place.read(lease))
        place.write(lease, json.dumps({**claim, "beat": claim["beat"] - 60}).encode())  # as if paused for a minute
        driver = start("sweep", "resume", "s", "--home", home, cwd=home, log="other")
        wait_until(lambda: (state := state_of(home, "s")) is not None and state.epoch == 2)
        wait_until(lambda: (state := state_of(home, "s")) is not None and state.trials["baseline/0"].attempt > 1)
    finally:
        paused.send_signal(signal.SIGCONT)
    assert paused.wait(90) == 2
    said = (home / "paused").read_text()
    assert "another driver took it over" in said
    assert "Traceback" not in said
    driver.send_signal(signal.SIGINT)
    assert driver.wait(60) == 130
    state = state_of(home, "s")
    assert state is not None
    assert state.epoch == 2


def test_mlflow_may_go_down_after_the_start_and_is_told_at_the_next(
    home: Path, monkeypatch: pytest.MonkeyPatch
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
        again = olfl("sweep", "resume", "short", "--home", home, cwd=home)
        assert again.returncode == 0, again.stderr
        assert f"runs:   {server.uri.replace('://', '://***@')}" in again.stdout
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
        assert "nothing to do" in olfl("sweep", "resume", "short", "--home", home, cwd=home).stdout
        for path in (path for path in home.rglob("*") if path.is_file()):
            assert b"hunter2" not in path.read_bytes(), path
    finally:
        server.kill()


def test_a_full_disk_stops_the_study_with_one_sentence_and_with_room_it_goes_on(home: Path) -> None:
    run = command("sweep", "run", "spec.yaml", "--home", home)
    driver = subprocess.Popen(
        run, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=home, env=environment()
    )
    wait_until(lambda: begun(home))
    processes = [psutil.Process(driver.pid), *psutil.Process(driver.pid).children(recursive=True)]
    for process in processes:
        if process.pid == driver.pid or process.cmdline()[:1] == ["ray::ResourceTrainable.train"]:
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
    said, _ = driver.communicate(timeout=120)
    assert driver.returncode == 2, said
    assert "cannot write it (File too large)" in said
    assert "Traceback" not in said
    before = state_of(home, "s")
    assert before is not None
    assert not any(trial.ended for trial in before.trials.values())
    driver = start("sweep", "resume", "s", "--home", home, cwd=home, log="second")
    wait_until(lambda: begun(home, 1 + max(len(trial.commits) for trial in before.trials.values())))
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(60) == 130
    now = state_of(home, "s")
    assert now is not None
    for name, trial in before.trials.items():
        assert now.trials[name].commits[: len(trial.commits)] == trial.commits


def test_what_may_change_may_change_and_the_first_other_field_is_named(home: Path) -> None:
    run = ["sweep", "run", "spec.yaml", *short(home)]
    assert olfl(*run, cwd=home).returncode == 0
    more = olfl(*run, "--set", "arms.baseline.trials=3", "--set", "concurrency=1", cwd=home)
    assert more.returncode == 0, more.stderr
    state = state_of(home, "short")
    assert state is not None
    assert len(state.trials) == 3
    assert state.spec["arms"]["baseline"]["trials"] == 3
    other = olfl(*run, "--set", "learner.clip_norm=1.0", cwd=home)
    assert other.returncode == 2
    assert "first difference: learner.clip_norm was None, is 1.0" in other.stderr
