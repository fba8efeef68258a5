"""The MLflow run of a trial: its identity, means and standard deviations, files, and end."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from olfl_ray.ledger import Began, Commit, Committed, Ended, Proposed, write_commit
from olfl_ray.records import Record, records_to_table, to_parquet
from olfl_ray.spec import StudySpec, TrialConfig
from olfl_ray.tracking.mlflow import Runs, open_store

VALUES = {10: (0.25, 0.75), 20: (0.2, 0.4)}
"""Error of two replicates at two steps."""


def runs_of(own: Any, datasets: dict[str, Any] | None = None, git: str = "") -> Runs:
    client = open_store(own.uri, "olfl", own.storage.root)
    study = replace(own.tracked, git_commit=git, datasets=datasets or {})
    return Runs(client, study, own.state.identity, "olfl")


METRICS: dict[str, list[float]] = {"selection/error": [0.2, 0.4], "empty": []}
LOSS = {"learned_loss.safetensors": b"tensors", "learned_loss.json": b"{}"}


def trained(
    own: Any,
    name: str = "online/0",
    end: str = "finished",
    corrupt: int | None = None,
    left: dict[str, bytes] = LOSS,
    metrics: dict[str, list[float]] = METRICS,
) -> None:
    """A trial of two replicates with two commits, the second with its learnable's files."""
    own.ledger.append(Proposed(trial=name, params={"learner.optimizer.lr": 0.02}, seeds=[3, 4], time=1.0))
    own.ledger.append(Began(trial=name, attempt=1))
    for step, values in VALUES.items():
        record = Record(step=step, time_ms=1_700_000_000_000 + step, metrics={"selection/error": values, "one": (1.0,)})
        files = {"records.parquet": to_parquet(records_to_table([record]))}
        files |= left if step == 20 else {}
        made = Commit(trial=name, attempt=1, position=step, step=step, outcome=None, report={}, parent=None)
        made = write_commit(own.storage, made, files)
        if step == corrupt:
            own.storage.write(made.key, b"corrupt")
        own.ledger.append(Committed(trial=name, attempt=1, commit=made.key, step=step, value=0.3, values={}))
    cause = "boom" if end == "failed" else None
    own.ledger.append(
        Ended(trial=name, state=end, step=20, value=0.3, metrics=metrics, cause=cause, time=1_700_000_100.25)  # type: ignore[arg-type]
    )


def points(there: Any, run: Any, metric: str) -> list[tuple[int, float, int]]:
    found = there.client.get_metric_history(run.info.run_id, metric)
    return [(point.step, pytest.approx(point.value), point.timestamp) for point in found]


def test_run_has_means_and_standard_deviations_at_the_records_times(
    home: Callable[..., Any], held: Callable[..., Any]
) -> None:
    own = home()
    trained(own)
    own.deliver(runs_of(own))
    there = held()
    run = there.of(own)["online/0"]
    assert points(there, run, "selection/error") == [(10, 0.5, 1_700_000_000_010), (20, 0.3, 1_700_000_000_020)]
    spread = [(10, 0.125**0.5, 1_700_000_000_010), (20, 0.02**0.5, 1_700_000_000_020)]
    assert points(there, run, "selection/error_sd") == spread
    assert points(there, run, "one_sd") == [], "a single value has no standard deviation"


def test_run_names_its_trial_and_is_a_child_of_the_study(home: Callable[..., Any], held: Callable[..., Any]) -> None:
    own = home()
    trained(own)
    trained(own, "baseline/c0")
    note = {"name": "digits", "digest": "abc", "source": "scikit-learn", "rows": 1797, "classes": ["0", "1"]}
    own.deliver(runs_of(own, {"online": note}, git="c0ffee"))
    found = held().of(own)
    run, confirming, parent = found["online/0"], found["baseline/c0"], found["study"]
    tags = run.data.tags
    assert (tags["olfl.study"], tags["olfl.arm"], tags["olfl.ordinal"], tags["olfl.role"]) == (
        "s",
        "online",
        "0",
        "search",
    )
    assert (tags["olfl.digest"], tags["olfl.git_commit"]) == (own.spec.digest, "c0ffee")
    assert tags["mlflow.parentRunId"] == parent.info.run_id
    assert "olfl.filtered" not in tags
    assert (confirming.data.tags["olfl.role"], confirming.data.tags["olfl.ordinal"]) == ("confirm", "c0")
    assert (run.info.run_name, parent.info.run_name) == ("online/0", "s")
    assert parent.data.tags["olfl.storage"] == own.storage.url.rpartition("/")[0]
    assert run.data.params["learner.optimizer.lr"] == "0.02"
    (given,) = run.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("digits", "abc")
    assert json.loads(given.dataset.source) == {"source": "scikit-learn"}
    assert json.loads(given.dataset.profile) == {"num_rows": 1797, "classes": ["0", "1"]}
    assert (given.tags[0].key, given.tags[0].value) == ("mlflow.data.context", "training")
    assert not confirming.inputs.dataset_inputs


