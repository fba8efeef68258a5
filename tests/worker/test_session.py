"""A worker's session without Ray: commits at its interval, resumes from the last intact one, and ends as if uninterrupted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from olfl_ray.ledger import Commit, StopRequest, read_file, state_key, trial_folder
from olfl_ray.records import RECORDS, Record, from_parquet, names, records_from_table
from olfl_ray.spec import TrialConfig
from olfl_ray.storage import Storage, open_storage
from olfl_ray.trial import state_from_bytes
from olfl_ray.worker import Assignment, Message, Session

TRIAL = "online/0"
SETTINGS: dict[str, Any] = {
    "task": {"dataset": "digits", "model": {"name": "mlp", "hidden": [8]}, "batch_size": 8},
    "learner": {"method": "online", "steps": 60, "optimizer": {"name": "adam", "lr": 0.01}},
    "meta": {"init_steps": 20, "eta_online": 1e-3},
    "eval": {"every": 10},
    "seeds": [1, 2],
}
POSITIONS = [20, 40, 60, 80]
"""Commits of the settings above, every 20 steps of initialisation and training."""

fails_at: int | None = None


class Fragile(nn.Module):
    """A user's model that fails at a forward pass of its choosing."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(64, outputs)
        self.passes = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        if self.passes == fails_at:
            raise ArithmeticError("a user's own mistake")
        value: torch.Tensor = self.linear(x)
        return value


