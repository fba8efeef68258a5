"""The SQLite file is created completely or not at all, even by several processes; a moved file keeps its artifacts."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from olfl_ray.errors import DataError, SetupError
from olfl_ray.tracking.mlflow import check_store, fetch_learned_loss, open_store, sqlite_uri, storage_in_runs
from olfl_ray.tracking.mlflow.sqlite_file import absolute_uri, file_of, is_usable

ODD = ["a b", "q?x=1&y#z", "50%20off", "ünï", "at@b:c", "quo'te"]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> None:
    """Files count as old, and the slow creation is replaced by a copy."""
    monkeypatch.setattr("olfl_ray.tracking.mlflow.sqlite_file.QUIET_SECONDS", 0.0)
    monkeypatch.setattr("olfl_ray.tracking.mlflow.sqlite_file._make", lambda file: shutil.copy(empty_store, file))


def half_made(file: Path, tables: tuple[str, ...] = ("experiments", "_alembic_tmp_experiments")) -> None:
    with closing(sqlite3.connect(file)) as db:
        for table in tables:
            db.execute(f"CREATE TABLE {table} (experiment_id INTEGER)")


def halves(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if "half-made" in path.name)


KILLED = """
import os, signal, sys, time
from pathlib import Path
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient
from olfl_ray.tracking.mlflow import open_store, sqlite_uri
for kilobytes in (0, 200, 500):
    folder = Path(sys.argv[1], str(kilobytes))
    folder.mkdir()
    child = os.fork()
    if not child:
        open_store(sqlite_uri(folder / "mlflow.db"), "olfl", folder)
        os._exit(0)
    while max((path.stat().st_size for path in folder.glob(".tmp-*.db")), default=-1) < 1000 * kilobytes:
        if os.waitpid(child, os.WNOHANG)[0]:
            break
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
"""
"""Kills the first start of a folder when the temporary file has reached some size: at several points of its creation."""


def test_first_start_killed_at_any_moment_leaves_a_usable_folder(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=True)
    folders = list(tmp_path.iterdir())
    killed = [folder for folder in folders if not (folder / "mlflow.db").exists()]
    assert len(killed) >= 2
    assert all(is_usable(folder / "mlflow.db") for folder in folders if folder not in killed)
    for left in killed[-1].iterdir():
        assert left.name.startswith(".tmp-")
        os.utime(left, (0, 0))
    open_store(sqlite_uri(killed[-1] / "mlflow.db"), "olfl", tmp_path)
    assert {path.name for path in killed[-1].iterdir()} == {"artifacts", "mlflow.db"}


def test_one_of_several_concurrent_processes_creates_the_store(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads of this process, and another process that finishes just before them."""
    file, link = tmp_path / "mlflow.db", os.link

    def late(source: Path, target: Path) -> None:
        shutil.copy(empty_store, target)
        with closing(sqlite3.connect(target)) as db:
            db.execute("PRAGMA user_version = 7")
        link(source, target)

    def begin(_: int) -> str:
        return str(open_store(sqlite_uri(file), "olfl", tmp_path).get_experiment_by_name("olfl").experiment_id)

    monkeypatch.setattr("olfl_ray.tracking.mlflow.sqlite_file.os.link", late)
    with ThreadPoolExecutor(2) as pool:
        assert len(set(pool.map(begin, range(2)))) == 1
    with closing(sqlite3.connect(file)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (7,)
    assert {path.name for path in tmp_path.iterdir()} == {"artifacts", "mlflow.db"}


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    "tables", [(), ("experiments",), ("experiments", "_alembic_tmp_experiments"), ("alembic_version",)]
)
def test_incomplete_file_is_renamed_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, tables: tuple[str, ...]
) -> None:
    file = tmp_path / "mlflow.db"
    half_made(file, tables)
    file.touch()
    check_store(sqlite_uri(file), "olfl")
    assert halves(tmp_path) == []  # a check renames nothing
    with caplog.at_level(logging.WARNING):
        client = open_store(sqlite_uri(file), "olfl", tmp_path)
    client.create_run(client.get_experiment_by_name("olfl").experiment_id)
    (aside,) = halves(tmp_path)
    assert [aside in record.message for record in caplog.records if "half" in record.message] == [True]


@pytest.mark.usefixtures("at_once")
def test_file_with_runs_or_of_another_program_is_never_renamed(tmp_path: Path, empty_store: Path) -> None:
    file = tmp_path / "mlflow.db"
    shutil.copy(empty_store, file)
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    with pytest.raises(SetupError, match="mlflow db upgrade"):
        open_store(sqlite_uri(file), "olfl", tmp_path)
    other = tmp_path / "other.db"
    half_made(other, ("trials",))
    for use in (check_store, lambda uri, name: open_store(uri, name, tmp_path)):
        with pytest.raises(SetupError, match="another program"):
            use(sqlite_uri(other), "olfl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mlflow.db", "other.db"]


