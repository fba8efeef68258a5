"""When a trial ends early, when the next one must wait, what counts once: step by step, before and after a restart."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from support.conducting import run_to_end, send, study

from olfl_ray.errors import SetupError
from olfl_ray.ledger import Commit, Committed, Reopened
from olfl_ray.methods import complete
from olfl_ray.search import scattered
from olfl_ray.spec import StudySpec
from olfl_ray.sweep import Conductor
from olfl_ray.sweep import conductor as conductor_file
from olfl_ray.worker import Message

Conduct = Callable[..., Conductor]
LR = {"learner.optimizer.lr": {"min": 0.003, "max": 0.3, "log": True}}
ERROR = "selection/error"
ASHA = {"name": "asha", "min_steps": 100, "reduction": 3}
RUNGS = ((100, None), (300, None), (900, "finished"))


def one_arm(
    pruner: Mapping[str, Any] | str = "none", trials: int = 6, deterministic: bool = False, **changes: Any
) -> StudySpec:
    search = {"parameters": LR, "pruner": pruner, "deterministic": deterministic, "sampler": "random", "metric": ERROR}
    arms = {"baseline": {"set": {"learner.method": "baseline"}, "trials": trials}}
    return study(**{"search": search, "arms": arms, "confirm": {"seeds": 0}, "concurrency": 1, **changes})


def error_of(ordinal: int, step: int) -> float:
    """Every third trial is bad at the first rung; of the others, whose errors rise, every even one is bad at the second."""
    if step == 100:
        return 1.0 if ordinal % 3 == 2 else 0.5 - 0.02 * ordinal
    return {300: 0.99 if ordinal % 2 == 0 else 0.9 - 0.02 * ordinal, 900: 0.1}[step]


def ends(conductor: Conductor, restarted: Callable[[], Conductor] | None = None) -> dict[str, tuple[str, int]]:
    """The end of each trial of a search with these errors; with a new driver before each trial, or one for all."""
    while (trial := conductor.next()) is not None:
        for step, outcome in RUNGS:
            if not send(conductor, trial, step, error_of(trial.id.ordinal, step), outcome):
                break
        conductor = restarted() if restarted is not None else conductor
    return {name: (one.state, one.step) for name, one in conductor.state.trials.items()}


def test_a_deterministic_search_prunes_the_same_trials_before_and_after_a_restart(conduct: Conduct) -> None:
    wanted = ends(conduct(one_arm(ASHA, 8)))
    assert {step for _, step in wanted.values()} == {100, 300, 900}, "some trials end at each rung"
    spec = one_arm(ASHA, 8, deterministic=True)
    assert ends(conduct(spec, "deterministic")) == wanted
    assert ends(conduct(spec, "restarted"), lambda: conduct(spec, "restarted")) == wanted
    plain = one_arm(ASHA, 8)
    assert ends(conduct(plain, "plain"), lambda: conduct(plain, "plain")) == wanted


@pytest.mark.parametrize("deterministic", [False, True])
def test_median_pruner_ends_the_fifth_trial_at_its_first_decision_if_it_is_the_worst(
    deterministic: bool, conduct: Conduct
) -> None:
    conductor = conduct(one_arm({"name": "median", "min_steps": 100}, 6, deterministic))
    found = {}
    while (trial := conductor.next()) is not None:
        value = [0.1, 0.2, 0.3, 0.9, 0.8, 0.15][trial.id.ordinal]
        for step, outcome in ((50, None), (100, None), (200, None), (900, "finished")):
            if not send(conductor, trial, step, value, outcome):
                break
        found[trial.id.ordinal] = conductor.state.trials[str(trial.id)].step
    assert found == {0: 900, 1: 900, 2: 900, 3: 900, 4: 100, 5: 900}


def report_again(conductor: Conductor, name: str) -> bool:
    """The next attempt of a running trial begins, and reports the last recorded commit of the earlier one again."""
    trial = conductor.state.trials[name]
    recorded = tuple(item.commit for item in trial.commits)
    conductor.receive(Message(event="begun", trial=name, attempt=2, chain=recorded))
    step, value = trial.commits[-1].step, trial.commits[-1].value
    report = {ERROR: [value, value]}
    commit = Commit(trial=name, attempt=1, position=step, step=step, outcome=None, report=report, parent=None)
    assert commit.key == recorded[-1]
    return conductor.receive(Message(event="commit", trial=name, attempt=2, commit=commit))


def test_decision_is_made_once_even_if_its_commit_is_reported_again_later(conduct: Conduct) -> None:
    conductor = conduct(one_arm({"name": "median", "min_steps": 100}, 6, concurrency=2))
    worst = conductor.next()
    assert worst is not None
    for ordinal in range(1, 5):
        if ordinal == 4:
            assert send(conductor, worst, 100, 0.9), "the median needs four finished trials"
        other = conductor.next()
        assert other is not None
        for step, outcome in ((100, None), (200, None), (900, "finished")):
            send(conductor, other, step, 0.1, outcome)
    assert send(conductor, worst, 100, 0.9)
    assert not send(conductor, worst, 200, 0.9)


@pytest.mark.parametrize("best", [1, 2])
def test_earlier_values_of_a_running_trial_count_after_a_restart(best: int, conduct: Conduct) -> None:
    """The median pruner compares a trial's best value so far."""
    spec = one_arm({"name": "median", "min_steps": 1}, 6, concurrency=2)
    first = conduct(spec)
    trial = first.next()
    assert trial is not None
    for step in (1, 2):
        send(first, trial, step, 0.05 if step == best else 0.9)
    for _ in range(4):
        other = first.next()
        assert other is not None
        for step, outcome in ((1, None), (2, None), (3, None), (900, "finished")):
            send(first, other, step, 0.2, outcome)
    assert send(first, trial, 3, 0.9)
    second = conduct(spec)
    assert second.next() is not None
    assert report_again(second, str(trial.id))


