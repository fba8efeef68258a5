"""What a trial records, and which evaluation, weights and learned loss represent it in the end."""

from __future__ import annotations

import dataclasses
import importlib
import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from olfl_ray.learnable import Learnable, Params
from olfl_ray.losses import loss_from_bytes
from olfl_ray.methods import Method, Setting
from olfl_ray.methods.online_lr import LearningRate
from olfl_ray.records import names
from olfl_ray.spec import TrialConfig
from olfl_ray.trial import Progress, TrialEnvironment, TrialState, run, state_from_bytes, state_to_bytes
from olfl_ray.trial.run import SURFACE_MOMENTS, _best, _init_progress
from olfl_ray.trial.state import Best
from olfl_ray.trial.stepping import Stepper

run_file = importlib.import_module("olfl_ray.trial.run")  # the package's `run` is the function


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> TrialEnvironment:
    """Prepared data sets, shared."""
    return TrialEnvironment(cache=tmp_path_factory.mktemp("cache"))


def config(method: str, **changes: Any) -> TrialConfig:
    settings: dict[str, Any] = {
        "task": {"dataset": "digits", "model": {"name": "mlp", "hidden": [4]}, "batch_size": 8},
        "learner": {"method": method, "steps": 20, "optimizer": {"name": "sgd", "lr": 0.1}},
        "meta": {"init_steps": 6, "eta_online": 1e-2},
        "eval": {"every": 3},
        "metric": "selection/error",
        "seeds": [1],
    }
    for name, value in changes.items():
        settings[name] = {**settings.get(name, {}), **value} if isinstance(value, dict) else value
    return TrialConfig.model_validate(settings)


class Kept(dict[str, bytes]):
    """A cache of initialized losses."""

    def put(self, key: str, value: bytes) -> None:
        self[key] = value


def test_surfaces_are_recorded_at_the_start_a_tenth_a_quarter_a_half_and_the_end(place: TrialEnvironment) -> None:
    assert SURFACE_MOMENTS == (0.0, 0.1, 0.25, 0.5, 1.0)
    for every, wanted in ((1, [0, 2, 5, 10, 20]), (3, [0, 3, 6, 12, 20]), (50, [0, 20])):
        found = list(run(config("online", eval={"every": every}), place))
        assert [surface.step for progress in found for one in progress.records for surface in one.surfaces] == wanted


def test_surface_is_recorded_once_when_a_trial_resumes(place: TrialEnvironment) -> None:
    uninterrupted = list(run(config("online"), place))
    rest = list(run(config("online"), place, uninterrupted[4].state))
    for one, other in zip(rest, uninterrupted[5:], strict=True):
        assert [record.surfaces for record in one.records] == [record.surfaces for record in other.records]


def test_record_includes_machine_metrics(place: TrialEnvironment, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = {names.SYSTEM_MEMORY_MB: (5.0,), names.SYSTEM_DEVICE_MEMORY_MB: (7.0,)}
    monkeypatch.setattr(run_file, "system", lambda: measured)
    ticks = iter(range(0, 1000, 2))
    monkeypatch.setattr(
        run_file, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks)), time_ns=time.time_ns)
    )
    found = [progress for progress in run(config("online", seeds=[1, 2]), place) if progress.state.step]
    for progress in found:
        (record,) = progress.records
        assert record.step == progress.state.step
        assert {name: record.metrics[name] for name in measured} == measured
        steps = 3 if record.step < 20 else 2
        assert record.metrics[names.PERF_STEPS_PER_SECOND] == (2 * steps / 2.0,), "both replicates, in two seconds"


