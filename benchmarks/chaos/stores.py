"""The stores of a disturbed study's runs: the home's own, or one that several homes share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sqlalchemy.engine import make_url

from benchmarks.services.servers import postgres
from olfl_ray.study import Home

__all__ = ["Store", "StoreKind", "Stores", "own_store", "shared_stores"]

StoreKind = Literal["own", "sqlite", "postgresql"]


@dataclass(frozen=True, kw_only=True)
class Store:
    """A tracking store.

    Args:
        uri: Its tracking URI.
        shared: Whether it is not the home's own.
        begun: Whether its creation has started.
        turn: Held while a study is disturbed there, so that all other runs must not change.
    """

    uri: str
    shared: bool
    begun: Callable[[], bool]
    turn: threading.Lock = field(default_factory=threading.Lock)


def own_store(home: Path) -> Store:
    """The store in a home folder."""

    def begun() -> bool:
        return any("mlflow" in entry.name for entry in home.glob("*")) if home.exists() else False

    return Store(uri=Home(home).tracking_uri, shared=False, begun=begun)


class Stores:
    """Shared stores, each created when it is first needed.

    Args:
        folder: Folder of the SQLite files.
        server: URI of a PostgreSQL server's database; None if none is running.
    """

    def __init__(self, folder: Path, server: str | None) -> None:
        self._folder, self._server = folder, server
        self._made = 0
        self._turn = threading.Lock()

    def make(self, kind: StoreKind) -> Store:
        """A new, empty shared store."""
        with self._turn:
            self._made += 1
            name = f"store{self._made}"
        if kind == "sqlite":
            file = self._folder / name / "mlflow.db"
            file.parent.mkdir(parents=True)
            return Store(uri=f"sqlite:///{file}", shared=True, begun=lambda: any(file.parent.iterdir()))
        assert self._server is not None
        root = self._server
        _ask(root, f"CREATE DATABASE {name}")
        used = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'"
        uri = make_url(root).set(database=name).render_as_string(hide_password=False)
        return Store(uri=uri, shared=True, begun=lambda: bool(_ask(root, used)))


@contextmanager
def shared_stores(folder: Path, *, server: bool) -> Iterator[Stores]:
    """Shared stores; with `server`, also on a PostgreSQL server that runs until the end."""
    if not server:
        yield Stores(folder, None)
        return
    with postgres() as uri:
        yield Stores(folder, uri)


def _ask(uri: str, query: str) -> int:
    """The number that a query returns; 0 if it returns nothing."""
    import psycopg

    with psycopg.connect(uri.replace("+psycopg", ""), autocommit=True) as connection:
        cursor = connection.execute(query)
        row = cursor.fetchone() if cursor.description else None
    return int(row[0]) if row else 0
