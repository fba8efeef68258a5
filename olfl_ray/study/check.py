"""What a study must satisfy before anything starts: every arm's own settings, and points all over its search space."""

from __future__ import annotations

import json
from dataclasses import replace

from olfl_ray.errors import SpecError
from olfl_ray.records import names
from olfl_ray.spec import StudySpec, TrialConfig, trial_config
from olfl_ray.study.home import Home, data_root
from olfl_ray.study.look import storage_of
from olfl_ray.study.reach import check_reach
from olfl_ray.sweep import scattered
from olfl_ray.tracking import check_store
from olfl_ray.trial import Place, check

__all__ = ["check_study", "check_trials", "device_of"]

POINTS, TRIED = 64, 12
"""Points of each arm's search space whose form is checked before anything starts, and those that are tried on the data."""


def check_study(spec: StudySpec, home: Home) -> None:
    """Check whatever can be checked before anything starts: storage, cluster, every arm on its data, tracking store.

    Raises:
        UserError: Names the field, the value and the next move.
    """
    storage_of(spec, home).keys("ledger/")  # a bucket that is not there, say, is refused here
    check_trials(spec, home)
    check_store(home.tracking_of(spec.tracking.uri), spec.tracking.experiment)


def check_trials(spec: StudySpec, home: Home) -> None:
    """Check the substance of every arm, and that trials can be placed and kept.

    Raises:
        UserError: Names the field, the value and the next move.
    """
    from olfl_ray.sweep.cluster import check_resources, connected

    storage = storage_of(spec, home)
    with connected() as cluster:
        check_resources(spec.resources, cluster)
        if cluster is not None:
            check_reach(spec, home, storage, cluster)
    # The GPUs of a cluster are the workers'; its head, where the driver runs, may have none.
    place = replace(_place(spec, home), device="cpu" if cluster is not None else device_of(spec))
    for arm in spec.arms:
        own = trial_config(spec, arm, {}, seeds=(spec.seed,))
        kind = check(own, place)
        if kind == "classification" and spec.search.metric == names.SELECTION_RMSE:
            raise SpecError("search.metric", f"{spec.search.metric} is of regression, but arm {arm} classifies")
        _check_points(spec, arm, own, place)


def _check_points(spec: StudySpec, arm: str, own: TrialConfig, place: Place) -> None:
    """Check points all over an arm's search space: what fits alone may not fit together."""

    def substance(config: TrialConfig) -> tuple[str, str, str | None]:
        return config.task.model_dump_json(), config.learner.method, config.loss.from_

    seen = {substance(own)}
    for params in scattered(spec, arm, POINTS):
        try:
            config = trial_config(spec, arm, params, seeds=(spec.seed,))
            if substance(config) not in seen and len(seen) < TRIED:
                seen.add(substance(config))
                check(config, place)
        except SpecError as error:
            raise SpecError(
                error.field,
                f"{error.problem} (at the point {json.dumps(params)} of arm {arm}'s search space: take it out, by `when` say)",
            ) from None


def device_of(spec: StudySpec) -> str:
    """The device of a study's trials."""
    return "cuda" if spec.resources.gpu > 0 else "cpu"


def _place(spec: StudySpec, home: Home) -> Place:
    beside = "" if spec.storage.url is None else storage_of(spec, home).url.rpartition("/")[0]
    return Place(cache=home.cache, data_root=data_root(), studies=home.studies, beside=beside, device=device_of(spec))