def test_a_run_lists_at_most_a_hundred_classes(home: Callable[..., Any], held: Callable[..., Any]) -> None:
    own = home()
    trained(own)
    note = {"name": "many", "digest": "abc", "source": "own", "rows": 200, "classes": [str(n) for n in range(150)]}
    own.deliver(runs_of(own, {"online": note}))
    (given,) = held().of(own)["online/0"].inputs.dataset_inputs
    assert json.loads(given.dataset.profile)["classes"] == [str(n) for n in range(100)]


def test_a_report_that_mlflow_would_refuse_is_cut(home: Callable[..., Any], held: Callable[..., Any]) -> None:
    own = home()
    trained(own, metrics={f"selection/metric_{n}": [0.5] for n in range(400)})
    own.deliver(runs_of(own))
    assert len(held().of(own)["online/0"].data.tags["olfl.report"]) == 8000


@pytest.mark.parametrize(
    ("end", "status"),
    [("finished", "FINISHED"), ("pruned", "FINISHED"), ("diverged", "FINISHED"), ("failed", "FAILED")],
)
def test_run_ends_like_its_trial_with_its_report(
    end: str, status: str, home: Callable[..., Any], held: Callable[..., Any]
) -> None:
    own = home(loss={"from": "online/7"})
    trained(own, end=end)
    own.deliver(runs_of(own))
    there = held()
    run = there.of(own)["online/0"]
    assert (run.info.status, run.info.end_time, run.data.tags["olfl.state"]) == (status, 1_700_000_100_250, end)
    assert json.loads(run.data.tags["olfl.report"]) == {"selection/error": pytest.approx(0.3)}
    files = {Path(file.path).name for file in there.client.list_artifacts(run.info.run_id)}
    assert files == {"config.json", "result.json", "learned_loss"} | ({"cause.txt"} if end == "failed" else set())
    loss = {Path(file.path).name for file in there.client.list_artifacts(run.info.run_id, "learned_loss")}
    assert loss == {"learned_loss.safetensors", "learned_loss.json"}
    folder = Path(there.client.download_artifacts(run.info.run_id, ""))
    result = json.loads((folder / "result.json").read_text())
    assert (result["state"], result["replicates"]) == (end, {"selection/error": [0.2, 0.4], "empty": []})
    config = json.loads((folder / "config.json").read_text())
    assert (config["seeds"], config["loss"]["from"]) == ([3, 4], "online/7")
    assert TrialConfig.model_validate(config).seeds == (3, 4)
    assert run.data.params["loss.from"] == "online/7"
    spec = Path(there.client.download_artifacts(there.of(own)["study"].info.run_id, "spec.json"))
    assert json.loads(spec.read_text())["loss"]["from"] == "online/7"
    assert StudySpec.model_validate_json(spec.read_text()).digest == own.spec.digest


def test_a_run_counts_the_candidates_that_were_dropped_before_it(
    home: Callable[..., Any], held: Callable[..., Any]
) -> None:
    own = home()
    dropped = [{"params": {}, "filter": name} for name in ("rejected", "equal", "rejected")]
    own.ledger.append(Proposed(trial="online/0", params={}, seeds=[3], filtered=dropped))
    own.ledger.append(Began(trial="online/0", attempt=1))
    own.deliver(runs_of(own))
    assert held().of(own)["online/0"].data.tags["olfl.filtered"] == "equal 1, rejected 2"


def test_a_run_without_a_learnables_files_has_no_folder_for_them(
    home: Callable[..., Any], held: Callable[..., Any]
) -> None:
    own = home()
    trained(own, left={})
    own.deliver(runs_of(own))
    there = held()
    folders = {file.path for file in there.client.list_artifacts(there.of(own)["online/0"].info.run_id)}
    assert not folders & {"learned_loss", "learnable"}


def test_a_run_has_the_files_of_any_learnable(home: Callable[..., Any], held: Callable[..., Any]) -> None:
    own = home()
    trained(own, left={"learnable.safetensors": b"phi", "rates.csv": b"1,2"})
    own.deliver(runs_of(own))
    there = held()
    run = there.of(own)["online/0"].info.run_id
    folder = Path(there.client.download_artifacts(run, "learnable"))
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
        "learnable.safetensors": b"phi",
        "rates.csv": b"1,2",
    }


