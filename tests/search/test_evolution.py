"""Evolution of formulas: its candidates, its generations, and what it is rebuilt from."""

from __future__ import annotations

import math
import random as process
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from support.conducting import run_to_end, send, study

from olfl_ray.analysis.charts_of_search import search_charts
from olfl_ray.analysis.facts import filtered_rows
from olfl_ray.errors import SpecError
from olfl_ray.formula import canonical, read_formula
from olfl_ray.ledger import Examined, TrialState
from olfl_ray.losses.probe import gain, gradient
from olfl_ray.search import check_search
from olfl_ray.search.genetics import Genetics
from olfl_ray.search.space import share_of, value_at
from olfl_ray.spec import ConfirmSpec, ExpressionSpace, Parameter, StudySpec
from olfl_ray.sweep import Conductor
from olfl_ray.testing import formula_space

Conduct = Callable[..., Conductor]
FIELD = "loss.formula"
LOSS = {"name": "expression", "formula": "square(y - f)"}
LR = {"learner.optimizer.lr": {"min": 0.003, "max": 0.3, "log": True}}


def searched(
    trials: int = 24,
    concurrency: int = 3,
    parameters: Any = None,
    deterministic: bool = True,
    loss: Any = LOSS,
    **sampler: Any,
) -> StudySpec:
    search = {
        "parameters": {FIELD: {"expression": {}}} if parameters is None else parameters,
        "sampler": {"name": "evolution", "population": 6, **sampler},
        "pruner": "none",
        "deterministic": deterministic,
    }
    arms = {"evolved": {"set": {"learner.method": "offline"}, "trials": trials}}
    return study(search=search, loss=loss, arms=arms, confirm={"seeds": 0}, concurrency=concurrency)


def value(trial: TrialState) -> float:
    """The shorter formula is better."""
    return len(trial.params[FIELD]) / 100


def examined(conductor: Conductor, kind: str = "classification", *, learns: bool = True) -> Conductor:
    """The conductor with what a driver records of an arm's data before its first trial: filters need it."""
    if not conductor.state.facts:
        facts = Examined(arm="evolved", data="", code={}, task=kind, primary="error", goals={}, units={}, learns=learns)
        conductor.ledger.append(facts)
    return conductor


def points(conductor: Conductor) -> list[dict[str, Any]]:
    return [dict(trial.params) for trial in conductor.state.trials.values()]


def run_concurrently(conduct: Conduct, spec: StudySpec, folder: str, seed: int, kills: float) -> list[dict[str, Any]]:
    """Run a study whose trials end in random order, and whose driver is killed now and then."""
    random, conductor = Random(seed), examined(conduct(spec, folder))
    live: list[TrialState] = []
    while True:
        while len(live) < spec.concurrency and (trial := conductor.next()) is not None:
            live.append(trial)
        if not live:
            assert conductor.finished
            return [{**trial.params, "filtered": trial.filtered} for trial in conductor.state.trials.values()]
        if random.random() < kills:
            conductor, live = conduct(spec, folder), []
            continue
        trial = live.pop(random.randrange(len(live)))
        send(conductor, trial, 900, value(trial), "finished")


@pytest.mark.parametrize("mode", ["generational", "asynchronous"])
def test_a_deterministic_search_proposes_the_same_whatever_ends_first_and_after_kills(
    mode: str, conduct: Conduct
) -> None:
    spec = searched(mode=mode, parameters={FIELD: {"expression": {}}, **LR})
    undisturbed = run_concurrently(conduct, spec, "undisturbed", seed=0, kills=0)
    assert len(undisturbed) == 24
    for seed in (1, 2):
        assert run_concurrently(conduct, spec, f"killed {seed}", seed=seed, kills=0.4) == undisturbed


@pytest.mark.parametrize("mode", ["generational", "asynchronous"])
@pytest.mark.parametrize("deterministic", [True, False])
def test_no_candidate_is_tried_twice(mode: str, deterministic: bool, conduct: Conduct) -> None:
    spec = searched(mode=mode, deterministic=deterministic, trials=20)
    found = [point[FIELD] for point in run_concurrently(conduct, spec, "study", seed=3, kills=0.1)]
    assert found[0] == "square(y - f)"
    assert len({canonical(read_formula(text)) for text in found}) == len(found) == 20


