"""What is refused before anything starts: invalid settings, and changes that a begun study does not allow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from olfl_ray import data
from olfl_ray.driver.home import Home, data_root
from olfl_ray.driver.locations import check_location, resolved
from olfl_ray.driver.look import another_version, spec_in, storage_of
from olfl_ray.driver.reach import check_reach
from olfl_ray.errors import SpecError, StudyError
from olfl_ray.ledger import Examined, StudyState
from olfl_ray.methods import check_settings, check_used, complete
from olfl_ray.plugins import digest_of_code
from olfl_ray.search import check_search, scattered
from olfl_ray.spec import StudySpec, TrialConfig, field_of, parse_spec, trial_config
from olfl_ray.tracking import TrackedStudy, explained, trackers_of
from olfl_ray.trial import TrialEnvironment, check
from olfl_ray.worker import KeptLosses

__all__ = [
    "check_data",
    "check_facts",
    "check_failed",
    "check_same",
    "check_study",
    "check_trials",
    "device_of",
    "extended",
    "first_difference",
]

POINTS, TRIED = 64, 12
"""Points of each arm's search space whose form is checked before anything starts, and those that are tried on the data."""


def check_study(spec: StudySpec, home: Home) -> None:
    """Check whatever can be checked before anything starts: storage, cluster, every arm on its data, tracking store.

    Raises:
        UserError: Names the field, the value and the next move.
    """
    spec = resolved(complete(spec))
    check_location(spec, home)
    storage = storage_of(spec, home)
    storage.keys("ledger/")  # a bucket that is not there, say, is refused here
    check_trials(spec, home)
    check_data(spec)
    for tracker in trackers_of(TrackedStudy(spec=spec, storage=storage, home=home.path)):
        with explained(tracker.name):
            tracker.check()


def check_trials(spec: StudySpec, home: Home) -> dict[str, Examined]:
    """Check the substance of every arm, and that trials can be placed and kept.

    Returns:
        For each arm its data, task and code.

    Raises:
        UserError: Names the field, the value and the next move.
    """
    from olfl_ray.sweep.cluster import check_resources, connected

    check_used(spec)
    check_search(spec)
    storage = storage_of(spec, home)
    with connected() as cluster:
        check_resources(spec.resources, cluster)
        if cluster is not None:
            check_reach(spec, home, storage, cluster)
    # The GPUs of a cluster are the workers'; its head, where the driver runs, may have none.
    environment = replace(_environment(spec, home), device="cpu" if cluster is not None else device_of(spec))
    found = {}
    for arm in spec.arms:
        own = trial_config(spec, arm, {}, seeds=(spec.seed,))
        try:
            examined = check(own, environment)
        except SpecError as error:
            raise SpecError(field_of(spec, arm, error.field), error.problem, error.where) from error
        found[arm] = Examined(arm=arm, **{**asdict(examined), "code": {**examined.code, **_searcher_code(spec)}})
        _check_points(spec, arm, own, environment)
    return found


def check_data(spec: StudySpec) -> None:
    """Check that a user's own data sets are the same in each process.

    Raises:
        SpecError: One differs when it is built again.
    """
    named = (trial_config(spec, arm, {}, seeds=(spec.seed,)).task.dataset for arm in spec.arms)
    for name, options in {dataset.model_dump_json(): (dataset.name, dataset.options) for dataset in named}.values():
        data.check_repeatable(name, options)


def _searcher_code(spec: StudySpec) -> dict[str, str]:
    """Digests of the modules of a user's own searcher and pruner: others would try other points, or end other trials."""
    return dict(digest_of_code(part.name) for part in (spec.search.sampler, spec.search.pruner) if ":" in part.name)


def _check_points(spec: StudySpec, arm: str, own: TrialConfig, environment: TrialEnvironment) -> None:
    """Check points all over an arm's search space: values valid by themselves may be invalid together."""

    def substance(config: TrialConfig) -> tuple[str, str, str, str, str | None]:
        loss = config.loss
        return config.task.model_dump_json(), config.learner.method, config.meta.estimator, loss.name, loss.from_

    seen = {substance(own)}
    for params in scattered(spec, arm, POINTS):
        try:
            config = trial_config(spec, arm, params, seeds=(spec.seed,))
            check_settings(config)
            if substance(config) not in seen and len(seen) < TRIED:
                seen.add(substance(config))
                check(config, environment)
        except SpecError as error:
            raise SpecError(
                error.field,
                f"{error.problem} (at the point {json.dumps(params)} of arm {arm}'s search space: exclude it, for example "
                "with `when`)",
            ) from None


