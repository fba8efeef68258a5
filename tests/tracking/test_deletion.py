"""Deleting a study deletes its runs, in each store that it was tracked in, and nobody else's."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.commands import in_process

from olfl_ray.errors import SetupError, StudyError
from olfl_ray.ledger import Revised
from olfl_ray.storage import Lease
from olfl_ray.study import Study


def tracked(home: Callable[..., Any], folder: str, uri: str) -> Any:
    """A study with one trial, and its two runs in a store."""
    made = home(f"{folder}/studies", uri, tracking=[{"name": "mlflow", "uri": uri}])
    made.trial("online/0")
    runs = made.runs()
    made.deliver(runs)
    runs.close({}, status="FINISHED")
    return made


def test_only_its_own_runs_are_deleted_in_every_store(
    home: Callable[..., Any], held: Callable[..., Any], store: str, tmp_path: Path
) -> None:
    first, second = tracked(home, "a", store), tracked(home, "b", store)
    elsewhere = f"sqlite:///{tmp_path}/other.db"
    spec = first.state.spec
    first.ledger.append(Revised(spec={**spec, "tracking": [{"name": "mlflow", "uri": elsewhere}]}))
    first.uri = elsewhere
    runs = first.runs()
    first.deliver(runs)
    assert len(held(elsewhere).of(first)) == 2
    assert Study.open("s", home=tmp_path / "a").delete() == 4
    assert (len(held().of(first)), len(held().of(second)), len(held(elsewhere).of(first))) == (0, 2, 0)
    assert len(held().deleted) == 2  # MLflow can restore them
    assert not (tmp_path / "a" / "studies" / "s").exists()
    assert Study.open("s", home=tmp_path / "b").delete(keep_runs=True) == 0
    assert len(held().of(second)) == 2


def test_a_driven_study_keeps_its_runs(
    home: Callable[..., Any], held: Callable[..., Any], store: str, tmp_path: Path
) -> None:
    made = tracked(home, "a", store)
    with Lease.acquire(made.storage, "a driver"), pytest.raises(StudyError, match="a driver"):
        Study.open("s", home=tmp_path / "a").delete()
    assert len(held().of(made)) == 2


def test_a_copys_runs_are_those_of_the_original(
    home: Callable[..., Any], held: Callable[..., Any], store: str, tmp_path: Path
) -> None:
    made = tracked(home, "a", store)
    subprocess.run(["cp", "-r", tmp_path / "a", tmp_path / "b"], check=True)
    with pytest.raises(StudyError, match=r"is a copy.*`keep_runs=True`"):
        Study.open("s", home=tmp_path / "b").delete()
    assert len(held().of(made)) == 2
    assert Study.open("s", home=tmp_path / "b").delete(keep_runs=True) == 0
    assert len(held().of(made)) == 2
    (tmp_path / "a").rename(tmp_path / "c")  # moved, not copied: the runs still name the old location
    assert Study.open("s", home=tmp_path / "c").delete() == 2
    assert len(held().of(made)) == 0


def test_an_unreachable_store_keeps_the_study(home: Callable[..., Any], store: str, tmp_path: Path) -> None:
    made = tracked(home, "a", store)
    spec = made.state.spec
    made.ledger.append(Revised(spec={**spec, "tracking": [{"name": "mlflow", "uri": "http://127.0.0.1:9"}]}))
    study = Study.open("s", home=tmp_path / "a")
    with pytest.raises(SetupError, match=r"127\.0\.0\.1:9.*`keep_runs=True`"):
        study.delete()
    assert study.begun
    study.delete(keep_runs=True)
    assert not (tmp_path / "a" / "studies" / "s").exists()


def test_the_command_asks(
    home: Callable[..., Any],
    store: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    tracked(home, "a", store)
    olfl = in_process(monkeypatch, capfd, tmp_path)
    code, out, err = olfl("sweep", "delete", "s", "--home", tmp_path / "a")
    assert (code, out) == (2, "")
    assert "--yes" in err
    code, out, err = olfl("sweep", "delete", "s", "--home", tmp_path / "a", "--yes", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["study"], found["runs"]) == ("s", 2)
    assert set(found) == {"study", "location", "runs"}
