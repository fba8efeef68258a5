"""An assignment's settings reach the trial; when a commit is due; what is stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from olfl_ray.errors import SetupError
from olfl_ray.ledger import Commit, StopRequest, read_file, state_key, trial_folder
from olfl_ray.records import RECORDS, SURFACES, from_parquet
from olfl_ray.spec import TrialConfig
from olfl_ray.storage import open_storage
from olfl_ray.trial import Progress, TrialState
from olfl_ray.worker import Assignment, KeptLosses, Message, Session
from olfl_ray.worker import session as session_file
from olfl_ray.worker.session import StoragePhiCache

SETTINGS: dict[str, Any] = {
    "task": {"dataset": "digits", "model": {"name": "mlp", "hidden": [4]}, "batch_size": 8},
    "learner": {"method": "online", "steps": 8, "optimizer": {"name": "sgd", "lr": 0.01}},
    "meta": {"init_steps": 4, "eta_online": 1e-3},
    "eval": {"every": 2},
    "seeds": [1],
}


@pytest.fixture(autouse=True)
def _own_threads() -> Iterator[None]:
    """Sessions set the process's threads; restore them for other tests."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def session(tmp_path: Path, cache: Path, settings: dict[str, Any] | None = None, **changes: Any) -> Session:
    config = TrialConfig.model_validate({**SETTINGS, **(settings or {})})
    given: dict[str, Any] = {
        "study": str(tmp_path / "study"),
        "trial": "online/0",
        "config": config.model_dump_json(by_alias=True),
        "cache": str(cache),
        "data_root": None,
        "studies": None,
        "device": "cpu",
        "threads": 1,
        "commit_every": 100,
        "pruner": '{"name": "none"}',
        "max_seconds": None,
        "epoch": 1,
    }
    return Session(Assignment(**{**given, **changes}))


def commits(messages: Iterator[Message]) -> list[Commit]:
    return [message.commit for message in messages if message.commit is not None]


def test_place_of_a_trial_is_set_by_its_assignment(tmp_path: Path, cache: Path) -> None:
    place = session(
        tmp_path, cache, data_root="/data", studies="/studies", studies_url="s3://b/studies", device="cuda"
    )._environment()
    assert (place.cache, place.data_root) == (cache, Path("/data"))
    assert place.losses == KeptLosses(studies=Path("/studies"), studies_url="s3://b/studies")
    assert place.device == "cuda"
    bare = session(tmp_path, cache)._environment()
    assert (bare.data_root, bare.losses, bare.device) == (None, KeptLosses(studies=None), "cpu")