def test_a_search_finds_better_formulas_than_its_first_generation(conduct: Conduct) -> None:
    conductor = conduct(searched(trials=60, population=12, loss={**LOSS, "formula": "tanh(log(y)) + tanh(abs(f)) + 1"}))
    run_to_end(conductor, value)
    values = [value(trial) for trial in conductor.state.trials.values()]
    assert min(values[24:]) <= min(values[:12])
    assert sum(values[-12:]) < sum(values[:12])


def test_a_generation_waits_for_the_one_before_and_an_asynchronous_search_does_not(conduct: Conduct) -> None:
    for mode, most in (("generational", 6), ("asynchronous", 9)):
        conductor = conduct(searched(mode=mode, concurrency=9, deterministic=False), mode)
        begun = []
        while len(begun) < 9 and (trial := conductor.next()) is not None:
            begun.append(trial)
        assert len(begun) == most
        assert not conductor.finished
        send(conductor, begun[0], 900, 0.1, "finished")
        assert (conductor.next() is None) == (mode == "generational")


def test_a_search_ends_with_its_last_generation(conduct: Conduct) -> None:
    spec = searched(trials=100, generations=3)
    conductor = conduct(spec)
    run_to_end(conductor, value)
    assert conductor.finished
    count = len(points(conductor))
    assert 6 < count <= 18
    assert conduct(spec).finished
    assert conduct(spec).next() is None


def test_a_search_of_few_formulas_ends_when_there_is_none_left(conduct: Conduct) -> None:
    space = {FIELD: {"expression": {"functions": ["add"], "height": [1, 1], "max_height": 2}}}
    for mode in ("generational", "asynchronous"):
        conductor = conduct(searched(trials=500, parameters=space, mode=mode, loss={**LOSS, "formula": "y + f"}), mode)
        run_to_end(conductor, value)
        assert 3 < len(points(conductor)) < 200
        assert conductor.finished


def test_trials_that_did_not_finish_have_the_worst_fitness(conduct: Conduct) -> None:
    """Nothing is inherited from them where others finished."""
    spec = searched(trials=13, crossover=0.0, mutation=1.0, tournament=50, parameters={FIELD: {"expression": {}}, **LR})
    conductor = conduct(spec)
    ends = iter(["diverged", "failed", "finished", *["diverged"] * 3])
    while (trial := conductor.next()) is not None and trial.id.ordinal < 6:
        send(conductor, trial, 900, 0.0, next(ends))
    third = points(conductor)[2]
    child = points(conductor)[6]
    ratio = child["learner.optimizer.lr"] / third["learner.optimizer.lr"]
    assert 100**-0.4 < ratio < 100**0.4  # four standard deviations of a mutation


def test_trees_have_both_operands_and_limited_height() -> None:
    space = formula_space()
    genetics = Genetics(space, tournament=2, parsimony=1.4, crossover=0.5, mutation=0.5)
    random = Random(0)
    population = [genetics.drawn(random) for _ in range(200)]
    assert {2, 3, 4} <= {one.height for one in population} <= {1, 2, 3, 4, 5}
    process.seed(7)
    before = process.getstate()
    for generation in range(12):
        for one in population:
            one.fitness.values = (-float(one.height),)  # the highest win
        population = genetics.children(population, 200, Random(generation))
        for one in population:
            formula = read_formula(genetics.point(one)[FIELD])
            assert formula.has("y")
            assert formula.has("f")
            assert formula.height == one.height <= 10
            assert space.taken(genetics.point(one)) == genetics.point(one)
    assert max(one.height for one in population) == 10
    assert process.getstate() == before


