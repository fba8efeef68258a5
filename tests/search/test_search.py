"""Proposals: grids are covered completely, conditions hold, a deterministic search is independent of the order of ends."""

import json
import tracemalloc
from collections.abc import Callable
from math import log10
from statistics import median

import pytest
from support.conducting import run_to_end, send, study

from olfl_ray.errors import SpecError
from olfl_ray.ledger import TrialState
from olfl_ray.pruners import pruner_of
from olfl_ray.search import check_search, notes
from olfl_ray.spec import PrunerSpec
from olfl_ray.sweep import Conductor

Conduct = Callable[..., Conductor]
GRID = {"learner.optimizer.lr": {"values": [0.01, 0.05, 0.1]}, "meta.init_steps": {"values": [0, 10]}}
SAMPLERS = ["tpe", "random", "qmc", "cmaes", "gp"]
LR = {"learner.optimizer.lr": {"min": 0.003, "max": 0.3, "log": True}}


def test_grid_is_covered_once_starting_from_the_specs_own_values(conduct: Conduct) -> None:
    search = {"parameters": GRID, "sampler": "grid", "pruner": "none"}
    meta = {"init_steps": 10}
    conductor = conduct(study(search=search, meta=meta, arms={"online": {"trials": 6}}, confirm={"seeds": 0}))
    run_to_end(conductor, lambda trial: 0.1)
    points = [trial.params for trial in conductor.ledger.state.trials.values()]
    assert points[0] == {"learner.optimizer.lr": 0.05, "meta.init_steps": 10}
    assert len({json.dumps(point, sort_keys=True) for point in points}) == 6


