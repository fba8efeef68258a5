"""An unusable tracking store is refused at once, in one line without a password; a check creates nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.services.servers import postgres, postgres_programs
from olfl_ray.errors import SetupError
from olfl_ray.tracking.mlflow import check_store, open_store

CLOSED = "127.0.0.1:9"
WRONG = {
    f"postgresql+psycopg://olfl@{CLOSED}/x": "start the server, or correct the URI",
    f"http://{CLOSED}": "start the server, or correct the URI",
    "sqlite:////dev/null/x.db": "no file can be made there",
    "mysql+nodriver://olfl@db/x": "nodriver",
    "file:///nowhere/mlruns": "name a database",
    "nonsense://x": "nonsense",
}


def check(uri: str, scratch: Path) -> None:
    check_store(uri, "olfl")


def begin(uri: str, scratch: Path) -> None:
    open_store(uri, "olfl", scratch / "artifacts")


@pytest.mark.parametrize("use", [check, begin])
@pytest.mark.parametrize("uri", WRONG)
def test_unusable_store_is_one_line_at_once(
    use: Callable[[str, Path], None], uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if use is begin:  # the message must come soon, and only once
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    began = time.monotonic()
    with pytest.raises(SetupError) as caught:
        use(uri, tmp_path)
    assert time.monotonic() - began < 20
    assert str(caught.value).startswith(f"tracking.uri: {uri} can't be reached (")
    assert WRONG[uri] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_message_names_the_environment_variable_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"postgresql+psycopg://olfl:hunter2@{CLOSED}/x"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(SetupError, match=r"^MLFLOW_TRACKING_URI: postgresql\+psycopg://olfl:\*\*\*@") as caught:
        check(uri, tmp_path)
    assert "hunter2" not in str(caught.value)


def test_check_creates_nothing_and_detects_a_file_that_is_not_a_database(tmp_path: Path) -> None:
    check(f"sqlite:///{tmp_path}/not-yet-there.db", tmp_path)
    with pytest.raises(SetupError, match="no such folder"):
        check(f"sqlite:///{tmp_path}/not/there.db", tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "notes.txt").write_text("no database " * 100)
    with pytest.raises(SetupError, match=r"file is not a database\); move that file away"):
        check(f"sqlite:///{tmp_path}/notes.txt", tmp_path)


def test_artifacts_of_a_database_are_in_the_given_folder(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/runs.db"
    client = open_store(uri, "olfl", tmp_path / "artifacts")
    check(uri, tmp_path)
    assert client.get_experiment_by_name("olfl").artifact_location == (tmp_path / "artifacts").as_uri()


@pytest.mark.skipif(postgres_programs() is None, reason="PostgreSQL is not installed")
def test_two_concurrent_processes_can_open_an_empty_database() -> None:
    opening = """import sys, pathlib
from olfl_ray.tracking.mlflow import open_store
open_store(sys.argv[1], 'olfl', pathlib.Path())"""
    with postgres() as uri:
        both = [
            subprocess.Popen([sys.executable, "-c", opening, uri], stderr=subprocess.PIPE, text=True) for _ in range(2)
        ]
        said = [process.communicate(timeout=120)[1] for process in both]
        assert [process.returncode for process in both] == [0, 0], said


def test_artifacts_in_a_private_folder_are_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    before = os.umask(0)
    try:
        begin(f"sqlite:///{tmp_path}/runs.db", tmp_path)
    finally:
        os.umask(before)
    assert (tmp_path / "artifacts").stat().st_mode & 0o777 == 0o700
