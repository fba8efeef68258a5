"""The tracking store: checked and opened before a study's first trial, and opened again for delivery."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from olfl_ray.errors import SetupError
from olfl_ray.spec import without_secrets
from olfl_ray.storage import make_folder
from olfl_ray.tracking.mlflow.sqlite_file import (
    ARTIFACTS_TAG,
    FOLDER,
    absolute_uri,
    artifacts_of,
    file_of,
    is_usable,
    prepare,
    sqlite_uri,
)

__all__ = [
    "FROM_ENVIRONMENT",
    "artifacts_in",
    "asking",
    "check_store",
    "embedded_uri",
    "is_absent",
    "make_store",
    "open_store",
    "store_uri",
]

KIND_TAG, KIND = "mlflow.experimentKind", "custom_model_development"
"""Says that an experiment holds model training. (The page of MLflow 3.17 does not follow it: `olfl ui` names the view.)"""
FROM_ENVIRONMENT = "MLFLOW_TRACKING_URI"
"""Environment variable with the tracking URI, used if the spec has none."""
_SQL = ("postgresql", "mysql", "mssql", "sqlite")
_TURN = 0x6F6C666C
"""Key of the advisory lock under which the tables of a PostgreSQL database are created."""
_MOVES = {  # by text in the response; the first match counts
    "Invalid Host header": "start that server with this host's name: `mlflow server --allowed-hosts HOST:PORT,...`",
    "error code 401": "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
    "error code 403": "ask for permission there, or set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD again",
    "password": "set PGPASSWORD, or name a password file by PGPASSFILE",
    "No module named": "install that driver (PostgreSQL: pip install 'olfl_ray[postgres]', postgresql+psycopg://...)",
    "filesystem tracking backend": "name a database, such as sqlite:////FOLDER/mlflow.db, or a server",
    "no such folder": "make that folder, or name another file",
    "no file can be made": "grant yourself access, or name another file",
    "out-of-date database schema": "upgrade it with `mlflow db upgrade`, or name another file",
    "is deleted": "restore it there (`mlflow experiments restore`), or name another by tracking.experiment",
    "another program": "name another file",
    "disk is full": "free space there",
    "No space left": "free space there",
    "not a database": "move that file away, or name another",
}


def embedded_uri(home: Path) -> str:
    """The tracking store in a home folder."""
    return sqlite_uri(home / "mlflow.db")


def artifacts_in(home: Path) -> Path:
    """Artifact folder of a tracking store without a server."""
    return home / "artifacts"


def store_uri(given: str | None, home: Path) -> str:
    """The tracking store: the spec's, else the environment's, else the one in the home folder.

    Raises:
        SetupError: The environment names a file by a relative path, which depends on the current folder.
    """
    named = os.environ.get(FROM_ENVIRONMENT)
    if given is None and named and (absolute := absolute_uri(named)) != named:
        raise SetupError(f"{FROM_ENVIRONMENT}: {named!r} depends on the current folder; use {absolute} for this one")
    return given or named or embedded_uri(home)


def check_store(uri: str, experiment: str) -> None:
    """Check that a tracking store responds; nothing is created.

    Args:
        uri: MLflow tracking URI.
        experiment: Name of the experiment, which need not exist yet.

    Raises:
        SetupError: It does not respond.
    """
    with _explained(uri):
        if _is_database(uri):
            _check_database(uri)
        else:
            _client(uri).get_experiment_by_name(experiment)


def open_store(uri: str, experiment: str, artifacts: Path) -> Any:
    """The MLflow client of a tracking store; the experiment is created if it does not exist.

    Args:
        uri: MLflow tracking URI.
        experiment: Name of the experiment.
        artifacts: Artifact folder for a database without a server; for an SQLite file it is next to the file.

    Raises:
        SetupError: The store does not respond, or the experiment is deleted there.
    """
    with _explained(uri):
        client = _opened(uri)
        file = file_of(uri)
        if file is not None:
            make_folder(file.parent / FOLDER)  # MLflow would create it with permissions by the umask alone
        location = (
            artifacts_of(file) if file is not None else artifacts.resolve().as_uri() if _is_database(uri) else None
        )
        found = client.get_experiment_by_name(experiment)
        if found is None:
            try:
                # Set the tag in the same transaction: a file moved in between would lose its artifacts.
                tags = {KIND_TAG: KIND} | ({ARTIFACTS_TAG: FOLDER} if file is not None else {})
                client.create_experiment(experiment, location, tags)
            except Exception:
                if client.get_experiment_by_name(experiment) is None:  # else another process created it just now
                    raise
            found = client.get_experiment_by_name(experiment)
        if found.lifecycle_stage == "deleted":
            raise ValueError(f"the experiment {experiment!r} is deleted")
        if file is not None and found.artifact_location == location and ARTIFACTS_TAG not in found.tags:
            client.set_experiment_tag(found.experiment_id, ARTIFACTS_TAG, FOLDER)
        if KIND_TAG not in found.tags:
            client.set_experiment_tag(found.experiment_id, KIND_TAG, KIND)
        return client


def make_store(uri: str) -> None:
    """Create a tracking store that is an SQLite file, if it does not exist.

    Raises:
        SetupError: It can't be created, or does not respond.
    """
    with asking(uri):
        pass


def is_absent(uri: str) -> bool:
    """Whether the tracking store is an SQLite file that does not exist yet.

    Raises:
        SetupError: The file is not a database.
    """
    with _explained(uri):
        file = file_of(uri)
        return file is not None and not is_usable(file)


def _is_database(uri: str) -> bool:
    return urlsplit(uri).scheme.partition("+")[0] in _SQL


def _check_database(uri: str) -> None:
    """Connect once, and query a table; a missing file is not created."""
    from mlflow.store.db.utils import create_sqlalchemy_engine

    file = file_of(uri)
    if file is not None:
        if not is_usable(file) and not file.parent.is_dir():
            raise FileNotFoundError(f"{file.parent}: no file can be made there, as there is no such folder")
        if not os.access(file.parent, os.W_OK | os.X_OK):  # SQLite creates its journal there
            raise PermissionError(f"{file.parent}: no file can be made there")
        return
    os.environ.setdefault("PGCONNECT_TIMEOUT", "10")
    engine = create_sqlalchemy_engine(uri)  # type: ignore[no-untyped-call]
    try:
        with engine.connect() as connection:
            engine.dialect.has_table(connection, "experiments")
    finally:
        engine.dispose()


def _opened(uri: str) -> Any:
    """The client of a store that responds; a missing SQLite file is created."""
    if _is_database(uri):
        _check_database(uri)  # MLflow would retry for a minute and a half
    file = file_of(uri)
    if file is not None:
        prepare(file)
    with _turn(uri):
        return _client(uri)


@contextmanager
def _turn(uri: str) -> Iterator[None]:
    """Lock an empty PostgreSQL database: of two concurrent processes one creates MLflow's tables while the other waits."""
    from mlflow.store.db.utils import create_sqlalchemy_engine
    from sqlalchemy import text

    if not uri.startswith("postgresql"):
        yield
        return
    engine = create_sqlalchemy_engine(uri)  # type: ignore[no-untyped-call]
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _TURN})
            yield
    finally:
        engine.dispose()


def _client(uri: str) -> Any:
    from mlflow.tracking import MlflowClient

    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault(
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true"
    )  # it would query and print it at each run's end
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # the sink reports errors
    return MlflowClient(tracking_uri=uri)


@contextmanager
def asking(uri: str) -> Iterator[Any]:
    """The MLflow client of a tracking store, for reading only.

    Raises:
        SetupError: The store does not respond.
    """
    with _explained(uri):
        yield _opened(uri)


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Turn an error of the store into one line with the next move, without a password."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        said = without_secrets(str(error)).strip() or type(error).__name__
        reason = said.splitlines()[0][:200]
        move = next((move for words, move in _MOVES.items() if words in reason), "start the server, or correct the URI")
        field = FROM_ENVIRONMENT if os.environ.get(FROM_ENVIRONMENT) == uri else "tracking.uri"
        raise SetupError(without_secrets(f"{field}: {uri} can't be reached ({reason}); {move}")) from None