def test_decision_on_the_last_recorded_commit_is_made_after_a_restart(conduct: Conduct) -> None:
    spec = one_arm(ASHA, 3)
    first = conduct(spec)
    best, worse = first.next(), first.next()
    assert best is not None
    assert worse is not None
    for step, outcome in RUNGS:
        send(first, best, step, 0.1, outcome)
    name = str(worse.id)
    first.receive(Message(event="begun", trial=name, attempt=1))
    report = {ERROR: [0.9, 0.9]}
    commit = Commit(trial=name, attempt=1, position=100, step=100, outcome=None, report=report, parent=None)
    recorded = Committed(trial=name, attempt=1, commit=commit.key, step=100, value=0.9, values={ERROR: 0.9})
    first.ledger.append(recorded)  # the driver was killed here, before its decision
    second = conduct(spec)
    assert second.next() is not None
    assert not report_again(second, name)
    assert second.state.trials[name].state == "pruned"


def test_dropped_commits_are_decided_again(conduct: Conduct) -> None:
    conductor = conduct(one_arm(ASHA, 3, deterministic=True))
    best = conductor.next()
    assert best is not None
    for step, outcome in RUNGS:
        send(conductor, best, step, 0.1, outcome)
    trial = conductor.next()
    assert trial is not None
    send(conductor, trial, 50, 0.9)
    assert send(conductor, trial, 100, 0.05), "better than the other"
    kept = conductor.state.trials[str(trial.id)].commits[0].commit
    conductor.receive(Message(event="begun", trial=str(trial.id), attempt=2, chain=(kept,)))
    assert not send(conductor, trial, 100, 0.9, attempt=2)


def test_maximizing_search_prunes_the_lowest(conduct: Conduct) -> None:
    search = {"parameters": LR, "pruner": ASHA, "goal": "maximize", "metric": "selection/error", "sampler": "random"}
    conductor = conduct(one_arm(trials=5, search=search))
    while (trial := conductor.next()) is not None:
        for step, outcome in RUNGS:
            if not send(conductor, trial, step, 0.9 - 0.1 * trial.id.ordinal, outcome):
                break
    states = [trial.state for trial in conductor.state.trials.values()]
    assert states == ["finished", *["pruned"] * 4]
    best = conductor.state.best("baseline", "maximize")
    assert best is not None
    assert best.value == 0.9