def test_records_carry_the_time_in_milliseconds(place: TrialEnvironment, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(perf_counter=time.perf_counter, time_ns=lambda: 1_796_036_408_011_999_999)
    monkeypatch.setattr(run_file, "time", clock)
    assert {one.time_ms for progress in run(config("online"), place) for one in progress.records} == {1_796_036_408_011}


def test_process_keeps_the_memory_that_a_trial_frees(place: TrialEnvironment, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(run_file, "keep_freed_memory", lambda: asked.append(1))
    next(run(config("baseline"), place))
    assert asked == [1]


def test_steps_end_at_multiples_of_the_interval_and_at_the_last(place: TrialEnvironment) -> None:
    found = list(run(config("online", eval={"every": 4}), place))
    assert [(one.state.init_steps, one.state.step) for one in found] == [
        (4, 0), (6, 0), (6, 4), (6, 8), (6, 12), (6, 16), (6, 20),
    ]  # fmt: skip
    assert [one.outcome for one in found] == [None] * 6 + ["finished"]
    assert [bool(one.files) for one in found] == [False, *[True] * 6]
    assert [bool(one.report) for one in found] == [False, False, *[True] * 5]
    odd = found[2].state
    shifted = dataclasses.replace(odd, step=3)
    assert [one.state.step for one in run(config("online", eval={"every": 4}), place, shifted)] == [4, 8, 12, 16, 20]


def test_cached_initialization_is_used_and_not_computed_again(
    place: TrialEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept()
    uninterrupted = list(run(config("online"), place, None, kept))
    (key,) = kept

    def refuse(*_: object) -> None:
        raise AssertionError("the initialization is computed again")

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "initialise", refuse)
        again = list(run(config("online"), place, None, kept))
    first = again[0]
    assert [record.step for record in first.records] == [3, 6], "one progress with all records"
    assert first.state.init_curve == uninterrupted[1].state.init_curve
    assert (first.state.init_steps, first.state.step, first.outcome) == (6, 0, None)
    assert first.files == uninterrupted[1].files
    assert state_to_bytes(again[-1].state) == state_to_bytes(uninterrupted[-1].state)
    monkeypatch.setattr(kept, "put", refuse)
    rest = list(run(config("online"), place, uninterrupted[0].state, Kept()))
    assert state_to_bytes(rest[-1].state) == state_to_bytes(uninterrupted[-1].state), (
        "half of it is cached, the rest is computed"
    )
    assert key


@pytest.mark.parametrize("changes", [{"learner": {"method": "baseline"}}, {"meta": {"init_steps": 0}}])
def test_trials_without_initialization_do_not_use_the_cache(changes: dict[str, Any], place: TrialEnvironment) -> None:
    class Untouched(Kept):
        def get(self, *_: object) -> None:  # type: ignore[override]
            raise AssertionError("the cache is read")

    found = list(run(config("online", **changes), place, None, Untouched()))
    assert (found[0].state.init_steps, found[0].state.step) == (0, 3)
    assert bool(found[0].files) == ("meta" in changes)


def test_diverging_initialization_ends_the_trial_and_is_not_cached(
    place: TrialEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    initialise = Stepper.initialise
    for at, records in ((3, 1), (6, 2)):
        kept = Kept()

        def diverging(self: Stepper, learner: Any, start: int, end: int, at: int = at) -> Any:
            learner, loss = initialise(self, learner, start, end)
            return learner, math.nan if end == at else loss

        with monkeypatch.context() as patch:
            patch.setattr(Stepper, "initialise", diverging)
            found = list(run(config("online", seeds=[1, 2]), place, None, kept))
        assert [progress.outcome for progress in found] == [*[None] * (records - 1), "diverged"]
        assert not kept
        assert found[-1].report == {}


def normed(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, outputs))


def test_weights_and_buffers_of_the_best_evaluation_survive_a_restart(place: TrialEnvironment) -> None:
    """If the best evaluation is before the interruption, a resumed trial reports the uninterrupted one's test error."""
    steep = config(
        "baseline",
        task={"model": f"{__name__}:normed", "batch_size": 16},
        learner={"method": "baseline", "steps": 48, "optimizer": {"name": "sgd", "lr": 3.0}},
        eval={"every": 4},
        confirming=True,
    )
    uninterrupted = list(run(steep, place))
    best = uninterrupted[-1].state.replicates[0].best
    assert best is not None
    assert best.step < 44, "otherwise the interruption is before the best evaluation"
    cut = state_from_bytes(state_to_bytes(uninterrupted[-2].state))
    kept = cut.replicates[0].best
    assert kept is not None
    assert (kept.step, kept.metrics) == (best.step, best.metrics)
    for part in ("theta", "buffers"):
        one, other = getattr(kept, part), getattr(best, part)
        assert one.keys() == other.keys() != set()
        assert all(torch.equal(value, other[name]) for name, value in one.items())
    (rest,) = run(steep, place, cut)
    assert rest.report == uninterrupted[-1].report
    assert rest.report["test/error"] == rest.records[-1].metrics["test/error"]


def test_the_best_is_the_lowest_error_then_the_lowest_task_loss_then_the_first() -> None:
    learner: Any = SimpleNamespace(theta={}, buffers={})

    def evaluation(error: float, loss: float) -> dict[str, float]:
        return {"selection/error": error, "selection/task_loss": loss}

    best = Best(step=4, metrics=evaluation(0.2, 1.0), theta={}, buffers={})
    settings = config("baseline")
    for error, loss, taken in (
        (0.1, 9.0, True),
        (0.2, 0.9, True),
        (0.2, 1.0, False),
        (0.2, 1.1, False),
        (0.3, 0.1, False),
    ):
        now = _best(settings, best, learner, evaluation(error, loss), 8)
        assert (now.step, now.metrics) == ((8, evaluation(error, loss)) if taken else (4, best.metrics))
    higher = config("baseline", goal="maximize")
    for error, taken in ((0.3, True), (0.1, False)):
        assert _best(higher, best, learner, evaluation(error, 1.0), 8).step == (8 if taken else 4)
    last = config("baseline", eval={"report": "last"})
    assert _best(last, best, learner, evaluation(0.9, 9.0), 8).step == 8


def test_trial_that_diverges_at_its_last_record_is_not_finished_and_not_tested(place: TrialEnvironment) -> None:
    learner = {"method": "baseline", "steps": 3, "optimizer": {"name": "sgd", "lr": 1e30}}
    (only,) = run(config("baseline", learner=learner, confirming=True), place)
    assert only.outcome == "diverged"
    assert "test/error" not in only.report
    assert "test/error" not in only.records[0].metrics


def test_learned_loss_of_a_trial_is_its_first_replicates(place: TrialEnvironment) -> None:
    last = list(run(config("online", seeds=[1, 2]), place))[-1]
    loss = loss_from_bytes(last.files["learned_loss.safetensors"], last.files["learned_loss.json"], "it")
    first, second = (own.learner.phi for own in last.state.replicates)
    assert all(torch.equal(value, first[name]) for name, value in loss.named_parameters())
    assert not all(torch.equal(value, second[name]) for name, value in loss.named_parameters())


class Halves(Learnable):
    """Training starts at phi times the base learner's own weights."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.5))

    def start(self, theta: Params) -> Params:
        return {name: self.factor * value for name, value in theta.items()}


class FromHalf(Method):
    def learnable(self, setting: Setting) -> Learnable:
        return Halves()


def test_training_starts_at_the_weights_that_the_learnable_defines(place: TrialEnvironment) -> None:
    learner = {"steps": 2, "optimizer": {"name": "sgd", "lr": 1e-30}}  # steps that round to nothing
    plain, halved = (
        list(run(config(method, learner={**learner, "method": method}), place))[-1].state.replicates[0]
        for method in ("baseline", f"{__name__}:FromHalf")
    )
    assert all(torch.equal(halved.learner.theta[name], value / 2) for name, value in plain.learner.theta.items())


def test_position_of_a_state_counts_all_steps_and_its_bytes_are_complete(place: TrialEnvironment) -> None:
    found: list[Progress] = list(run(config("online", seeds=[1, 2]), place))
    state: TrialState = found[4].state
    assert state.position == state.init_steps + state.step == 15
    again = state_from_bytes(state_to_bytes(state))
    assert (again.init_steps, again.step, again.init_curve) == (6, 9, state.init_curve)
    assert [step for step, _ in again.init_curve] == [3, 6]
    assert state_to_bytes(again) == state_to_bytes(state)
    assert len(again.replicates) == 2
    for one, other in zip(again.replicates, state.replicates, strict=True):
        assert torch.equal(one.rng, other.rng)
        assert one.seen is not None
        assert other.seen is not None
        assert torch.equal(one.seen, other.seen)
        for part in ("theta", "buffers", "opt_state", "phi", "meta_state"):
            mine, wanted = getattr(one.learner, part), getattr(other.learner, part)
            assert list(mine) == list(wanted), "in the same order, which determines the rounding of sums"
            assert all(torch.equal(value, wanted[name]) for name, value in mine.items())
    assert state_from_bytes(state_to_bytes(found[0].state)).replicates[0].best is None


def test_training_from_a_restored_state_does_not_change_its_bytes(place: TrialEnvironment, tmp_path: Path) -> None:
    found = list(run(config("online"), place))
    kept = state_to_bytes(found[3].state)
    before = bytes(kept)
    list(run(config("online"), place, state_from_bytes(kept)))
    assert kept == before


def test_a_state_of_another_format_is_refused(place: TrialEnvironment, monkeypatch: pytest.MonkeyPatch) -> None:
    (last,) = list(run(config("baseline", eval={"every": 20}), place))
    written = state_to_bytes(last.state)
    monkeypatch.setattr("olfl_ray.trial.state.FORMAT", 2)
    with pytest.raises(ValueError, match="format 1, and this version reads format 2"):
        state_from_bytes(written)


def undefined(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    """A metric that has no value."""
    return math.nan


def test_a_users_metric_without_a_value_does_not_end_the_trial(place: TrialEnvironment) -> None:
    metrics = [{"name": f"{__name__}:undefined"}]
    found = list(run(config("baseline", task={"metrics": metrics}, eval={"every": 20}), place))
    assert [one.outcome for one in found] == ["finished"]
    assert math.isnan(found[0].report["selection/undefined"][0])


def test_the_constant_predictions_metrics_are_reported_and_are_no_curve(place: TrialEnvironment) -> None:
    (last,) = run(config("baseline", eval={"every": 20}, confirming=True), place)
    (record,) = last.records
    assert {"test/error", "trivial/error"} <= set(last.report)
    assert "test/error" in record.metrics
    assert not [name for name in record.metrics if name.startswith("trivial/")]


def test_the_initialisation_moves_phi_and_training_goes_on_from_there(place: TrialEnvironment) -> None:
    found = list(run(config("offline"), place))
    phis = [one.state.replicates[0].learner.phi for one in found]
    some = next(iter(phis[0]))
    assert not torch.equal(phis[0][some], phis[1][some]), "between the two halves of Algorithm 1"
    assert all(torch.equal(phi[some], phis[1][some]) for phi in phis[2:]), "then it stays"


class Late(Method):
    """Another learning rate after nine tenths of the steps."""

    phi = "alpha"
    uses = ()

    def learnable(self, setting: Setting) -> Learnable:
        return LearningRate(0.1)

    def phis(self, setting: Setting) -> list[tuple[float, Params]]:
        (name,) = dict(LearningRate(0.1).named_parameters())
        return [(0.0, {name: torch.tensor(0.2)}), (0.9, {name: torch.tensor(0.3)})]


def test_phi_changes_after_the_fraction_of_the_steps_that_the_method_gives(place: TrialEnvironment) -> None:
    found = list(run(config(f"{__name__}:Late", eval={"every": 9}), place))
    rates = [next(iter(one.state.replicates[0].learner.phi.values())).item() for one in found]
    assert rates == [pytest.approx(0.2), pytest.approx(0.2), pytest.approx(0.3)], "chunks begin at 0, 0.45 and 0.9"


def dropping(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(math.prod(input_shape), outputs))


def test_each_part_of_training_draws_other_random_numbers(place: TrialEnvironment) -> None:
    found = list(run(config("online", task={"model": {"name": f"{__name__}:dropping"}}), place))
    states = [bytes(one.state.replicates[0].rng.numpy()) for one in found]
    assert len(set(states)) == len(states)


def test_initialization_that_ends_without_a_finite_loss_has_diverged() -> None:
    """Whatever it was before: a curve from the cache is judged by its end too."""
    state, nan = TrialState(replicates=[], init_steps=2, step=0), math.nan
    for points, outcome in (([(1, (0.5,)), (2, (nan,))], "diverged"), ([(1, (nan,)), (2, (0.5,))], None)):
        assert _init_progress(state, points, {}).outcome == outcome