def test_a_point_and_its_individual_are_inverses() -> None:
    space = formula_space()
    genetics = Genetics(space, tournament=2, parsimony=1.0, crossover=0.5, mutation=0.5)
    for seed in range(50):
        point = genetics.point(genetics.drawn(Random(seed)))
        again = genetics.point(genetics.individual(point))
        assert genetics.key(again) == genetics.key(point)
        assert again[FIELD] == point[FIELD]
    whole, logs = Parameter(min=3, max=7), Parameter(min=1, max=1000, log=True)
    for parameter, values in (
        (whole, range(3, 8)),
        (logs, (1, 2, 10, 999, 1000)),
        (Parameter(values=("a", 0)), ("a", 0)),
    ):
        for one in values:
            assert value_at(parameter, share_of(parameter, one)) == one


def test_only_the_functions_of_the_space_occur(conduct: Conduct) -> None:
    functions = ["sub", "mul", "tanh"]
    space = {FIELD: {"expression": {"functions": functions, "height": [1, 3], "max_height": 5}}}
    conductor = conduct(searched(parameters=space, loss={**LOSS, "formula": "log(y) + f"}))
    run_to_end(conductor, value)
    for point in points(conductor):
        formula = read_formula(point[FIELD])
        assert formula.height <= 5
        assert {node.name for node in formula.nodes() if node.operands} <= set(functions)


@pytest.mark.parametrize(
    ("change", "field", "word"),
    [
        ({"sampler": "tpe"}, "search.parameters.loss.formula", "evolution"),
        ({"sampler": "grid"}, "search.parameters.loss.formula", "evolution"),
        ({"parameters": LR}, "search.sampler", "formula"),
        ({"sampler": {"name": "evolution", "crossover": 0.9}}, "search.sampler", "crossover"),
        ({"sampler": {"name": "evolution", "populaton": 9}}, "search.sampler.populaton", "population"),
    ],
)
def test_what_evolution_can_not_search_is_refused(change: dict[str, Any], field: str, word: str) -> None:
    search = {"parameters": {FIELD: {"expression": {}}}, "sampler": "evolution", "pruner": "none", **change}
    spec = study(search=search, loss=LOSS, arms={"evolved": {"set": {"learner.method": "offline"}, "trials": 3}})
    with pytest.raises(SpecError) as caught:
        check_search(spec)
    assert caught.value.field == field
    assert word in caught.value.problem


