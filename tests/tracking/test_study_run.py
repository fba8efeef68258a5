"""The study's own run: what MLflow needs to compare two studies; its report, and the view that its experiment opens in."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from olfl_ray.tracking import TrackedArm
from olfl_ray.tracking.mlflow import Mlflow, open_store, sqlite_uri

LR = "learner.optimizer.lr"


def outcome(**changes: Any) -> TrackedArm:
    metrics = {"test_error": 0.02, "test_error_sd": 0.001, "n": 10.0, "difference": -0.01, "difference_low": -0.02}
    found = {"arm": "online", "ended": 5, "best": "online/0", "settings": {LR: 0.05}, "metrics": metrics, **changes}
    return TrackedArm(**found)


def test_it_has_each_arms_outcome_as_metrics_and_params(home: Callable[..., Any], held: Callable[..., Any]) -> None:
    own = home()
    own.trial("online/0")
    runs = own.runs()
    own.deliver(runs)
    for _ in range(2):
        runs.summarise([outcome(), outcome(arm="baseline", ended=0, best=None, settings={}, metrics={})])
    there = held()
    parent = there.of(own)["study"]
    assert parent.data.metrics == {f"online/{name}": value for name, value in outcome().metrics.items()}
    assert parent.data.params["best.online.trial"] == "online/0"
    assert parent.data.params[f"best.online.{LR}"] == "0.05"
    assert (parent.data.params["task.dataset.name"], parent.data.params["learner.steps"]) == ("digits", "900")
    (point,) = there.client.get_metric_history(parent.info.run_id, "online/test_error")
    assert point.step == 5, "what is repeated is stored once"
    assert abs(point.timestamp / 1000 - time.time()) < 600


def test_another_winner_gives_it_a_new_run_with_the_same_children(
    home: Callable[..., Any], held: Callable[..., Any]
) -> None:
    own = home()
    own.trial("online/0")
    own.trial("online/1")
    runs = own.runs()
    own.deliver(runs)
    runs.summarise([outcome()])
    before = held().of(own)["study"]
    runs.summarise([outcome(best="online/1", settings={LR: 0.1}, ended=6)])
    runs.close({}, status="FINISHED")
    now = held().of(own)
    assert now["study"].info.run_id != before.info.run_id
    assert (now["study"].info.status, now["study"].data.params[f"best.online.{LR}"]) == ("FINISHED", "0.1")
    assert now["study"].data.tags["olfl.storage"] == before.data.tags["olfl.storage"]
    children = {run.data.tags["mlflow.parentRunId"] for name, run in now.items() if name != "study"}
    assert children == {now["study"].info.run_id}


def test_a_driver_that_was_killed_between_two_parents_leaves_no_orphans(
    home: Callable[..., Any], held: Callable[..., Any]
) -> None:
    own = home()
    own.trial("online/0")
    own.deliver(own.runs())
    there = held()
    there.client.delete_run(there.of(own)["study"].info.run_id)
    own.runs()
    now = held().of(own)
    assert now["online/0"].data.tags["mlflow.parentRunId"] == now["study"].info.run_id
    own.runs()
    assert "mlflow.parentRunId" not in held().of(own)["study"].data.tags, "it is not its own child"


def test_reported_values_and_those_of_the_last_evaluation_have_names(
    home: Callable[..., Any], held: Callable[..., Any]
) -> None:
    own = home()
    own.trial("online/0", (10, 20), end=None)
    own.end("online/0", {"selection/error": [0.01, 0.03], "test/error": [0.05]})
    own.trial("online/1", (10,), end="failed")
    for _ in range(2):
        own.deliver(own.runs())
    there = held()
    run = there.of(own)["online/0"]
    assert run.data.metrics["result/selection_error"] == pytest.approx(0.02)
    assert run.data.metrics["result/test_error"] == 0.05
    assert run.data.metrics["last/selection_error"] == 0.02 == run.data.metrics["selection/error"]
    assert there.steps(run, "result/selection_error") == [20]
    assert not [name for name in there.of(own)["online/1"].data.metrics if name.startswith(("result/", "last/"))]


def test_its_description_leads_to_the_report_and_its_links_to_the_runs(
    home: Callable[..., Any], held: Callable[..., Any], tmp_path: Path
) -> None:
    own = home()
    own.trial("online/0")
    sink = own.sink()
    sink.start(own.state)
    sink.drain()
    links = sink.links()
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "index.html").write_text("page")
    assert sink.close({"report": tmp_path / "report"}, status="FINISHED", arms=[outcome()]) == 0
    now = held().of(own)
    assert links == {name: run.info.run_id for name, run in now.items()}
    assert str(tmp_path / "report" / "index.html") in now["study"].data.tags["mlflow.note.content"]
    assert now["study"].data.tags["olfl.report_page"] == str(tmp_path / "report" / "index.html")
    assert now["study"].data.metrics["online/n"] == 10
    tracker = Mlflow(Mlflow.Config(uri="http://127.0.0.1:5000/"), own.tracked)
    tracker._runs = own.runs()
    (experiment,) = {run.info.experiment_id for run in now.values()}
    page = f"http://127.0.0.1:5000/#/experiments/{experiment}/runs/{now['online/0'].info.run_id}"
    assert tracker.links()["online/0"] == page


def test_its_experiment_is_one_of_model_training(empty_store: Path, tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    shutil.copy(empty_store, file)
    client = open_store(sqlite_uri(file), "olfl", tmp_path)
    kinds = {"mlflow.experimentKind": "custom_model_development"}
    assert kinds.items() <= client.get_experiment_by_name("olfl").tags.items()
    client.create_experiment("older")
    open_store(sqlite_uri(file), "older", tmp_path)
    assert kinds.items() <= client.get_experiment_by_name("older").tags.items()
    client.set_experiment_tag(client.create_experiment("chosen"), "mlflow.experimentKind", "genai_development")
    open_store(sqlite_uri(file), "chosen", tmp_path)  # somebody's choice stays
    assert client.get_experiment_by_name("chosen").tags["mlflow.experimentKind"] == "genai_development"
