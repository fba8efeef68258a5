"""One driver at a time, shown with real processes and real signals."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from olfl_ray.errors import Fenced, StudyError
from olfl_ray.storage import Lease, Storage, open_storage

HOLDER = """
import sys
from olfl_ray.errors import StudyError
from olfl_ray.storage import Lease, lease, open_storage
place, ttl, elsewhere = sys.argv[1], float(sys.argv[2]), sys.argv[3:] == ["elsewhere"]
if elsewhere:
    lease._place = lambda: "another machine"
print("ready", flush=True)
sys.stdin.readline()
try:
    held = Lease.acquire(open_storage(place), "child", ttl)
except StudyError:
    print("refused", flush=True)
else:
    print("epoch", held.epoch, flush=True)
    for line in sys.stdin:
        print("lost" if held.lost else "held", flush=True)
"""


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return open_storage(tmp_path if request.param == "disk" else request.getfixturevalue("s3_place"))


def say(child, line: str = "") -> str:
    """Give a child a line, and take the one that it answers."""
    child.stdin.write(f"{line}\n")
    child.stdin.flush()
    return child.stdout.readline().strip()


def holder(spawn, place: Storage, ttl: float, *more: str):
    child = spawn(HOLDER, place.url, str(ttl), *more)
    assert child.stdout.readline() == "ready\n"
    assert say(child).startswith("epoch")
    return child


def test_epochs_increase_by_one(place: Storage) -> None:
    for epoch in (1, 2, 3):
        with Lease.acquire(place, "me") as lease:
            assert (lease.epoch, lease.lost) == (epoch, False)


def test_epoch_stays_above_the_ledgers_even_if_the_lease_objects_were_deleted(place: Storage) -> None:
    Lease.acquire(place, "me").release()
    place.delete("lease/000000001.json")
    with Lease.acquire(place, "me", above=7) as lease:
        assert lease.epoch == 8


def test_second_holder_is_told_who_where_and_since_when(spawn, place: Storage) -> None:
    child = holder(spawn, place, 10.0)
    with pytest.raises(
        StudyError, match=rf"child on host \S+ \(process {child.pid}\) since 20\d\d-.* UTC; .*olfl sweep stop"
    ):
        Lease.acquire(place, "me")


def test_second_holder_in_the_same_process_is_refused(place: Storage) -> None:
    with Lease.acquire(place, "me"), pytest.raises(StudyError, match="held by me"):
        Lease.acquire(place, "me too")


def test_released_lease_is_free_at_once(place: Storage) -> None:
    first = Lease.acquire(place, "me", ttl=1000.0)
    first.release()
    first.release()
    with Lease.acquire(place, "me"):
        assert first.lost


@pytest.mark.parametrize("reaped", [True, False], ids=["gone", "zombie"])
def test_killed_holder_loses_at_once(spawn, place: Storage, reaped: bool) -> None:
    child = holder(spawn, place, 1000.0)
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | (0 if reaped else os.WNOWAIT))
    began = time.monotonic()
    with Lease.acquire(place, "me") as lease:
        assert lease.epoch == 2
    assert time.monotonic() - began < 5


def test_later_process_with_the_dead_holders_id_does_not_keep_the_lease(place: Storage) -> None:
    held = Lease.acquire(place, "me", ttl=1000.0)
    held._done.set()
    claim = json.loads(place.read("lease/000000001.json"))
    place.write("lease/000000001.json", json.dumps(claim | {"born": "12345"}).encode())
    with Lease.acquire(place, "me") as lease:
        assert lease.epoch == 2


def test_paused_holder_loses_after_its_ttl_and_knows_when_it_wakes_up(spawn, place: Storage) -> None:
    child = holder(spawn, place, 0.5)
    assert say(child) == "held"
    os.kill(child.pid, signal.SIGSTOP)
    time.sleep(0.8)
    with Lease.acquire(place, "me") as lease:
        os.kill(child.pid, signal.SIGCONT)
        assert say(child) == "lost"
        assert not lease.lost


def test_holder_on_another_machine_is_watched_and_kept_while_its_heart_beats(spawn, place: Storage) -> None:
    holder(spawn, place, 4.0, "elsewhere")
    with pytest.raises(StudyError, match="held by child"):
        Lease.acquire(place, "me", ttl=0.1)


def test_silent_holder_on_another_machine_loses_after_its_own_ttl(spawn, place: Storage) -> None:
    child = holder(spawn, place, 0.5, "elsewhere")
    child.kill()
    began = time.monotonic()
    with Lease.acquire(place, "me", ttl=1000.0) as lease:
        assert lease.epoch == 2
    assert 0.4 < time.monotonic() - began < 10


@pytest.mark.parametrize("hours", [-5, 5])
def test_clocks_of_two_machines_may_differ(place: Storage, hours: float) -> None:
    now, key = time.time() + hours * 3600, "lease/000000001.json"
    claim = {"holder": "x", "host": "h", "pid": 1, "place": "another machine", "born": "1", "since": now, "ttl": 0.4}
    place.write(key, json.dumps(claim | {"beat": now}).encode())
    stop = threading.Event()

    def beat() -> None:
        for turn in range(1, 1000):
            if stop.wait(0.1):
                return
            place.write(key, json.dumps(claim | {"beat": now + 0.1 * turn}).encode())

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(StudyError, match="held by x on host h"):
            Lease.acquire(place, "me")
    finally:
        stop.set()
        thread.join()
    with Lease.acquire(place, "me") as lease:
        assert lease.epoch == 2


def test_damaged_lease_is_taken_after_a_ttl_of_silence(place: Storage) -> None:
    place.write("lease/000000004.json", b'{"holder": "me", "ho')
    with Lease.acquire(place, "me", ttl=0.2) as lease:
        assert lease.epoch == 5


def test_background_thread_keeps_the_lease_fresh(place: Storage) -> None:
    with Lease.acquire(place, "me", ttl=0.4):
        first = place.read("lease/000000001.json")
        time.sleep(0.6)
        assert place.read("lease/000000001.json") != first


def test_taken_lease_cannot_be_renewed(place: Storage) -> None:
    with Lease.acquire(place, "me") as lease:
        lease.renew()
        place.create("lease/000000002.json", b"")
        assert lease.lost
        with pytest.raises(Fenced, match="epoch 1"):
            lease.renew()


def test_of_many_takers_at_once_exactly_one_wins(spawn, place: Storage) -> None:
    children = [spawn(HOLDER, place.url, "1000") for _ in range(4)]
    assert {child.stdout.readline() for child in children} == {"ready\n"}
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    answers = [child.stdout.readline().strip() for child in children]
    assert sorted(answers) == ["epoch 1", "refused", "refused", "refused"]


def test_nonsense_ttl_is_refused(place: Storage) -> None:
    with pytest.raises(ValueError, match="ttl"):
        Lease.acquire(place, "me", ttl=0)
