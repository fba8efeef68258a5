"""One trial without Ray and MLflow: of a spec, or repeated from a sweep."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from olfl_ray import data
from olfl_ray.driver.home import Home, data_root
from olfl_ray.driver.look import load
from olfl_ray.errors import SpecError, StudyError
from olfl_ray.methods import complete
from olfl_ray.plugins import allows
from olfl_ray.spec import Resources, StudySpec, TrialConfig, located, read_spec, seed_of, trial_config
from olfl_ray.trial import Progress, TrialEnvironment, check, set_threads
from olfl_ray.trial import run as run_one
from olfl_ray.worker import KeptLosses

__all__ = ["builders_in", "builders_of", "run_trial", "trial_of"]


def trial_of(
    spec: Path | None,
    *,
    overrides: Sequence[str],
    arm: str | None,
    source: str | None,
    home: Home,
    allow: Sequence[str] = (),
) -> tuple[TrialConfig, Resources]:
    """A trial's settings, and what it takes: the spec's own values in an arm, or those of a sweep's trial.

    Args:
        spec: A study's spec.
        overrides: `a.b=c` texts, for the spec.
        arm: The arm of the spec; None: its first.
        source: `STUDY/ARM/ORDINAL`.
        home: The home folder.
        allow: Packages, modules or full names of builders that a study's ledger may name: it is data until then.

    Raises:
        UserError: Neither or both are given, one does not exist, or a builder is not allowed.
    """
    if (spec is None) == (source is None):
        raise SpecError("", "give either a spec or `source=STUDY/ARM/ORDINAL`")
    if spec is not None:
        study = read_spec(spec, overrides, arm=arm)
        with located(spec, overrides):
            study = complete(study)
        arm = arm or next(iter(study.arms))
        if arm not in study.arms:
            raise SpecError("`arm=`", f"there is no arm {arm!r}; there are: {', '.join(study.arms)}")
        seeds = tuple(seed_of(study.seed, "search", replicate) for replicate in range(study.replicates))
        return trial_config(study, arm, {}, seeds=seeds), study.resources
    assert source is not None
    if arm is not None or overrides:
        raise SpecError("`source=`", "names a trial with all its settings; leave out `arm=` and `overrides=`")
    name, _, trial = source.partition("/")
    study, ledger, _ = load(name, home)
    if trial not in ledger.state.trials:
        raise StudyError(f"`source=`: study {name!r} has no trial {trial!r}; see its report for their names")
    found = ledger.state.trials[trial]
    seeds, confirming = tuple(found.seeds), found.id.confirming
    config = trial_config(study, found.id.arm, found.params, seeds=seeds, confirming=confirming)
    refused = [builder for builder in builders_of(config).values() if not allows(allow, builder)]
    if refused:
        raise StudyError(
            f"`source=`: the study {name!r} names {' and '.join(map(repr, refused))}, which is code; run it with "
            f"`allow={refused}` if you trust who wrote that study"
        )
    return config, study.resources


def builders_of(config: TrialConfig) -> dict[str, str]:
    """Field -> `package.module:builder` of each builder that a trial's settings name."""
    named = {
        "task.dataset": config.task.dataset.name if data.is_builder(config.task.dataset.name) else "",
        "task.model": config.task.model.name,
        "task.loss": config.task.loss,
        "learner.method": config.learner.method,
        "loss.name": config.loss.name,
        "meta.estimator": config.meta.estimator,
        **{f"task.metrics.{index}": metric.name for index, metric in enumerate(config.task.metrics)},
    }
    return {field: name for field, name in named.items() if ":" in name}


def builders_in(spec: StudySpec | None) -> tuple[str, ...]:
    """Every `package.module:builder` that a spec names, in any arm and at any point of its search space."""
    found: list[str] = []

    def walk(value: object) -> None:
        if isinstance(value, dict):
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)
        elif isinstance(value, str) and re.fullmatch(r"[\w.]+:\w+", value):
            found.append(value)

    walk(None if spec is None else spec.model_dump(mode="json", by_alias=True))
    return tuple(dict.fromkeys(found))


def run_trial(config: TrialConfig, resources: Resources, *, home: Home) -> Iterator[Progress]:
    """Run one trial here, on the device and the threads that a sweep would give it: the results are the same."""
    data.forget()
    device = "cuda" if resources.gpu > 0 else "cpu"
    losses = KeptLosses(studies=home.studies)
    environment = TrialEnvironment(cache=home.cache, data_root=data_root(), losses=losses, device=device)
    check(config, environment)
    set_threads(resources.cpu)
    return run_one(config, environment)
