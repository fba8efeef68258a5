"""The results of a benchmark's study, as one small file: the document is made of these, from any machine."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from pydantic import ValidationError

from experiments.paper import phenomena
from experiments.paper.machine import Machine, machines_of
from experiments.paper.phenomena import Curves
from experiments.paper.rows import BASELINE, Card, Scale, Settings
from olfl_ray import data, study
from olfl_ray.analysis import confirmed, values_on_test
from olfl_ray.driver.home import data_root
from olfl_ray.errors import DataError
from olfl_ray.ledger import StudyState
from olfl_ray.methods import METHODS, method_of
from olfl_ray.records import names
from olfl_ray.spec import Strict, StudySpec, base_values, get_dotted, planned, trial_config
from olfl_ray.storage import LocalStorage, Storage
from olfl_ray.tasks import task_of
from olfl_ray.worker import find_loss

__all__ = ["Method", "Result", "collect", "dataset_of", "learns", "read_results", "write_result"]


NO_BETTER = 0.99
"""A run is no better than a constant prediction above this part of its error: the test split is not all examples."""


class Method(Strict):
    """What an arm of the study came to."""

    arm: str
    """Name of the arm."""
    settings: dict[str, Any]
    """All settings of its confirming trials: dotted field -> value."""
    searched: dict[str, Any]
    """Those of them that its search changed; empty where the recipe won, and at fixed settings."""
    trials: dict[str, int]
    """Search trials by state."""
    budget: int
    """Search trials that it may have."""
    errors: dict[str, float]
    """Error on the test split by fresh seed."""
    lost: dict[str, str]
    """Why a fresh seed has ended without an error that counts, by seed: diverged, failed, or no better than a constant."""
    steps: int
    """Base steps of a trial."""
    reached: dict[str, int | None]
    """By fresh seed: base steps until the baseline's last selection error; null: never, or no baseline there."""
    seconds: float | None
    """Seconds of a trial, with evaluations, and with initialisation where no other had done it; median over fresh seeds."""
    step_ms: float | None
    """Milliseconds of a base step, evaluations included; median over the records of fresh seeds."""
    smoothing: list[float]
    """Implicit label smoothing of the loss that each fresh seed ended with; empty where nothing is learned."""
    rate: tuple[float, float] | None
    """Effective learning rate at the first and the last record, median over fresh seeds; null with Adam, too."""

    @property
    def phi(self) -> str:
        """What is learned besides theta."""
        return METHODS.find(self.settings["learner.method"], "learner.method").phi

    @property
    def unrunnable(self) -> bool:
        """Whether no search trial finished, so that there is nothing to run on fresh seeds."""
        ends = ("pruned", "diverged", "failed")
        return set(self.trials) <= set(ends) and sum(self.trials.values()) >= self.budget


class Result(Strict):
    """The results of a benchmark's study."""

    row: str
    settings: Settings
    scale: Scale
    study: str
    """Name of the study."""
    digest: str
    """Digest of what affects its results."""
    versions: dict[str, str]
    """Version of each library that it was created with."""
    claim: bool = True
    """Whether the benchmark tests the claim."""
    searched: bool = True
    """Whether the benchmark's recipe was searched, so that fixed settings are meaningful."""
    seeds: int
    """Fresh seeds that were asked for."""
    machines: list[Machine]
    """Machines that drove it."""
    methods: list[Method]
    """In the order of the arms."""

    def method(self, arm: str) -> Method | None:
        """The method of that arm."""
        return next((one for one in self.methods if one.arm == arm), None)

    def complete(self, method: Method) -> bool:
        """Whether all its fresh seeds have ended."""
        return len(method.errors) + len(method.lost) >= self.seeds

    @property
    def whole(self) -> bool:
        """Whether nothing of it has still to be run."""
        return all(method.unrunnable or self.complete(method) for method in self.methods)


def collect(row: str, card: Card, settings: Settings, scale: Scale, name: str, home: study.Home) -> Result:
    """Read what a study here found, as far as it is.

    Args:
        row: Name of the row.
        card: What is said of it.
        settings: Its kind of settings.
        scale: Its scale.
        name: Name of the study.
        home: The home folder that it is in.
    """
    spec, state, _ = study.Study.open(name, home=home).loaded()
    reader = _Reader(spec, state, home.storage(name), dataset_of(spec, home), home.studies)
    curves = {arm: reader.curves(arm) for arm in spec.arms}
    levels = {
        seed: errors[max(errors)]
        for seed, found in curves.get(BASELINE, {}).items()
        if (errors := found.get(reader.selection))
    }
    return Result(
        row=row,
        settings=settings,
        scale=scale,
        study=name,
        digest=state.digest,
        versions=dict(state.versions),
        claim=card.claim,
        searched=card.searched,
        seeds=spec.confirm.seeds,
        machines=machines_of(reader.storage),
        methods=[reader.method(arm, found, levels) for arm, found in curves.items()],
    )


