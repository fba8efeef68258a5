"""An SQLite file as a tracking store: created completely or not at all, with its artifacts next to it wherever it is moved."""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import sqlite3
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

__all__ = ["ARTIFACTS_TAG", "FOLDER", "absolute_uri", "artifacts_of", "file_of", "is_usable", "prepare", "sqlite_uri"]

ARTIFACTS_TAG, FOLDER = "olfl.artifacts", "artifacts"
"""This tag marks an experiment whose artifacts are in the folder of this name next to the file."""
QUIET_SECONDS = 5.0
"""A file with an incomplete schema that has not changed for this many seconds is no longer being created."""
LEFT_SECONDS = 3600.0
"""Age in seconds after which a temporary file belongs to a killed process."""
_MAKING = threading.Lock()
"""Alembic's environment is global to the process."""
_SIDES = ("", "-journal", "-wal", "-shm")
_log = logging.getLogger(__name__)


def sqlite_uri(file: Path) -> str:
    """The tracking URI of a file, whatever characters its path has.

    It names the SQLite driver explicitly: for a plain `sqlite:///...` MLflow takes the quoted path for a folder, and creates it.
    """
    from sqlalchemy import URL

    return URL.create("sqlite+pysqlite", database=str(file)).render_as_string(hide_password=False)


def file_of(uri: str) -> Path | None:
    """The file that a tracking URI names, as MLflow interprets it; None if it names none."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(uri)
    except ArgumentError:
        return None
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:") or url.database.startswith("file:"):
        return None
    return Path(url.database).absolute()


def absolute_uri(uri: str) -> str:
    """The same URI; for an SQLite file with an absolute path."""
    from sqlalchemy.engine import make_url

    file = file_of(uri)
    if file is None or make_url(uri).database == str(file):
        return uri
    return make_url(uri).set(database=str(file)).render_as_string(hide_password=False)


def artifacts_of(file: Path) -> str:
    """The artifact location of an experiment: a folder next to the file."""
    return (file.parent / FOLDER).resolve().as_uri()


def is_usable(file: Path) -> bool:
    """Whether the file exists, and MLflow may open it as it is.

    Raises:
        sqlite3.DatabaseError: It is not a database, or one of another program.
    """
    try:
        return not _is_incomplete(file)
    except (FileNotFoundError, NotADirectoryError):
        return False


def prepare(file: Path) -> None:
    """Create the file if it does not exist, and set its experiments' artifact location to the folder next to it.

    Raises:
        OSError: No file can be created there.
        sqlite3.Error: It is not a database of MLflow, or can't be written.
    """
    with _MAKING:
        while not is_usable(file):
            if file.exists():
                _rename_incomplete(file)
            else:
                _make(file)
        _follow(file)


def _is_incomplete(file: Path) -> bool:
    """Whether the file lacks a part of MLflow's schema, and holds no data."""
    file.stat()  # raises if it does not exist, which SQLite reports for other reasons too
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True, timeout=20)) as db:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}

        def rows(query: str, table: str) -> list[str]:
            return [str(value) for (value,) in db.execute(query)] if table in tables else []

        if "experiments" not in tables:
            if tables - {"alembic_version"}:
                raise sqlite3.DatabaseError("it is a database, but of another program than MLflow")
            return True
        if rows("SELECT run_uuid FROM runs LIMIT 1", "runs"):
            return False
        if rows("SELECT experiment_id FROM experiments WHERE experiment_id <> 0 LIMIT 1", "experiments"):
            return False
        return rows("SELECT version_num FROM alembic_version", "alembic_version") != [_newest_schema()]


def _newest_schema() -> str:
    import mlflow
    from alembic.script import ScriptDirectory

    folder = Path(mlflow.__file__).parent / "store" / "db_migrations"
    return str(ScriptDirectory(str(folder)).get_current_head())


def _make(file: Path) -> None:
    """Let MLflow create its schema in a temporary file, and link that to the name: of two concurrent calls one wins."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # it would print each step
    if not file.parent.is_dir():
        raise FileNotFoundError(f"{file.parent}: no file can be made there, as there is no such folder")
    for left in file.parent.glob(f".tmp-*-{file.name}"):  # of killed processes
        if time.time() - left.stat().st_mtime > LEFT_SECONDS:
            left.unlink(missing_ok=True)
    temporary = file.with_name(f".tmp-{secrets.token_hex(4)}-{file.name}")
    try:
        store = SqlAlchemyStore(sqlite_uri(temporary), artifacts_of(file))  # type: ignore[no-untyped-call]
        store.engine.dispose()
        SqlAlchemyStore._engine_map.pop(sqlite_uri(temporary), None)
        with suppress(FileExistsError):
            os.link(temporary, file)
    finally:
        for side in _SIDES:
            temporary.with_name(temporary.name + side).unlink(missing_ok=True)


def _rename_incomplete(file: Path) -> None:
    """Rename an incomplete file; wait if somebody is still creating it."""
    with file.open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # of two processes that found it incomplete, one renames it
        try:
            while _is_incomplete(file) and os.path.samestat(os.fstat(held.fileno()), file.stat()):
                if time.time() - file.stat().st_mtime > QUIET_SECONDS:
                    renamed = file.with_name(f"{file.name}.half-made-{time.strftime('%Y%m%d-%H%M%S')}")
                    for side in _SIDES:
                        if (other := file.with_name(file.name + side)).exists():
                            other.rename(renamed.with_name(renamed.name + side))
                    _log.warning(
                        "%s: MLflow's database was incomplete and held no runs; it was renamed to %s", file, renamed
                    )
                    return
                time.sleep(0.1)
        except FileNotFoundError:
            return  # another process renamed it


def _follow(file: Path) -> None:
    """Set the artifact location of our experiments and runs to the folder next to the file, which may have been moved."""
    here = artifacts_of(file)
    with closing(sqlite3.connect(file, timeout=20)) as db, db:
        moved = db.execute(
            "SELECT experiment_id, artifact_location FROM experiments JOIN experiment_tags USING (experiment_id)"
            " WHERE key = ? AND artifact_location <> ?",
            (ARTIFACTS_TAG, here),
        ).fetchall()
        for experiment, before in moved:
            db.execute(
                "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?)"
                " WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
                (here, len(before) + 1, experiment, len(before) + 1, f"{before}/"),
            )
            db.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (here, experiment))
