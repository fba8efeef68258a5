"""The log on a disk: durable, fenced, compacted, and explicit about corruption; with real processes."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from olfl_ray.errors import Fenced, LedgerError, StudyError
from olfl_ray.ledger import (
    Began,
    Committed,
    DriverStarted,
    DriverStopped,
    Ended,
    Event,
    Ledger,
    Proposed,
    StudyCreated,
)
from olfl_ray.ledger.codec import encode, seal
from olfl_ray.storage import Storage, open_storage

APPENDER = """
import sys
from olfl_ray.ledger import Began, Committed, Ledger, Proposed
from olfl_ray.storage import open_storage
ledger = Ledger.load(open_storage(sys.argv[1]))
ledger.append(Proposed(trial=sys.argv[2], params={}, seeds=[0]))
ledger.append(Began(trial=sys.argv[2], attempt=1))
for step in range(10**9):
    ledger.append(Committed(trial=sys.argv[2], attempt=1, commit=f"k{step}", step=step, value=0.0, values={}))
    print(len(ledger.events), flush=True)
"""

DRIVER = """
import sys
from olfl_ray.errors import Fenced
from olfl_ray.ledger import DriverStarted, Ledger, Proposed
from olfl_ray.storage import open_storage
ledger = Ledger.load(open_storage(sys.argv[1]))
print("loaded", flush=True)
for number, line in enumerate(sys.stdin):
    try:
        ledger.append(Proposed(trial=f"{sys.argv[2]}/{number}", params={}, seeds=[0]))
        print("recorded", flush=True)
    except Fenced as error:
        print("fenced", flush=True)
