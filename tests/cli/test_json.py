"""`--json`: standard output is one document, with exactly the fields that docs/json.md describes."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.commands import Run
from support.json_documents import check, document
from support.written import LR, METRIC, begun, finished

from olfl_ray.cli.documents import print_json
from olfl_ray.ledger import Began, Ledger, Reopened
from olfl_ray.losses import build_loss
from olfl_ray.spec import LearnedLossSpec
from olfl_ray.storage import Lease, open_storage
from olfl_ray.study import Home, Study
from olfl_ray.study.overview import overview_of


@pytest.fixture
def home(tmp_path: Path) -> Path:
    begun(tmp_path / "home")
    return tmp_path / "home"


def test_a_document_has_no_nan_and_times_are_iso(capsys: pytest.CaptureFixture[str]) -> None:
    print_json(
        {"a": math.nan, "b": [math.inf, 1.5, True], "c": datetime(2026, 11, 30, 1, 2, 3, tzinfo=UTC), "d": "\x1b[2J"}
    )
    found = json.loads(capsys.readouterr().out)
    assert found == {"a": None, "b": [None, 1.5, True], "c": "2026-11-30T01:02:03.000000Z", "d": "\x1b[2J"}


def test_status_has_step_age_time_left_and_causes(olfl: Run, home: Path) -> None:
    found = document(olfl, "sweep", "status", "s", "--home", home)
    check("olfl sweep status", found, empty=("attempt",))
    assert (found["status"], found["ended"], found["trials"], found["left"]) == ("interrupted", 2, 10, None)
    (running,) = found["running"]
    assert (running["trial"], running["step"], running["steps"], running["left"]) == ("online/0", 300, 900, None)
    assert running["age"] - running["commit_age"] == pytest.approx(90)
    assert found["failures"] == [{"cause": "ValueError: boom", "trials": ["baseline/1"]}]
    assert found["arms"][0] == {
        "arm": "baseline",
        "trials": 5,
        "states": {"finished": 1, "failed": 1},
        "best": "baseline/0",
        "value": 0.25,
    }
    code, out, _ = olfl("sweep", "status", "s", "--home", home)
    assert code == 0
    assert re.search(r"online/0 +running +300 +900 +0.5", out)
    assert "interrupted: 2 of 10 trials ended; last event" in out


def test_time_left_is_that_of_the_arms_own_pace(home: Path) -> None:
    ledger = Ledger.load(open_storage(home / "studies" / "s"))

    def left(now: float) -> tuple[float | None, float | None]:
        spec, _, _ = Study.open("s", home=home).loaded()
        found = overview_of(spec, ledger, status="running", total=10, location="", data=(), now=now)
        return found.left, found.running[0].left

    # baseline: 90 s for 900 steps; online: 90 s for 300, the last commit at 290.
    works = [90.0 * (2 + 1), 270.0 * (2 + 2)]
    assert left(300.0) == (pytest.approx((sum(works) + 170) / 2), pytest.approx(180 - 10))
    assert left(9000.0) == (pytest.approx(sum(works) / 2), 0)
    ledger.append(Began(trial="online/0", attempt=2, time=8000.0))  # the pause doesn't count
    assert left(8030.0) == (pytest.approx((sum(works) + 150) / 2), pytest.approx(180 - 30))


def test_time_left_of_a_retry_from_scratch_includes_all_its_steps(home: Path) -> None:
    ledger = Ledger.load(open_storage(home / "studies" / "s"))
    ledger.append(Reopened(trial="baseline/1", scratch=1, time=300.0))
    ledger.append(Began(trial="baseline/1", attempt=2, time=300.0))
    spec, _, _ = Study.open("s", home=home).loaded()
    found = overview_of(spec, ledger, status="running", total=10, location="", data=(), now=315.0)
    (trial,) = [one for one in found.running if one.trial == "baseline/1"]
    assert (trial.step, trial.steps, trial.age, trial.commit_age) == (0, 900, 15, None)
    assert trial.left == pytest.approx(90 - 15)


def test_a_driven_study_is_running(home: Path) -> None:
    storage = open_storage(home / "studies" / "s")
    with Lease.acquire(storage, "a test", above=1):
        found = Study.open("s", home=home).overview()
        assert (found.status, found.running[0].left, found.left) == ("running", 0, pytest.approx(found.left))


def test_list_has_the_best_value_and_its_date(olfl: Run, home: Path) -> None:
    found = document(olfl, "sweep", "list", "--home", home)
    check("olfl sweep list", found)
    (one,) = found
    assert (one["best"], one["value"], one["ended"], one["status"]) == ("baseline/0", 0.25, 2, "interrupted")
    assert (one["created_at"][:4], one["changed_at"]) == (f"{datetime.now(UTC):%Y}", "1970-01-01T00:04:50.000000Z")
    assert "best selection/error 0.25 (baseline/0)  1970-01-01" in olfl("sweep", "list", "--home", home)[1]
    assert document(olfl, "sweep", "list", "--storage", home / "studies") == found
    assert document(olfl, "sweep", "list", "--home", home / "other") == []


def test_report_and_an_error(olfl: Run, home: Path) -> None:
    found = document(olfl, "sweep", "report", "s", "--home", home)
    check("olfl sweep report", found)
    assert Path(found["report"]).is_file()
    code, out, err = olfl("sweep", "status", "other", "--home", home, "--json")
    assert (code, out) == (2, "")
    assert "no study 'other'" in err


def test_run_prints_the_result(olfl: Run, tmp_path: Path) -> None:
    """A finished study: nothing is left to do, so nothing starts."""
    home = Home(tmp_path / "home")
    spec = finished(home)
    (tmp_path / "s.yaml").write_text(spec.model_dump_json(by_alias=True))
    assert Study.from_spec(spec, home=home).status == "finished"
    found = document(olfl, "sweep", "run", tmp_path / "s.yaml", "--home", home.path)
    check("olfl sweep run", found, empty=("failures",))
    assert (found["nothing_to_do"], found["finished"], found["ended"], found["tracking"]) == (True, True, 6, [])
    online = found["arms"][1]
    assert (online["best"], online["test"]["n"], online["settings"]) == ("online/0", 2, LR)
    assert online["difference"]["mean"] == pytest.approx(-0.01)
    assert document(olfl, "sweep", "resume", "s", "--home", home.path) == found


def test_commands_that_start_nothing_print_documents(olfl: Run, tmp_path: Path) -> None:
    spec = Path(__file__).parents[2] / "sweeps" / "digits.yaml"
    plan = document(olfl, "sweep", "run", spec, "--dry-run")
    check("olfl sweep run --dry-run", plan, empty=("notes",), free=("spec",))
    assert plan["arms"][0]["trials"] == 8
    check("olfl init", document(olfl, "init", "mine"))
    check("olfl data list", document(olfl, "data", "list"))
    check("olfl data prepare", document(olfl, "data", "prepare", "digits"))
    check(
        "olfl data check",
        document(olfl, "data", "check", "digits"),
        empty=("[].targets", "[].missing", "[].columns", "[].heads"),
    )
    assert document(olfl, "spec", "schema") == json.loads(olfl("spec", "schema")[1])
    assert set(document(olfl, "spec", "complete")) >= {"task", "search", "arms"}


def test_a_loss_in_files_is_explained(olfl: Run, tmp_path: Path) -> None:
    loss = build_loss(LearnedLossSpec(name="taylor"), "regression", seed=0)
    for name, data in loss.files().items():
        (tmp_path / name).write_bytes(data)
    found = document(olfl, "loss", "explain", tmp_path, "--out", tmp_path / "out")
    check("olfl loss explain", found)
    assert (found["families"][0]["family"], found["step"], found["task"]) == ("squared error", None, "regression")
    assert (tmp_path / "out" / "film.gif").exists()
    code, out, _ = olfl("loss", "explain", tmp_path)
    assert code == 0
    assert "formula: 1 * square(y - f)" in out
    code, out, err = olfl("loss", "explain", tmp_path, "--as-arm", tmp_path / "arm.yaml")
    assert (code, out) == (2, "")
    assert "as-arm: " in err


def test_a_trial_without_ray(olfl: Run) -> None:
    spec = Path(__file__).parents[2] / "sweeps" / "digits.yaml"
    quick = ["learner.steps=20", "eval.every=10", "replicates=1", "task.model=linear"]
    found = document(
        olfl, "trial", "run", spec, "--arm", "baseline", *(word for one in quick for word in ("--set", one))
    )
    check("olfl trial run", found)
    assert [record["step"] for record in found["records"]] == [10, 20]
    assert (found["outcome"], found["cause"]) == ("finished", None)
    assert found["metrics"]["selection/error"] == min(
        record["metrics"]["selection/error"] for record in found["records"]
    )


def test_trials_are_listed_shown_and_compared(olfl: Run, home: Path) -> None:
    found = document(olfl, "trial", "list", "s", "--home", home)
    check("olfl trial list", found)
    assert [(one["trial"], one["state"], one["value"]) for one in found] == [
        ("baseline/0", "finished", 0.25),
        ("baseline/1", "failed", None),
        ("online/0", "running", 0.5),
    ]
    failed = document(olfl, "trial", "list", "s", "--home", home, "--state", "failed", "--arm", "baseline")
    assert failed == [found[1]]
    shown = document(olfl, "trial", "show", "s/baseline/1", "--home", home)
    check("olfl trial show", {**shown, "metrics": {METRIC: 1.0}, "replicates": {METRIC: [1.0]}}, free=("config",))
    assert (shown["cause"], found[1]["cause"]) == ("ValueError: boom\nTraceback", "ValueError: boom")
    assert shown["config"]["learner"]["method"] == "baseline"
    diff = document(olfl, "trial", "diff", "s/baseline/0", "s/online/0", "--home", home)
    check("olfl trial diff", diff)
    rows = {row["name"]: (row["kind"], row["a"], row["b"], row["difference"]) for row in diff["rows"]}
    assert rows["learner.method"] == ("setting", "baseline", "online", None)
    assert rows["step"] == ("result", 900, 300, -600)
    assert rows[METRIC] == ("metric", 0.25, None, None)
    assert "learner.optimizer.lr" not in rows  # the same in both
    code, out, _ = olfl("trial", "show", "s/baseline/1", "--home", home)
    assert code == 0
    assert "  Traceback" in out.splitlines()
    listed = olfl("trial", "list", "s", "--home", home)[1]
    assert re.findall(r"^\w+/\d", listed, re.MULTILINE) == ["baseline/0", "baseline/1", "online/0"]
    assert olfl("trial", "diff", "s/baseline/0", "s/online/0", "--home", home)[0] == 0


@pytest.mark.parametrize(
    ("source", "said"),
    [("s", "names no trial"), ("s/online/9", "has no trial 'online/9'"), ("other/online/0", "no study 'other'")],
)
def test_a_missing_trial_is_refused(olfl: Run, home: Path, source: str, said: str) -> None:
    code, out, err = olfl("trial", "show", source, "--home", home, "--json")
    assert (code, out) == (2, "")
    assert said in err


def test_a_state_that_no_trial_has_is_refused(olfl: Run, home: Path) -> None:
    code, out, err = olfl("trial", "list", "s", "--state", "done", "--home", home)
    assert (code, out) == (2, "")
    assert "'done'" in err
    assert "finished, pruned" in err
