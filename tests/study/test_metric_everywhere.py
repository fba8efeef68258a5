"""A study by macro F1 over a user's table: everything that shows a result shows that metric, and no other data mix in."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.commands import olfl, state_of

from olfl_ray.analysis import records_table
from olfl_ray.study import Home

BUILDER = """
import numpy as np

def table(path):
    rows = np.loadtxt(path, delimiter=",")
    return rows[:, :-1].astype("float32"), rows[:, -1].astype("int64")

def first_output(outputs, targets) -> float:
    return float(outputs[:, 0].mean())
"""


MORE: dict[str, dict[str, int]] = {"baseline": {}, "offline": {"meta.init_steps": 5}}


def spec(home: Path, arms: list[str]) -> str:
    return json.dumps(
        {
            "name": "f1",
            "task": {
                "dataset": {"name": "own_table:table", "path": str(home / "rows.csv")},
                "model": "linear",
                "metrics": ["own_table:first_output"],
            },
            "learner": {"steps": 30, "optimizer": {"name": "sgd", "lr": 0.1}},
            "eval": {"every": 10},
            "replicates": 2,
            "search": {
                "metric": "selection/macro_f1",
                "goal": "maximize",
                "pruner": "none",
                "parameters": {"learner.optimizer.lr": {"min": 0.0001, "max": 0.5, "log": True}},
            },
            "arms": {name: {"trials": 2, "set": {"learner.method": name, **MORE[name]}} for name in arms},
            "confirm": {"seeds": 2},
        }
    )


def run(home: Path, *words: str, arms: list[str] | None = None) -> tuple[int, str]:
    (home / "spec.yaml").write_text(spec(home, arms or ["baseline"]))
    done = olfl(*(words or ("sweep", "run", "spec.yaml")), "--home", home, cwd=home, modules=[home])
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    (folder / "own_table.py").write_text(BUILDER)
    draw = np.random.default_rng(0)
    labels = draw.choice(3, 300, p=[0.7, 0.2, 0.1])
    rows = np.column_stack([draw.normal(size=(300, 3)) + np.eye(3)[labels] * 1.5, labels])
    np.savetxt(folder / "rows.csv", rows, delimiter=",", fmt="%.6g")
    code, said = run(folder)
    assert code == 0, said
    (folder / "output").write_text(said)
    return folder


def test_the_winner_is_the_trial_of_the_highest_macro_f1_by_the_records(home: Path) -> None:
    state, storage = state_of(home, "f1"), Home(home).storage("f1")
    assert state is not None
    values = {}
    for trial in state.search_trials("baseline"):
        rows = [row for row in records_table(storage, trial).to_pylist() if row["metric"] == "selection/macro_f1"]
        best = [max(row["value"] for row in rows if row["replicate"] == replicate) for replicate in (0, 1)]
        values[str(trial.id)] = sum(best) / 2
        assert trial.value == pytest.approx(values[str(trial.id)])
    best_trial = state.best("baseline", "maximize")
    assert best_trial is not None
    assert str(best_trial.id) == max(values, key=values.__getitem__)
    assert len(set(values.values())) == 2


def test_table_report_and_mlflow_show_that_metric(home: Path) -> None:
    from mlflow.tracking import MlflowClient

    state = state_of(home, "f1")
    assert state is not None
    confirming = state.confirming_trials("baseline", "maximize")
    tests = [trial.metrics["test/macro_f1"][0] for trial in confirming]
    mean = sum(tests) / len(tests)
    said = (home / "output").read_text()
    assert "test macro_f1" in said
    assert "test error" in said, "the task's primary metric stands beside it"
    assert f"{mean:.4f}" in said
    trivial = sum(trial.metrics["trivial/macro_f1"][0] for trial in confirming) / 2
    assert 0.2 < trivial < 0.4
    assert f"{trivial:.4f}" in said
    report = home / "studies" / "f1" / "report"
    (arm,) = pq.read_table(report / "tables" / "arms.parquet").to_pylist()
    assert (arm["metric"], arm["goal"], arm["primary"]) == ("macro_f1", "maximize", "error")
    assert arm["test_mean"] == pytest.approx(mean)
    assert "test macro_f1" in (report / "index.html").read_text()
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    runs = client.search_runs([one.experiment_id for one in client.search_experiments()])
    kept = {run.data.tags.get("olfl.trial"): run.data.metrics for run in runs}
    assert kept["baseline/c0"]["test/macro_f1"] == pytest.approx(tests[0])
    assert "selection/first_output" in kept["baseline/0"]


def test_changed_data_and_changed_code_are_refused_and_nothing_runs(home: Path) -> None:
    rows, before = (home / "rows.csv").read_text(), state_of(home, "f1")
    (home / "rows.csv").write_text("".join(rows.splitlines(keepends=True)[:250]))
    code, said = run(home, "sweep", "extend", "f1", "--trials", "1")
    (home / "rows.csv").write_text(rows)
    assert code == 2
    assert re.search(r"arm baseline.*data", said.replace("\n", " "))
    (home / "own_table.py").write_text(BUILDER + "\n# changed\n")
    code, said = run(home, "sweep", "extend", "f1", "--trials", "1")
    (home / "own_table.py").write_text(BUILDER)
    assert code == 2
    assert "own_table" in said
    assert state_of(home, "f1") == before


def test_an_arm_is_added_to_the_finished_study_and_paired_with_its_baseline(home: Path) -> None:
    code, said = run(home, arms=["baseline", "offline"])
    assert code == 0, said
    state = state_of(home, "f1")
    assert state is not None
    assert {name for name in state.trials if name.startswith("offline")} == {
        "offline/0",
        "offline/1",
        "offline/c0",
        "offline/c1",
    }
    assert len([name for name in state.trials if name.startswith("baseline")]) == 4
    _, offline = pq.read_table(home / "studies" / "f1" / "report" / "tables" / "arms.parquet").to_pylist()
    values = {
        arm: [trial.metrics["test/macro_f1"][0] for trial in state.confirming_trials(arm, "maximize")]
        for arm in ("baseline", "offline")
    }
    assert offline["difference_baseline"] == "baseline"
    assert offline["difference_mean"] == pytest.approx((sum(values["offline"]) - sum(values["baseline"])) / 2)