def test_grid_of_a_hundred_million_points_is_never_built_in_full(conduct: Conduct) -> None:
    names = ["learner.optimizer.lr", "meta.eta_online", "meta.eta_init", "loss.activation.beta"]
    numbers = {name: {"values": [0.01 * n for n in range(1, 11)]} for name in names}
    fields = ["meta.init_steps", "meta.inner_steps", "meta.every", "eval.every"]
    search = {"parameters": {**numbers, **{name: {"values": list(range(1, 11))} for name in fields}}, "sampler": "grid"}
    spec = study(search=search, arms={"online": {"trials": 3}}, confirm={"seeds": 0})
    tracemalloc.start()
    conductor = conduct(spec)
    run_to_end(conductor, lambda trial: 0.1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [trial.params["eval.every"] for trial in conductor.state.trials.values()] == [1, 2, 3]
    assert peak < 50e6


SMALL: dict[str, object] = {
    "loss.activation.name": {"values": ["smooth_leaky_relu", "tanh"]},
    "loss.activation.gamma": {"values": [0, 0.1], "when": {"loss.activation.name": "smooth_leaky_relu"}},
    "meta.init_steps": {"min": 1, "max": 3},
}
"""Nine points."""


@pytest.mark.parametrize(
    ("sampler", "deterministic"), [("tpe", True), ("random", True), ("qmc", True), ("gp", True), ("tpe", False)]
)
def test_no_point_is_tried_twice_and_an_arm_ends_when_its_points_run_out(
    sampler: str, deterministic: bool, conduct: Conduct
) -> None:
    """A deterministic search proposes the same whether or not it is killed before each proposal."""
    search = {"parameters": SMALL, "pruner": "none", "sampler": sampler, "deterministic": deterministic}
    spec = study(search=search, arms={"online": {"trials": 12}}, confirm={"seeds": 0}, concurrency=1)
    found = {}
    for name in ("uninterrupted", "killed"):
        conductor = conduct(spec, name)
        while (trial := conductor.next()) is not None:
            send(conductor, trial, 900, 0.1 * trial.id.ordinal, "finished")
            conductor = conduct(spec, name) if name == "killed" else conductor
        assert conductor.finished
        found[name] = [dict(trial.params) for trial in conductor.state.trials.values()]
        assert len({json.dumps(point, sort_keys=True) for point in found[name]}) == len(found[name]) == 9
    assert not deterministic or found["killed"] == found["uninterrupted"]
    assert any("9 points" in note and "9 of 12" in note for note in notes(spec))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_widest_range_is_sampled(sampler: str, conduct: Conduct) -> None:
    search = {"parameters": {"learner.steps": {"min": 1, "max": 10**9}}, "pruner": "none", "sampler": sampler}
    conductor = conduct(study(search=search, arms={"online": {"trials": 12}}, confirm={"seeds": 0}))
    run_to_end(conductor, lambda trial: 0.1)
    assert len({trial.params["learner.steps"] for trial in conductor.state.trials.values()}) == 12


@pytest.mark.parametrize("sampler", ["tpe", "qmc", "grid"])
def test_a_value_may_be_spelled_differently_from_the_specs_own(sampler: str, conduct: Conduct) -> None:
    parameters = {
        "learner.optimizer.momentum": {"values": [0, 0.9]},
        "task.model.dropout": {"values": [0, 0.5]},
        "learner.optimizer": {"values": ["sgd", "adam"]},
    }
    search = {"parameters": parameters, "pruner": "none", "sampler": sampler}
    task = {"dataset": "digits", "model": {"name": "allcnnc", "dropout": 0.0}}
    del parameters["learner.optimizer" if sampler != "grid" else "learner.optimizer.momentum"]
    spec = study(search=search, task=task, learner={}, arms={"online": {"trials": 4}}, confirm={"seeds": 0})
    conductor = conduct(spec)
    run_to_end(conductor, lambda trial: 0.1)
    points = [trial.params for trial in conductor.state.trials.values()]
    assert len({json.dumps(point, sort_keys=True) for point in points}) == 4
    own = points[0].get("learner.optimizer.momentum", 0.0), points[0]["task.model.dropout"]
    assert own == (0.0, 0.0)
    assert points[0].get("learner.optimizer", "sgd") == "sgd"


def test_range_of_a_float_field_gives_floats_even_with_integer_bounds(conduct: Conduct) -> None:
    search = {"parameters": {"learner.optimizer.lr": {"min": 0, "max": 1}}, "pruner": "none"}
    spec = study(search=search, arms={"online": {"trials": 8}}, confirm={"seeds": 0})
    other = {"parameters": {"learner.optimizer.lr": {"min": 0.0, "max": 1.0}}, "pruner": "none"}
    assert spec.digest == study(search=other, arms={"online": {"trials": 9}}, confirm={"seeds": 0}).digest
    conductor = conduct(spec)
    run_to_end(conductor, lambda trial: 0.1)
    assert len({trial.params["learner.optimizer.lr"] for trial in conductor.state.trials.values()}) == 8


@pytest.mark.parametrize(
    ("pruner", "steps", "never"),
    [
        ({"name": "asha", "min_steps": 900}, 900, True),
        ({"name": "median", "min_steps": 1000}, 900, True),
        ({"name": "asha", "min_steps": 801}, 900, True),
        ({"name": "asha", "min_steps": 800}, 900, False),
        ({"name": "none", "min_steps": 1000}, 900, False),
    ],
)
def test_a_pruner_that_can_never_decide_is_named(pruner: dict[str, object], steps: int, never: bool) -> None:
    search = {"parameters": LR, "pruner": pruner}
    spec = study(search=search, learner={"steps": steps}, arms={"online": {"trials": 2}})
    assert any("min_steps" in note for note in notes(spec)) == never


@pytest.mark.parametrize(
    ("pruner", "decisions"),
    [
        ({"name": "none"}, []),
        ({"name": "asha", "min_steps": 100, "reduction": 3}, [100, 300, 900]),
        ({"name": "median", "min_steps": 250}, [250, 500, 750, 1000]),
    ],
)
def test_a_pruner_decides_at_its_steps(pruner: dict[str, object], decisions: list[int]) -> None:
    spec = pruner_of(PrunerSpec.model_validate(pruner))
    assert [step for step in range(1, 1001) if spec.decides(step - 1, step)] == decisions
    for step in decisions:
        assert spec.decides(step - 40, step + 7), "the first evaluation after it"
        assert not spec.decides(step, step + 7), "once"


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_field_is_searched_only_if_its_condition_holds(sampler: str, conduct: Conduct) -> None:
    parameters = {
        "learner.optimizer.lr": {"min": 0.01, "max": 0.1},
        "loss.activation.name": {"values": ["smooth_leaky_relu", "tanh"]},
        "loss.activation.gamma": {"min": 0.01, "max": 0.3, "when": {"loss.activation.name": "smooth_leaky_relu"}},
    }
    search = {"parameters": parameters, "pruner": "none", "sampler": sampler}
    conductor = conduct(study(search=search, arms={"online": {"trials": 13}}, confirm={"seeds": 0}))
    run_to_end(conductor, lambda trial: 0.1)
    points = [trial.params for trial in conductor.ledger.state.trials.values()]
    assert {point["loss.activation.name"] for point in points} == {"smooth_leaky_relu", "tanh"}
    for point in points:
        assert ("loss.activation.gamma" in point) == (point["loss.activation.name"] == "smooth_leaky_relu")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_deterministic_proposals_depend_neither_on_the_order_of_ends_nor_on_restarts(
    sampler: str, conduct: Conduct
) -> None:
    parameters = {**LR, "meta.init_steps": {"values": [0, 10, 20]}}
    search = {"parameters": parameters, "pruner": "none", "deterministic": True, "sampler": sampler}
    spec = study(search=search, arms={"online": {"trials": 13}}, confirm={"seeds": 0})  # ten are drawn at random
    found = {}
    for name, reverse, restarts in (("first", False, False), ("reversed", True, False), ("killed", True, True)):
        conductor = conduct(spec, name)
        while (one := conductor.next()) is not None:
            pair = [one] if (two := conductor.next()) is None else [one, two]
            for trial in reversed(pair) if reverse else pair:
                send(conductor, trial, 900, _error(trial), "finished")
            if restarts:
                conductor = conduct(spec, name)
        found[name] = [trial.params for trial in conductor.ledger.state.trials.values()]
    assert len({point["learner.optimizer.lr"] for point in found["first"]}) == 13
    assert found["reversed"] == found["first"]
    assert found["killed"] == found["first"]


@pytest.mark.parametrize(("sampler", "trials"), [("tpe", 40), ("cmaes", 40), ("gp", 20)])
def test_search_improves_with_its_results(sampler: str, trials: int, conduct: Conduct) -> None:
    search = {"parameters": LR, "pruner": "none", "sampler": sampler}
    conductor = conduct(study(search=search, arms={"online": {"trials": trials}}, confirm={"seeds": 0}, concurrency=1))
    run_to_end(conductor, _error)
    values = [trial.value for trial in conductor.ledger.state.trials.values() if trial.value is not None]
    assert median(values[trials // 2 :]) < 0.7 * median(values[1:11])  # random search: 0.94


def test_qmc_covers_the_space_evenly(conduct: Conduct) -> None:
    """Among sixteen points of a Sobol' sequence one lies in each sixteenth of the range, in each field."""
    parameters = {
        "learner.optimizer.lr": {"min": 0.1, "max": 10.0, "log": True},
        "meta.init_steps": {"min": 1, "max": 16},
        "loss.output": {"values": ["none", "softplus"]},
    }
    search = {"parameters": parameters, "pruner": "none", "sampler": "qmc"}
    conductor = conduct(study(search=search, arms={"online": {"trials": 16}}, confirm={"seeds": 0}))
    run_to_end(conductor, lambda trial: 0.1)
    points = [trial.params for trial in conductor.ledger.state.trials.values()]
    assert sorted(int(8 * log10(10 * point["learner.optimizer.lr"])) for point in points) == list(range(16))
    assert sorted(point["meta.init_steps"] for point in points) == list(range(1, 17))
    assert sorted(point["loss.output"] for point in points) == ["none"] * 8 + ["softplus"] * 8


def test_cmaes_without_a_range_is_refused() -> None:
    when = {"loss.activation.gamma": {"min": 0.01, "max": 0.3, "when": {"loss.activation.name": "smooth_leaky_relu"}}}
    names = {"loss.activation.name": {"values": ["smooth_leaky_relu", "tanh"]}}
    search = {"parameters": {**GRID, **names, **when}, "sampler": "cmaes"}
    with pytest.raises(SpecError, match=r"search\.sampler: cmaes .* arm 'online' has none; use tpe"):
        check_search(study(search=search, arms={"online": {"trials": 7}}))


def test_a_grid_without_lists_is_refused() -> None:
    with pytest.raises(SpecError, match=r"search\.parameters\.learner\.optimizer\.lr: .*values"):
        check_search(study(search={"parameters": LR, "sampler": "grid"}, arms={"online": {"trials": 7}}))


@pytest.mark.parametrize(
    ("sampler", "field", "words"),
    [
        ({"name": "tpee"}, "search.sampler", "'tpe'"),
        ({"name": "tpe", "seed": 3}, "search.sampler.seed", "none"),
        ({"name": "no_such.module:Mine"}, "search.sampler", "imported"),
        ({"name": "support.conducting:study"}, "search.sampler", "Searcher"),
    ],
)
def test_unknown_searchers_and_options_are_refused(sampler: dict[str, object], field: str, words: str) -> None:
    with pytest.raises(SpecError) as refused:
        check_search(study(search={"parameters": LR, "sampler": sampler}, arms={"online": {"trials": 7}}))
    assert refused.value.field == field
    assert words in refused.value.problem


def _error(trial: TrialState) -> float:
    """Smallest at the learning rate 0.1."""
    return abs(float(trial.params["learner.optimizer.lr"]) - 0.1)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_resumed_search_proposes_new_points(sampler: str, conduct: Conduct) -> None:
    search = {"parameters": LR, "pruner": "none", "sampler": sampler}
    run_to_end(conduct(study(search=search, arms={"online": {"trials": 4}}, confirm={"seeds": 0})), _error)
    further = conduct(study(search=search, arms={"online": {"trials": 8}}, confirm={"seeds": 0}))
    run_to_end(further, _error)
    assert len({trial.params["learner.optimizer.lr"] for trial in further.state.trials.values()}) == 8