def test_deterministic_search_waits_exactly_for_the_trials_that_a_proposal_may_see(conduct: Conduct) -> None:
    spec = one_arm(trials=6, deterministic=True, concurrency=2)
    wanted = conduct(spec, "in order")
    run_to_end(wanted, lambda trial: 0.1 * trial.id.ordinal)
    conductor = conduct(spec)
    zero, one = conductor.next(), conductor.next()
    assert zero is not None
    assert one is not None
    assert conductor.next() is None, "both workers are busy, and trial 2 sees trial 0"
    send(conductor, one, 900, 0.1, "finished")
    assert conductor.next() is None
    send(conductor, zero, 900, 0.0, "finished")
    two, three = conductor.next(), conductor.next()
    assert two is not None
    assert three is not None, "trial 3 sees trial 1, which has ended, and not trial 2"
    assert conductor.next() is None
    send(conductor, three, 900, 0.3, "finished")
    send(conductor, two, 900, 0.2, "finished")
    run_to_end(conductor, lambda trial: 0.1 * trial.id.ordinal)
    assert [trial.params for trial in conductor.state.trials.values()] == [
        trial.params for trial in wanted.state.trials.values()
    ]


def test_nondeterministic_search_proposes_at_once(conduct: Conduct) -> None:
    conductor = conduct(one_arm(trials=4, concurrency=2))
    assert all(conductor.next() is not None for _ in range(4))
    assert conductor.next() is None
    assert not conductor.finished, "there is no trial to assign, but four are running"


