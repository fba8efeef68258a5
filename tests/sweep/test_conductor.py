"""Which trial comes next, how a commit is handled, when a trial ends."""

from collections.abc import Callable
from typing import Any

import pytest
from support.conducting import SPEC, run_to_end, send, study

from olfl_ray.ledger import Proposed, Reopened, StopRequest
from olfl_ray.search import ArmSearch
from olfl_ray.search.space import Filtered
from olfl_ray.spec import seed_of
from olfl_ray.sweep import Conductor
from olfl_ray.worker import Message

Conduct = Callable[..., Conductor]


def lr(trial: object) -> float:
    return trial.params["learner.optimizer.lr"]  # type: ignore[attr-defined, no-any-return]


def test_arms_take_turns_and_start_with_the_specs_own_values(conduct: Conduct) -> None:
    conductor = conduct(study())
    first, second = conductor.next(), conductor.next()
    assert first is not None
    assert second is not None
    assert (str(first.id), str(second.id)) == ("baseline/0", "online/0")
    assert first.params == {"learner.optimizer.lr": 0.05}
    assert second.params == {"learner.optimizer.lr": 0.05, "meta.eta_online": 1e-5}


def test_winners_run_again_on_fresh_seeds_after_their_arms_search(conduct: Conduct) -> None:
    spec = study()
    conductor = conduct(spec)
    order = run_to_end(conductor, lr)
    assert order[:6] == ["baseline/0", "online/0", "baseline/1", "online/1", "baseline/2", "online/2"]
    assert sorted(order[6:]) == ["baseline/c0", "baseline/c1", "online/c0", "online/c1"]
    trials = conductor.ledger.state.trials
    for arm in spec.arms:
        best = min((trials[f"{arm}/{n}"] for n in range(3)), key=lr)
        assert trials[f"{arm}/c0"].params == best.params
        assert trials[f"{arm}/c0"].seeds == (seed_of(0, "confirm", 0),)
        assert not set(trials[f"{arm}/c0"].seeds) & set(trials[f"{arm}/0"].seeds)
    assert trials["baseline/c1"].seeds == trials["online/c1"].seeds
    assert conductor.finished
    assert conductor.next() is None


def test_ties_go_to_the_earlier_trial(conduct: Conduct) -> None:
    conductor = conduct(study())
    run_to_end(conductor, lambda _: 0.5)
    assert conductor.ledger.state.trials["online/c0"].params == conductor.ledger.state.trials["online/0"].params


def test_repeated_commit_counts_once_and_none_counts_after_the_end(conduct: Conduct) -> None:
    conductor = conduct(study())
    trial = conductor.next()
    assert trial is not None
    assert send(conductor, trial, 300, 0.3)
    assert send(conductor, trial, 300, 0.3)
    assert not send(conductor, trial, 900, 0.2, "finished")
    events = len(conductor.ledger.events)
    assert not send(conductor, trial, 900, 0.1, "finished")
    assert len(conductor.ledger.events) == events
    ended = conductor.ledger.state.trials[str(trial.id)]
    assert [item.step for item in ended.commits] == [300, 900]
    assert ended.value == 0.2


def test_asha_ends_the_worst_at_its_rungs(conduct: Conduct) -> None:
    pruner = {"name": "asha", "min_steps": 100, "reduction": 3}
    arms = {"baseline": {"set": {"learner.method": "baseline"}, "trials": 6}}
    search = {"parameters": {"learner.optimizer.lr": {"min": 0.003, "max": 0.3, "log": True}}, "pruner": pruner}
    conductor = conduct(study(search=search, arms=arms, confirm={"seeds": 0}, concurrency=1))
    while (trial := conductor.next()) is not None:
        value = 0.1 * (1 + trial.id.ordinal)
        for step, outcome in ((100, None), (300, None), (900, "finished")):
            if not send(conductor, trial, step, value, outcome):
                break
    states = {name: (trial.state, trial.step) for name, trial in conductor.ledger.state.trials.items()}
    assert states["baseline/0"] == ("finished", 900)
    assert set(states.values()) == {("finished", 900), ("pruned", 100)}


@pytest.mark.parametrize("outcome", ["diverged", "failed"])
def test_arm_without_a_finished_trial_is_not_confirmed_and_the_study_ends(conduct: Conduct, outcome: str) -> None:
    conductor = conduct(study())
    while (trial := conductor.next()) is not None:
        bad = trial.id.arm == "online"
        send(conductor, trial, 900, float("nan") if bad else 0.1, outcome if bad else "finished")
    names = {name for name, trial in conductor.ledger.state.trials.items() if trial.id.confirming}
    assert names == {"baseline/c0", "baseline/c1"}
    assert conductor.finished


