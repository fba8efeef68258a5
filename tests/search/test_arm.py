"""What a searcher receives: which trials and values it knows at each proposal and decision, before and after a restart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
from support.conducting import send, study

from olfl_ray.ledger import TrialState
from olfl_ray.search import Searcher, SearchTrial, scattered
from olfl_ray.spec import StudySpec
from olfl_ray.sweep import Conductor
from olfl_ray.worker import Message

Conduct = Callable[..., Conductor]
LR = "learner.optimizer.lr"
Known = dict[int, str]
"""States of the trials that a searcher knows, by ordinal."""


class Witness(Searcher):
    """Records what it knows at each call; refuses a trial that begins twice, or ends without a beginning."""

    proposals: ClassVar[dict[int, Known]] = {}
    decisions: ClassVar[list[tuple[int, tuple[tuple[int, float], ...], Known]]] = []
    replayed: ClassVar[dict[int, tuple[tuple[int, float], ...]]] = {}

    def replay(self, trials: Any, seed: int) -> None:
        super().replay(trials, seed)
        Witness.replayed.clear()
        Witness.replayed.update({ordinal: trial.values for ordinal, trial in self.trials.items()})

    def suggest(self, ordinal: int) -> Mapping[str, Any]:
        Witness.proposals[ordinal] = self._known()
        return {LR: 0.01 * (1 + ordinal)}

    def observe(self, trial: SearchTrial) -> None:
        before = self._known().get(trial.ordinal)
        assert before == (None if trial.state == "running" else "running")
        super().observe(trial)

    def prune(self, trial: SearchTrial) -> bool:
        Witness.decisions.append((trial.ordinal, trial.values, self._known()))
        return False

    def _known(self) -> Known:
        return {ordinal: trial.state for ordinal, trial in sorted(self.trials.items())}


@pytest.fixture(autouse=True)
def _empty() -> None:
    Witness.proposals.clear()
    Witness.decisions.clear()
    Witness.replayed.clear()


def searched(pruner: Any = "none", *, deterministic: bool = False, concurrency: int = 2) -> StudySpec:
    search = {
        "parameters": {LR: {"min": 0.003, "max": 0.3, "log": True}},
        "pruner": pruner,
        "sampler": f"{__name__}:Witness",
        "deterministic": deterministic,
    }
    return study(search=search, arms={"online": {"trials": 9}}, confirm={"seeds": 0}, concurrency=concurrency)


def proposed(conductor: Conductor, count: int) -> list[TrialState]:
    """The next trials, all of which begin."""
    found = [conductor.next() for _ in range(count)]
    for trial in found:
        assert trial is not None
        conductor.receive(Message(event="begun", trial=str(trial.id), attempt=1))
    return found  # type: ignore[return-value]


def test_a_search_knows_every_trial_that_began_or_ended_before_a_proposal(conduct: Conduct) -> None:
    spec = searched(concurrency=9)
    conductor = conduct(spec)
    zero, one = proposed(conductor, 2)
    send(conductor, one, 900, 0.1, "finished")
    proposed(conductor, 1)
    assert Witness.proposals == {1: {0: "running"}, 2: {0: "running", 1: "finished"}}
    again = conduct(spec)
    resumed = [again.next(), again.next()]
    assert [str(trial.id) for trial in resumed if trial is not None] == ["online/0", "online/2"]
    send(again, zero, 40, 0.2, "diverged", attempt=2)
    proposed(again, 1)
    assert Witness.proposals[3] == {0: "diverged", 1: "finished", 2: "running"}


def test_a_deterministic_search_knows_the_trials_before_those_that_may_run_concurrently(conduct: Conduct) -> None:
    conductor = conduct(searched(deterministic=True))
    zero, one = proposed(conductor, 2)
    send(conductor, one, 900, 0.1, "finished")
    send(conductor, zero, 900, 0.1, "finished")
    (two,) = proposed(conductor, 1)
    send(conductor, two, 900, 0.1, "finished")
    proposed(conductor, 1)
    assert Witness.proposals == {1: {}, 2: {0: "finished"}, 3: {0: "finished", 1: "finished"}}


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_decision_is_made_with_each_value_of_the_trial_once(deterministic: bool, conduct: Conduct) -> None:
    spec = searched({"name": "asha", "min_steps": 100, "reduction": 3}, deterministic=deterministic)
    conductor = conduct(spec)
    zero, one = proposed(conductor, 2)
    for step, value in ((100, 0.5), (200, 0.4), (300, 0.3)):
        assert send(conductor, one, step, value)
        assert send(conductor, one, step, value), "a repeated message changes nothing"
    known = {1: "running"} if deterministic else {0: "running", 1: "running"}
    assert Witness.decisions == [(1, ((100, 0.5),), known), (1, ((100, 0.5), (300, 0.3)), known)]
    assert zero.id.ordinal == 0


@pytest.mark.parametrize("deterministic", [False, True])
def test_dropped_values_are_replaced_by_those_of_the_later_attempt(deterministic: bool, conduct: Conduct) -> None:
    conductor = conduct(searched({"name": "median", "min_steps": 100}, deterministic=deterministic))
    (zero,) = proposed(conductor, 1)
    for step in (100, 200, 300):
        send(conductor, zero, step, 0.5)
    name = str(zero.id)
    kept = conductor.state.trials[name].commits[0].commit
    conductor.receive(Message(event="begun", trial=name, attempt=2, chain=(kept,)))
    send(conductor, zero, 200, 0.25, attempt=2)
    assert [values for _, values, _ in Witness.decisions][-1] == ((100, 0.5), (200, 0.25))


def test_the_last_commit_of_a_trial_is_a_decision_only_if_the_trial_was_pruned_or_failed(conduct: Conduct) -> None:
    spec = searched({"name": "median", "min_steps": 100}, concurrency=4)
    conductor = conduct(spec)
    ends = ("finished", "diverged", "failed", None)
    for trial, outcome in zip(proposed(conductor, 4), ends, strict=True):
        send(conductor, trial, 100, 0.5)
        send(conductor, trial, 200, 0.4, outcome if outcome != "failed" else None)
        if outcome == "failed":
            send(conductor, trial, 200, 0.4, outcome)
    first, second = (100, 0.5), (200, 0.4)
    decided = {0: (first,), 1: (first,), 2: (first, second), 3: (first, second)}
    assert {ordinal: values for ordinal, values, _ in Witness.decisions} == decided
    conduct(spec).search("online")
    assert Witness.replayed == decided | {3: (first,)}, "the running trial's worker reports its last commit again"


def test_scattered_points_start_in_the_space_even_if_the_specs_own_do_not_lie_there() -> None:
    search = {"parameters": {LR: {"min": 0.1, "max": 0.3}}, "pruner": "none"}
    points = scattered(study(search=search, arms={"online": {"trials": 4}}), "online", 3)
    assert len(points) == 4
    assert all(0.1 <= point[LR] <= 0.3 for point in points)
