"""What becomes of a trial goes by the cause: lost workers, device memory, a user's exception; failed ones are tried again."""

import json
from pathlib import Path

import pytest
from support.commands import SUPPORT, Run, olfl, state_of

from olfl_ray.ledger import Began, Ledger, Stopped, StudyState
from olfl_ray.study import Home

ARMS = {
    "plain": {"how": "behaves", "after": 0},
    "raises": {"how": "raises", "after": 50},
    "crowded": {"how": "out_of_memory", "after": 50},
    "stumbles": {"how": "dies", "after": 30},  # a commit every 20 steps: each attempt gets one further
    "dies": {"how": "dies", "after": 10},
}


def spec(home: Path) -> dict:
    def arm(options: dict) -> dict:
        model = {"name": "misbehaving:build", "flag": str(home / f"flag-{options['how']}"), **options}
        return {"set": {"task.model": model}, "trials": 1}

    return {
        "name": "unruly",
        "task": {"dataset": "digits"},
        "learner": {"method": "baseline", "steps": 100},
        "eval": {"every": 20},
        "replicates": 1,
        "search": {"pruner": "none", "parameters": {"learner.optimizer.lr": {"min": 0.001, "max": 0.1}}},
        "arms": {name: arm(options) for name, options in ARMS.items()},
        "confirm": {"seeds": 0},
        "checkpoint": {"every_steps": 20},
    }


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    (folder / "flag-raises").touch()
    (folder / "spec.yaml").write_text(json.dumps(spec(folder)))
    done = olfl("sweep", "run", "spec.yaml", "--home", folder, cwd=folder)
    (folder / "output").write_text(done.stdout + done.stderr)
    assert done.returncode == 1, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def state(home: Path) -> StudyState:
    found = state_of(home, "unruly")
    assert found is not None
    return found


def attempts(home: Path, trial: str) -> int:
    events = Ledger.load(Home(home).storage("unruly")).events
    return sum(isinstance(event, Began) and event.trial == trial for event in events)


def test_trials_beside_them_finish(state: StudyState) -> None:
    assert {name: trial.state for name, trial in state.trials.items()} == {
        "plain/0": "finished",
        "raises/0": "failed",
        "crowded/0": "finished",
        "stumbles/0": "finished",
        "dies/0": "failed",
    }


def test_an_exception_fails_at_once_with_its_traceback_kept_and_one_line_shown(home: Path, state: StudyState) -> None:
    from mlflow.tracking import MlflowClient

    assert attempts(home, "raises/0") == 1
    assert (state.trials["raises/0"].cause or "").startswith("ValueError: boom\n")
    output = (home / "output").read_text()
    assert "Traceback" not in output
    assert next(line for line in output.splitlines() if "raises/0:" in line) == "raises/0: ValueError: boom"
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    (run,) = client.search_runs(["1"], "tags.`olfl.trial` = 'raises/0'")
    assert run.info.status == "FAILED"
    text = Path(client.download_artifacts(run.info.run_id, "cause.txt", str(home))).read_text()
    assert "Traceback" in text
    assert "misbehave" in text