@pytest.mark.parametrize(
    ("space", "word"),
    [
        ({"functions": ["ad"]}, "add"),
        ({"functions": ["add", "add"]}, "twice"),
        ({"functions": ["tanh"]}, "two operands"),
        ({"height": [3, 2]}, "height"),
        ({"height": [2, 4], "max_height": 4}, "max_height"),
    ],
)
def test_a_space_without_formulas_is_refused(space: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        ExpressionSpace.model_validate(space)
    with pytest.raises(SpecError, match=word):
        searched(parameters={FIELD: {"expression": space}})


def test_a_field_that_holds_no_formula_is_refused() -> None:
    with pytest.raises(SpecError) as caught:
        searched(parameters={"learner.steps": {"expression": {}}})
    assert caught.value.field == "search.parameters.learner.steps"
    with pytest.raises(SpecError, match="formula"):
        searched(loss={"name": "mlp"})


def test_the_specs_own_formula_may_have_any_numbers(conduct: Conduct) -> None:
    spec = searched(loss={**LOSS, "formula": "square(0.5 * y - f)"}, tournament=50, mutation=0.1)
    conductor = conduct(spec)
    run_to_end(conductor, lambda trial: 0.0 if "0.5" in trial.params[FIELD] else 1.0)
    assert sum("0.5" in point[FIELD] for point in points(conductor)) > 4


def test_an_arm_without_searched_fields_runs_once(conduct: Conduct) -> None:
    spec = searched(trials=4, parameters={})
    arms = {
        "baseline": {"set": {"learner.method": "baseline"}, "trials": 3},
        "evolved": {"set": {"learner.method": "offline"}, "trials": 4, "parameters": {FIELD: {"expression": {}}}},
    }
    spec = study(search=spec.search.model_dump(mode="json"), loss=LOSS, arms=arms, confirm={"seeds": 1})
    check_search(spec)
    conductor = conduct(spec)
    run_to_end(conductor, lambda trial: 0.1 * trial.id.ordinal)
    names = list(conductor.state.trials)
    assert [name for name in names if name.startswith("baseline")] == ["baseline/0", "baseline/c0"]
    assert conductor.importances() == {"baseline": {}, "evolved": {}}


def test_each_filter_drops_what_it_is_for(conduct: Conduct) -> None:
    """Dropped candidates cost no trial, are in the ledger, and are never proposed."""
    for mode in ("generational", "asynchronous"):
        conductor = examined(conduct(searched(trials=20, population=12, mode=mode), mode))
        run_to_end(conductor, value)
        trials = conductor.state.search_trials("evolved")
        assert len(trials) == 20
        counts = conductor.state.filtered("evolved")
        assert min(counts.get(name, 0) for name in ("symbolic", "rejection", "gradient")) > 0
        dropped = [one for trial in trials for one in trial.filtered]
        assert len(dropped) == sum(counts.values())
        for one in dropped:
            formula = one["params"][FIELD]
            if one["filter"] == "rejection":
                assert not gain(formula, "classification", "mean") > 0
                assert all(canonical(read_formula(formula)) != canonical(read_formula(t.params[FIELD])) for t in trials)
            if one["filter"] == "gradient":
                other = conductor.state.trials[one["same_as"]].params[FIELD]
                both = [gradient(text, "classification", "mean") for text in (formula, other)]
                assert both[0] == pytest.approx(both[1], abs=2e-3 * math.hypot(*both[1]))
            if one["filter"] == "symbolic" and "same_as" in one:
                assert one["same_as"] in conductor.state.trials


def test_the_report_counts_what_was_dropped_and_draws_the_other_fields(conduct: Conduct) -> None:
    for more in ({}, LR):
        spec = searched(trials=8, parameters={FIELD: {"expression": {}}, **more})
        conductor = examined(conduct(spec, f"with {len(more)}"))
        run_to_end(conductor, value)
        charts = [chart.name for chart in search_charts(spec, conductor.state, {})]
        assert any("parallel" in name for name in charts) == bool(more), charts
        (row,) = filtered_rows(spec, conductor.state)
        assert row["trials"] == 8
        assert row["rejection"] == conductor.state.filtered("evolved")["rejection"] > 0


def test_without_filters_only_equal_formulas_are_dropped(conduct: Conduct) -> None:
    conductor = examined(conduct(searched(filters=[])))
    run_to_end(conductor, value)
    assert conductor.state.filtered("evolved").keys() == {"symbolic"}


def test_the_specs_own_formula_is_tried_whatever_the_filters_say(conduct: Conduct) -> None:
    conductor = examined(conduct(searched(loss={**LOSS, "formula": "-square(y - f)"})))
    run_to_end(conductor, value)
    assert points(conductor)[0][FIELD] == "-1 * square(y - f)"


def test_confirming_trials_start_from_the_winners_loss_where_it_is_not_learned_again(conduct: Conduct) -> None:
    for relearn, learns, source in ((True, True, None), (False, True, "s/evolved/2"), (False, False, None)):
        spec = searched(trials=4, concurrency=1).model_copy(update={"confirm": ConfirmSpec(seeds=2, relearn=relearn)})
        name = f"{relearn} {learns}"
        conductor = examined(conduct(spec, name), learns=learns)
        run_to_end(conductor, lambda trial: 0.1 * abs(trial.id.ordinal - 2))
        winner = conductor.state.trials["evolved/2"]
        confirming = conductor.state.confirming_trials("evolved", "minimize")
        assert [str(trial.id) for trial in confirming] == ["evolved/c0", "evolved/c1"]
        for trial in confirming:
            assert trial.params == {**winner.params, **({} if source is None else {"loss.from": source})}
            config = conductor.config_of(trial)
            assert config.loss.from_ == source
            assert config.loss.options["formula"] == winner.params[FIELD]
        assert conduct(spec, name).finished
    with_relearning = searched()
    assert spec.model_copy(update={"confirm": ConfirmSpec(seeds=0)}).digest == searched(trials=4, concurrency=1).digest
    assert spec.digest != with_relearning.digest