def test_lost_worker_fails_its_trial_with_the_cause(conduct: Conduct) -> None:
    conductor = conduct(study())
    trial = conductor.next()
    assert trial is not None
    conductor.lost(str(trial.id), "worker lost 3 times")
    lost = conductor.ledger.state.trials[str(trial.id)]
    assert (lost.state, lost.cause) == ("failed", "worker lost 3 times")
    conductor.lost(str(trial.id), "once more")
    assert conductor.ledger.state.trials[str(trial.id)] == lost, "an ended trial does not fail again"
    assert str(trial.id) not in run_to_end(conductor, lr)


def test_second_driver_resumes_the_work_of_the_first(conduct: Conduct) -> None:
    spec = study()
    first = conduct(spec)
    one, two = first.next(), first.next()
    assert one is not None
    assert two is not None
    send(first, one, 300, 0.3)
    send(first, two, 900, 0.2, "finished")
    first.close()
    assert first.ledger.state.trials[str(one.id)].state == "stopped"
    second = conduct(spec)
    again = second.next()
    assert again is not None
    assert again.id == one.id
    send(second, again, 900, 0.1, "finished", attempt=2)
    order = run_to_end(second, lr)
    assert str(two.id) not in order
    assert len(second.ledger.state.trials) == 3 + 3 + 2 * 2


def test_study_out_of_time_starts_no_new_search_trial(conduct: Conduct) -> None:
    conductor = conduct(study(budget={"study_seconds": 1e-9}))
    assert conductor.next() is None
    assert conductor.ledger.state.trials == {}


def test_trial_whose_worker_noticed_a_stop_request_first_is_not_assigned_again(conduct: Conduct) -> None:
    conductor = conduct(study())
    trial = conductor.next()
    assert trial is not None
    send(conductor, trial, 300, 0.3)
    StopRequest(conductor.ledger._storage, conductor.state.epoch).make()  # requested by another process
    assert not conductor.receive(Message(event="stopped", trial=str(trial.id), attempt=1))
    assert conductor.state.trials[str(trial.id)].state == "stopped"
    assert conductor.next() is None


def test_unrecorded_commits_count_when_they_are_reported_again(conduct: Conduct) -> None:
    pruner = {"name": "asha", "min_steps": 100, "reduction": 3}
    search = {"parameters": {"learner.optimizer.lr": {"min": 0.003, "max": 0.3, "log": True}}, "pruner": pruner}
    arms = {"baseline": {"set": {"learner.method": "baseline"}, "trials": 2}}
    spec = study(search=search, arms=arms, confirm={"seeds": 0}, concurrency=1)
    first = conduct(spec)
    best = first.next()
    assert best is not None
    for step, outcome in ((100, None), (300, None), (900, "finished")):
        send(first, best, step, 0.1, outcome)
    worse = first.next()
    assert worse is not None
    send(first, worse, 50, 0.9)
    second = conduct(spec)  # the first was killed; its worker had reached step 100, where the pruner decides
    assert second.next() is not None
    assert not send(second, worse, 100, 0.9, attempt=2)
    ended = second.state.trials[str(worse.id)]
    assert (ended.state, [commit.step for commit in ended.commits]) == ("pruned", [50, 100])


def test_corrupt_commits_are_dropped_and_their_work_counts_once(conduct: Conduct) -> None:
    conductor = conduct(study())
    trial = conductor.next()
    assert trial is not None
    for step in (100, 200, 300):
        send(conductor, trial, step, 0.3)
    keys = [commit.commit for commit in conductor.state.trials[str(trial.id)].commits]
    conductor.receive(Message(event="begun", trial=str(trial.id), attempt=2, chain=tuple(keys[:1])))
    now = conductor.state.trials[str(trial.id)]
    assert ([commit.commit for commit in now.commits], now.step, now.redone) == (keys[:1], 100, True)


def test_only_requested_trials_run(conduct: Conduct) -> None:
    spec = study()
    first = conduct(spec)
    one, two = first.next(), first.next()
    assert one is not None
    assert two is not None
    send(first, one, 300, 0.3)
    send(first, two, 900, 0.2, "failed")
    first.ledger.append(Reopened(trial=str(two.id)))
    second = conduct(spec, only=(str(two.id),))
    assert run_to_end(second, lambda _: 0.1) == [str(two.id)]
    assert second.finished
    assert not second.state.trials[str(one.id)].ended
    assert not conduct(spec).finished


