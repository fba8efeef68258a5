"""The family's benchmark: every method searches with the same number of counted passes, on the same seeds and splits."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.family import plan_of, read_family, study_of
from experiments.family.document import comparison_rows, generations
from experiments.family.rows import ROWS
from olfl_ray.analysis import holm, paired
from olfl_ray.errors import SpecError
from olfl_ray.ledger import Ledger, Proposed
from olfl_ray.methods import check_used
from olfl_ray.storage import LocalStorage
from olfl_ray.study import Home

METHODS = ["task_loss", "ml3", "taylor", "gp", "evomal", "adalfl"]
SMALL = """
title: Small
passes: 100
study:
  name: family
  task: {dataset: diabetes, model: {name: mlp, hidden: [4]}, loss: squared_error, batch_size: 32}
  learner: {steps: 20, optimizer: {name: sgd, lr: 0.02}}
  eval: {every: 20}
  replicates: 1
  search: {metric: selection/rmse, pruner: none, parameters: {learner.optimizer.lr: {min: 0.001, max: 0.2, log: true}}}
  confirm: {seeds: 2}
methods:
  task_loss: {title: task loss, set: {learner.method: baseline}}
  evomal:
    title: EvoMAL
    set: {learner.method: offline, meta.init_steps: 10, loss.name: expression, loss.formula: square(y - f)}
    sampler: {name: evolution, population: 4}
    relearn: false
    parameters: {loss.formula: {expression: {}}}
"""


@pytest.mark.parametrize("row", [path.stem for path in ROWS.glob("*.yaml")])
def test_the_methods_of_a_benchmark_differ_only_in_the_loss_and_its_search(row: str) -> None:
    family = read_family(row)
    assert list(family.methods) == METHODS
    specs = [study_of(row, family, method, trials=3) for method in METHODS]
    for spec, method in zip(specs, METHODS, strict=True):
        assert (spec.name, list(spec.arms), spec.arms[method].trials) == (f"family-{row}-{method}", [method], 3)
        assert "learner.optimizer.lr" in spec.parameters_of(method)
        check_used(spec)
        assert spec.confirm.relearn == (method != "evomal")
        assert not any(field in spec.parameters_of(method) for field in ("meta.init_steps", "learner.steps")), (
            "else the trials of a method would have different numbers of passes"
        )
    assert (
        len({(spec.seed, str(spec.task), str(spec.learner), spec.replicates, spec.confirm.seeds) for spec in specs})
        == 1
    )
    with pytest.raises(SpecError, match="did you mean 'digits'"):
        read_family("digit")


def test_trials_follow_from_counted_passes(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    home = Home(tmp_path / "home")
    plain, evomal = plan_of("small", tmp_path, home=home)
    assert 20 <= plain.passes <= 30, "one pass a step, and those of the checks before the first"
    assert 40 <= evomal.passes <= 60, "and two a round of Algorithm 1"
    assert evomal.passes - plain.passes >= 20
    for plan in (plain, evomal):
        assert abs(plan.trials * plan.passes - 100) <= plan.passes / 2
    (double,) = plan_of("small", tmp_path, home=home, methods=["evomal"], passes=20 * evomal.passes, seeds=3)
    assert (double.trials, double.spec.confirm.seeds) == (20, 3)
    with pytest.raises(SpecError, match="there is no method 'gp'"):
        plan_of("small", tmp_path, home=home, methods=["gp"])


def test_each_method_is_compared_with_the_task_loss_on_common_seeds() -> None:
    values = {
        "task_loss": {1: 5.0, 2: 6.0, 3: 5.5, 4: 5.2},
        "ml3": {1: 4.0, 2: 5.2, 3: 4.4, 4: 4.3},
        "gp": {1: 5.1, 2: 6.3, 3: 5.3, 9: 1.0},
    }
    head, _, baseline, ml3, gp = comparison_rows({method: method for method in values}, values, "test/rmse")
    assert head.startswith("| method | test/rmse")
    assert baseline == "| task_loss | 5.4250 ± 0.4349 | 4 |  |  |  |  |"
    found = [paired("task_loss", values[method], values["task_loss"]) for method in ("ml3", "gp")]
    ps = holm([one.p for one in found if one is not None])
    cells = [row.strip("| ").split(" | ") for row in (ml3, gp)]
    assert [row[4] for row in cells] == [f"{p:.3f}" for p in ps]
    assert cells[1][2] == "4", "its own seeds; three are common"
    assert found[1] is not None
    assert found[1].n == 3


def test_a_generation_is_its_trials_and_what_was_dropped(tmp_path: Path) -> None:
    ledger = Ledger.create(LocalStorage(tmp_path), {"arms": {"gp": {}}}, "d", "s", {})

    def propose(ordinal: int, *dropped: str) -> None:
        filtered = [{"filter": name, "params": {}, "same_as": None} for name in dropped]
        ledger.append(Proposed(trial=f"gp/{ordinal}", params={}, seeds=[1], filtered=filtered))

    propose(0, "rejection")
    propose(1)
    propose(2)
    propose(3, "symbolic", "symbolic", "gradient")
    propose(4, "symbolic")
    rows = generations(ledger.state, "gp", 4)
    assert rows == [[0, 4, 3, 0, 1, 0], [1, 4, 1, 2, 0, 1], [2, 2, 1, 1, 0, 0]]
    assert generations(ledger.state, "gp", 0) == []
