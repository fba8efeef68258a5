"""Errors of the system and of libraries, raised by the library itself: one sentence with a next move; bugs stay bugs."""

from __future__ import annotations

import errno
import gzip
import os
import sqlite3
import ssl
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import obstore
import optuna
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.exceptions
import requests
import sqlalchemy
import torch

from olfl_ray.cli.mendable import SYSTEM, mendable
from olfl_ray.errors import LedgerError, SetupError
from olfl_ray.sweep.tuner import _explained


def _fill(path: Path) -> None:
    with Path("/dev/full").open("w") as file:
        file.write("x")


def _too_many_files(path: Path) -> None:
    held = []
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 4, before[1]))
    try:
        while True:
            held.append(path.open("a"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for file in held:
            file.close()


def _full_database(path: Path) -> None:
    engine = sqlalchemy.create_engine(f"sqlite:///{path}.db")
    try:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("PRAGMA max_page_count = 2"))
            connection.execute(sqlalchemy.text("CREATE TABLE a (b)"))
            connection.execute(sqlalchemy.text("INSERT INTO a VALUES (zeroblob(1000000))"))
    finally:
        engine.dispose()


def _sqlite(path: Path, statement: str, uri: str = "", content: bytes = b"") -> None:
    path.write_bytes(content)
    connection = sqlite3.connect(uri or str(path), uri=bool(uri))
    try:
        connection.execute(statement)
    finally:
        connection.close()


def _raise(error: BaseException) -> Callable[[Path], None]:
    def do(path: Path) -> None:
        raise error

    return do


def _from_another(path: Path) -> None:
    try:
        _fill(path)
    except OSError as error:
        raise RuntimeError("the checkpoint was not written") from error


def _garbage(read: Callable[[Path], Any]) -> Callable[[Path], None]:
    def do(path: Path) -> None:
        path.write_bytes(b"garbage" * 100)
        read(path)

    return do


def _zip(path: Path) -> None:
    zipfile.ZipFile(path).close()


def _gzip(path: Path) -> None:
    with gzip.open(path) as file:
        file.read()


def _mlflow(path: Path) -> None:
    mlflow.MlflowClient("http://127.0.0.1:9").get_run("0" * 32)


MENDABLE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a full disk": (_fill, "free disk space"),
    "a full disk, below another error": (_from_another, "free disk space"),
    "too many open files": (_too_many_files, "ulimit -n"),
    "a name that is too long": (lambda path: path.with_name("x" * 300).touch(), "shorter"),
    "a link to itself": (lambda path: (path.symlink_to(path), path.read_text()), "links"),
    "a port that is taken": (_raise(OSError(errno.EADDRINUSE, "Address already in use")), "another port"),
    "a full database": (_full_database, "free disk space"),
    "a database that is only read": (
        lambda path: _sqlite(path, "CREATE TABLE a (b)", f"file:{path}?mode=ro"),
        "grant yourself access",
    ),
    "a database in no folder": (
        lambda path: sqlite3.connect(path / "no" / "folder").execute("SELECT 1"),
        "grant yourself access",
    ),
    "what is no database": (
        lambda path: _sqlite(path, "CREATE TABLE a (b)", content=b"garbage" * 1000),
        "move that file away",
    ),
    "MLflow's server": (_mlflow, "tracking store"),
    "a lost actor": (_raise(ray.exceptions.ActorDiedError()), "cluster"),
    "a full object store": (_raise(ray.exceptions.ObjectStoreFullError("full")), "cluster"),
    "an object store": (_raise(obstore.exceptions.GenericError("no answer")), "object store"),
    "a corrupt Parquet file": (_garbage(pq.read_table), "corrupt"),
    "a corrupt Arrow file": (_garbage(lambda path: pa.ipc.open_file(path.read_bytes())), "corrupt"),
    "a corrupt archive": (_garbage(_zip), "corrupt"),
    "a corrupt gzip file": (_garbage(_gzip), "corrupt"),
    "corrupt zlib data": (lambda path: zlib.decompress(b"garbage"), "corrupt"),
    "torch's memory": (lambda path: torch.empty(2**50, dtype=torch.float64), "batch_size"),
    "a device's memory": (_raise(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")), "batch_size"),
    "numpy's memory": (lambda path: np.ones(2**50), "batch_size"),
    "pyarrow's memory": (lambda path: pa.allocate_buffer(2**55), "batch_size"),
    "threads": (_raise(RuntimeError("can't start new thread")), "ulimit -u"),
    "requests": (lambda path: requests.get("http://127.0.0.1:9", timeout=5), "server"),
    "urllib": (lambda path: urllib.request.urlopen("http://127.0.0.1:9", timeout=5), "server"),
    "a certificate": (_raise(ssl.SSLError("certificate verify failed")), "certificate"),
    "an encoding": (lambda path: "é".encode("ascii"), "LC_ALL"),
    "a package that is not there": (lambda path: __import__("no_such_package_here"), "install"),
}


@pytest.mark.parametrize("kind", MENDABLE)
@pytest.mark.filterwarnings("ignore")
def test_errors_that_users_can_fix_are_one_sentence_with_a_next_move(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    cause, move = MENDABLE[kind]
    with pytest.raises(Exception) as caught:  # noqa: PT011  (of any library)
        cause(tmp_path / "file")
    said = mendable(caught.value)
    assert said is not None
    assert move in said.rpartition(";")[2]
    assert "\n" not in said


@pytest.mark.parametrize("number", SYSTEM)
def test_system_errors_name_the_file(number: int) -> None:
    said = mendable(OSError(number, os.strerror(number), "/a/file"))
    assert said == f"/a/file: {os.strerror(number)}; {SYSTEM[number]}"


@pytest.mark.parametrize(
    "error",
    [
        KeyError("a"),
        AssertionError(),
        ZeroDivisionError("division by zero"),
        LedgerError("an event that can't be"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("a"),
        ModuleNotFoundError("No module named 'olfl_ray.nowhere'", name="olfl_ray.nowhere"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "a file of the package"),
        optuna.exceptions.OptunaError("told twice"),
    ],
)
def test_a_bug_stays_a_bug(error: Exception) -> None:
    assert mendable(error) is None


def test_command_reports_them_with_exit_code_2_and_without_secrets(olfl, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise requests.exceptions.ConnectionError("no answer from http://me:hunter2@127.0.0.1:9/")

    monkeypatch.setattr("olfl_ray.study.describe_data", fail)
    code, out, err = olfl("data", "list")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "no answer from http://***@" in err
    assert "bug" not in err


def test_lost_ray_is_distinguished_from_a_bug() -> None:
    try:
        try:
            raise ray.exceptions.RaySystemError("the raylet is gone\nwith a trace")
        except ray.exceptions.RaySystemError as error:
            raise RuntimeError("Tune's own words") from error
    except RuntimeError as error:
        said = _explained(error)
    assert isinstance(said, SetupError)
    assert "resume" in str(said)
    assert "with a trace" not in str(said)
    bug = KeyError("a")
    assert _explained(bug) is bug
