"""One driver at a time, tested with real processes and real signals."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from pathlib import Path
from urllib.parse import unquote

import pytest

from olfl_ray.errors import Fenced, StudyError
from olfl_ray.storage import Lease, Storage, open_storage

HOLDER = """
import sys
from olfl_ray.errors import StudyError
from olfl_ray.storage import Lease, lease, open_storage
store, ttl, elsewhere = sys.argv[1], float(sys.argv[2]), sys.argv[3:] == ["elsewhere"]
if elsewhere:
    lease._place = lambda: "another machine"
print("ready", flush=True)
sys.stdin.readline()
try:
    held = Lease.acquire(open_storage(store), "child", ttl)
except StudyError:
    print("refused", flush=True)
else:
    print("epoch", held.epoch, flush=True)
    for line in sys.stdin:
        print("lost" if held.lost else "held", flush=True)
"""


@pytest.fixture(params=["disk", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return open_storage(tmp_path if request.param == "disk" else request.getfixturevalue("s3_place"))


def say(child, line: str = "") -> str:
    """Send a line to a child, and return the line that it prints."""
    child.stdin.write(f"{line}\n")
    child.stdin.flush()
    return child.stdout.readline().strip()


def holder(spawn, store: Storage, ttl: float, *more: str):
    child = spawn(HOLDER, store.url, str(ttl), *more)
    assert child.stdout.readline() == "ready\n"
    assert say(child).startswith("epoch")
    return child


def test_epochs_increase_by_one(store: Storage) -> None:
    for epoch in (1, 2, 3):
        with Lease.acquire(store, "me") as lease:
            assert (lease.epoch, lease.lost) == (epoch, False)


def test_epoch_stays_above_the_ledgers_even_if_the_lease_objects_were_deleted(store: Storage) -> None:
    Lease.acquire(store, "me").release()
    store.delete("lease/000000001.json")
    with Lease.acquire(store, "me", above=7) as lease:
        assert lease.epoch == 8


def test_refusal_names_holder_host_process_and_time(spawn, store: Storage) -> None:
    child, name = holder(spawn, store, 10.0), re.escape(unquote(store.url).rpartition("/")[2])
    who = rf"child on host \S+ \(process {child.pid}\) since 20\d\d-.* UTC"
    with pytest.raises(StudyError, match=rf"{who}; .*olfl sweep status {name}\), .*olfl sweep stop {name}\)"):
        Lease.acquire(store, "me")


def test_second_holder_in_the_same_process_is_refused(store: Storage) -> None:
    with Lease.acquire(store, "me"), pytest.raises(StudyError, match="held by me"):
        Lease.acquire(store, "me too")


def test_released_lease_can_be_taken_at_once(store: Storage) -> None:
    first = Lease.acquire(store, "me", ttl=1000.0)
    first.release()
    first.release()
    with Lease.acquire(store, "me"):
        assert first.lost


@pytest.mark.parametrize("reaped", [True, False], ids=["gone", "zombie"])
def test_killed_holder_loses_the_lease_at_once(spawn, store: Storage, reaped: bool) -> None:
    child = holder(spawn, store, 1000.0)
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | (0 if reaped else os.WNOWAIT))
    began = time.monotonic()
    with Lease.acquire(store, "me") as lease:
        assert lease.epoch == 2
    assert time.monotonic() - began < 5


def test_new_process_with_a_dead_holders_pid_does_not_keep_the_lease(store: Storage) -> None:
    held = Lease.acquire(store, "me", ttl=1000.0)
    held._done.set()
    claim = json.loads(store.read("lease/000000001.json"))
    store.write("lease/000000001.json", json.dumps(claim | {"born": "12345"}).encode())
    with Lease.acquire(store, "me") as lease:
        assert lease.epoch == 2


def test_paused_holder_loses_the_lease_after_its_ttl_and_notices_on_waking(spawn, store: Storage) -> None:
    child = holder(spawn, store, 0.5)
    assert say(child) == "held"
    os.kill(child.pid, signal.SIGSTOP)
    time.sleep(0.8)
    with Lease.acquire(store, "me") as lease:
        os.kill(child.pid, signal.SIGCONT)
        assert say(child) == "lost"
        assert not lease.lost


def test_holder_on_another_machine_keeps_the_lease_while_it_sends_heartbeats(spawn, store: Storage) -> None:
    holder(spawn, store, 4.0, "elsewhere")
    with pytest.raises(StudyError, match="held by child"):
        Lease.acquire(store, "me", ttl=0.1)


def test_silent_holder_on_another_machine_loses_the_lease_after_its_own_ttl(spawn, store: Storage) -> None:
    child = holder(spawn, store, 0.5, "elsewhere")
    child.kill()
    began = time.monotonic()
    with Lease.acquire(store, "me", ttl=1000.0) as lease:
        assert lease.epoch == 2
    assert 0.4 < time.monotonic() - began < 10


@pytest.mark.parametrize("hours", [-5, 5])
def test_clocks_of_two_machines_may_differ(store: Storage, hours: float) -> None:
    now, key = time.time() + hours * 3600, "lease/000000001.json"
    claim = {"holder": "x", "host": "h", "pid": 1, "place": "another machine", "born": "1", "since": now, "ttl": 0.4}
    store.write(key, json.dumps(claim | {"beat": now}).encode())
    stop = threading.Event()

    def beat() -> None:
        for turn in range(1, 1000):
            if stop.wait(0.1):
                return
            store.write(key, json.dumps(claim | {"beat": now + 0.1 * turn}).encode())

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(StudyError, match="held by x on host h"):
            Lease.acquire(store, "me")
    finally:
        stop.set()
        thread.join()
    with Lease.acquire(store, "me") as lease:
        assert lease.epoch == 2


def test_corrupt_lease_can_be_taken_after_a_ttl_without_heartbeat(store: Storage) -> None:
    store.write("lease/000000004.json", b'{"holder": "me", "ho')
    with Lease.acquire(store, "me", ttl=0.2) as lease:
        assert lease.epoch == 5


def test_background_thread_renews_the_lease(store: Storage) -> None:
    with Lease.acquire(store, "me", ttl=0.4):
        first = store.read("lease/000000001.json")
        time.sleep(0.6)
        assert store.read("lease/000000001.json") != first


def test_lost_lease_cannot_be_renewed(store: Storage) -> None:
    with Lease.acquire(store, "me") as lease:
        lease.renew()
        store.create("lease/000000002.json", b"")
        assert lease.lost
        with pytest.raises(Fenced, match="epoch 1"):
            lease.renew()


def test_exactly_one_of_many_concurrent_acquires_wins(spawn, store: Storage) -> None:
    children = [spawn(HOLDER, store.url, "1000") for _ in range(4)]
    assert {child.stdout.readline() for child in children} == {"ready\n"}
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    answers = [child.stdout.readline().strip() for child in children]
    assert sorted(answers) == ["epoch 1", "refused", "refused", "refused"]


def test_invalid_ttl_is_refused(store: Storage) -> None:
    with pytest.raises(ValueError, match="ttl"):
        Lease.acquire(store, "me", ttl=0)