def check_same(spec: StudySpec, before: Mapping[str, Any], digest: str) -> None:
    """Refuse a spec whose results would not be those of the study that was begun under its name.

    Args:
        spec: The new one.
        before: The resolved spec that the study was begun with.
        digest: Its digest.

    Raises:
        StudyError: Names the first field that differs.
    """
    if digest == spec.digest:
        return
    begun = spec_in(before, spec.name)
    if begun.digest != digest:
        raise another_version(spec.name, "")
    old, new = begun.identity(), spec.identity()
    if dropped := [arm for arm in old["arms"] if arm not in new["arms"]]:
        raise StudyError(
            f"arms: the study {spec.name!r} has the arm {dropped[0]!r}, but the spec does not; restore it (arms may be "
            "added, not removed), or choose another name with `name=`"
        )
    kept = {**new, "arms": {arm: new["arms"][arm] for arm in old["arms"]}}
    if kept != old:
        raise StudyError(
            f"name: a study {spec.name!r} with another spec exists already (first difference: "
            f"{first_difference(old, kept)}); choose another name with `name=`, or restore the field (only new arms, the "
            "number of trials, confirm.seeds, resources but cpu, budget, checkpoint, storage and tracking may change)"
        )


def check_facts(found: Mapping[str, Examined], state: StudyState) -> None:
    """Refuse to resume with other data or code than the study began with: its table would compare what can't be compared.

    Args:
        found: For each arm its data, task and code now.
        state: The study, with what was found before its first trial.

    Raises:
        StudyError: Names the arm, what has changed, and both digests.
    """
    for arm, now in found.items():
        before = state.facts.get(arm)
        if before is None:
            continue
        changes = {"its data": (before.data, now.data), "its task": (before.task, now.task)}
        changes |= {
            f"the code of {name}": (before.code.get(name, "none"), now.code.get(name, "none"))
            for name in (*before.code, *now.code)
        }
        for what, (then, at_present) in changes.items():
            if then != at_present:
                raise StudyError(
                    f"study {state.name!r}, arm {arm}: {what} has changed since the study began (digest {then[:12]} then, "
                    f"{at_present[:12]} now); restore it, or choose another name with `name=`"
                )


def check_failed(trials: Sequence[str], state: StudyState) -> None:
    """Refuse to try again what did not fail; a trial that is being retried already may be requested again.

    Args:
        trials: `ARM/ORDINAL` of each.
        state: The study.

    Raises:
        StudyError: Names the first that is not there, or did not fail.
    """
    for trial in trials:
        found = state.trials.get(trial)
        if found is None:
            raise StudyError(f"study {state.name!r} has no trial {trial!r}; see its report for their names")
        if found.state != "failed" and not found.retried:
            raise StudyError(f"trial {trial!r} is {found.state}; only a failed one is tried again")


def extended(spec: StudySpec, trials: int, arm: str | None) -> StudySpec:
    """The study with more search trials.

    Args:
        spec: The study.
        trials: More search trials for each arm.
        arm: The arm that gets them; None: all.

    Raises:
        StudyError: There is less than one trial more, or no such arm.
    """
    if trials < 1:
        raise StudyError(f"trials: must be at least 1, but it is {trials}")
    if arm is not None and arm not in spec.arms:
        raise StudyError(f"arm: study {spec.name!r} has no arm {arm!r}; it has {', '.join(spec.arms)}")
    arms = {
        name: own.model_copy(update={"trials": own.trials + trials}) if arm in (None, name) else own
        for name, own in spec.arms.items()
    }
    more = spec.model_copy(update={"arms": arms}).model_dump(mode="json", by_alias=True)
    return parse_spec(json.dumps(more).encode(), source=f"study {spec.name}")


def first_difference(old: object, new: object, path: str = "") -> str:
    """The first field in which two mappings differ, and its values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            if old.get(key) != new.get(key):
                return first_difference(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    return f"{path} was {old!r}, is {new!r}"


def device_of(spec: StudySpec) -> str:
    """The device of a study's trials."""
    return "cuda" if spec.resources.gpu > 0 else "cpu"


def _environment(spec: StudySpec, home: Home) -> TrialEnvironment:
    studies_url = "" if spec.storage.url is None else storage_of(spec, home).url.rpartition("/")[0]
    losses = KeptLosses(studies=home.studies, studies_url=studies_url)
    return TrialEnvironment(cache=home.cache, data_root=data_root(), losses=losses, device=device_of(spec))
