"""A data set is built once: by one process of a machine, by one machine of a cluster, by one call in a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from olfl_ray import data
from olfl_ray.data.prepared import file_name
from olfl_ray.errors import SetupError
from olfl_ray.storage import LocalStorage

calls = 0


def counted(rows: int = 30) -> tuple[list[list[float]], list[int]]:
    """A user's data set that counts its calls."""
    global calls
    calls += 1
    return [[float(row), 1.0] for row in range(rows)], [row % 2 for row in range(rows)]


@pytest.fixture
def shared(prepared: Path, tmp_path: Path) -> LocalStorage:
    """A storage with the digits data set."""
    storage = LocalStorage(tmp_path / "shared")
    data.share("digits", cache=prepared, root=None, storage=storage)
    return storage


def test_a_builder_is_called_once_for_each_choice_of_options(prepared: Path) -> None:
    global calls
    calls = 0
    name = f"{__name__}:counted"
    first = data.load(name, {}, cache=prepared, root=None)
    assert data.load(name, {}, cache=prepared, root=None) is first
    assert len(data.load(name, {"rows": 40}, cache=prepared, root=None).y) == 40
    assert calls == 2
    data.forget()
    assert data.load(name, {}, cache=prepared, root=None) is not first
    assert calls == 3


def test_prepared_file_is_checked_once_and_again_after_a_change(shared: LocalStorage) -> None:
    first = data.load("digits", {}, cache=shared.root, root=None)
    assert data.load("digits", {}, cache=shared.root, root=None) is first
    (shared.root / file_name("digits")).unlink()
    assert data.load("digits", {}, cache=shared.root, root=None) is not first


def test_driver_uploads_a_data_set_once(shared: LocalStorage, prepared: Path) -> None:
    (key,) = shared.keys()
    before = (shared.root / key).stat().st_mtime_ns
    data.share("digits", cache=prepared, root=None, storage=shared)
    assert (shared.root / key).stat().st_mtime_ns == before


def test_drivers_own_folder_is_used_if_it_has_the_data(
    shared: LocalStorage, prepared: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert data.node_cache("digits", prepared, shared) == prepared
    assert data.node_cache("digits", tmp_path / "elsewhere", shared) == tmp_path / "user" / "olfl"
    monkeypatch.setenv("OLFL_CACHE", str(tmp_path / "own"))
    assert data.node_cache("digits", prepared, shared) == tmp_path / "own"
    for folder in (tmp_path / "user" / "olfl", tmp_path / "own"):
        assert (folder / file_name("digits")).read_bytes() == (prepared / file_name("digits")).read_bytes()
    assert data.node_cache(f"{__name__}:counted", prepared, shared) == prepared


FETCH = """
import sys
from pathlib import Path
from olfl_ray import data
from olfl_ray.storage import LocalStorage
class Counting(LocalStorage):
    def read(self, key):
        with open(sys.argv[2], "a") as log:
            log.write("read\\n")
        return super().read(key)
data.node_cache("digits", Path("/nowhere"), Counting(sys.argv[1]))
"""


def test_one_of_many_processes_fetches(shared: LocalStorage, tmp_path: Path) -> None:
    command = [sys.executable, "-c", FETCH, str(shared.root), str(tmp_path / "log")]
    own = {**os.environ, "OLFL_CACHE": str(tmp_path / "own")}
    processes = [subprocess.Popen(command, env=own) for _ in range(3)]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "read\n"


def test_missing_data_set_and_unwritable_cache_are_one_sentence(
    tmp_path: Path, shared: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLFL_CACHE", str(tmp_path / "own"))
    with pytest.raises(SetupError, match="start the study again"):
        data.node_cache("digits", tmp_path, LocalStorage(tmp_path / "empty"))
    monkeypatch.setenv("OLFL_CACHE", "/proc/olfl")
    with pytest.raises(SetupError, match=r"^/proc/olfl: can't be written .* by OLFL_CACHE on that node"):
        data.node_cache("digits", tmp_path, shared)
