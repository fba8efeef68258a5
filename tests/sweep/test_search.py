"""Proposals: grids are walked whole, conditions are kept, a deterministic search ignores who ends first."""

import json
from collections.abc import Callable
from math import log10
from statistics import median

import pytest
from support.conducting import run_to_end, study, tell

from olfl_ray.errors import SpecError
from olfl_ray.ledger import TrialState
from olfl_ray.spec import PrunerSpec
from olfl_ray.sweep import Conductor

Conduct = Callable[..., Conductor]
GRID = {"learner.optimizer.lr": {"values": [0.01, 0.05, 0.1]}, "meta.init_steps": {"values": [0, 10]}}
SAMPLERS = ["tpe", "random", "qmc", "cmaes", "gp"]
LR = {"learner.optimizer.lr": {"min": 0.003, "max": 0.3, "log": True}}


def test_a_grid_is_walked_whole_once_and_from_the_specs_own_values(conduct: Conduct) -> None:
    search = {"parameters": GRID, "sampler": "grid", "pruner": "none"}
    meta = {"init_steps": 10}
    conductor = conduct(study(search=search, meta=meta, arms={"online": {"trials": 6}}, confirm={"seeds": 0}))
    run_to_end(conductor, lambda trial: 0.1)
    points = [trial.params for trial in conductor.ledger.state.trials.values()]
    assert points[0] == {"learner.optimizer.lr": 0.05, "meta.init_steps": 10}
    assert len({json.dumps(point, sort_keys=True) for point in points}) == 6


def test_a_grid_smaller_than_its_trials_is_refused() -> None:
    search = {"parameters": GRID, "sampler": "grid"}
    with pytest.raises(SpecError, match=r"arms\.online\.trials: the grid has 6 points, but trials=7"):
        study(search=search, arms={"online": {"trials": 7}})


@pytest.mark.parametrize(
    ("pruner", "decisions"),
    [
        ({"name": "none"}, []),
        ({"name": "asha", "min_steps": 100, "reduction": 3}, [100, 300, 900]),
        ({"name": "median", "min_steps": 250}, [250, 500, 750, 1000]),
    ],
)
def test_a_pruner_decides_at_its_steps(pruner: dict[str, object], decisions: list[int]) -> None:
    spec = PrunerSpec.model_validate(pruner)
    assert [step for step in range(1, 1001) if spec.decides(step - 1, step)] == decisions
    for step in decisions:
        assert spec.decides(step - 40, step + 7), "the first evaluation after it"
        assert not spec.decides(step, step + 7), "once"


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_field_is_searched_only_where_its_condition_holds(sampler: str, conduct: Conduct) -> None:
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
def test_deterministic_proposals_depend_neither_on_who_ends_first_nor_on_restarts(
    sampler: str, conduct: Conduct
) -> None:
    parameters = {**LR, "meta.init_steps": {"values": [0, 10, 20]}}
    search = {"parameters": parameters, "pruner": "none", "deterministic": True, "sampler": sampler}
    spec = study(search=search, arms={"online": {"trials": 13}}, confirm={"seeds": 0})  # ten are drawn at random
    found = {}
    for name, reverse, restarts in (("first", False, False), ("other end first", True, False), ("killed", True, True)):
        conductor = conduct(spec, name)
        while (one := conductor.next()) is not None:
            pair = [one] if (two := conductor.next()) is None else [one, two]
            for trial in reversed(pair) if reverse else pair:
                tell(conductor, trial, 900, _error(trial), "finished")
            if restarts:
                conductor = conduct(spec, name)
        found[name] = [trial.params for trial in conductor.ledger.state.trials.values()]
    assert len({point["learner.optimizer.lr"] for point in found["first"]}) == 13
    assert found["other end first"] == found["first"]
    assert found["killed"] == found["first"]


@pytest.mark.parametrize(("sampler", "trials"), [("tpe", 40), ("cmaes", 40), ("gp", 20)])
def test_a_search_that_sees_its_results_gets_better(sampler: str, trials: int, conduct: Conduct) -> None:
    search = {"parameters": LR, "pruner": "none", "sampler": sampler}
    conductor = conduct(study(search=search, arms={"online": {"trials": trials}}, confirm={"seeds": 0}, concurrency=1))
    run_to_end(conductor, _error)
    values = [trial.value for trial in conductor.ledger.state.trials.values() if trial.value is not None]
    assert median(values[trials // 2 :]) < 0.7 * median(values[1:11])  # random search: 0.94


def test_qmc_scatters_evenly(conduct: Conduct) -> None:
    """Of sixteen points of a Sobol' sequence one lies in each sixteenth of the range, and so in each field."""
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


def test_cmaes_without_a_range_to_move_is_refused() -> None:
    when = {"loss.activation.gamma": {"min": 0.01, "max": 0.3, "when": {"loss.activation.name": "smooth_leaky_relu"}}}
    names = {"loss.activation.name": {"values": ["smooth_leaky_relu", "tanh"]}}
    search = {"parameters": {**GRID, **names, **when}, "sampler": "cmaes"}
    with pytest.raises(SpecError, match=r"search\.sampler: cmaes moves .* arm 'online' has none; use tpe"):
        study(search=search, arms={"online": {"trials": 7}})


def _error(trial: TrialState) -> float:
    """Least at the learning rate 0.1."""
    return abs(float(trial.params["learner.optimizer.lr"]) - 0.1)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_that_goes_on_proposes_new_points(sampler: str, conduct: Conduct) -> None:
    search = {"parameters": LR, "pruner": "none", "sampler": sampler}
    run_to_end(conduct(study(search=search, arms={"online": {"trials": 4}}, confirm={"seeds": 0})), _error)
    further = conduct(study(search=search, arms={"online": {"trials": 8}}, confirm={"seeds": 0}))
    run_to_end(further, _error)
    assert len({trial.params["learner.optimizer.lr"] for trial in further.state.trials.values()}) == 8