def learns(spec: StudySpec, arm: str) -> bool:
    """Whether an arm trains theta on a learned loss."""
    return method_of(trial_config(spec, arm, {}, seeds=(0,)).learner).phi == "loss"


def dataset_of(spec: StudySpec, home: study.Home) -> data.Dataset:
    """The data set of a study."""
    wanted = spec.task.dataset
    return data.load(wanted.name, wanted.options, cache=home.cache, root=data_root())


@dataclass(frozen=True)
class _Reader:
    """Reads a study's arms one by one."""

    spec: StudySpec
    state: StudyState
    storage: Storage
    dataset: data.Dataset
    studies: Path

    @property
    def selection(self) -> str:
        """The error on the selection split, as `test` counts it."""
        return names.SELECTION_PREFIX + self._primary

    @property
    def test(self) -> str:
        """The error on the test split; in the target's own units: methods whose scalers see more examples scale differently."""
        return names.on_test(self._primary)

    @property
    def _primary(self) -> str:
        return task_of(self.dataset.kind).primary

    def curves(self, arm: str) -> dict[int, Curves]:
        """What each finished fresh seed recorded."""
        return {
            trial.seeds[0]: phenomena.curves_of(self.storage, trial) for trial in confirmed(self.spec, self.state, arm)
        }

    def method(self, arm: str, curves: Mapping[int, Curves], levels: Mapping[int, float]) -> Method:
        """An arm; `levels` are the selection errors that the baseline ends with, by seed."""
        spec, state = self.spec, self.state
        best = state.best(arm, spec.search.goal)
        params = {} if best is None else dict(best.params)
        base, config = base_values(spec, arm), trial_config(spec, arm, params, seeds=(spec.seed,))
        found = values_on_test(spec, state, arm, self.test)
        constant = values_on_test(spec, state, arm, names.of_trivial(self.test))
        errors = {seed: error for seed, error in found.items() if error < NO_BETTER * constant.get(seed, math.inf)}
        ended = [trial for trial in state.confirming_trials(arm, spec.search.goal) if trial.ended]
        done = confirmed(spec, state, arm)
        smoothing = []
        if task_of(self.dataset.kind).classes and learns(spec, arm):
            losses = (find_loss(f"{spec.name}/{trial.id}", self.studies) for trial in done)
            smoothing = [phenomena.smoothing(loss, self.dataset.outputs) for loss in losses]
        sgd = config.learner.optimizer.name == "sgd"
        return Method(
            arm=arm,
            settings=_flat(
                config.model_dump(mode="json", by_alias=True, exclude={"study_seed", "seeds", "confirming"})
            ),
            searched={field: value for field, value in params.items() if get_dotted(base, field) != value},
            trials=dict(Counter(trial.state for trial in state.search_trials(arm))),
            budget=planned(spec, arm),
            errors={str(seed): error for seed, error in errors.items()},
            lost={
                str(trial.seeds[0]): trial.state if trial.state != "finished" else "no better than a constant"
                for trial in ended
                if trial.seeds[0] not in errors
            },
            steps=config.learner.steps,
            reached={
                str(seed): phenomena.steps_to_reach(found, levels[seed], self.selection) if seed in levels else None
                for seed, found in curves.items()
            },
            seconds=median(trial.ended_at - trial.began_at for trial in done if trial.ended_at and trial.began_at)
            if done
            else None,
            step_ms=phenomena.step_ms(list(curves.values())),
            smoothing=smoothing,
            rate=_ends([phenomena.effective_rate(found) for found in curves.values()]) if sgd else None,
        )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted field -> value."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key: value}
    return found


def _ends(rates: Sequence[dict[int, float]]) -> tuple[float, float] | None:
    found = [rate for rate in rates if rate]
    if not found:
        return None
    first, last = (median([rate[end(rate)] for rate in found]) for end in (min, max))
    return first, last


def write_result(result: Result, folder: Path) -> None:
    """Keep a result as `STUDY.json`; a kill leaves the older one or the new one, never a torn one."""
    LocalStorage(folder).write(f"{result.study}.json", (result.model_dump_json(indent=1) + "\n").encode())


def read_results(folder: Path) -> list[Result]:
    """The results kept in a folder.

    Raises:
        DataError: A file is torn, or of another version of the project.
    """
    return [_read(path) for path in sorted(folder.glob("*.json"))]


def _read(path: Path) -> Result:
    try:
        return Result.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise DataError(
            f"{path}: {where}: {first['msg']}; delete the file, and run python -m experiments.paper table where its "
            "study is"
        ) from None