def test_node_fetches_its_data_set_from_the_shared_storage(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def node_cache(name: str, folder: Path, shared: object, options: object, fingerprint: str) -> Path:
        asked.append((name, folder, shared.url, options, fingerprint))  # type: ignore[attr-defined]
        return tmp_path / "node"

    monkeypatch.setattr(session_file.data, "node_cache", node_cache)
    assert session(tmp_path, cache)._environment().cache == cache
    assert not asked
    shared = (tmp_path / "shared").as_uri()
    assert session(tmp_path, cache, shared_data=shared, data="abc")._environment().cache == tmp_path / "node"
    assert asked == [("digits", cache, open_storage(shared).url, {}, "abc")]


def test_session_sets_its_threads(tmp_path: Path, cache: Path) -> None:
    for threads in (2, 1):
        session(tmp_path, cache, threads=threads)
        assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("device", "gpu", "alone", "share"),
    [("cuda", 0.25, False, 0.25), ("cuda:1", 0.25, True, 1.0), ("cuda", 2.0, False, 1.0), ("cuda", 0.0, False, 1.0)],
)
def test_trial_on_a_shared_gpu_has_its_part_of_the_memory(
    device: str, gpu: float, alone: bool, share: float, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[float] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", taken.append)
    session_file._bound_memory(session(tmp_path, cache, device=device, gpu=gpu, alone=alone).assignment)
    assert taken == [share]
    session_file._bound_memory(session(tmp_path, cache, device="cpu", gpu=gpu).assignment)
    begun = session(tmp_path, cache, device=device, gpu=gpu, alone=alone)
    next(begun.messages())
    assert taken == [share, share], "before it begins"
    taken.pop()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    session_file._bound_memory(session(tmp_path, cache, device=device, gpu=gpu).assignment)
    assert taken == [share], "only on a GPU, if there is one"


@pytest.mark.parametrize(
    ("every", "positions"), [(1, [2, 4, 6, 8, 10, 12]), (3, [4, 6, 10, 12]), (6, [4, 6, 12]), (100, [4, 12])]
)
def test_commit_is_due_at_the_first_record_after_each_interval_and_after_initialization(
    every: int, positions: list[int], tmp_path: Path, cache: Path
) -> None:
    found = commits(session(tmp_path, cache, commit_every=every).messages())
    assert [commit.position for commit in found] == positions
    assert [commit.step for commit in found] == [max(0, position - 4) for position in positions]


def test_first_step_may_have_a_commit(tmp_path: Path, cache: Path) -> None:
    short = {"learner": {**SETTINGS["learner"], "method": "baseline", "steps": 3}, "eval": {"every": 1}}
    first = session(tmp_path, cache, short, commit_every=1)
    assert [commit.step for commit in commits(first.messages())] == [1, 2, 3]
    pruner = '{"name": "median", "min_steps": 1}'
    second = session(tmp_path, cache, short, trial="online/1", pruner=pruner)
    assert [commit.step for commit in commits(second.messages())] == [1, 2, 3]


def test_interval_continues_when_a_session_resumes(tmp_path: Path, cache: Path) -> None:
    messages = session(tmp_path, cache, commit_every=3).messages()
    for _ in range(3):  # begun, and the commits at 4 and 6
        next(messages)
    pruner = '{"name": "asha", "min_steps": 2, "reduction": 2}'
    again = list(session(tmp_path, cache, commit_every=3, pruner=pruner).messages())
    assert [(commit.position, commit.attempt) for commit in commits(iter(again))] == [
        (4, 1), (6, 1), (8, 2), (10, 2), (12, 2),
    ]  # fmt: skip
    keys = [commit.key for commit in commits(iter(again))]
    assert [commit.parent for commit in commits(iter(again))] == [None, *keys[:-1]]


def test_records_of_successive_commits_are_contiguous_and_surfaces_are_stored(tmp_path: Path, cache: Path) -> None:
    own = session(tmp_path, cache, commit_every=6)
    found = commits(own.messages())
    tables = [from_parquet(read_file(own.storage, commit, ".records.parquet") or b"", RECORDS) for commit in found]
    assert [sorted(set(table["step"].to_pylist())) for table in tables] == [[2, 4], [2], [4, 6, 8]]
    surfaces = [read_file(own.storage, commit, ".surfaces.parquet") for commit in found]
    steps = [None if one is None else sorted(set(from_parquet(one, SURFACES)["step"].to_pylist())) for one in surfaces]
    assert steps == [None, [0, 2], [4, 8]]
    states = [own.storage.exists(state_key(commit)) for commit in found]
    assert states == [False, True, True], "the last two states are enough"


def test_two_states_are_kept_across_a_restart_too(tmp_path: Path, cache: Path) -> None:
    messages = session(tmp_path, cache, commit_every=2).messages()
    for _ in range(4):
        next(messages)
    own = session(tmp_path, cache, commit_every=2)
    found = commits(own.messages())
    assert [own.storage.exists(state_key(commit)) for commit in found] == [False] * 4 + [True] * 2


def test_only_a_session_over_its_time_reports_its_budget(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter([100.0, 105.0, 110.0, 110.5])
    monkeypatch.setattr(session_file, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    messages = list(session(tmp_path, cache, max_seconds=10.0).messages())
    assert [message.event for message in messages] == ["begun", "commit", "commit", "failed"]
    assert "budget.trial_seconds" in messages[-1].cause
    assert [commit.position for commit in commits(iter(messages))] == [4, 6], (
        "at ten seconds the limit is not exceeded yet"
    )
    ticks = iter([100.0, *[109.0] * 9])
    messages = list(session(tmp_path, cache, {"seeds": [2]}, trial="online/1", max_seconds=10.0).messages())
    assert messages[-1].event == "commit"
    assert messages[-1].last


def test_trial_that_ends_at_its_limit_or_at_a_stop_request_has_ended(tmp_path: Path, cache: Path) -> None:
    short = {"learner": {**SETTINGS["learner"], "method": "baseline", "steps": 2}}
    StopRequest(open_storage(tmp_path / "study"), epoch=1).make()
    messages = list(session(tmp_path, cache, short, max_seconds=1e-9).messages())
    assert [message.event for message in messages] == ["begun", "commit"]
    assert messages[-1].last


def test_out_of_memory_and_a_refusing_storage_have_their_own_messages(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error, kind, cause in (
        (torch.OutOfMemoryError("no 8 GiB left\nsecond line"), "out_of_memory", "no 8 GiB left"),
        (SetupError("no space left"), "refused", "no space left"),
    ):

        def fail(*_: object, error: Exception = error) -> Iterator[Progress]:
            raise error
            yield

        monkeypatch.setattr(session_file, "run", fail)
        (begun, said) = session(tmp_path, cache).messages()
        assert (begun.event, said.event, said.cause, said.attempt) == ("begun", kind, cause, begun.attempt)


def test_attempts_are_numbered_after_the_discarded_ones(tmp_path: Path, cache: Path) -> None:
    for scratch, attempt in ((0, 1), (0, 2), (4, 5), (1, 3)):
        own = session(tmp_path, cache, scratch=scratch)
        begun = next(own.messages())
        assert (begun.event, begun.attempt, begun.trial) == ("begun", attempt, "online/0")
        assert own.storage.exists(f"{trial_folder('online/0')}/attempt-{attempt}/begun.json")


def test_trial_does_not_resume_from_a_discarded_attempt(tmp_path: Path, cache: Path) -> None:
    first = commits(session(tmp_path, cache).messages())
    kept = list(session(tmp_path, cache).messages())
    assert [message.commit for message in kept[1:]] == first, "all of attempt 1 is reported again"
    repeated = commits(session(tmp_path, cache, scratch=2).messages())
    assert len(repeated) == len(first)
    assert {commit.attempt for commit in repeated} == {3}


def test_session_that_cannot_see_the_study_has_no_attempt(tmp_path: Path, cache: Path) -> None:
    own = session(tmp_path, cache, witness="driver/here")
    (refused,) = own.messages()
    assert (refused.event, refused.attempt) == ("refused", 0)
    assert not own.storage.exists(f"{trial_folder('online/0')}/attempt-1/begun.json")


def test_only_a_request_to_this_epochs_driver_stops_a_session(tmp_path: Path, cache: Path) -> None:
    storage = open_storage(tmp_path / "study")
    StopRequest(storage, epoch=1).make()
    stopped = list(session(tmp_path, cache).messages())
    assert [message.event for message in stopped] == ["begun", "commit", "stopped"]
    rest = list(session(tmp_path, cache, epoch=2).messages())
    assert rest[-1].event == "commit"


def test_learned_loss_is_stored_under_its_checksum_and_recreated_if_corrupt(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    kept = StoragePhiCache(storage)
    assert kept.get("k") is None
    kept.put("k", b"phi")
    assert kept.get("k") == b"phi"
    (key,) = storage.keys("")
    assert storage.read(key) == hashlib.sha256(b"phi").digest() + b"phi"
    storage.write(key, storage.read(key)[:-1] + b"?")
    assert kept.get("k") is None


def test_initialized_loss_is_computed_once_for_all_trials_of_a_study(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = session(tmp_path, cache)
    commits(first.messages())
    (key,) = first.storage.keys("cache/phi/")
    made: list[TrialState] = []
    monkeypatch.setattr(StoragePhiCache, "put", lambda self, key, value: made.append(key))
    second = commits(session(tmp_path, cache, trial="online/1").messages())
    assert second[0].position == 4
    assert not made
    assert json.loads(read_file(first.storage, second[0], ".learned_loss.json") or b"{}")
    assert key
