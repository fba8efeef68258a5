"""A study is a folder: `cp -r` makes a copy that is complete and independent."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from olfl_ray.errors import StudyError
from olfl_ray.ledger import DriverStarted, DriverStopped, Ledger, Revised
from olfl_ray.spec import trackers_from
from olfl_ray.storage import Lease, open_storage
from olfl_ray.study import Study
from olfl_ray.testing.studies import HandMadeStudy
from olfl_ray.tracking import TrackedStudy, trackers_of


def copied(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True)
    subprocess.run(["cp", "-r", source, target], check=True)


def test_a_copy_is_complete_and_independent(tmp_path: Path) -> None:
    made = HandMadeStudy(tmp_path / "a" / "studies" / "made", tmp_path / "a")
    made.run("online/0", (10, 20), "finished")
    made.run("online/1", (10,))
    copied(tmp_path / "a" / "studies" / "made", tmp_path / "b" / "studies" / "made")
    first, second = (Study.open("made", home=tmp_path / name) for name in "ab")
    assert second.trials().equals(first.trials())
    assert second.curves().equals(first.curves())
    assert second.state.identity == first.state.identity, "it is the same study, with the same runs in MLflow"
    assert second.report().is_relative_to(tmp_path / "b")
    assert not (tmp_path / "a" / "studies" / "made" / "report").exists()
    made.run("online/2", (10,), "failed")
    assert (len(first.trials()), len(second.trials())) == (3, 2)


def test_a_copy_of_a_stopped_study_can_be_driven_next_to_the_original(tmp_path: Path) -> None:
    made = HandMadeStudy(tmp_path / "a" / "studies" / "made", tmp_path / "a")
    ledger = Ledger.load(made.storage)
    with Lease.acquire(made.storage, "a driver") as lease:
        ledger.append(DriverStarted(epoch=lease.epoch, host="here", pid=1))
        ledger.append(DriverStopped(epoch=lease.epoch, reason="stopped"))
    copied(tmp_path / "a" / "studies" / "made", tmp_path / "b" / "studies" / "made")
    assert Study.open("made", home=tmp_path / "b").status == "stopped"
    with (
        Lease.acquire(made.storage, "a driver", above=lease.epoch) as first,
        Lease.acquire(open_storage(tmp_path / "b" / "studies" / "made"), "another", above=lease.epoch) as second,
    ):
        assert first.epoch == second.epoch


def test_a_copy_under_another_name_is_refused(tmp_path: Path) -> None:
    HandMadeStudy(tmp_path / "a" / "studies" / "made", tmp_path / "a")
    copied(tmp_path / "a" / "studies" / "made", tmp_path / "b" / "studies" / "other")
    with pytest.raises(StudyError, match="holds the study 'made'"):
        Study.open("other", home=tmp_path / "b")


def test_a_copys_json_lines_are_those_of_the_original(tmp_path: Path) -> None:
    made = HandMadeStudy(tmp_path / "a" / "studies" / "made", tmp_path / "a")
    tracking = [{"name": "json_lines", "folder": str(tmp_path / "lines")}]
    Ledger.load(made.storage).append(Revised(spec={**made.state.spec, "tracking": tracking}))
    spec = made.tracked.spec.model_copy(update={"tracking": trackers_from(tracking)})
    (tracker,) = trackers_of(TrackedStudy(spec=spec, storage=made.storage, home=tmp_path / "a"))
    tracker.open(made.state.identity)
    lines = tmp_path / "lines" / "made" / made.state.identity / "study.jsonl"
    copied(tmp_path / "a" / "studies" / "made", tmp_path / "b" / "studies" / "made")
    with pytest.raises(StudyError, match=r"is a copy.*`keep_runs=True`"):
        Study.open("made", home=tmp_path / "b").delete()
    Study.open("made", home=tmp_path / "b").delete(keep_runs=True)
    assert lines.is_file()
    Study.open("made", home=tmp_path / "a").delete()
    assert not lines.exists()
