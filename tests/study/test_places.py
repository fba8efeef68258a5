"""A study has one location and one store: relative paths are resolved once, a second location is refused, a moved home works."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from support.conducting import run_to_end, study

from olfl_ray.driver.locations import resolved
from olfl_ray.driver.look import storage_of
from olfl_ray.errors import SetupError, StudyError
from olfl_ray.ledger import DriverStarted, DriverStopped, Ledger, StopRequest
from olfl_ray.spec import StudySpec
from olfl_ray.storage import Storage, open_storage
from olfl_ray.study import Home, Study, StudyResult, load_loss
from olfl_ray.sweep import Conductor
from olfl_ray.tracking import check_same_place


def finished(spec: StudySpec, storage: Storage, value: float | None = 0.1) -> None:
    """A study that is done, its driver gone before MLflow heard of any trial; without a value all trials failed."""
    ledger = Ledger.create(storage, spec.model_dump(mode="json", by_alias=True), spec.digest, spec.name, {})
    ledger.append(DriverStarted(epoch=1, host="h", pid=1))
    conductor = Conductor(spec, ledger, StopRequest(storage, 1))
    if value is None:
        while (trial := conductor.next()) is not None:
            conductor.lost(str(trial.id), "ValueError: boom\nTraceback")
    else:
        run_to_end(conductor, lambda trial: value)
    ledger.append(DriverStopped(epoch=1, reason="finished"))


def run(spec: StudySpec, *, home: Home) -> StudyResult:
    return Study.from_spec(spec, home=home).run(progress=False)


def resume(name: str, *, home: Home) -> StudyResult:
    return Study.open(name, home=home).resume(progress=False)


def runs_in(home: Home) -> dict[str, str]:
    """Status of each run by trial."""
    from mlflow.tracking import MlflowClient

    found = MlflowClient(home.tracking_uri).search_runs(["1"])
    by_trial = {run.data.tags["olfl.trial"]: run.info.status for run in found}
    assert len(by_trial) == len(found)
    return by_trial


def test_a_finished_study_is_delivered_again_where_the_store_is_gone_and_in_a_moved_home_too(tmp_path: Path) -> None:
    spec, home = study(), Home.find(tmp_path / "q?x %20#ü")
    finished(spec, home.storage("s"))
    first = resume("s", home=home)
    assert (first.undelivered, first.problem, first.nothing_to_do) == (0, "", False)
    assert runs_in(home) == dict.fromkeys(["study", *first.state.trials], "FINISHED")
    assert resume("s", home=home).nothing_to_do
    shutil.move(home.path, tmp_path / "moved")
    moved = Home.find(tmp_path / "moved")
    (moved.path / "mlflow.db").unlink()
    shutil.rmtree(moved.path / "artifacts")
    assert not resume("s", home=moved).nothing_to_do
    assert len(runs_in(moved)) == len(first.state.trials) + 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["moved"]
    assert (len(list((moved.path / "artifacts").iterdir()))) == len(first.state.trials) + 1


def test_a_study_in_which_nothing_finished_is_failed_in_mlflow_and_says_so(tmp_path: Path, here: Any) -> None:
    home = Home.find(tmp_path / "home")
    finished(study(), home.storage("s"), None)
    code, out, _ = here("sweep", "resume", "s", "--home", home.path)
    assert code == 1
    assert "failed: 6 of 6 trials" in out
    assert "ValueError: boom" in out
    assert "Traceback" not in out
    assert f"olfl sweep resume s --failed --home {home.path}" in out
    assert runs_in(home) == dict.fromkeys(["study", *Study.open("s", home=home).state.trials], "FAILED")
    assert "ValueError: boom" in (home.report_folder("s") / "index.html").read_text()
    code, out, _ = here("sweep", "status", "s", "--home", home.path)
    assert (code, "failed: 6 of 6 trials" in out) == (0, True)


def test_what_does_not_reach_mlflow_is_said_with_exit_code_1_and_delivered_by_resume(tmp_path: Path, here: Any) -> None:
    home = Home.find(tmp_path / "home")
    finished(study(), home.storage("s"))
    (home.path / "mlflow.db").write_text("no database " * 100)
    code, out, _ = here("sweep", "resume", "s", "--home", home.path)
    assert code == 1
    assert "unknown whether" in out
    assert "not a database" in out
    (home.path / "mlflow.db").unlink()
    code, out, _ = here("sweep", "resume", "s", "--home", home.path)
    assert code == 0, out
    assert set(runs_in(home).values()) == {"FINISHED"}


def test_a_relative_place_is_resolved_once_and_a_second_one_is_refused_with_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home.find(tmp_path / "home")
    spec = study(storage="./s", tracking={"uri": "sqlite:///runs.db"})
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    finished(resolved(spec), storage_of(spec, home))
    run(spec, home=home)
    assert (tmp_path / "a" / "runs.db").exists()
    monkeypatch.chdir(tmp_path / "b")
    for use in (
        lambda: run(spec, home=home),
        lambda: Study.from_spec(spec, home=home).plan(),
        lambda: run(study(), home=home),
    ):
        with pytest.raises(StudyError, match=r"^storage: ") as refused:
            use()
        assert (tmp_path / "a" / "s" / "s").as_uri() in str(refused.value)
    assert "b/s/s" in str(_refusal(lambda: run(spec, home=home)))
    assert resume("s", home=home).nothing_to_do  # found by its name, and its runs too
    assert list((tmp_path / "b").iterdir()) == []
    noted = Study.open("s", home=home).spec
    assert noted.storage.url == str(tmp_path / "a" / "s")
    with pytest.raises(StudyError, match=r"^tracking.uri: ") as second:
        check_same_place(spec, noted.model_dump())
    assert f"{tmp_path}/a/runs.db" in str(second.value)
    assert f"{tmp_path}/b/runs.db" in str(second.value)
    check_same_place(study(tracking={"uri": f"sqlite:///{tmp_path}/b/runs.db"}), noted.model_dump())  # meant so
    monkeypatch.chdir(tmp_path / "a")
    assert run(spec, home=home).nothing_to_do


def _refusal(use: Any) -> StudyError:
    with pytest.raises(StudyError) as refused:
        use()
    return refused.value


def test_a_place_that_holds_the_study_no_more_may_be_replaced(tmp_path: Path) -> None:
    home = Home.find(tmp_path / "home")
    far = study(storage=str(tmp_path / "far"))
    finished(far, storage_of(far, home))
    home.point_to("s", storage_of(far, home))
    shutil.move(tmp_path / "far" / "s", tmp_path / "far" / "gone")
    finished(study(), open_storage(home.study_folder("s")))
    home.point_to("s", open_storage(home.study_folder("s")))
    assert Study.open("s", home=home).state.name == "s"


def test_a_place_inside_the_home_folder_moves_with_it(tmp_path: Path) -> None:
    home = Home.find(tmp_path / "home")
    spec = study(storage=str(home.path / "mine"))
    finished(spec, storage_of(spec, home))
    home.point_to("s", storage_of(spec, home))
    shutil.move(home.path, tmp_path / "moved")
    assert Home(tmp_path / "moved").storage("s").url == (tmp_path / "moved" / "mine" / "s").as_uri()
    assert Study.open("s", home=Home(tmp_path / "moved")).state.trials


def test_a_relative_file_of_the_environment_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs.db")
    monkeypatch.chdir(tmp_path)
    home = Home.find(tmp_path / "home")
    for use in (lambda: run(study(), home=home), lambda: load_loss("f" * 32, home=home)):
        with pytest.raises(SetupError, match=r"^MLFLOW_TRACKING_URI: .*sqlite:////"):
            use()