def test_a_study_is_finished_when_nothing_is_open_missing_or_unconfirmed(conduct: Conduct) -> None:
    """Not before its first trial, nor while the only one left was stopped by the driver before."""
    spec = study(confirm={"seeds": 0}, arms={"baseline": {"set": {"learner.method": "baseline"}, "trials": 2}})
    first = conduct(spec)
    assert not first.finished
    one, two = first.next(), first.next()
    assert one is not None
    assert two is not None
    send(first, one, 900, 0.1, "finished")
    send(first, two, 300, 0.2)
    first.close()
    second = conduct(spec)
    assert not second.finished
    again = second.next()
    assert again is not None
    send(second, again, 900, 0.1, "finished", attempt=2)
    assert second.finished


def test_confirming_trials_are_no_search_trials_when_a_study_is_extended(conduct: Conduct) -> None:
    order = run_to_end(conduct(study()), lr)
    assert order.count("baseline/c0") == 1
    arms = {name: {**arm, "trials": 4} for name, arm in SPEC["arms"].items()}
    assert run_to_end(conduct(study(arms=arms)), lr)[:2] == ["baseline/3", "online/3"]


def test_one_missing_trial_keeps_a_study_open(conduct: Conduct) -> None:
    spec = study(confirm={"seeds": 0}, arms={"baseline": {"set": {"learner.method": "baseline"}, "trials": 2}})
    conductor = conduct(spec)
    trial = conductor.next()
    assert trial is not None
    send(conductor, trial, 900, 0.1, "finished")
    assert not conductor.finished


def test_a_trials_settings_have_its_seeds_and_its_role(conduct: Conduct) -> None:
    conductor = conduct(study())
    run_to_end(conductor, lr)
    search, confirming = (conductor.config_of(conductor.state.trials[f"online/{name}"]) for name in ("0", "c1"))
    assert search.seeds == (seed_of(0, "search", 0), seed_of(0, "search", 1))
    assert (confirming.seeds, search.confirming, confirming.confirming) == ((seed_of(0, "confirm", 1),), False, True)


def test_a_search_learns_of_the_ends_of_its_own_trials_only(conduct: Conduct, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    monkeypatch.setattr(ArmSearch, "end", lambda self, ordinal, *_: told.append(ordinal))
    spec = study(arms={"baseline": {"set": {"learner.method": "baseline"}, "trials": 2}})
    first = conduct(spec)
    for _ in range(2):
        trial = first.next()
        assert trial is not None
        send(first, trial, 900, 0.1, "finished")
    trial = first.next()
    assert trial is not None
    send(first, trial, 900, 0.2, "finished")
    assert trial.id.confirming
    assert told == [0, 1]
    second = conduct(spec)
    assert run_to_end(second, lr) == ["baseline/c1"], "a driver that has no search to tell"
    assert not second._searches, "nor makes one"
    assert told == [0, 1]


def test_an_arm_is_confirmed_when_its_own_search_has_ended(conduct: Conduct) -> None:
    """It waits for its own running trials, and for no other arm's."""
    arms = {name: {**arm, "trials": 1} for name, arm in SPEC["arms"].items()}
    arms["baseline"]["trials"] = 2
    conductor = conduct(study(arms=arms))
    running = [conductor.next() for _ in range(3)]
    assert [str(trial.id) for trial in running if trial] == ["baseline/0", "online/0", "baseline/1"]
    send(conductor, "baseline/0", 900, 0.1, "finished")
    assert conductor.next() is None, "baseline/1 may win"
    send(conductor, "baseline/1", 900, 0.2, "finished")
    confirming = conductor.next()
    assert confirming is not None
    assert str(confirming.id) == "baseline/c0", "online/0 still runs"


def test_observers_see_each_event(conduct: Conduct) -> None:
    seen: list[Any] = []
    before = conduct(study(confirm={"seeds": 0}))
    conductor = Conductor(before.spec, before.ledger, before.stop, (seen.append,))
    run_to_end(conductor, lr)
    assert seen == list(conductor.ledger.events[1:])


def test_what_a_search_filtered_is_recorded_with_the_proposal(
    conduct: Conduct, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = [
        Filtered(filter="symbolic", params={"x": 1}, same_as=2),
        Filtered(filter="rejection", params={"x": 3}),
    ]
    propose = ArmSearch.propose

    def dropping(self: ArmSearch, *given: Any) -> Any:
        found = propose(self, *given)
        self.filtered = tuple(dropped)
        return found

    monkeypatch.setattr(ArmSearch, "propose", dropping)
    conductor = conduct(study())
    conductor.next()
    proposed = conductor.ledger.events[-1]
    assert isinstance(proposed, Proposed)
    assert proposed.filtered == [
        {"filter": "symbolic", "params": {"x": 1}, "same_as": "baseline/2"},
        {"filter": "rejection", "params": {"x": 3}},
    ]
