"""Files next to the events, how far a follower reads ahead, when a compaction is due."""

from __future__ import annotations

from pathlib import Path

import pytest

from olfl_ray.errors import SetupError, StudyError
from olfl_ray.ledger import DriverStarted, Ledger, Proposed, StudyCreated, log
from olfl_ray.ledger.codec import seal
from olfl_ray.storage import Storage, open_storage


@pytest.fixture
def disk(tmp_path: Path) -> Storage:
    return open_storage(tmp_path)


@pytest.fixture
def study(disk: Storage) -> Ledger:
    return Ledger.create(disk, {"seed": 0}, "d", "digits", {})


def proposed(ordinal: int) -> Proposed:
    return Proposed(trial=f"a/{ordinal}", params={}, seeds=[0])


@pytest.mark.parametrize("name", ["notes.json", "000000007.txt", "000000002.json.part", "7"])
def test_foreign_file_next_to_the_events_is_ignored(name: str, study: Ledger, disk: Storage) -> None:
    disk.write(f"ledger/{name}", b"of somebody else")
    assert Ledger.load(disk).events == study.events


def test_a_missing_event_is_named_with_its_file(study: Ledger, disk: Storage) -> None:
    for ordinal in range(3):
        study.append(proposed(ordinal))
    disk.delete("ledger/000000003.json")
    with pytest.raises(StudyError, match=r"ledger/000000003\.json: event 3 of 4 is missing; restore") as caught:
        Ledger.load(disk)
    assert "resume from" not in str(caught.value), "only the last event may be moved away"


def test_only_a_corrupt_last_event_may_be_moved_away_and_the_message_names_the_rest(
    study: Ledger, disk: Storage
) -> None:
    study.append(proposed(0))
    disk.write("ledger/000000002.json", b"corrupt")
    with pytest.raises(StudyError, match="move it away to resume from event 1"):
        Ledger.load(disk)
    disk.delete("ledger/000000002.json")
    disk.write("ledger/000000001.json", b"corrupt")
    with pytest.raises(StudyError, match="event 1 of 1 is corrupt") as caught:
        Ledger.load(disk)
    assert "move it away" not in str(caught.value)


def test_replay_of_the_first_events_reads_no_others(study: Ledger, disk: Storage) -> None:
    for ordinal in range(4):
        study.append(proposed(ordinal))
    assert Ledger.load(disk, upto=3).events == study.events[:3]
    assert Ledger.load(disk, upto=99).events == study.events


def test_compaction_that_lacks_one_of_its_events_is_not_used(
    study: Ledger, disk: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    study.append(proposed(0))
    study.append(proposed(1))
    study.compact()
    second = disk.read("ledger/000000002.json")
    disk.write("ledger/000000002.json", b"corrupt")
    assert Ledger.load(disk).events == study.events
    assert not caplog.text, "with a complete compaction no event is read again, so none is found corrupt"
    disk.write("ledger/000000002.json", second)
    first, _, third = (disk.read(f"ledger/{number:09d}.json") for number in (1, 2, 3))
    disk.write("ledger/compacted.jsonl", seal(b'{"events": 3}\n' + first + third))
    assert Ledger.load(disk).events == study.events
    assert "number of events" in caplog.text


def test_follower_doubles_its_read_ahead_up_to_a_limit(
    study: Ledger, disk: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower, read, read_all = Ledger.load(disk), [], log._read_all

    def counted(storage: Storage, numbers: list[int]) -> dict[int, bytes]:
        read.append(numbers)
        return read_all(storage, numbers)

    monkeypatch.setattr(log, "_AHEAD", 8)
    for ordinal in range(25):
        study.append(proposed(ordinal))
    monkeypatch.setattr(log, "_read_all", counted)
    assert list(follower.news()) == list(study.events[1:])
    assert [len(numbers) for numbers in read] == [1, 2, 4, 8, 8, 8]
    assert [numbers[0] for numbers in read] == [2, 3, 5, 9, 17, 25], "each event is read once"


def test_compaction_is_due_after_a_number_of_events_and_then_after_a_tenth_more(
    disk: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "_COMPACT_EVERY", 10)
    ledger, made = Ledger.create(disk, {}, "d", "n", {}), []
    monkeypatch.setattr(Ledger, "compact", lambda self: made.append(len(self.events)))
    for ordinal in range(122):
        ledger.append(proposed(ordinal))
    assert made == [*range(10, 101, 10), 111, 123], "from a hundred on, after a tenth more"


def test_event_is_kept_if_its_compaction_is_refused(
    disk: Storage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: Ledger) -> None:
        raise SetupError("no space left")

    monkeypatch.setattr(log, "_COMPACT_EVERY", 2)
    monkeypatch.setattr(Ledger, "compact", refuse)
    ledger = Ledger.create(disk, {}, "d", "n", {})
    ledger.append(DriverStarted(epoch=1, host="h", pid=1))
    assert Ledger.load(disk).events == ledger.events
    assert "no space left" in caplog.text


def test_a_state_stays_as_it_was_when_later_events_follow(study: Ledger) -> None:
    study.append(proposed(0))
    before, live = study.state, study.live
    study.append(proposed(1))
    assert list(before.trials) == ["a/0"]
    assert list(live.trials) == list(study.state.trials) == ["a/0", "a/1"]
    assert study.state is study.state, "not copied at each reading"


def test_a_new_study_has_an_identity_of_its_own(study: Ledger, disk: Storage) -> None:
    (created,) = study.events
    assert isinstance(created, StudyCreated)
    assert created.identity
    assert Ledger.load(disk).state.identity == created.identity == study.state.identity


def test_a_study_is_the_current_one_by_its_first_event_as_an_object_or_compacted(study: Ledger, disk: Storage) -> None:
    study.append(proposed(0))
    assert study.is_current()
    study.compact()
    first = disk.read("ledger/000000001.json")
    disk.delete("ledger/000000001.json")
    assert study.is_current(), "compacted"
    disk.delete("ledger/compacted.jsonl")
    assert not study.is_current(), "deleted"
    disk.write("ledger/000000001.json", first.replace(b"digits", b"others"))
    assert not study.is_current(), "another study began there"
