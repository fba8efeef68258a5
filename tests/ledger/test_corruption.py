"""Truncated files and flipped bytes anywhere in a study: a start succeeds, or names the file in one line."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from olfl_ray.errors import StudyError
from olfl_ray.ledger import Began, Committed, DriverStarted, Ended, Ledger, Proposed
from olfl_ray.storage import Lease, Storage, open_storage

COMPACTED = "ledger/compacted.jsonl"


@pytest.fixture
def disk(tmp_path: Path) -> Storage:
    return open_storage(tmp_path)


@pytest.fixture
def study(disk: Storage) -> Ledger:
    """Nine events."""
    ledger = Ledger.create(disk, {"seed": 0}, "d", "digits", {})
    ledger.append(DriverStarted(epoch=1, host="h", pid=1))
    for trial in ("a/0", "a/1"):
        ledger.append(Proposed(trial=trial, params={"lr": 0.1}, seeds=[0]))
        ledger.append(Began(trial=trial, attempt=1))
        ledger.append(Committed(trial=trial, attempt=1, commit=f"{trial}/k", step=1, value=0.5, values={"m": 0.5}))
    ledger.append(Ended(trial="a/0", state="finished", step=1, value=0.5, metrics={"m": [0.5]}, cause=None))
    return ledger


def corruptions(data: bytes, every: int) -> Iterator[bytes]:
    """The bytes truncated, and with one byte changed, at many positions."""
    for position in range(0, len(data), every):
        yield data[:position]
        for mask in (0x01, 0x10, 0xFF):
            yield data[:position] + bytes([data[position] ^ mask]) + data[position + 1 :]
    yield data + data
    yield bytes(len(data))


def put(storage: Storage, key: str, data: bytes) -> None:
    """Write like a broken disk: without the care of `write`."""
    (Path(storage.root) / key).write_bytes(data)


def test_corrupt_event_is_one_message_that_names_it(study: Ledger, disk: Storage) -> None:
    for number in range(1, 10):
        key = f"ledger/{number:09d}.json"
        intact = disk.read(key)
        for corrupt in corruptions(intact, every=17):
            put(disk, key, corrupt)
            with pytest.raises(StudyError, match=rf"{key}: event {number} of 9 is corrupt .*; restore") as caught:
                Ledger.load(disk)
            assert "\n" not in str(caught.value)
        put(disk, key, intact)
    assert Ledger.load(disk).state == study.state


def test_corrupt_event_is_harmless_once_compacted(study: Ledger, disk: Storage) -> None:
    study.compact()
    for number in range(1, 10):
        key = f"ledger/{number:09d}.json"
        intact = disk.read(key)
        for corrupt in corruptions(intact, every=29):
            put(disk, key, corrupt)
            assert Ledger.load(disk).state == study.state
        put(disk, key, intact)


def test_corrupt_compaction_is_harmless(study: Ledger, disk: Storage) -> None:
    study.compact()
    intact = disk.read(COMPACTED)
    for corrupt in corruptions(intact, every=13):
        put(disk, COMPACTED, corrupt)
        assert Ledger.load(disk).state == study.state


@pytest.mark.parametrize("gone", [False, True], ids=["corrupt", "missing"])
def test_intact_copy_of_each_event_is_used_if_both_are_corrupt(
    study: Ledger, disk: Storage, gone: bool, caplog: pytest.LogCaptureFixture
) -> None:
    study.compact()
    compacted = disk.read(COMPACTED)
    lines = compacted.splitlines(keepends=True)
    for number in range(1, 10):
        key = f"ledger/{number:09d}.json"
        intact = disk.read(key)
        if gone:
            disk.delete(key)
        else:
            put(disk, key, intact[:20])
        for other in range(1, 10):
            before = sum(map(len, lines[:other]))
            for position in (before + 3, before + len(lines[other]) // 2, before + len(lines[other]) - 1):
                put(disk, COMPACTED, compacted[:position] + b"~" + compacted[position + 1 :])
                caplog.clear()
                holed = {other, other + 1} if position == before + len(lines[other]) - 1 else {other}
                if gone and number == 9 and 9 in holed:
                    continue  # nothing is left that shows that there was a ninth event
                if number in holed:
                    with pytest.raises(StudyError, match=rf"{key}: event {number} "):
                        Ledger.load(disk)
                    continue
                with caplog.at_level(logging.WARNING):
                    assert Ledger.load(disk).state == study.state
                assert f"{COMPACTED}: its checksum does not match" in caplog.text
                assert f"{key}: event {number} is " in caplog.text
                assert f"its copy in {COMPACTED} is used" in caplog.text
        put(disk, key, intact)


def test_last_event_is_recovered_from_the_compaction(study: Ledger, disk: Storage) -> None:
    study.compact()
    disk.delete("ledger/000000009.json")
    put(disk, COMPACTED, disk.read(COMPACTED).replace(b'"events": 9', b'"events": 8'))
    assert Ledger.load(disk).events == study.events


def test_corrupt_lease_is_taken_or_refused_in_one_message(disk: Storage) -> None:
    key = "lease/000000001.json"
    with Lease.acquire(disk, "me", ttl=0.01):
        pass
    released = json.loads(disk.read(key))
    for machine in ("another machine", released["place"]):
        intact = json.dumps(released | {"released": False, "place": machine, "pid": os.getpid()}).encode() + b"\n"
        for corrupt in corruptions(intact, every=24):
            put(disk, key, corrupt)
            began = time.monotonic()
            with contextlib.suppress(StudyError):
                Lease.acquire(disk, "me", ttl=0.01).release()
            assert time.monotonic() - began < 60
            for later in disk.keys("lease/"):
                if later != key:
                    disk.delete(later)


@pytest.mark.parametrize(
    "nonsense", [{"pid": 10**30}, {"pid": -1}, {"pid": 0}, {"ttl": 1e300}, {"ttl": -1}, {"ttl": float("nan")}]
)
def test_invalid_values_in_a_lease_count_as_corrupt(disk: Storage, nonsense: dict[str, float]) -> None:
    Lease.acquire(disk, "me", ttl=0.1).release()
    claim = json.loads(disk.read("lease/000000001.json"))
    disk.write("lease/000000001.json", json.dumps(claim | {"released": False} | nonsense).encode())
    began = time.monotonic()
    with Lease.acquire(disk, "me", ttl=0.1) as lease:
        assert lease.epoch == 2
    assert time.monotonic() - began < 5
