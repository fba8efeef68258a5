"""The same handle on a cluster: a study runs there, and is read, extended, stopped and deleted by whoever knows the address."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.commands import wait_until

import olfl_ray as ol
from benchmarks.services.local_cluster import LocalCluster
from olfl_ray.errors import StudyError


def study_on(cluster: LocalCluster, home: Path, name: str, **changes: Any) -> ol.Study:
    return ol.Study(
        cluster=cluster.address,
        home=home,
        **{
            "name": name,
            "task": {"dataset": "digits", "model": "linear"},
            "learner": {"steps": 20},
            "meta": {"init_steps": 5},
            "eval": {"every": 10},
            "checkpoint": {"every_steps": 10},
            "replicates": 1,
            "search": {"pruner": "none", "parameters": {"learner.optimizer.lr": {"min": 0.01, "max": 0.1}}},
            "arms": {"online": {"trials": 2}},
            "confirm": {"seeds": 1},
            "storage": f"{cluster.storage}/handles",
            **changes,
        },
    )


def test_it_runs_there_and_its_results_are_taken_away_here(cluster: LocalCluster, laptop: Path) -> None:
    study = study_on(cluster, laptop / "home", "taken")
    assert repr(study) == "Study('taken', not begun)"
    assert study.plan().trials == {"online": 2}
    result = study.run(progress=False)
    assert (result.finished, result.state.failures) == (True, {})
    assert (study.status, study.location) == ("finished", f"{cluster.storage}/handles/taken")

    other = ol.Study.open("taken", cluster=cluster.address, home=laptop / "other")
    assert other.trials().equals(study.trials())
    assert other.table.loc["online", "mean"] == other.trial("online/c0").metrics["test/task_loss"]
    assert other.learned("online/c0")(torch.zeros(1, 10), torch.tensor([0])).isfinite()
    assert other.model("online/c0").classes == tuple("0123456789")
    assert "driver started" in "".join(other.logs())
    assert [
        (one.name, one.state, one.ended) for one in ol.list_studies(cluster=cluster.address) if one.name == "taken"
    ] == [("taken", "finished", 3)]

    assert other.extend(1, arm="online", progress=False).finished
    assert "online/2" in study.trials().index
    study.delete()
    with pytest.raises(StudyError):
        other.report()


def test_it_is_submitted_followed_and_stopped(cluster: LocalCluster, laptop: Path) -> None:
    study = study_on(cluster, laptop / "home", "stopped", learner={"method": "baseline", "steps": 10**6}, meta={})
    submission = study.submit()
    assert (submission.attached, submission.attempt.number) == (False, 1)
    wait_until(lambda: study.begun and study.trials()["step"].max() >= 10)
    assert study.submit().attached
    with pytest.raises(StudyError, match="is running on the cluster"):
        study.delete()
    study.stop()
    assert study.status == "stopped"
