"""The guarantees of `Storage`, for every implementation."""

from __future__ import annotations

import io
import threading

import pyarrow
import pyarrow.parquet
import pytest

from olfl_ray.storage import Storage, open_storage

BAD_KEYS = ["", "/etc/passwd", "../up", "a/../b", "a//b", "a/", "./a", "a/.tmp-1", "a\0b", "a\nb"]
ODD_KEYS = ["an arm/0", "50%/%2e%2e/x", "a#b?c&d=+", "[x]*{y}~^|", "back\\slash", "naïve/損失"]

RACER = """
import sys
from olfl_ray.storage import open_storage
storage = open_storage(sys.argv[1])
storage.keys()
print("ready", flush=True)
sys.stdin.readline()
print(*(race for race in range(20) if storage.create(f"races/{race}", b"{}")), flush=True)
"""


def test_storage_implements_the_protocol(storage: Storage) -> None:
    assert isinstance(storage, Storage)


def test_url_opens_the_same_storage(storage: Storage) -> None:
    storage.write("a/b", b"1")
    assert open_storage(storage.url).read("a/b") == b"1"


@pytest.mark.parametrize("data", [b"", b"one", bytes(range(256)) * 5000])
def test_read_returns_what_was_written(storage: Storage, data: bytes) -> None:
    storage.write("folder/deep/object.bin", data)
    assert storage.read("folder/deep/object.bin") == data


def test_write_replaces(storage: Storage) -> None:
    storage.write("a", b"a longer first content")
    storage.write("a", b"second")
    assert storage.read("a") == b"second"


def test_write_all_writes_each_object(storage: Storage) -> None:
    storage.write("a/1", b"a longer first content")
    storage.write_all({"a/1": b"second", "a/b/2": bytes(range(256)) * 5000, "3": b""})
    written = storage.keys()
    assert {key: storage.read(key) for key in written} == {
        "a/1": b"second",
        "a/b/2": bytes(range(256)) * 5000,
        "3": b"",
    }
    storage.write_all({})
    with pytest.raises(ValueError, match=r"key '\.\./up'"):
        storage.write_all({"../up": b""})


def test_create_wins_once_and_changes_nothing_afterwards(storage: Storage) -> None:
    assert storage.create("ledger/1.json", b"first")
    assert not storage.create("ledger/1.json", b"second")
    assert storage.read("ledger/1.json") == b"first"


def test_create_after_write_loses(storage: Storage) -> None:
    storage.write("a", b"written")
    assert not storage.create("a", b"created")


def test_create_after_delete_wins(storage: Storage) -> None:
    storage.create("a", b"1")
    storage.delete("a")
    assert storage.create("a", b"2")


def test_exactly_one_of_many_concurrent_creators_wins(storage: Storage) -> None:
    gate, won = threading.Barrier(8), []

    def create(number: int) -> None:
        for race in range(20):
            gate.wait()
            if storage.create(f"races/{race}", f"{number}".encode()):
                won.append((race, number))

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(race for race, _ in won) == list(range(20))
    assert all(storage.read(f"races/{race}") == f"{number}".encode() for race, number in won)


def test_exactly_one_of_many_processes_with_equal_bytes_wins(spawn, storage: Storage) -> None:
    racers = [spawn(RACER, storage.url) for _ in range(8)]
    assert {racer.stdout.readline() for racer in racers} == {"ready\n"}
    for racer in racers:
        racer.stdin.write("\n")
        racer.stdin.flush()
    won = [int(race) for racer in racers for race in racer.stdout.readline().split()]
    assert sorted(won) == list(range(20))


@pytest.mark.parametrize("key", ODD_KEYS)
def test_unusual_names_round_trip(storage: Storage, key: str) -> None:
    assert storage.create(key, b"1")
    assert (storage.keys(), storage.read(key), storage.exists(key)) == ([key], b"1", True)
    storage.delete(key)
    assert storage.keys() == []


def test_absent_object_is_not_found(storage: Storage) -> None:
    storage.write("folder/a", b"")
    for key in ("b", "folder", "folder/a/below"):
        assert not storage.exists(key)
        with pytest.raises(FileNotFoundError):
            storage.read(key)
        with pytest.raises(FileNotFoundError):
            storage.open(key)


def test_delete_removes_and_ignores_an_absent_object(storage: Storage) -> None:
    storage.write("a/b", b"1")
    storage.delete("a/b")
    storage.delete("a/b")
    storage.delete("never/there")
    assert not storage.exists("a/b")
    assert storage.keys() == []


def test_keys_are_sorted_and_recursive(storage: Storage) -> None:
    for key in ("b", "a/2", "a/10", "a/sub/1", "c.json"):
        storage.write(key, b"")
    assert storage.keys() == ["a/10", "a/2", "a/sub/1", "b", "c.json"]


def test_keys_filter_by_prefix_not_by_folder(storage: Storage) -> None:
    for key in ("run/1", "run/12", "running/1", "rest"):
        storage.write(key, b"")
    assert storage.keys("run") == ["run/1", "run/12", "running/1"]
    assert storage.keys("run/") == ["run/1", "run/12"]
    assert storage.keys("run/1") == ["run/1", "run/12"]
    assert storage.keys("walk/") == []


def test_folders_are_the_first_components_of_longer_keys(storage: Storage) -> None:
    for key in ("run/1", "run/deep/er", "a b/1", "rest"):
        storage.write(key, b"")
    assert storage.folders() == ["a b", "run"]


def test_unused_storage_has_no_keys(storage: Storage) -> None:
    assert storage.keys() == []
    assert storage.folders() == []
    assert storage.keys("ledger/") == []


@pytest.mark.parametrize("key", BAD_KEYS)
def test_invalid_key_is_refused_by_every_method(storage: Storage, key: str) -> None:
    calls = [storage.read, storage.exists, storage.delete, storage.open]
    calls += [lambda k: storage.write(k, b""), lambda k: storage.create(k, b"")]
    for call in calls:
        with pytest.raises(ValueError, match="key"):
            call(key)


def test_open_works_with_a_parquet_reader(storage: Storage) -> None:
    table, buffer = pyarrow.table({"step": [1, 2, 3]}), io.BytesIO()
    pyarrow.parquet.write_table(table, buffer)
    storage.write("records.parquet", buffer.getvalue())
    with storage.open("records.parquet") as file:
        assert pyarrow.parquet.read_table(file).equals(table)


def test_open_reader_keeps_its_content_while_the_object_is_replaced(storage: Storage) -> None:
    storage.write("a", b"old")
    with storage.open("a") as file:
        storage.write("a", b"new")
        assert file.read() == b"old"
