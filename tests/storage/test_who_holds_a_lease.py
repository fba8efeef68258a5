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
def place(tmp_path: Path) -> Storage:
    return open_storage(tmp_path)


def silent(storage: Storage, **changes: Any) -> Lease:
    """A lease of this process whose heart beats no more, with another claim."""
    held = Lease.acquire(storage, "me", 1000.0)
    held._done.set()
    held._thread.join()
    storage.write(FIRST, json.dumps(json.loads(storage.read(FIRST)) | changes).encode())
    return held


def seconds_to_take(place: Storage, ttl: float = 1000.0) -> float:
    began = time.monotonic()
    with Lease.acquire(place, "other", ttl) as lease:
        assert lease.epoch == 2
    return time.monotonic() - began


def test_a_lease_is_held_until_it_is_released_and_by_nobody_before(place: Storage) -> None:
    assert not Lease.is_held(place)
    with Lease.acquire(place, "me"):
        assert Lease.is_held(place)
    assert not Lease.is_held(place)


def test_a_holder_that_is_silent_for_its_ttl_holds_no_more(place: Storage) -> None:
    silent(place, beat=time.time() - 999.0)
    assert Lease.is_held(place)
    now = json.loads(place.read(FIRST))
    place.write(FIRST, json.dumps(now | {"beat": time.time() - 1000.0}).encode())
    assert not Lease.is_held(place)


def test_a_holder_before_the_last_boot_is_watched_though_its_process_id_is_here(place: Storage) -> None:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    silent(place)
    here = json.loads(place.read(FIRST))["place"]
    assert boot in here
    assert os.readlink("/proc/self/ns/pid") in here
    place.write(
        FIRST, json.dumps(json.loads(place.read(FIRST)) | {"place": here.replace(boot, "x"), "ttl": 0.3}).encode()
    )
    assert seconds_to_take(place) >= 0.3


def test_a_holder_here_whose_process_is_another_loses_at_once(place: Storage) -> None:
    silent(place, born="12345")
    assert seconds_to_take(place) < 30.0


def at_the_third_look(patch: pytest.MonkeyPatch, storage: Storage, written: bytes) -> None:
    """Another writes its claim while the holder is watched."""
    read, looks = type(storage).read, 0

    def looked(self: Storage, key: str) -> bytes:
        nonlocal looks
        looks += 1
        if looks == 3:
            self.write(key, written)
        return read(self, key)

    patch.setattr(type(storage), "read", looked)


def test_a_holder_elsewhere_that_lets_go_while_it_is_watched_loses_then(
    place: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = silent(place, place="another machine", ttl=8.0)
    released = json.dumps(json.loads(place.read(FIRST)) | {"released": True}).encode()
    at_the_third_look(monkeypatch, place, released)
    assert seconds_to_take(place) < 6.0
    assert held.lost


def test_who_writes_what_nobody_can_read_holds_it_all_the_same(place: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    place.write(FIRST, b"damaged")
    at_the_third_look(monkeypatch, place, b"damaged otherwise")
    with pytest.raises(StudyError, match="another driver"):
        Lease.acquire(place, "me", ttl=2.0)


def test_of_an_unreadable_claim_the_takers_ttl_counts(place: Storage) -> None:
    place.write(FIRST, b"damaged")
    assert 0.2 <= seconds_to_take(place, ttl=0.2) < 5.0


@pytest.mark.parametrize(
    "nonsense", [{"pid": 0}, {"pid": 2**31}, {"ttl": 0}, {"ttl": 3601}, {"since": 1e300}, {"unheard": 1}]
)
def test_a_claim_of_nonsense_is_damage_and_waited_for_no_longer_than_the_takers_ttl(
    place: Storage, nonsense: dict[str, float]
) -> None:
    silent(place, **nonsense)
    assert 0.1 <= seconds_to_take(place, ttl=0.1) < 5.0


@pytest.mark.parametrize("sound", [{"pid": 1}, {"pid": 2**31 - 1}, {"ttl": 3600.0}])
def test_a_claim_at_the_ends_of_what_is_allowed_is_read(place: Storage, sound: dict[str, float]) -> None:
    silent(place, place="another machine", **sound)
    claim = json.loads(place.read(FIRST))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("olfl_ray.storage.lease._is_free", lambda *_: False)
        with pytest.raises(StudyError, match=rf"me on host {claim['host']} \(process {claim['pid']}\)"):
            Lease.acquire(place, "other")


@pytest.mark.parametrize("ttl", [0.0, -1.0, 3600.5])
def test_a_ttl_that_nobody_can_wait_for_is_refused(place: Storage, ttl: float) -> None:
    with pytest.raises(ValueError, match="ttl"):
        Lease.acquire(place, "me", ttl)
    assert place.keys() == []


def test_a_lease_is_renewed_four_times_a_ttl(place: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    waits, wait = [], threading.Event.wait

    def counted(self: threading.Event, timeout: float | None = None) -> bool:
        waits.append(timeout)
        return wait(self, timeout)

    monkeypatch.setattr(threading.Event, "wait", counted)
    Lease.acquire(place, "me", ttl=3600.0).release()
    assert 900.0 in waits


def test_a_claim_says_who_holds_the_lease_since_when(place: Storage) -> None:
    before = time.time()
    with Lease.acquire(place, "me", ttl=3600.0) as held:
        claim = json.loads(place.read(FIRST))
        assert before <= claim["since"] == claim["beat"] <= time.time()
        assert (claim["holder"], claim["pid"], claim["ttl"], claim["released"]) == ("me", os.getpid(), 3600.0, False)
        boot = time.time() - float(Path("/proc/uptime").read_text().split()[0])
        started = boot + int(claim["born"]) / os.sysconf("SC_CLK_TCK")
        assert started == pytest.approx(psutil.Process().create_time(), abs=2.0)
        assert held._thread.daemon, "a driver that ends does not wait for its heart"
        held.renew()
        assert json.loads(place.read(FIRST)) == claim | {"beat": pytest.approx(time.time(), abs=5.0)}
        assert json.loads(place.read(FIRST))["beat"] > claim["beat"]
    assert json.loads(place.read(FIRST))["released"]


def test_a_lost_lease_is_not_written_again(place: Storage) -> None:
    held = silent(place, born="12345")
    with Lease.acquire(place, "other"):
        before = place.read(FIRST)
        held.release()
        assert place.read(FIRST) == before


def test_a_lease_that_was_lost_once_stays_lost(place: Storage) -> None:
    held = silent(place, born="12345")
    with Lease.acquire(place, "other") as other:
        assert held.lost
        second = Lease.key(other.epoch)
    place.delete(second)
    assert held.lost


def test_a_ttl_written_as_text_counts_as_the_number(place: Storage) -> None:
    silent(place, ttl="1000.0", beat=time.time() - 999.0)
    assert Lease.is_held(place)
