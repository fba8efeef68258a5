"""Who counts as the holder of a lease: by host, process, heartbeat and release."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from olfl_ray.errors import StudyError
from olfl_ray.storage import Lease, Storage, open_storage

FIRST = Lease.key(1)


@pytest.fixture
def store(tmp_path: Path) -> Storage:
    return open_storage(tmp_path)


def silent(storage: Storage, **changes: Any) -> Lease:
    """A lease of this process without heartbeat, with a changed claim."""
    held = Lease.acquire(storage, "me", 1000.0)
    held._done.set()
    held._thread.join()
    storage.write(FIRST, json.dumps(json.loads(storage.read(FIRST)) | changes).encode())
    return held


def seconds_to_take(store: Storage, ttl: float = 1000.0) -> float:
    began = time.monotonic()
    with Lease.acquire(store, "other", ttl) as lease:
        assert lease.epoch == 2
    return time.monotonic() - began


def test_lease_is_held_from_acquire_to_release(store: Storage) -> None:
    assert not Lease.is_held(store)
    with Lease.acquire(store, "me"):
        assert Lease.is_held(store)
    assert not Lease.is_held(store)


def test_holder_without_heartbeat_for_its_ttl_loses_the_lease(store: Storage) -> None:
    silent(store, beat=time.time() - 999.0)
    assert Lease.is_held(store)
    now = json.loads(store.read(FIRST))
    store.write(FIRST, json.dumps(now | {"beat": time.time() - 1000.0}).encode())
    assert not Lease.is_held(store)


def test_holder_from_before_a_reboot_is_watched_even_if_its_pid_exists(store: Storage) -> None:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    silent(store)
    here = json.loads(store.read(FIRST))["place"]
    assert boot in here
    assert os.readlink("/proc/self/ns/pid") in here
    store.write(
        FIRST, json.dumps(json.loads(store.read(FIRST)) | {"place": here.replace(boot, "x"), "ttl": 0.3}).encode()
    )
    assert seconds_to_take(store) >= 0.3


def test_local_holder_whose_pid_was_reused_loses_at_once(store: Storage) -> None:
    silent(store, born="12345")
    assert seconds_to_take(store) < 30.0


def at_the_third_look(patch: pytest.MonkeyPatch, storage: Storage, written: bytes) -> None:
    """Another holder writes its claim while the first is watched."""
    read, looks = type(storage).read, 0

    def looked(self: Storage, key: str) -> bytes:
        nonlocal looks
        looks += 1
        if looks == 3:
            self.write(key, written)
        return read(self, key)

    patch.setattr(type(storage), "read", looked)


def test_remote_holder_that_releases_while_watched_loses_then(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    held = silent(store, place="another machine", ttl=8.0)
    released = json.dumps(json.loads(store.read(FIRST)) | {"released": True}).encode()
    at_the_third_look(monkeypatch, store, released)
    assert seconds_to_take(store) < 6.0
    assert held.lost


def test_holder_that_keeps_writing_unreadable_claims_keeps_the_lease(
    store: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write(FIRST, b"corrupt")
    at_the_third_look(monkeypatch, store, b"corrupt otherwise")
    with pytest.raises(StudyError, match="another driver"):
        Lease.acquire(store, "me", ttl=2.0)


def test_acquirers_ttl_applies_to_an_unreadable_claim(store: Storage) -> None:
    store.write(FIRST, b"corrupt")
    assert 0.2 <= seconds_to_take(store, ttl=0.2) < 5.0


@pytest.mark.parametrize(
    "nonsense", [{"pid": 0}, {"pid": 2**31}, {"ttl": 0}, {"ttl": 3601}, {"since": 1e300}, {"unheard": 1}]
)
def test_invalid_claim_is_corrupt_and_waited_for_only_the_acquirers_ttl(
    store: Storage, nonsense: dict[str, float]
) -> None:
    silent(store, **nonsense)
    assert 0.1 <= seconds_to_take(store, ttl=0.1) < 5.0


@pytest.mark.parametrize("sound", [{"pid": 1}, {"pid": 2**31 - 1}, {"ttl": 3600.0}])
def test_claim_at_the_limits_is_accepted(store: Storage, sound: dict[str, float]) -> None:
    silent(store, place="another machine", **sound)
    claim = json.loads(store.read(FIRST))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("olfl_ray.storage.lease._is_free", lambda *_: False)
        with pytest.raises(StudyError, match=rf"me on host {claim['host']} \(process {claim['pid']}\)"):
            Lease.acquire(store, "other")


@pytest.mark.parametrize("ttl", [0.0, -1.0, 3600.5])
def test_too_long_ttl_is_refused(store: Storage, ttl: float) -> None:
    with pytest.raises(ValueError, match="ttl"):
        Lease.acquire(store, "me", ttl)
    assert store.keys() == []


def test_lease_is_renewed_four_times_per_ttl(store: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    waits, wait = [], threading.Event.wait

    def counted(self: threading.Event, timeout: float | None = None) -> bool:
        waits.append(timeout)
        return wait(self, timeout)

    monkeypatch.setattr(threading.Event, "wait", counted)
    Lease.acquire(store, "me", ttl=3600.0).release()
    assert 900.0 in waits


def test_claim_records_holder_and_time(store: Storage) -> None:
    before = time.time()
    with Lease.acquire(store, "me", ttl=3600.0) as held:
        claim = json.loads(store.read(FIRST))
        assert before <= claim["since"] == claim["beat"] <= time.time()
        assert (claim["holder"], claim["pid"], claim["ttl"], claim["released"]) == ("me", os.getpid(), 3600.0, False)
        boot = time.time() - float(Path("/proc/uptime").read_text().split()[0])
        started = boot + int(claim["born"]) / os.sysconf("SC_CLK_TCK")
        assert started == pytest.approx(psutil.Process().create_time(), abs=2.0)
        assert held._thread.daemon, "a driver that exits does not wait for its heartbeat thread"
        held.renew()
        assert json.loads(store.read(FIRST)) == claim | {"beat": pytest.approx(time.time(), abs=5.0)}
        assert json.loads(store.read(FIRST))["beat"] > claim["beat"]
    assert json.loads(store.read(FIRST))["released"]


def test_lost_lease_is_not_written(store: Storage) -> None:
    held = silent(store, born="12345")
    with Lease.acquire(store, "other"):
        before = store.read(FIRST)
        held.release()
        assert store.read(FIRST) == before


def test_lost_lease_stays_lost(store: Storage) -> None:
    held = silent(store, born="12345")
    with Lease.acquire(store, "other") as other:
        assert held.lost
        second = Lease.key(other.epoch)
    store.delete(second)
    assert held.lost


def test_ttl_written_as_text_counts_as_the_number(store: Storage) -> None:
    silent(store, ttl="1000.0", beat=time.time() - 999.0)
    assert Lease.is_held(store)


def test_heartbeat_written_as_text_counts_as_the_number(store: Storage) -> None:
    silent(store, ttl=1000.0, beat=str(time.time() - 999.0))
    assert Lease.is_held(store)


def test_a_released_lease_has_no_heartbeat(store: Storage) -> None:
    held = Lease.acquire(store, "me", ttl=3600.0)
    held.release()
    assert not held._thread.is_alive()


def test_foreign_file_next_to_the_leases_is_ignored(store: Storage) -> None:
    Lease.acquire(store, "me", ttl=60.0).release()
    store.create("lease/notes.json", b"{}")
    assert Lease.acquire(store, "me", ttl=60.0).epoch == 2


def test_host_without_a_boot_id_is_told_apart_from_one_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from olfl_ray.storage import lease

    def refuse(path: str) -> str:
        raise PermissionError(path)

    known = lease._place()
    monkeypatch.setattr(os, "readlink", refuse)
    assert lease._place().split()[-1] == "unknown"
    assert lease._place() != known