def test_a_failed_trial_is_reproduced_without_a_sweep_and_shows_where_it_raised_if_asked(
    home: Path, state: StudyState, here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(SUPPORT)
    code, out, err = here("trial", "run", "--from", "unruly/raises/0", "--allow", "misbehaving", "--home", home)
    assert code == 1
    assert "failed: ValueError: boom\n" in out
    assert "Traceback" not in out + err
    code, _, err = here(
        "trial", "run", "--from", "unruly/raises/0", "--allow", "misbehaving", "--home", home, "--traceback"
    )
    assert code == 1
    assert "misbehave" in err


def test_failed_trials_have_their_causes_and_the_next_move_at_the_end_in_status_and_in_the_report(
    home: Path, state: StudyState, here: Run
) -> None:
    lost = "worker lost 3 times without a new commit"
    assert state.failures == {"ValueError: boom": ["raises/0"], lost: ["dies/0"]}
    end = (home / "output").read_text().partition("report:")[2]
    status = here("sweep", "status", "unruly", "--home", home)[1]
    for text in (end, status):
        assert "failed: 2 of 5 trials" in text
        assert "raises/0: ValueError: boom" in text
        assert f"dies/0: {lost}" in text
        assert f"olfl sweep resume unruly --failed --home {home}" in text
    page = (home / "studies" / "unruly" / "report" / "index.html").read_text()
    rows = {row.partition("</span>")[0].rpartition(">")[2]: row for row in page.split('<tr class="failed">')[1:]}
    assert "ValueError: boom" in rows["raises/0"]
    assert lost in rows["dies/0"]


def test_out_of_device_memory_is_tried_once_more_alone(home: Path, state: StudyState) -> None:
    assert attempts(home, "crowded/0") == 2
    assert state.trials["crowded/0"].alone
    laid = [event for event in Ledger.load(Home(home).storage("unruly")).events if isinstance(event, Stopped)]
    assert [event.trial for event in laid if event.out_of_memory] == ["crowded/0"]


def test_a_worker_lost_three_times_without_a_commit_fails_its_trial(home: Path, state: StudyState) -> None:
    assert attempts(home, "dies/0") == 3
    assert state.trials["dies/0"].cause == "worker lost 3 times without a new commit"


def test_a_worker_that_gets_further_each_time_may_be_lost_more_often(home: Path, state: StudyState) -> None:
    assert attempts(home, "stumbles/0") > 3
    assert [commit.step for commit in state.trials["stumbles/0"].commits] == [20, 40, 60, 80, 100]


def test_wrong_retries_are_one_message(home: Path, here: Run) -> None:
    for args, wanted in (
        (("retry", "unruly", "plain/0"), "trial 'plain/0' is finished; only a failed one is tried again"),
        (("retry", "unruly", "plain/9"), "has no trial 'plain/9'"),
        (("resume", "unruly", "--from-scratch"), "goes with --failed"),
        (("extend", "unruly", "--trials", "0"), "must be at least 1"),
        (("stop", "unruly"), "is not running"),
    ):
        code, out, err = here("sweep", *args, "--home", home)
        assert (code, err.count("\n")) == (2, 1), out + err
        assert wanted in err


def test_a_failed_trial_goes_on_from_its_last_commit_in_the_same_run(
    home: Path, state: StudyState, here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.syspath_prepend(SUPPORT)
    (home / "flag-raises").unlink()
    code, out, err = here("sweep", "retry", "unruly", "raises/0", "raises/0", "--home", home)
    assert code == 1, out + err  # another is failed still
    now = state_of(home, "unruly")
    assert now is not None
    trial = now.trials["raises/0"]
    assert (trial.state, trial.cause) == ("finished", None)
    assert trial.commits[:2] == state.trials["raises/0"].commits
    assert trial.value == pytest.approx(now.trials["plain/0"].value)
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    (run,) = client.search_runs(["1"], "tags.`olfl.trial` = 'raises/0'")
    assert run.info.status == "FINISHED"
    steps = [point.step for point in client.get_metric_history(run.info.run_id, "selection/error")]
    assert steps == [20, 40, 60, 80, 100]
    assert now.trials["dies/0"].state == "failed"


def test_failed_trials_may_start_from_scratch(home: Path, here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SUPPORT)
    (home / "flag-dies").touch()
    before = attempts(home, "dies/0")
    code, out, err = here("sweep", "resume", "unruly", "--failed", "--from-scratch", "--home", home)
    assert code == 0, out + err
    now = state_of(home, "unruly")
    assert now is not None
    trial = now.trials["dies/0"]
    assert attempts(home, "dies/0") == before + 1
    assert (trial.state, trial.cause, trial.scratch) == ("finished", None, 3)
    assert [(commit.attempt, commit.step) for commit in trial.commits] == [(4, step) for step in range(20, 101, 20)]