def test_study_assigns_trials_until_its_time_is_over(conduct: Conduct, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 5000.0
    monkeypatch.setattr(conductor_file.time, "monotonic", lambda: now)
    conductor = conduct(one_arm(trials=3, budget={"study_seconds": 3600}))
    assert conductor.next() is not None
    now += 3600.0
    running = conductor.next()
    assert running is not None, "at the limit itself there is still time"
    now += 1.0
    assert conductor.next() is None
    for trial in list(conductor.state.trials.values()):
        assert not conductor.finished, "running trials may end"
        send(conductor, trial, 900, 0.1, "finished")
    assert conductor.finished
    assert len(conductor.state.trials) == 2


def test_start_counts_once_and_messages_of_an_earlier_attempt_are_ignored(conduct: Conduct) -> None:
    conductor = conduct(one_arm())
    trial = conductor.next()
    assert trial is not None
    name = str(trial.id)
    second = Message(event="begun", trial=name, attempt=2)
    assert conductor.receive(second)
    events = len(conductor.ledger.events)
    assert conductor.receive(second)
    assert not conductor.receive(Message(event="failed", trial=name, attempt=1, cause="late"))
    assert len(conductor.ledger.events) == events
    assert (conductor.state.trials[name].state, conductor.state.trials[name].attempt) == ("running", 2)


def test_messages_of_an_unassigned_trial_are_ignored(conduct: Conduct) -> None:
    spec = one_arm()
    first = conduct(spec)
    trial = first.next()
    assert trial is not None
    send(first, trial, 100, 0.5)
    second = conduct(spec)
    assert not send(second, trial, 300, 0.4, attempt=1)
    assert [commit.step for commit in second.state.trials[str(trial.id)].commits] == [100]


def test_storage_that_refuses_a_worker_ends_the_driver_with_its_cause(conduct: Conduct) -> None:
    conductor = conduct(one_arm())
    refused = Message(event="refused", trial="baseline/0", attempt=0, cause="no space left")
    trial = conductor.next()
    assert trial is not None
    with pytest.raises(SetupError, match="no space left"):
        conductor.receive(refused)
    assert not conductor.state.trials["baseline/0"].ended
    send(conductor, trial, 900, 0.1, "finished")
    assert not conductor.receive(refused), "the message of an ended trial is ignored"


def test_trial_out_of_memory_restarts_alone_and_fails_only_then(conduct: Conduct) -> None:
    conductor = conduct(one_arm())
    trial = conductor.next()
    assert trial is not None
    name = str(trial.id)
    send(conductor, trial, 100, 0.5)
    assert not conductor.receive(Message(event="out_of_memory", trial=name, attempt=1, cause="8 GiB"))
    now = conductor.state.trials[name]
    assert (now.state, now.alone) == ("stopped", True)
    again = conductor.next()
    assert again is not None
    assert (str(again.id), again.alone) == (name, True)
    send(conductor, again, 300, 0.5, attempt=2)
    assert not conductor.receive(Message(event="out_of_memory", trial=name, attempt=2, cause="8 GiB"))
    now = conductor.state.trials[name]
    assert now.state == "failed"
    assert "8 GiB" in (now.cause or "")


def test_after_a_stop_request_commits_are_recorded_and_no_trial_is_assigned(conduct: Conduct) -> None:
    conductor = conduct(one_arm())
    trial = conductor.next()
    assert trial is not None
    assert send(conductor, trial, 100, 0.5)
    conductor.stop.make()
    assert not send(conductor, trial, 300, 0.4), "the return value tells a worker to stop"
    assert conductor.state.trials[str(trial.id)].step == 300
    conductor.close()
    assert conductor.state.trials[str(trial.id)].state == "stopped"
    assert conductor.next() is None


def test_recorded_commit_has_the_mean_over_replicates_of_every_metric(conduct: Conduct) -> None:
    conductor = conduct(one_arm())
    trial = conductor.next()
    assert trial is not None
    name = str(trial.id)
    conductor.receive(Message(event="begun", trial=name, attempt=1))
    report = {"selection/error": [0.2, 0.4], "selection/task_loss": [1.0, 2.0]}
    commit = Commit(trial=name, attempt=1, position=120, step=100, outcome=None, report=report, parent=None)
    assert conductor.receive(Message(event="commit", trial=name, attempt=1, commit=commit))
    (recorded,) = conductor.state.trials[name].commits
    assert (recorded.step, recorded.attempt, recorded.commit) == (100, 1, commit.key)
    assert recorded.value == pytest.approx(0.3)
    assert recorded.values == {"selection/error": pytest.approx(0.3), "selection/task_loss": pytest.approx(1.5)}


def test_diverged_trial_has_no_value_and_is_ignored_by_the_search(conduct: Conduct) -> None:
    conductor = conduct(one_arm(trials=2))
    trial = conductor.next()
    assert trial is not None
    assert not send(conductor, trial, 40, math.inf, "diverged")
    ended = conductor.state.trials[str(trial.id)]
    assert (ended.state, ended.value, ended.step, ended.metrics) == (
        "diverged", None, 40, {"selection/error": [math.inf, math.inf]},
    )  # fmt: skip
    assert run_to_end(conductor, lambda _: 0.1) == ["baseline/1"]
    assert conductor.state.best("baseline", "minimize").id.ordinal == 1


def test_values_that_are_not_finite_are_ignored_by_the_pruner(conduct: Conduct) -> None:
    conductor = conduct(one_arm(ASHA, 3))
    while (trial := conductor.next()) is not None:
        assert send(conductor, trial, 100, math.nan), "the trainer reports when a trial has diverged"
        send(conductor, trial, 900, 0.1, "finished")
    assert {trial.state for trial in conductor.state.trials.values()} == {"finished"}


def test_reopened_trial_is_assigned_before_any_new_one(conduct: Conduct) -> None:
    spec = one_arm(trials=3)
    first = conduct(spec)
    trial = first.next()
    assert trial is not None
    send(first, trial, 100, 0.5, "failed")
    first.ledger.append(Reopened(trial=str(trial.id)))
    second = conduct(spec)
    again = second.next()
    assert again is not None
    assert again.id == trial.id
    assert not second.finished


def test_importances_need_four_different_results(conduct: Conduct) -> None:
    found = {}
    for name, trials, value_of in (
        ("three", 3, lambda trial: trial.params["learner.optimizer.lr"]),
        ("four", 4, lambda trial: trial.params["learner.optimizer.lr"]),
        ("all the same", 5, lambda trial: 0.1),
    ):
        conductor = conduct(one_arm(trials=trials), name)
        run_to_end(conductor, value_of)
        found[name] = conductor.importances()["baseline"]
    assert found == {"three": {}, "four": {"learner.optimizer.lr": pytest.approx(1.0)}, "all the same": {}}


def test_scattered_points_start_with_the_specs_own_and_include_every_value_of_each_list() -> None:
    parameters = {**LR, "meta.init_steps": {"values": [0, 10, 20]}, "loss.output": {"values": ["none", "softplus"]}}
    search = {"parameters": parameters, "pruner": "none"}
    spec = complete(study(search=search, arms={"online": {"trials": 4}}, meta={"init_steps": 10}))
    first, *points = scattered(spec, "online", 8)
    assert first == {"learner.optimizer.lr": 0.05, "meta.init_steps": 10, "loss.output": "none"}
    assert len(points) == 8
    assert {point["meta.init_steps"] for point in points[:3]} == {0, 10, 20}
    assert {point["loss.output"] for point in points[3:5]} == {"none", "softplus"}
    assert len({point["learner.optimizer.lr"] for point in points}) == 8
    assert len(scattered(spec, "online", 2)) == 3, "exactly this many"
    assert scattered(spec, "online", 8) == [first, *points], "the same each time"
    assert scattered(study(search={"parameters": {}}, arms={"online": {"trials": 1}}), "online", 8) == [{}]


def test_a_confirming_trial_is_not_pruned(conduct: Conduct) -> None:
    conductor = conduct(one_arm(ASHA, 3, confirm={"seeds": 1}))
    for _ in range(3):
        trial = conductor.next()
        assert trial is not None
        for step, outcome in RUNGS:
            send(conductor, trial, step, 0.1, outcome)
    trial = conductor.next()
    assert trial is not None
    assert trial.id.confirming
    assert send(conductor, trial, 100, 0.9), "it goes on, however bad it is"
    assert not send(conductor, trial, 900, 0.9, "finished"), "its end"
    assert conductor.state.trials[str(trial.id)].state == "finished"


def test_a_later_decision_is_made_once_too(conduct: Conduct) -> None:
    conductor = conduct(one_arm(ASHA, 2, concurrency=2))
    trial = conductor.next()
    assert trial is not None
    for step in (100, 200, 300):  # ASHA decides at 100 and 300
        send(conductor, trial, step, 0.5)
    begun = conductor.state.trials[str(trial.id)]
    assert not conductor._add_decision(begun, 299, 300, 0.5), "reported again"
    assert conductor._decided[str(trial.id)] == [(100, 0.5), (300, 0.5)]


def test_a_restarted_driver_knows_every_value_that_was_decided_on(conduct: Conduct) -> None:
    """Of pruned, failed and finished trials."""
    spec = one_arm(ASHA, 6)
    first = conduct(spec)
    ends(first)
    failing = conduct(one_arm(ASHA, 7))
    trial = failing.next()
    assert trial is not None
    send(failing, trial, 100, 0.01)
    send(failing, trial, 100, 0.0, "failed")
    assert {one.state for one in failing.state.trials.values()} == {"pruned", "finished", "failed"}
    assert conduct(one_arm(ASHA, 7))._decided == failing._decided
    assert failing._decided[str(trial.id)] == [(100, 0.01)]


def test_a_decision_at_the_commit_that_a_trial_resumes_from_stays(conduct: Conduct) -> None:
    conductor = conduct(one_arm(ASHA, 2))
    trial = conductor.next()
    assert trial is not None
    send(conductor, trial, 100, 0.5)
    send(conductor, trial, 200, 0.5)
    kept = conductor.state.trials[str(trial.id)].commits[0].commit
    conductor.receive(Message(event="begun", trial=str(trial.id), attempt=2, chain=(kept,)))
    assert conductor._decided[str(trial.id)] == [(100, 0.5)]