def test_file_that_another_process_is_creating_is_waited_for(tmp_path: Path, empty_store: Path) -> None:
    file = tmp_path / "mlflow.db"
    half_made(file)
    with ThreadPoolExecutor(1) as pool:
        opened = pool.submit(open_store, sqlite_uri(file), "olfl", tmp_path)
        time.sleep(0.5)
        with closing(sqlite3.connect(empty_store)) as source, closing(sqlite3.connect(file)) as db:
            source.backup(db)
        opened.result()
    assert halves(tmp_path) == []


@pytest.mark.parametrize("name", ODD)
def test_folder_of_any_name_holds_the_complete_store(
    tmp_path: Path, empty_store: Path, name: str, held: Callable[..., Any]
) -> None:
    folder = tmp_path / "in" / name
    folder.mkdir(parents=True)
    shutil.copy(empty_store, folder / "mlflow.db")
    uri = sqlite_uri(folder / "mlflow.db")
    assert file_of(uri) == folder / "mlflow.db"
    check_store(uri, "olfl")
    client = open_store(uri, "olfl", tmp_path)
    run = client.create_run(client.get_experiment_by_name("olfl").experiment_id).info.run_id
    client.log_text(run, "x", "note.txt")
    assert [path.name for path in (tmp_path / "in").iterdir()] == [name]
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == ["mlflow.db", "note.txt"]


def test_moved_and_copied_folders_keep_their_own_artifacts(
    tmp_path: Path, home: Callable[..., Any], held: Callable[..., Any]
) -> None:
    from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

    (tmp_path / "old").mkdir()
    shutil.move(tmp_path / "mlflow.db", tmp_path / "old")
    place = home("old", uri=sqlite_uri(tmp_path / "old" / "mlflow.db"))
    place.trial("online/0")
    place.deliver(place.runs())
    for how, name in ((shutil.copytree, "copy"), (shutil.move, "moved")):
        how(tmp_path / "old", tmp_path / name)
    for name in ("copy", "moved"):
        _artifact_repos_cache.clear()  # as in a new process: MLflow caches a run's artifact location
        uri = sqlite_uri(tmp_path / name / "mlflow.db")
        client = open_store(uri, "olfl", tmp_path)
        found = held(uri)
        (run,) = (run for run in found.runs if run.data.tags["olfl.trial"] == "online/0")
        text = Path(client.download_artifacts(run.info.run_id, "config.json", str(tmp_path)))
        assert "learner" in text.read_text()
        client.log_text(run.info.run_id, "x", "new.txt")
        made = client.create_run(run.info.experiment_id)
        assert made.info.artifact_uri.startswith((tmp_path / name / "artifacts").as_uri())
        assert len(list((tmp_path / name).rglob("new.txt"))) == 1
    assert not (tmp_path / "old").exists()


def test_reading_creates_no_store(tmp_path: Path) -> None:
    uri = sqlite_uri(tmp_path / "mlflow.db")
    with pytest.raises(DataError, match="no tracking store"):
        fetch_learned_loss(uri, "f" * 32)
    assert storage_in_runs(uri, "s") == []
    assert list(tmp_path.iterdir()) == []


def test_deleted_experiment_is_named(store: str, tmp_path: Path) -> None:
    client = open_store(store, "olfl", tmp_path)
    client.delete_experiment(client.get_experiment_by_name("olfl").experiment_id)
    with pytest.raises(SetupError, match=r"deleted.*mlflow experiments restore"):
        open_store(store, "olfl", tmp_path)


def test_relative_path_is_made_absolute_and_other_uris_are_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_uri("sqlite:///runs.db") == f"sqlite:///{tmp_path}/runs.db"
    for uri in (
        "sqlite://",
        "http://127.0.0.1:5000",
        "nonsense",
        "postgresql+psycopg://a:b@c/d",
        f"sqlite:///{tmp_path}/x.db",
    ):
        assert absolute_uri(uri) == uri


def test_experiment_and_its_tag_are_created_atomically(tmp_path: Path, empty_store: Path) -> None:
    from mlflow.tracking import MlflowClient

    file = tmp_path / "one" / "mlflow.db"
    file.parent.mkdir()
    shutil.copy(empty_store, file)
    with closing(sqlite3.connect(file)) as db, db:  # as if killed between the two
        db.execute("CREATE TRIGGER loss BEFORE INSERT ON experiment_tags BEGIN SELECT RAISE(ABORT, 'killed'); END")
    with pytest.raises(SetupError, match="killed"):
        open_store(sqlite_uri(file), "other", tmp_path)
    assert MlflowClient(sqlite_uri(file)).get_experiment_by_name("other") is None
