"""The handle runs a study through failure, retries, more trials, a stop and its end; builders are passed as objects."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from support.commands import wait_until
from support.misbehaving import build

import olfl_ray as ol
from olfl_ray.errors import StudyError
from olfl_ray.ledger import Ledger
from olfl_ray.storage import LocalStorage
from olfl_ray.study import Study, StudyResult


def study_with(home: Path, **changes: Any) -> Study:
    flag = str(home / "flag")
    return ol.Study(
        home=home,
        **{
            "name": "unruly",
            "task": {"dataset": "digits", "model": {"name": build, "how": "behaves", "after": 0, "flag": flag}},
            "learner": {"method": "baseline", "steps": 40},
            "eval": {"every": 20},
            "replicates": 1,
            "search": {"pruner": "none", "parameters": {"learner.optimizer.lr": {"min": 0.001, "max": 0.1}}},
            "arms": {
                "plain": {"trials": 1},
                "raises": {
                    "set": {"task.model": {"name": build, "how": "raises", "after": 10, "flag": flag}},
                    "trials": 1,
                },
            },
            "confirm": {"seeds": 0},
            "checkpoint": {"every_steps": 20},
            "tracking": [],
            **changes,
        },
    )


def test_from_failure_to_deletion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "flag").touch()
    study = study_with(tmp_path)
    assert study.spec.task.model.name == "support.misbehaving:build"
    result = study.run()
    lines = capsys.readouterr().out.splitlines()  # progress, where standard output is no terminal
    assert lines[0].startswith("driver started on ")
    assert "raises/0: ValueError: boom" in lines
    assert any(line.startswith("plain/0 finished at step 40 selection/task_loss ") for line in lines)
    assert result.state.failures == {"ValueError: boom": ["raises/0"]}
    cause = study.trial("raises/0").cause
    assert cause is not None
    assert cause.startswith("ValueError: boom")
    assert "Traceback" in cause
    assert study.trials().loc["raises/0", "cause"] == "ValueError: boom"

    assert study.resume(failed=True, progress=False).state.failures  # it fails again, and nothing else ran
    assert capsys.readouterr().out == ""
    assert study.trial("raises/0").record.attempt == 2
    (tmp_path / "flag").unlink()
    done = study.retry("raises/0", progress=False)
    assert (done.finished, done.state.failures) == (True, {})
    assert study.trial("raises/0").state == "finished"

    opened = Study.open("unruly", home=tmp_path)
    with pytest.raises(StudyError, match=r"'support.misbehaving:build', which is code; give `allow="):
        opened.model("raises/0")
    assert opened.model("raises/0", allow="support").module.how == "raises"
    assert study.model("raises/0").module.how == "raises"  # whoever made this handle named the builder

    assert study.extend(2, arm="plain", progress=False).finished
    assert list(study.trials("plain").index) == ["plain/0", "plain/1", "plain/2"]
    assert list(study.trials("raises").index) == ["raises/0"]
    assert study.extend(trials=1, progress=False).finished
    assert len(study.trials()) == 6
    assert study.run(progress=False).finished

    study.delete()
    assert repr(study) == "Study('unruly', not begun)"
    assert ol.list_studies(home=tmp_path) == []
    assert not (tmp_path / "studies" / "unruly").exists()
    with pytest.raises(StudyError, match="there is no study 'unruly'"):
        Study.open("unruly", home=tmp_path)


def test_a_running_study_is_seen_and_stopped_from_another_handle(tmp_path: Path) -> None:
    study = study_with(
        tmp_path, name="long", learner={"method": "baseline", "steps": 10**6}, arms={"plain": {"trials": 1}}
    )
    found: list[StudyResult] = []
    driver = threading.Thread(target=lambda: found.append(study.run(progress=False)))
    driver.start()
    wait_until(lambda: Path(tmp_path / "studies" / "long" / "ledger").is_dir())
    other = Study.open("long", home=tmp_path)
    wait_until(lambda: other.trials()["step"].max() >= 20)
    assert other.status == "running"
    with pytest.raises(StudyError, match="held by"):
        other.delete()
    other.stop()
    driver.join(60)
    assert not driver.is_alive()
    assert (found[0].stopped, found[0].finished) == (True, False)
    assert (other.status, study.status) == ("stopped", "stopped")
    assert other.trial("plain/0").state == "stopped"
    assert [(one.name, one.state, one.ended) for one in ol.list_studies(home=tmp_path)] == [("long", "stopped", 0)]


def test_a_study_kept_elsewhere_is_opened_by_its_storage_and_deleted_there(tmp_path: Path) -> None:
    first = study_with(tmp_path / "first", storage=str(tmp_path / "far"), arms={"plain": {"trials": 1}})
    first.run(progress=False)
    with pytest.raises(StudyError, match="there is no study"):
        Study.open("unruly", home=tmp_path / "second")
    second = Study.open("unruly", home=tmp_path / "second", storage=str(tmp_path / "far"))
    assert second.location == first.location == (tmp_path / "far" / "unruly").as_uri()
    assert second.resume(progress=False).nothing_to_do
    second.delete()
    assert not (tmp_path / "far" / "unruly").exists()
    assert ol.list_studies(home=tmp_path / "second") == []
    with pytest.raises(StudyError, match="has not begun"):
        first.trials()


def test_a_handle_of_a_deleted_study_shows_the_one_that_was_begun_in_its_place(tmp_path: Path) -> None:
    def begun(**changes: Any) -> Study:
        study = study_with(tmp_path, **changes)
        spec = study.spec
        storage = LocalStorage(tmp_path / "studies" / "unruly")
        Ledger.create(storage, spec.model_dump(mode="json", by_alias=True), spec.digest, spec.name, {})
        return study

    old = begun(arms={"plain": {"trials": 1}})
    handle = Study.open("unruly", home=tmp_path)
    assert list(handle.spec.arms) == ["plain"]
    old.delete()
    with pytest.raises(StudyError, match="there is no study"):
        handle.trials()
    begun(arms={"other": {"trials": 3}})
    assert list(handle.spec.arms) == ["other"]
    assert handle.total == 3