def fragile(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    return Fragile(outputs)


def far_away() -> tuple[torch.Tensor, torch.Tensor]:
    """A user's data set that does not come."""
    raise ConnectionError("postgresql://reader:hunter2@db/rows does not answer")


class Desk:
    """Makes sessions of one trial on a study's storage."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.storage: Storage = open_storage(folder)
        self._folder, self._cache = folder, cache

    def session(self, settings: dict[str, Any] | None = None, **changes: Any) -> Iterator[Message]:
        config = TrialConfig.model_validate({**SETTINGS, **(settings or {})})
        given: dict[str, Any] = {
            "study": str(self._folder),
            "trial": TRIAL,
            "config": config.model_dump_json(by_alias=True),
            "cache": str(self._cache),
            "data_root": None,
            "studies": None,
            "device": "cpu",
            "threads": 1,
            "commit_every": 20,
            "pruner": '{"name": "none"}',
            "max_seconds": None,
            "epoch": 1,
        }
        return Session(Assignment(**{**given, **changes})).messages()

    def records(self, chain: list[Commit]) -> list[tuple[int, dict[str, tuple[float, ...]]]]:
        """What the commits recorded, without what measures the machine."""
        found: list[Record] = []
        for commit in chain:
            content = read_file(self.storage, commit, "records.parquet")
            assert content is not None
            found += records_from_table(from_parquet(content, RECORDS))
        return [
            (record.step, {name: value for name, value in record.metrics.items() if name not in names.VOLATILE})
            for record in found
        ]

    def tensors(self, commit: Commit) -> dict[str, torch.Tensor]:
        """Everything that training changes, as a commit's state has it."""
        content = read_file(self.storage, commit, ".state.safetensors")
        assert content is not None
        return {
            f"{index}/{part}/{name}": value
            for index, own in enumerate(state_from_bytes(content).replicates)
            for part in ("theta", "buffers", "opt_state", "phi", "meta_state")
            for name, value in getattr(own.learner, part).items()
        } | {f"{index}/rng": own.rng for index, own in enumerate(state_from_bytes(content).replicates)}


@pytest.fixture(autouse=True, scope="module")
def _own_threads() -> Iterator[None]:
    """Sessions set the process's threads; the tests of other rooms get theirs back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data sets."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def desk(tmp_path: Path, cache: Path) -> Desk:
    """An empty study."""
    return Desk(tmp_path / "study", cache)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Desk, list[Commit]]:
    """The trial, never dropped."""
    own = Desk(tmp_path_factory.mktemp("whole"), cache)
    return own, commits(list(own.session()))


def commits(messages: list[Message]) -> list[Commit]:
    return [message.commit for message in messages if message.commit is not None]


def drop_after(messages: Iterator[Message], count: int) -> list[Message]:
    """The first words of a session whose process then ends."""
    return [next(messages) for _ in range(count)]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_commits_at_the_interval_and_tells_each(whole: tuple[Desk, list[Commit]]) -> None:
    desk, chain = whole
    assert [commit.position for commit in chain] == POSITIONS
    assert [commit.parent for commit in chain] == [None, *(commit.key for commit in chain[:-1])]
    assert [commit.outcome for commit in chain] == [None, None, None, "finished"]
    assert [step for step, _ in desk.records(chain)] == [10, 20, 10, 20, 30, 40, 50, 60]
    assert read_file(desk.storage, chain[-1], ".learned_loss.safetensors") is not None
    kept = [key for key in desk.storage.keys(trial_folder(TRIAL) + "/") if key.endswith(".state.safetensors")]
    assert kept == [state_key(commit) for commit in chain[-2:]], "the last two states are enough"


def test_commit_is_made_where_the_pruner_decides(desk: Desk) -> None:
    found = commits(list(desk.session(commit_every=1000, pruner='{"name": "asha", "min_steps": 13, "reduction": 3}')))
    assert [commit.step for commit in found] == [0, 20, 40, 60], "and where the learned loss is initialised"


@pytest.mark.parametrize("drops", [(1,), (2,), (3,), (4,), (2, 2, 3)])
def test_dropped_session_ends_as_one_never_dropped(
    drops: tuple[int, ...], desk: Desk, whole: tuple[Desk, list[Commit]]
) -> None:
    """Whatever the number of messages that the process lived for: the same records, weights, moments and random states."""
    for attempt, count in enumerate(drops, 1):
        heard = drop_after(desk.session(), count)
        assert (heard[0].kind, heard[0].attempt) == ("begun", attempt)
    last = list(desk.session())
    chain = commits(last)
    assert list(last[0].chain) == [commit.key for commit in chain if commit.attempt <= len(drops)]
    assert [commit.position for commit in chain] == POSITIONS
    reference, wanted = whole
    assert desk.records(chain) == reference.records(wanted)
    assert chain[-1].report == wanted[-1].report
    assert same(desk.tensors(chain[-1]), reference.tensors(wanted[-1]))
    for name in ("learned_loss.safetensors", "learned_loss.json"):
        assert read_file(desk.storage, chain[-1], name) == read_file(reference.storage, wanted[-1], name)


@pytest.mark.parametrize("damage", [lambda state: state[:-9], lambda state: b"", lambda state: state[:-1] + b"?", None])
def test_torn_state_is_passed_over_to_the_commit_before(
    damage: Callable[[bytes], bytes] | None, desk: Desk, whole: tuple[Desk, list[Commit]]
) -> None:
    last = commits(drop_after(desk.session(), 4))[-1]
    if damage is None:
        desk.storage.delete(state_key(last))
    else:
        desk.storage.write(state_key(last), damage(desk.storage.read(state_key(last))))
    heard = list(desk.session())
    assert [(commit.position, commit.attempt) for commit in commits(heard)] == [(20, 1), (40, 1), (60, 2), (80, 2)]
    assert len(heard[0].chain) == 2
    reference, wanted = whole
    assert same(desk.tensors(commits(heard)[-1]), reference.tensors(wanted[-1]))


def test_finished_trial_is_told_again_and_not_run_again(desk: Desk) -> None:
    first = commits(list(desk.session()))
    before = {key: desk.storage.read(key) for key in desk.storage.keys("")}
    again = list(desk.session())
    assert [message.kind for message in again] == ["begun", *["commit"] * len(first)]
    assert commits(again) == first
    assert again[-1].last
    new = set(desk.storage.keys("")) - set(before)
    assert new == {f"{trial_folder(TRIAL)}/attempt-2/begun.json"}
    assert all(desk.storage.read(key) == content for key, content in before.items())


def test_users_model_that_fails_leaves_its_traceback_and_the_last_state(
    desk: Desk, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "task": {"dataset": "digits", "model": f"{__name__}:fragile", "batch_size": 8},
        "learner": {"method": "baseline", "steps": 60},
        "seeds": [1],
    }
    reference = commits(list(Desk(tmp_path / "other", cache).session(settings)))
    monkeypatch.setattr(f"{__name__}.fails_at", 60)
    heard = list(desk.session(settings))
    assert [message.kind for message in heard] == ["begun", "commit", "commit", "failed"]
    assert heard[-1].last
    assert "ArithmeticError: a user's own mistake" in heard[-1].cause
    assert "in forward" in heard[-1].cause
    kept = commits(heard)
    assert [commit.position for commit in kept] == [20, 40]
    monkeypatch.setattr(f"{__name__}.fails_at", None)
    mended = commits(list(desk.session(settings)))
    assert mended[:2] == kept
    assert mended[-1].report == reference[-1].report


def test_builder_that_cannot_be_imported_is_one_line(desk: Desk) -> None:
    settings = {"task": {"dataset": "digits", "model": "no_such_module:build"}}
    heard = list(desk.session(settings))
    assert [message.kind for message in heard] == ["begun", "failed"]
    assert heard[-1].cause.startswith("task.model.name: 'no_such_module:build' can't be imported")
    assert "\n" not in heard[-1].cause


def test_a_host_that_does_not_see_what_the_driver_keeps_writes_nothing_and_says_so(desk: Desk) -> None:
    (said,) = desk.session(witness="lease/000000001.json")
    assert said.kind == "refused"
    assert "does not see what the driver keeps there; mount that folder on every node" in said.cause
    assert desk.storage.keys() == []
    desk.storage.write("lease/000000001.json", b"{}")
    assert next(desk.session(witness="lease/000000001.json")).kind == "begun"


def test_a_cause_holds_no_password(desk: Desk) -> None:
    settings = {"task": {**SETTINGS["task"], "dataset": f"{__name__}:far_away"}}
    (*_, said) = desk.session(settings)
    assert said.kind == "failed"
    assert "postgresql://reader:***@db/rows does not answer" in said.cause


def test_trial_over_its_budget_commits_and_fails(desk: Desk) -> None:
    heard = list(desk.session(max_seconds=1e-9))
    assert [message.kind for message in heard] == ["begun", "commit", "failed"]
    assert heard[-1].cause == "budget.trial_seconds: exceeded 1e-09 seconds"
    assert [commit.position for commit in commits(heard)] == [10]


def test_stopped_trial_commits_and_goes_on_bit_for_bit(desk: Desk, whole: tuple[Desk, list[Commit]]) -> None:
    StopRequest(desk.storage, epoch=1).make()
    heard = list(desk.session())
    assert [message.kind for message in heard] == ["begun", "commit", "stopped"]
    rest = commits(list(desk.session(epoch=2)))
    reference, wanted = whole
    assert [commit.position for commit in rest] == [10, *POSITIONS]
    assert desk.records(rest) == reference.records(wanted)
    assert same(desk.tensors(rest[-1]), reference.tensors(wanted[-1]))


def test_diverged_trial_is_an_outcome(desk: Desk) -> None:
    settings = {"learner": {"method": "baseline", "steps": 60, "optimizer": {"name": "sgd", "lr": 1e30}}}
    (last,) = commits(list(desk.session(settings)))
    assert (last.outcome, last.position) == ("diverged", 10)


def test_messages_travel_as_plain_data(desk: Desk) -> None:
    for message in desk.session():
        carried = json.loads(json.dumps(message.to_result()))
        assert Message.from_result(carried) == message


def test_assignment_travels_as_plain_data() -> None:
    own = Assignment(
        study="a", trial=TRIAL, config="{}", cache="b", data_root=None, studies=None, device="cpu", threads=1,
        commit_every=5, pruner="{}", max_seconds=None, epoch=2, noted=("k",), scratch=1, alone=True,
    )  # fmt: skip
    assert Assignment.from_dict(json.loads(json.dumps(own.to_dict()))) == own
