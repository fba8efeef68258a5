"""What a row's study found, as one small file: the document is made of these, whatever machine they come from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from olfl_ray import data, study
from olfl_ray.analysis import confirmed, values_on_test
from olfl_ray.ledger import StudyState
from olfl_ray.paper import phenomena
from olfl_ray.paper.machine import Machine, machines_of
from olfl_ray.paper.phenomena import Curves
from olfl_ray.paper.rows import BASELINE, Scale, Settings
from olfl_ray.records import names
from olfl_ray.spec import Strict, StudySpec, TrialConfig, trial_config
from olfl_ray.study.home import data_root
from olfl_ray.trial import find_loss

__all__ = ["Method", "Result", "classes_of", "collect", "learns", "read_results", "write_result"]


class Method(Strict):
    """What an arm of the study came to."""

    arm: str
    """Name of the arm."""
    settings: dict[str, Any]
    """What it was run with, of what its search may choose: field -> value."""
    trials: dict[str, int]
    """Search trials by state."""
    errors: dict[str, float]
    """Error on the test split by fresh seed."""
    lost: dict[str, int]
    """Fresh seeds without an error on the test split, by state."""
    steps: int
    """Base steps of a trial."""
    reached: dict[str, int | None]
    """By fresh seed: base steps until the baseline's least selection error; null: never, or no baseline there."""
    step_ms: float | None
    """Milliseconds of a base step in the fastest record."""
    smoothing: list[float]
    """Implicit label smoothing of the loss that each fresh seed ended with; empty where nothing is learned."""
    rate: tuple[float, float] | None
    """Effective learning rate at the first and the last record, median over fresh seeds; null with Adam, too."""

    @property
    def unrunnable(self) -> bool:
        """Whether no search trial finished, so that there is nothing to run on fresh seeds."""
        ends = ("pruned", "diverged", "failed")
        return bool(self.trials) and set(self.trials) <= set(ends)


class Result(Strict):
    """What a row's study came to."""

    row: str
    settings: Settings
    scale: Scale
    study: str
    """Name of the study."""
    digest: str
    """Digest of what affects its results."""
    claim: bool = True
    """Whether the row is one of those that the claim is judged by."""
    seeds: int
    """Fresh seeds that were asked for."""
    machines: list[Machine]
    """Machines that drove it."""
    methods: list[Method]
    """In the order of the arms."""

    def method(self, arm: str) -> Method | None:
        """The method of that arm."""
        return next((one for one in self.methods if one.arm == arm), None)


def collect(
    row: str,
    settings: Settings,
    scale: Scale,
    spec: StudySpec,
    state: StudyState,
    home: study.Home,
    *,
    claim: bool = True,
) -> Result:
    """Read what a study here found, as far as it is.

    Args:
        row: Name of the row.
        settings: Its kind of settings.
        scale: Its scale.
        spec: The study.
        state: Its trials.
        home: The home folder that it is in.
        claim: Whether the claim is judged by the row.
    """
    storage = home.storage(spec.name)
    classes = classes_of(spec, home)
    # In the target's own units: scaled ones differ where a method's scalers see more rows.
    metric, selection = (
        (names.TEST_RMSE, names.SELECTION_RMSE) if classes is None else (names.TEST_ERROR, names.SELECTION_ERROR)
    )
    curves = {
        arm: {trial.seeds[0]: phenomena.curves_of(storage, trial) for trial in confirmed(spec, state, arm)}
        for arm in spec.arms
    }
    levels = {
        seed: min(errors.values())
        for seed, found in curves.get(BASELINE, {}).items()
        if (errors := found.get(selection))
    }
    return Result(
        row=row,
        settings=settings,
        scale=scale,
        study=spec.name,
        digest=state.digest,
        claim=claim,
        seeds=spec.confirm.seeds,
        machines=machines_of(storage),
        methods=[_method(spec, state, home, arm, metric, selection, classes, curves[arm], levels) for arm in spec.arms],
    )


def learns(spec: StudySpec, arm: str) -> bool:
    """Whether an arm trains theta on a learned loss."""
    return spec.arms[arm].set.get("learner.method", spec.learner.method) in ("offline", "online")


def classes_of(spec: StudySpec, home: study.Home) -> int | None:
    """Number of classes; None: regression."""
    wanted = spec.task.dataset
    dataset = data.load(wanted.name, wanted.options, cache=home.cache, root=data_root())
    return dataset.outputs if dataset.kind == "classification" else None


def _method(
    spec: StudySpec,
    state: StudyState,
    home: study.Home,
    arm: str,
    metric: str,
    selection: str,
    classes: int | None,
    curves: dict[int, Curves],
    levels: dict[int, float],
) -> Method:
    best = state.best(arm, spec.search.goal)
    confirming = state.confirming_trials(arm, spec.search.goal)
    smoothing = []
    if classes is not None and learns(spec, arm):
        sources = [f"{spec.name}/{trial.id}" for trial in confirmed(spec, state, arm)]
        smoothing = [phenomena.smoothing(find_loss(source, home.studies), classes) for source in sources]
    params = {} if best is None else dict(best.params)
    config = trial_config(spec, arm, params, seeds=(spec.seed,))
    return Method(
        arm=arm,
        settings={**_recipe(config), **params},
        trials=dict(Counter(trial.state for trial in state.search_trials(arm))),
        errors={str(seed): error for seed, error in values_on_test(spec, state, arm, metric).items()},
        lost=dict(Counter(trial.state for trial in confirming if trial.state in ("diverged", "failed"))),
        steps=config.learner.steps,
        reached={
            str(seed): phenomena.steps_to_reach(found, levels[seed], selection) if seed in levels else None
            for seed, found in curves.items()
        },
        step_ms=phenomena.step_ms(list(curves.values())),
        smoothing=smoothing,
        rate=_ends([phenomena.effective_rate(found) for found in curves.values()])
        if config.learner.optimizer.name == "sgd"
        else None,
    )


def _recipe(config: TrialConfig) -> dict[str, Any]:
    """What decides how a method does, by the fields' names."""
    method, loss = config.learner.method, config.loss
    found: dict[str, Any] = {"learner.optimizer.lr": config.learner.optimizer.lr}
    if method in ("offline", "online") and loss.from_ is None:
        found["meta.init_steps"] = config.meta.init_steps
    if method in ("online", "online_lr"):
        found["meta.eta_online"] = config.meta.eta_online
    return found


def _ends(rates: Sequence[dict[int, float]]) -> tuple[float, float] | None:
    found = [rate for rate in rates if rate]
    if not found:
        return None
    first, last = (median([rate[end(rate)] for rate in found]) for end in (min, max))
    return first, last


def write_result(result: Result, folder: Path) -> Path:
    """Keep a result as `STUDY.json`."""
    path = folder / f"{result.study}.json"
    path.write_text(result.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return path


def read_results(folder: Path) -> list[Result]:
    """The results kept in a folder."""
    return [Result.model_validate_json(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