@pytest.mark.parametrize(("corrupt", "steps"), [(10, [20]), (20, [10])])
def test_corrupt_records_are_skipped_and_the_rest_is_shown(
    corrupt: int, steps: list[int], home: Callable[..., Any], held: Callable[..., Any]
) -> None:
    own = home()
    trained(own, corrupt=corrupt)
    own.deliver(runs_of(own))
    there = held()
    run = there.of(own)["online/0"]
    assert there.steps(run) == steps
    assert run.info.status == "FINISHED"
    names = {file.path for file in there.client.list_artifacts(run.info.run_id)}
    assert ("learned_loss" in names) == (corrupt != 20)


def test_planned_trial_has_no_run_and_a_stopped_ones_is_killed_until_it_resumes(
    home: Callable[..., Any], held: Callable[..., Any]
) -> None:
    own = home()
    own.ledger.append(Proposed(trial="online/1", params={}, seeds=[1]))
    own.trial("online/0", (10,), end="stopped")
    runs = runs_of(own)
    own.deliver(runs)
    found = held().of(own)
    assert set(found) == {"study", "online/0"}
    assert found["online/0"].info.status == "KILLED"
    own.trial("online/0", (20,), end=None)
    own.deliver(runs)
    there = held()
    run = there.of(own)["online/0"]
    assert (run.info.status, there.steps(run)) == ("RUNNING", [10, 20])


def test_parent_run_ends_with_the_studys_files(
    home: Callable[..., Any], held: Callable[..., Any], tmp_path: Path
) -> None:
    own = home()
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.html").write_text("page")
    runs_of(own).close({"report": tmp_path / "report"}, status="FINISHED")
    there = held()
    parent = there.of(own)["study"]
    assert parent.info.status == "FINISHED"
    assert {file.path for file in there.client.list_artifacts(parent.info.run_id)} == {"report", "spec.json"}
    assert [file.path for file in there.client.list_artifacts(parent.info.run_id, "report")] == ["report/report.html"]


def test_what_changes_alone_is_delivered(home: Callable[..., Any], held: Callable[..., Any]) -> None:
    """First only parameters, then only measurements, then only the end."""
    own = home()
    own.ledger.append(Proposed(trial="online/0", params={"learner.optimizer.lr": 0.02}, seeds=[1]))
    own.trial("online/0", (), end=None)
    runs = runs_of(own)
    own.deliver(runs)
    begun = held().of(own)["online/0"]
    assert begun.data.params["learner.optimizer.lr"] == "0.02"
    own.trial("online/0", (10,), end=None)
    own.deliver(runs)
    there = held()
    running = there.of(own)["online/0"]
    assert there.steps(running) == [10]
    assert not {"olfl.state", "olfl.report"} & {*begun.data.tags, *running.data.tags}, "only at the end"
    own.ledger.append(Ended(trial="online/0", state="failed", step=10, value=None, metrics={}, cause="boom"))
    own.deliver(runs)
    assert held().of(own)["online/0"].data.tags["olfl.state"] == "failed"


def test_the_studys_run_has_its_spec_to_read(home: Callable[..., Any], held: Callable[..., Any]) -> None:
    own = home()
    runs_of(own)
    there = held()
    text = there.client.download_artifacts(there.of(own)["study"].info.run_id, "spec.json")
    lines = Path(text).read_text().splitlines()
    assert json.loads("".join(lines))["name"] == own.spec.name
    assert len(lines) > 20, "a field per line"
    assert "olfl.git_commit" not in there.of(own)["study"].data.tags, "there is none"


def test_the_last_evaluation_is_that_of_the_last_step(home: Callable[..., Any], held: Callable[..., Any]) -> None:
    """Also where one commit has several."""
    own = home()
    own.ledger.append(Proposed(trial="online/0", params={}, seeds=[3, 4]))
    own.ledger.append(Began(trial="online/0", attempt=1))
    records = [
        Record(step=step, time_ms=1_700_000_000_000 + step, metrics={"selection/error": values})
        for step, values in VALUES.items()
    ]
    made = Commit(trial="online/0", attempt=1, position=20, step=20, outcome=None, report={}, parent=None)
    made = write_commit(own.storage, made, {"records.parquet": to_parquet(records_to_table(records))})
    own.ledger.append(Committed(trial="online/0", attempt=1, commit=made.key, step=20, value=0.3, values={}))
    own.ledger.append(Ended(trial="online/0", state="finished", step=20, value=0.3, metrics=METRICS, cause=None))
    own.deliver(runs_of(own))
    run = held().of(own)["online/0"]
    assert run.data.metrics["last/selection_error"] == pytest.approx(0.3), "the mean at step 20, not also at step 10"
    assert "olfl.filtered" not in run.data.tags, "its search dropped nothing"
