"""What is specific to a disk: killed writers, refusals, and paths."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from olfl_ray.errors import SetupError
from olfl_ray.storage import LocalStorage, fresh_folder, open_storage, writable_folder

WRITER = """
import sys
from olfl_ray.storage import open_storage
storage = open_storage(sys.argv[1])
print("ready", flush=True)
for turn in range(10**9):
    storage.write("object", b"ab"[turn % 2 : turn % 2 + 1] * 1_000_000)
    storage.create(f"created/{turn}", b"c" * 100_000)
"""

LIMITED = """
import resource, sys
from olfl_ray.errors import SetupError
from olfl_ray.storage import open_storage
storage = open_storage(sys.argv[1])
storage.write("a", b"old")
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for put in (storage.write, storage.create):
    try:
        put("a" if put == storage.write else "b", b"x" * 100_000)
    except SetupError as error:
        print(error, flush=True)
"""

UNPRIVILEGED = """
import os, sys
from olfl_ray.errors import SetupError
from olfl_ray.storage import open_storage
if os.geteuid() == 0:
    os.setuid(65534)
storage = open_storage(sys.argv[1])
calls = [lambda: storage.write("a", b"1"), lambda: storage.create("b", b"1"), lambda: storage.read("a")]
for call in [*calls, storage.keys]:
    try:
        call()
    except SetupError as error:
        print(error, flush=True)
"""


def test_killed_writer_leaves_only_complete_objects(spawn, tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    for delay in (0.0, 0.011, 0.023, 0.037, 0.053):
        child = spawn(WRITER, str(tmp_path))
        assert child.stdout.readline() == "ready\n"
        time.sleep(delay)
        child.kill()
        child.wait()
        keys = storage.keys()
        for key in keys:
            data = storage.read(key)
            assert (len(data), len(set(data))) == (1_000_000 if key == "object" else 100_000, 1)


def test_no_temporary_files_are_left(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    storage.write("a", b"1")
    storage.create("a", b"2")
    storage.create("b", b"3")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_temporary_file_of_a_killed_writer_is_not_listed(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    storage.write("a/b", b"1")
    (tmp_path / "a" / ".tmp-123-abc").write_bytes(b"truncated")
    assert storage.keys() == ["a/b"]


def test_write_without_space_is_refused_and_keeps_the_old_object(spawn, tmp_path: Path) -> None:
    lines = spawn(LIMITED, str(tmp_path)).communicate()[0].splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"{tmp_path}/a: cannot write it")
    assert lines[1].startswith(f"{tmp_path}/b: cannot create it")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_location_without_permission_is_named(spawn, tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "closed")
    storage.write("a", b"1")
    storage.root.chmod(0)
    try:
        lines = spawn(UNPRIVILEGED, str(storage.root)).communicate()[0].splitlines()
    finally:
        storage.root.chmod(0o700)
    assert len(lines) == 4
    for line in lines:
        assert line.startswith(str(storage.root))
        assert "Permission denied" in line
        assert "grant yourself access" in line


def test_file_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(SetupError, match=r"home.*where a folder is needed"):
        open_storage(tmp_path / "home").write("a", b"1")


def test_relative_path_and_home_are_resolved_at_construction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert open_storage("studies/x").url == (tmp_path / "studies/x").as_uri()
    assert open_storage("~/x").url == (tmp_path / "home/x").as_uri()


def test_opening_creates_nothing(tmp_path: Path) -> None:
    open_storage(tmp_path / "new").keys()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("url", ["http://x/y", "hdfs://bucket/olfl", "", "  ", "file://host/x", "file://"])
def test_url_that_is_not_a_folder_is_refused(url: str) -> None:
    with pytest.raises(SetupError, match=r"storage: .*path"):
        open_storage(url)


def test_local_storage_does_not_import_the_object_store_client(spawn, tmp_path: Path) -> None:
    script = "import sys; from olfl_ray.storage import open_storage; open_storage(sys.argv[1]); print('obstore' in sys.modules)"
    assert spawn(script, str(tmp_path)).communicate()[0] == "False\n"


def test_new_folder_has_no_more_permissions_than_its_parent(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        home = writable_folder(tmp_path / "made" / "home", "home", private=True)
        open_storage(home / "studies" / "digits").write("ledger/1", b"x")
        with fresh_folder(home / "studies" / "digits" / "report") as report:
            report.write("tables/arms.csv", b"x")
        given = tmp_path / "given"
        given.mkdir(mode=0o755)
        open_storage(given / "studies").write("a/b", b"x")
    finally:
        os.umask(before)
    modes = {path: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_dir()}
    assert len(modes) == 10
    for path, mode in modes.items():
        assert mode == (0o755 if path.is_relative_to(given) else 0o700), path
