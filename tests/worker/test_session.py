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
"""Commits with the settings above, every 20 steps of initialization and training."""

fails_at: int | None = None


class Fragile(nn.Module):
    """A user's model that fails at a given forward pass."""

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
    """A user's data set that can't be loaded."""
    raise ConnectionError("postgresql://reader:hunter2@db/rows does not answer")


class Sessions:
    """Creates sessions of one trial on a study's storage."""

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
        """The recorded metrics of the commits, without machine metrics."""
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
        """Everything that training changes, from a commit's state."""
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
    """Sessions set the process's threads; restore them for the tests of other packages."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data sets."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def sessions(tmp_path: Path, cache: Path) -> Sessions:
    """An empty study."""
    return Sessions(tmp_path / "study", cache)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Sessions, list[Commit]]:
    """The uninterrupted trial."""
    own = Sessions(tmp_path_factory.mktemp("uninterrupted"), cache)
    return own, commits(list(own.session()))


def commits(messages: list[Message]) -> list[Commit]:
    return [message.commit for message in messages if message.commit is not None]


def drop_after(messages: Iterator[Message], count: int) -> list[Message]:
    """The first messages of a session whose process then dies."""
    return [next(messages) for _ in range(count)]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_session_commits_at_the_interval_and_reports_each(uninterrupted: tuple[Sessions, list[Commit]]) -> None:
    sessions, chain = uninterrupted
    assert [commit.position for commit in chain] == POSITIONS
    assert [commit.parent for commit in chain] == [None, *(commit.key for commit in chain[:-1])]
    assert [commit.outcome for commit in chain] == [None, None, None, "finished"]
    assert [step for step, _ in sessions.records(chain)] == [10, 20, 10, 20, 30, 40, 50, 60]
    assert read_file(sessions.storage, chain[-1], ".learned_loss.safetensors") is not None
    kept = [key for key in sessions.storage.keys(trial_folder(TRIAL) + "/") if key.endswith(".state.safetensors")]
    assert kept == [state_key(commit) for commit in chain[-2:]], "the last two states are enough"


def test_commit_is_made_at_the_pruners_decision_steps(sessions: Sessions) -> None:
    found = commits(
        list(sessions.session(commit_every=1000, pruner='{"name": "asha", "min_steps": 13, "reduction": 3}'))
    )
    assert [commit.step for commit in found] == [0, 20, 40, 60], "and once the learned loss is initialized"


@pytest.mark.parametrize("drops", [(1,), (2,), (3,), (4,), (2, 2, 3)])
def test_interrupted_session_ends_like_an_uninterrupted_one(
    drops: tuple[int, ...], sessions: Sessions, uninterrupted: tuple[Sessions, list[Commit]]
) -> None:
    """However many messages the process sent before it died: the same records, weights, moments and random states."""
    for attempt, count in enumerate(drops, 1):
        messages = drop_after(sessions.session(), count)
        assert (messages[0].event, messages[0].attempt) == ("begun", attempt)
    last = list(sessions.session())
    chain = commits(last)
    assert list(last[0].chain) == [commit.key for commit in chain if commit.attempt <= len(drops)]
    assert [commit.position for commit in chain] == POSITIONS
    reference, wanted = uninterrupted
    assert sessions.records(chain) == reference.records(wanted)
    assert chain[-1].report == wanted[-1].report
    assert same(sessions.tensors(chain[-1]), reference.tensors(wanted[-1]))
    for name in ("learned_loss.safetensors", "learned_loss.json"):
        assert read_file(sessions.storage, chain[-1], name) == read_file(reference.storage, wanted[-1], name)


@pytest.mark.parametrize(
    "corrupt", [lambda state: state[:-9], lambda state: b"", lambda state: state[:-1] + b"?", None]
)
def test_truncated_state_is_skipped_for_the_commit_before(
    corrupt: Callable[[bytes], bytes] | None, sessions: Sessions, uninterrupted: tuple[Sessions, list[Commit]]
) -> None:
    last = commits(drop_after(sessions.session(), 4))[-1]
    if corrupt is None:
        sessions.storage.delete(state_key(last))
    else:
        sessions.storage.write(state_key(last), corrupt(sessions.storage.read(state_key(last))))
    messages = list(sessions.session())
    assert [(commit.position, commit.attempt) for commit in commits(messages)] == [(20, 1), (40, 1), (60, 2), (80, 2)]
    assert len(messages[0].chain) == 2
    reference, wanted = uninterrupted
    assert same(sessions.tensors(commits(messages)[-1]), reference.tensors(wanted[-1]))


def test_finished_trial_is_reported_again_and_not_run_again(sessions: Sessions) -> None:
    first = commits(list(sessions.session()))
    before = {key: sessions.storage.read(key) for key in sessions.storage.keys("")}
    again = list(sessions.session())
    assert [message.event for message in again] == ["begun", *["commit"] * len(first)]
    assert commits(again) == first
    assert again[-1].last
    new = set(sessions.storage.keys("")) - set(before)
    assert new == {f"{trial_folder(TRIAL)}/attempt-2/begun.json"}
    assert all(sessions.storage.read(key) == content for key, content in before.items())


def test_failure_of_a_users_model_reports_its_traceback_and_keeps_the_last_state(
    sessions: Sessions, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "task": {"dataset": "digits", "model": f"{__name__}:fragile", "batch_size": 8},
        "learner": {"method": "baseline", "steps": 60},
        "seeds": [1],
    }
    reference = commits(list(Sessions(tmp_path / "other", cache).session(settings)))
    monkeypatch.setattr(f"{__name__}.fails_at", 60)
    messages = list(sessions.session(settings))
    assert [message.event for message in messages] == ["begun", "commit", "commit", "failed"]
    assert messages[-1].last
    assert "ArithmeticError: a user's own mistake" in messages[-1].cause
    assert "in forward" in messages[-1].cause
    kept = commits(messages)
    assert [commit.position for commit in kept] == [20, 40]
    monkeypatch.setattr(f"{__name__}.fails_at", None)
    mended = commits(list(sessions.session(settings)))
    assert mended[:2] == kept
    assert mended[-1].report == reference[-1].report


def test_builder_that_cannot_be_imported_is_one_line(sessions: Sessions) -> None:
    settings = {"task": {"dataset": "digits", "model": "no_such_module:build"}}
    messages = list(sessions.session(settings))
    assert [message.event for message in messages] == ["begun", "failed"]
    assert messages[-1].cause.startswith("task.model.name: 'no_such_module:build' can't be imported")
    assert "\n" not in messages[-1].cause


def test_host_without_access_to_the_drivers_storage_writes_nothing_and_is_named(sessions: Sessions) -> None:
    (said,) = sessions.session(witness="lease/000000001.json")
    assert said.event == "refused"
    assert "does not see what the driver keeps there; mount that folder on every node" in said.cause
    assert sessions.storage.keys() == []
    sessions.storage.write("lease/000000001.json", b"{}")
    assert next(sessions.session(witness="lease/000000001.json")).event == "begun"


def test_cause_contains_no_password(sessions: Sessions) -> None:
    settings = {"task": {**SETTINGS["task"], "dataset": f"{__name__}:far_away"}}
    (*_, said) = sessions.session(settings)
    assert said.event == "failed"
    assert "postgresql://reader:***@db/rows does not answer" in said.cause


def test_trial_over_its_budget_commits_and_fails(sessions: Sessions) -> None:
    messages = list(sessions.session(max_seconds=1e-9))
    assert [message.event for message in messages] == ["begun", "commit", "failed"]
    assert messages[-1].cause == "budget.trial_seconds: exceeded 1e-09 seconds"
    assert [commit.position for commit in commits(messages)] == [10]


def test_stopped_trial_commits_and_resumes_bit_for_bit(
    sessions: Sessions, uninterrupted: tuple[Sessions, list[Commit]]
) -> None:
    StopRequest(sessions.storage, epoch=1).make()
    messages = list(sessions.session())
    assert [message.event for message in messages] == ["begun", "commit", "stopped"]
    rest = commits(list(sessions.session(epoch=2)))
    reference, wanted = uninterrupted
    assert [commit.position for commit in rest] == [10, *POSITIONS]
    assert sessions.records(rest) == reference.records(wanted)
    assert same(sessions.tensors(rest[-1]), reference.tensors(wanted[-1]))


def test_diverged_trial_is_an_outcome(sessions: Sessions) -> None:
    settings = {"learner": {"method": "baseline", "steps": 60, "optimizer": {"name": "sgd", "lr": 1e30}}}
    (last,) = commits(list(sessions.session(settings)))
    assert (last.outcome, last.position) == ("diverged", 10)


def test_messages_are_plain_data(sessions: Sessions) -> None:
    for message in sessions.session():
        carried = json.loads(json.dumps(message.to_result()))
        assert Message.from_result(carried) == message


def test_assignment_is_plain_data() -> None:
    own = Assignment(
        study="a", trial=TRIAL, config="{}", cache="b", data_root=None, studies=None, device="cpu", threads=1,
        commit_every=5, pruner="{}", max_seconds=None, epoch=2, recorded=("k",), scratch=1, alone=True,
    )  # fmt: skip
    assert Assignment.from_dict(json.loads(json.dumps(own.to_dict()))) == own