"""


def fill(ledger: Ledger, trials: int = 3) -> Ledger:
    ledger.append(DriverStarted(epoch=ledger.state.epoch + 1, host="h", pid=1))
    for ordinal in range(trials):
        ledger.append(Proposed(trial=f"a/{ordinal}", params={"lr": (0.1, 0.2)}, seeds=[0, 1]))
        ledger.append(Began(trial=f"a/{ordinal}", attempt=1))
    return ledger


def test_loaded_ledger_equals_the_written_one(ledger: Ledger, store: Storage) -> None:
    fill(ledger)
    loaded = Ledger.load(store)
    assert loaded.events == ledger.events
    assert loaded.state == ledger.state
    assert loaded.state.name == "digits"


def test_each_event_is_one_object_by_number(ledger: Ledger, store: Storage) -> None:
    fill(ledger)
    assert store.keys() == [f"ledger/{number:09d}.json" for number in range(1, len(ledger.events) + 1)]


def test_follower_receives_each_event_once_with_the_state_after_it(ledger: Ledger, store: Storage) -> None:
    follower = Ledger.load(store, upto=1)
    fill(ledger)
    for number, event in enumerate(follower.news(), start=2):
        assert event == ledger.events[number - 1]
        assert follower.state == Ledger.load(store, upto=number).state
    assert follower.events == ledger.events
    assert list(follower.news()) == []
    ledger.append(Proposed(trial="a/9", params={}, seeds=[0]))
    assert list(follower.news()) == [ledger.events[-1]]


def test_second_study_in_one_storage_is_refused(ledger: Ledger, store: Storage) -> None:
    with pytest.raises(StudyError, match="already a study"):
        Ledger.create(store, {}, "other", "other", {})
    assert Ledger.load(store).state.digest == ledger.state.digest


def test_storage_without_a_study_is_refused(store: Storage) -> None:
    with pytest.raises(StudyError, match="no study here"):
        Ledger.load(store)


def test_illegal_event_is_refused_and_not_written(ledger: Ledger, store: Storage) -> None:
    before, keys = ledger.state, store.keys()
    for event in (
        Began(trial="a/0", attempt=1),
        Proposed(trial="a/0", params={"x": object()}, seeds=[0]),
        Event(),
    ):
        with pytest.raises(LedgerError):
            ledger.append(event)
    assert (ledger.state, store.keys()) == (before, keys)
    fill(ledger)


def test_state_in_memory_equals_a_reload(ledger: Ledger, store: Storage) -> None:
    fill(ledger)
    assert ledger.state.trials["a/0"].params == {"lr": [0.1, 0.2]}


def test_earlier_driver_is_fenced_for_good(ledger: Ledger, store: Storage) -> None:
    fill(ledger)
    later = Ledger.load(store)
    later.append(DriverStarted(epoch=2, host="h", pid=2))
    for _ in range(2):
        with pytest.raises(Fenced, match="another driver wrote event 9"):
            ledger.append(DriverStopped(epoch=1, reason="done"))
    assert Ledger.load(store).state == later.state


def test_earlier_driver_is_fenced_after_compaction_too(ledger: Ledger, store: Storage) -> None:
    later = Ledger.load(store)
    fill(later)
    later.compact()
    with pytest.raises(Fenced):
        ledger.append(DriverStarted(epoch=9, host="h", pid=2))


def test_two_drivers_do_not_confuse_equal_events(ledger: Ledger, store: Storage) -> None:
    other, event = Ledger.load(store), DriverStarted(epoch=1, host="h", pid=1)
    ledger.append(event)
    with pytest.raises(Fenced):
        other.append(event)


def test_event_may_be_appended_again_after_a_storage_error(store: Storage) -> None:
    ledger = Ledger.create(store, {}, "d", "n", {})
    event = DriverStarted(epoch=1, host="h", pid=1)
    store.write("ledger/000000002.json", encode(2, ledger._writer, event))
    ledger.append(event)
    assert Ledger.load(store).events == ledger.events


def test_paused_driver_process_is_fenced_when_it_resumes(spawn, ledger: Ledger, store: Storage) -> None:
    child = spawn(DRIVER, store.url, "child")

    def turn() -> str:
        child.stdin.write("\n")
        child.stdin.flush()
        return child.stdout.readline().strip()

    assert child.stdout.readline() == "loaded\n"
    assert turn() == "recorded"
    mine = Ledger.load(store)
    assert "child/0" in mine.state.trials
    mine.append(DriverStarted(epoch=1, host="h", pid=1))
    assert [turn(), turn()] == ["fenced", "fenced"]
    mine.append(Proposed(trial="mine/0", params={}, seeds=[0]))
    assert list(Ledger.load(store).state.trials) == ["child/0", "mine/0"]


def test_one_of_many_concurrent_driver_processes_continues(spawn, ledger: Ledger, store: Storage) -> None:
    children = [spawn(DRIVER, store.url, f"d{number}") for number in range(3)]
    assert [child.stdout.readline() for child in children] == ["loaded\n"] * 3
    for child in children:
        child.stdin.write("\n" * 5)
        child.stdin.flush()
    answers = sorted([child.stdout.readline().strip() for _ in range(5)] for child in children)
    assert answers == [["fenced"] * 5, ["fenced"] * 5, ["recorded"] * 5]
    assert len(Ledger.load(store).state.trials) == 5


def test_killed_driver_loses_no_recorded_event(spawn, ledger: Ledger, store: Storage) -> None:
    for turn in range(4):
        child = spawn(APPENDER, store.url, f"a/{turn}")
        first = child.stdout.readline()
        time.sleep(0.02 + 0.017 * turn)
        child.kill()
        *printed, _ = (first + child.communicate()[0]).split("\n")  # the last line may be cut
        recorded = int(printed[-1])
        loaded = Ledger.load(store)
        assert recorded <= len(loaded.events) <= recorded + 1
        loaded.compact()


def test_compaction_changes_only_the_startup_time(ledger: Ledger, store: Storage) -> None:
    fill(ledger)
    before = store.keys()
    ledger.compact()
    assert set(store.keys()) - set(before) == {"ledger/compacted.jsonl"}
    assert Ledger.load(store).state == ledger.state
    ledger.append(DriverStopped(epoch=1, reason="done"))
    assert Ledger.load(store).events == ledger.events


def test_compacted_events_are_not_read_again(ledger: Ledger, store: Storage) -> None:
    fill(ledger).compact()
    store.write("ledger/000000002.json", b"corrupt")
    assert Ledger.load(store).state == ledger.state


def test_thousand_finished_trials_replay_in_two_seconds_after_compaction(tmp_path: Path) -> None:
    store = open_storage(tmp_path)
    Ledger.create(store, {}, "d", "n", {})
    events: list[Event] = [DriverStarted(epoch=1, host="h", pid=1)]
    for ordinal in range(1000):
        trial = f"arm/{ordinal}"
        events.append(Proposed(trial=trial, params={"learner.optimizer.lr": 0.1, "x": ordinal}, seeds=[0, 1, 2]))
        events.append(Began(trial=trial, attempt=1))
        values = {f"metric/{number}": 0.123456789 for number in range(8)}
        events += [
            Committed(trial=trial, attempt=1, commit=f"trials/{trial}/{step}", step=step, value=0.5, values=values)
            for step in range(2)
        ]
        events.append(Ended(trial=trial, state="finished", step=1, value=0.5, metrics={"m": [0.5] * 3}, cause=None))
    for number, event in enumerate(events, start=2):
        (tmp_path / "ledger" / f"{number:09d}.json").write_bytes(encode(number, "w", event))
    Ledger.load(store).compact()

    began = time.perf_counter()
    loaded = Ledger.load(store)
    seconds = time.perf_counter() - began
    assert len(loaded.events) == 5_002
    assert seconds < 2.0


def test_corrupt_event_is_named_with_its_number_and_the_next_move(ledger: Ledger, store: Storage) -> None:
    fill(ledger)
    intact = store.read("ledger/000000003.json")
    for corrupt in (
        b"",
        intact[: len(intact) // 2],
        intact.replace(b"a/0", b"a/7"),
        b"\xff\xfe",
        b"[1, 2]",
        intact * 2,
    ):
        store.write("ledger/000000003.json", corrupt)
        with pytest.raises(StudyError, match=r"ledger/000000003\.json: event 3 of 8 is corrupt .*; restore") as caught:
            Ledger.load(store)
        assert "\n" not in str(caught.value)
        assert "move it away" not in str(caught.value)


def test_corrupt_last_event_may_be_moved_away(ledger: Ledger, store: Storage) -> None:
    fill(ledger)
    store.write("ledger/000000008.json", b"{")
    with pytest.raises(StudyError, match="move it away to resume from event 7"):
        Ledger.load(store)
    store.delete("ledger/000000008.json")
    assert Ledger.load(store).events == ledger.events[:-1]


def test_missing_event_is_named(ledger: Ledger, store: Storage) -> None:
    fill(ledger)
    store.delete("ledger/000000004.json")
    with pytest.raises(StudyError, match=r"ledger/000000004\.json: event 4 of 8 is missing"):
        Ledger.load(store)


def test_event_of_a_later_version_is_refused_by_name(ledger: Ledger, store: Storage) -> None:
    store.write("ledger/000000002.json", seal(b'{"number":2,"event":{"kind":"Merged"}}\n'))
    with pytest.raises(StudyError, match=r"event 2 .*another version .*'Merged'"):
        Ledger.load(store)


def test_illegal_event_on_the_disk_is_named_with_its_file(ledger: Ledger, store: Storage) -> None:
    store.write("ledger/000000002.json", encode(2, "w", StudyCreated(spec={}, digest="", name="", versions={})))
    with pytest.raises(StudyError, match=r"000000002\.json: event 2 .*a study is created once"):
        Ledger.load(store)


def test_corrupt_compaction_is_reported_and_the_events_are_read(
    ledger: Ledger, store: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    fill(ledger).compact()
    intact = store.read("ledger/compacted.jsonl")
    flipped = [intact[:n] + bytes([intact[n] ^ 4]) + intact[n + 1 :] for n in range(0, len(intact), 97)]
    for corrupt in (b"", intact[:-1], intact[: len(intact) // 2], *flipped):
        caplog.clear()
        store.write("ledger/compacted.jsonl", corrupt)
        with caplog.at_level(logging.WARNING):
            assert Ledger.load(store).state == ledger.state
        assert "ledger/compacted.jsonl: its checksum does not match" in caplog.text
