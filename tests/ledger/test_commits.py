"""Commits are atomic; a trial resumes from the latest intact commit that keeps what the ledger has recorded."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from olfl_ray.errors import DataError
from olfl_ray.ledger import Commit, read_commit, read_file, restore_point, state_key, trial_folder, write_commit
from olfl_ray.ledger.codec import seal, unseal
from olfl_ray.ledger.commits import RestorePoint, latest_attempt, left_by_learnable
from olfl_ray.storage import Storage, open_storage

TRIAL = "online/3"


@pytest.fixture
def disk(tmp_path: Path) -> Storage:
    return open_storage(tmp_path)


def commit(
    disk: Storage, position: int, parent: Commit | None = None, *, attempt: int = 1, state: bool = True, step: int = 0
) -> Commit:
    """Write one."""
    bare = Commit(
        trial=TRIAL,
        attempt=attempt,
        position=position,
        step=step,
        outcome=None,
        report={"m": [0.5]},
        parent=None if parent is None else parent.key,
    )
    files = {"records.parquet": b"records of %d" % position}
    return write_commit(disk, bare, files | ({"state.safetensors": b"state of %d" % position} if state else {}))


def positions(disk: Storage, **given: object) -> list[int]:
    point = restore_point(disk, TRIAL, **given)  # type: ignore[arg-type]
    if point.chain:
        assert point.state == b"state of %d" % point.chain[-1].position
    else:
        assert point.state is None
    return [one.position for one in point.chain]


def test_a_manifest_names_its_files_and_their_checksums(disk: Storage) -> None:
    first = commit(disk, 20)
    second = commit(disk, 40, first, attempt=2, step=20)
    base = "trials/online/3/attempt-2/000000040"
    assert trial_folder(TRIAL) == "trials/online/3"
    assert (second.key, state_key(second)) == (f"{base}.commit.json", f"{base}.state.safetensors")
    assert second.files == {
        f"{base}.records.parquet": hashlib.sha256(b"records of 40").hexdigest(),
        f"{base}.state.safetensors": hashlib.sha256(b"state of 40").hexdigest(),
    }
    assert second.parent == first.key
    assert read_commit(disk, second.key) == second
    assert json.loads(unseal(disk.read(second.key)))["report"] == {"m": [0.5]}
    assert read_file(disk, second, ".records.parquet") == b"records of 40"
    assert read_file(disk, second, ".surfaces.parquet") is None


def test_the_manifest_is_written_after_all_its_files(disk: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(type(disk), "write_all", full)
    with pytest.raises(OSError, match="no space left"):
        commit(disk, 20)
    assert positions(disk) == []


@pytest.mark.parametrize("content", [None, b"", b"{}", b"not what was written"])
def test_corrupt_file_or_manifest_is_named(disk: Storage, content: bytes | None) -> None:
    made = commit(disk, 20)
    records = made.file(".records.parquet")
    assert records is not None
    for key in (made.key, records):
        disk.delete(key)
        if content is not None:
            disk.write(key, content)
    with pytest.raises(DataError, match=made.key):
        read_commit(disk, made.key)
    with pytest.raises(DataError, match=records):
        read_file(disk, made, ".records.parquet")


def test_a_trial_without_commits_resumes_from_the_beginning(disk: Storage) -> None:
    assert positions(disk) == []
    disk.create(f"{trial_folder(TRIAL)}/attempt-1/begun.json", b"{}")
    assert positions(disk) == []


def test_trial_resumes_from_its_last_commit_with_all_earlier_ones_in_order(disk: Storage) -> None:
    one = commit(disk, 20)
    two = commit(disk, 40, one)
    commit(disk, 60, two, attempt=2)
    assert positions(disk) == [20, 40, 60]


def test_states_of_earlier_commits_may_be_deleted_and_records_may_not(disk: Storage) -> None:
    one = commit(disk, 20)
    two = commit(disk, 40, one)
    commit(disk, 60, two)
    disk.delete(state_key(one))
    disk.delete(state_key(two))
    assert positions(disk) == [20, 40, 60]
    disk.write(f"{trial_folder(TRIAL)}/attempt-1/000000040.records.parquet", b"corrupt")
    assert positions(disk) == [], "no complete chain has a state"


@pytest.mark.parametrize("name", ["state.safetensors", "records.parquet", "commit.json"])
def test_corrupt_commit_is_skipped_for_the_one_before(disk: Storage, name: str) -> None:
    one = commit(disk, 20)
    two = commit(disk, 40, one)
    commit(disk, 60, two)
    disk.write(f"{trial_folder(TRIAL)}/attempt-1/000000060.{name}", b"corrupt")
    assert positions(disk) == [20, 40]
    disk.delete(f"{trial_folder(TRIAL)}/attempt-1/000000040.{name}")
    assert positions(disk) == [20]


def test_commit_with_missing_ancestors_is_skipped(disk: Storage) -> None:
    one = commit(disk, 20)
    two = commit(disk, 40, one)
    three = commit(disk, 60, two)
    disk.delete(two.key)
    assert positions(disk) == [20]
    assert read_commit(disk, three.key) == three


def test_commit_without_a_state_is_not_resumed_from(disk: Storage) -> None:
    one = commit(disk, 20)
    commit(disk, 40, one, state=False)
    assert positions(disk) == [20]


def test_recorded_commits_win_over_later_unrecorded_ones(disk: Storage) -> None:
    one = commit(disk, 20)
    known = commit(disk, 40, one)
    commit(disk, 60, one, attempt=2)
    assert positions(disk) == [20, 60]
    assert positions(disk, recorded=[one.key]) == [20, 60]
    assert positions(disk, recorded=[one.key, known.key]) == [20, 40]


def test_the_latest_attempt_wins_among_commits_at_the_same_step(disk: Storage) -> None:
    one = commit(disk, 20)
    for attempt in (2, 10, 9):
        commit(disk, 40, one, attempt=attempt)
    chain = restore_point(disk, TRIAL).chain
    assert [(part.position, part.attempt) for part in chain] == [(20, 1), (40, 10)]


@pytest.mark.parametrize(("scratch", "found"), [(0, [20, 40]), (1, [30]), (2, [])])
def test_discarded_attempts_are_not_resumed_from(disk: Storage, scratch: int, found: list[int]) -> None:
    commit(disk, 40, commit(disk, 20))
    commit(disk, 30, attempt=2)
    assert positions(disk, scratch=scratch) == found


def test_the_latest_attempt_is_the_greatest_number_that_a_worker_claimed(disk: Storage) -> None:
    assert latest_attempt(disk, TRIAL) == 0
    disk.write(f"{trial_folder(TRIAL)}/attempt-one/begun.json", b"")
    assert latest_attempt(disk, TRIAL) == 0
    for attempt in (1, 10, 9):
        disk.create(f"{trial_folder(TRIAL)}/attempt-{attempt}/begun.json", b"{}")
    disk.write(f"{trial_folder(TRIAL)}/notes/of-somebody", b"")
    disk.write(f"{trial_folder('online/30')}/attempt-77/begun.json", b"{}")
    assert latest_attempt(disk, TRIAL) == 10


@pytest.mark.parametrize("changes", [{"position": "40"}, {"step": 1.0}, {"attempt": None}])
def test_sealed_manifest_in_another_format_is_refused(disk: Storage, changes: dict[str, object]) -> None:
    made = commit(disk, 40)
    disk.write(made.key, seal(json.dumps(json.loads(unseal(disk.read(made.key))) | changes).encode()))
    with pytest.raises(DataError, match=made.key):
        read_commit(disk, made.key)
    assert positions(disk) == []


def test_a_learnables_files_are_those_besides_measurements_and_state(disk: Storage) -> None:
    files = {"records.parquet": b"r", "surfaces.parquet": b"s", "state.safetensors": b"t", "loss.json": b"l"}
    bare = Commit(trial=TRIAL, attempt=1, position=1, step=1, outcome=None, report={}, parent=None)
    assert left_by_learnable(disk, write_commit(disk, bare, files)) == {"loss.json": b"l"}


def test_a_long_reason_is_cut_after_300_characters(disk: Storage) -> None:
    made = commit(disk, 20)
    disk.write(made.key, seal(json.dumps({"x" * 500: 1}).encode()))
    with pytest.raises(DataError) as caught:
        read_commit(disk, made.key)
    reason = str(caught.value).partition("is corrupt (")[2].partition("); restore")[0]
    assert len(reason) == 300


def test_manifests_that_name_each_other_as_parents_are_no_point_to_resume_from(disk: Storage) -> None:
    first = commit(disk, 20)
    second = commit(disk, 40, first)
    forged = replace(first, parent=second.key)
    disk.write(first.key, seal(json.dumps(asdict(forged)).encode()))
    assert restore_point(disk, TRIAL) == RestorePoint()
