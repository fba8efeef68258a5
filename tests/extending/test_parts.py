"""The examples of learnables, methods and tasks keep their contracts, resume bit for bit, and need no file of olfl_ray."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.commands import environment
from torch import Tensor

import olfl_ray
from olfl_ray import methods
from olfl_ray.engine import Estimator, Optimizer
from olfl_ray.learnable import Learnable
from olfl_ray.losses import LEARNED
from olfl_ray.plugins import load_builder
from olfl_ray.records import names
from olfl_ray.search import SEARCHERS, SearchTrial
from olfl_ray.spec import PrunerSpec, Strict, TrialConfig
from olfl_ray.tasks import TASKS, Task
from olfl_ray.testing import (
    EstimatorContract,
    LearnableContract,
    LearnedLossContract,
    MethodContract,
    OptimizerContract,
    PrunerContract,
    TaskContract,
    mixed_space,
)
from olfl_ray.trial import TrialEnvironment, run, state_from_bytes, state_to_bytes

HERE = Path(__file__).parent
COPIED = "per_class", "counts", "polynomial"
MINE = sorted((HERE / "mine").glob("[a-z]*.py"))
METHODS = {
    "per_class": "mine.per_class:PerClass",
    "weight_decay": "mine.weight_decay:WeightDecay",
    "layer_rates": "mine.layer_rates:PerLayer",
    "from_scratch": "mine.from_scratch:FromScratch",
}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def part(name: str) -> Any:
    return load_builder(name, "learner.method")


def moved(learnable: Learnable, size: float = 0.3) -> Learnable:
    """At a phi that is not its first, so that no part of it is neutral."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in learnable.parameters():
            value.add_(size * torch.randn(value.shape, generator=draw))
    return learnable


class TestTaylor(LearnedLossContract):
    name = "mine.taylor:Taylor"
    options = {"degree": 2}  # noqa: RUF012


class TestTaylorOfNumbers(TestTaylor):
    task = "regression"
    options = {"scale": 0.5}  # noqa: RUF012


class TestClassLoss(LearnableContract):
    def make(self, theta: Mapping[str, Tensor], outputs: int) -> Learnable:
        return moved(part("mine.per_class:ClassLoss")(outputs))


class TestDecay(LearnableContract):
    def make(self, theta: Mapping[str, Tensor], outputs: int) -> Learnable:
        return moved(part("mine.weight_decay:Decay")(len(theta), initial=0.03))


class TestLayerRates(LearnableContract):
    def make(self, theta: Mapping[str, Tensor], outputs: int) -> Learnable:
        return moved(part("mine.layer_rates:LayerRates")(list(theta)))


class TestPerClass(MethodContract):
    name = METHODS["per_class"]


class TestWeightDecay(MethodContract):
    name = METHODS["weight_decay"]


class TestPerLayer(MethodContract):
    name = METHODS["layer_rates"]


class TestFromScratch(MethodContract):
    name = METHODS["from_scratch"]


class TestLastStep(EstimatorContract):
    """Over three steps it leaves out what the first two add, here up to 80 percent of the gradient."""

    allowed = 0.8

    def make(self) -> Estimator:
        return part("mine.last_step:LastStep")()  # type: ignore[no-any-return]


class TestPatience(PrunerContract):
    name = "mine.patience:Patience"
    options = {"decisions": 1}  # noqa: RUF012


def test_patience_ends_a_trial_that_does_not_improve() -> None:
    section = PrunerSpec.model_validate({"name": "mine.patience:Patience", "decisions": 2})
    searcher: Any = SEARCHERS.find("random", "search.sampler")(Strict(), replace(mixed_space(), pruner=section))
    searcher.replay([], 1)
    trial = SearchTrial(ordinal=0, params=searcher.suggest(0))
    searcher.observe(trial)
    ends = []
    for step, value in enumerate([0.4, 0.3, 0.35, 0.2, 0.3, 0.25]):
        trial = replace(trial, values=(*trial.values, (100 * step, value)))
        ends.append(searcher.prune(trial))
    assert ends == [False, False, False, False, False, True]


class TestRmsProp(OptimizerContract):
    def make(self) -> Optimizer:
        return part("mine.rmsprop:RmsProp")()  # type: ignore[no-any-return]


class TestCounts(TaskContract):
    def make(self) -> Task:
        return part("mine.counts:Counts")()  # type: ignore[no-any-return]


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        part("mine.counts:Counts")().checked(torch.tensor([[-1.0]]))


def trial(**settings: Any) -> TrialConfig:
    task = {"dataset": settings.pop("dataset", "digits"), "model": "linear", "batch_size": 16}
    task |= settings.pop("task", {})
    meta = {"init_steps": 8, "eta_online": 0.01} | settings.pop("meta", {})
    return TrialConfig.model_validate(
        {
            "task": task,
            "loss": settings.pop("loss", {}),
            "learner": {"method": "online", "steps": 12, **settings},
            "meta": meta,
            "eval": {"every": 4},
            "seeds": [1],
        }
    )


TRIALS: dict[str, Callable[[], TrialConfig]] = {
    **{name: lambda method=method: trial(method=method) for name, method in METHODS.items()},  # type: ignore[misc]
    "last_step": lambda: trial(meta={"estimator": "mine.last_step:LastStep", "inner_steps": 2}),
    "rmsprop": lambda: trial(
        optimizer={"name": "mine.rmsprop:RmsProp", "lr": 0.003, "decay": 0.8}, schedule={"name": "mine.rmsprop:warmup"}
    ),
    "counts": lambda: trial(method="baseline", dataset="mine.visits:visits"),
    "a learned loss on counts": lambda: trial(dataset="mine.visits:visits"),
    "taylor": lambda: trial(loss={"name": "mine.taylor:Taylor", "degree": 2}),
    "a metric": lambda: trial(method="baseline", task={"metrics": ["mine.metrics:top2_error"]}),
}


@pytest.mark.parametrize("name", TRIALS)
def test_a_trial_resumes_bit_for_bit_from_each_of_its_states(name: str, tmp_path: Path) -> None:
    config, place = TRIALS[name](), TrialEnvironment(cache=tmp_path)
    whole = list(run(config, place))
    assert whole[-1].outcome == "finished"
    for cut in range(len(whole) - 1):
        torch.rand(3)
        rest = list(run(config, place, state_from_bytes(state_to_bytes(whole[cut].state))))
        assert [shown(progress) for progress in rest] == [shown(progress) for progress in whole[cut + 1 :]]
        assert state_to_bytes(rest[-1].state) == state_to_bytes(whole[-1].state)


def shown(progress: Any) -> Any:
    records = [
        (record.step, {key: value for key, value in record.metrics.items() if key not in names.VOLATILE})
        for record in progress.records
    ]
    return progress.outcome, dict(progress.report), dict(progress.files), records


def test_what_is_measured_is_recorded(tmp_path: Path) -> None:
    wanted = {
        "per_class": "phi/largest_weight",
        "counts": "selection/deviance",
        "a learned loss on counts": "train/learned_loss",
        "a metric": "selection/top2_error",
    }
    for name, metric in wanted.items():
        *_, last = run(TRIALS[name](), TrialEnvironment(cache=tmp_path))
        assert metric in last.records[-1].metrics, name
    top1, top2 = (last.report[f"selection/{key}"][0] for key in ("error", "top2_error"))
    assert 0 <= top2 <= top1


@pytest.mark.parametrize("file", MINE, ids=lambda file: file.stem)
def test_an_example_imports_only_what_is_public(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith("olfl_ray") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("olfl_ray"):
            assert node.module is not None
            assert node.module.count(".") <= 1, "a file within a package"
            face = importlib.import_module(node.module).__all__
            assert {alias.name for alias in node.names} <= set(face), node.module


def test_no_file_of_olfl_ray_names_an_example() -> None:
    files = list(Path(olfl_ray.__file__).parent.rglob("*.py"))
    assert len(files) > 100
    stems = "|".join(file.stem for file in MINE)
    named = re.compile(rf"\bmine\.({stems})\b|(from|import) mine\b")
    assert not [file for file in files if named.search(file.read_text())]


def test_a_copy_within_the_package_is_one_new_file(tmp_path: Path) -> None:
    shutil.copytree(Path(olfl_ray.__file__).parent, tmp_path / "olfl_ray", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(HERE / "mine" / "per_class.py", tmp_path / "olfl_ray" / "methods" / "per_class.py")
    shutil.copy(HERE / "mine" / "counts.py", tmp_path / "olfl_ray" / "tasks" / "counts.py")
    shutil.copy(HERE / "mine" / "taylor.py", tmp_path / "olfl_ray" / "losses" / "learned" / "polynomial.py")
    script = (
        "from olfl_ray.methods import METHODS; from olfl_ray.tasks import TASKS, task_of;"
        "print(METHODS.names(), METHODS.find('per_class', 'f').__name__, TASKS.names(), type(task_of('counts')).__name__);"
        "from olfl_ray.losses import LEARNED, build_loss; from olfl_ray.methods import complete;"
        "from olfl_ray.spec import parse_spec; from olfl_ray.study.reference import complete_yaml;"
        "text = b'{name: s, task: {dataset: x}, loss: {name: polynomial, degree: 2}, search: {parameters: {}}}';"
        "spec = complete(parse_spec(text));"
        "print(LEARNED.names(), spec.loss.options, build_loss(spec.loss, 'counts', seed=0).network.powers);"
        "print([line.strip(' #') for line in complete_yaml().splitlines() if 'degree' in line])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={**environment(), "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    parts = methods.METHODS, TASKS, LEARNED
    own, tasks, losses = ([*found.names(), name] for found, name in zip(parts, COPIED, strict=True))
    assert done.stdout.strip() == (
        f"{sorted(own)} PerClass {sorted(tasks)} Counts\n"
        f"{sorted(losses)} {{'degree': 2, 'scale': 0.1}} [(1, 0), (1, 1), (2, 0)]\n"
        "['- degree (3): Largest sum of the two powers in a term.']"
    ), done.stderr
