"""What a search does other than its spec seems to ask."""

from __future__ import annotations

from collections.abc import Iterator

from olfl_ray.errors import SpecError
from olfl_ray.pruners import Pruner, pruner_of
from olfl_ray.spec import StudySpec, base_values, get_dotted, planned

__all__ = ["notes"]

ANY = 10**9
"""More base steps than any trial makes."""


def notes(spec: StudySpec) -> Iterator[str]:
    """One line for each arm whose space has fewer points than trials, and one where no trial can be ended early."""
    pruner = _pruner(spec)
    never: dict[tuple[int, int], list[str]] = {}
    for arm in spec.arms:
        found = planned(spec, arm)
        if found < spec.arms[arm].trials:
            points = "1 point" if found == 1 else f"{found} points"
            yield (
                f"arm {arm}: its search space has {points}, so {found} of {spec.arms[arm].trials} trials run; the same "
                "point again on the same seeds would give the same results"
            )
        base, parameters = base_values(spec, arm), spec.parameters_of(arm)
        steps, every = (
            max(map(int, parameters[field].extremes())) if field in parameters else get_dotted(base, field)
            for field in ("learner.steps", "eval.every")
        )
        if "eval.every" in parameters:
            every = min(map(int, parameters["eval.every"].extremes()))
        last = (steps - 1) // every * every  # the last evaluation before the end
        if pruner is not None and not pruner.decides(0, last):
            never.setdefault((every, steps), []).append(arm)
    settings = ", ".join(f"{name} {value}" for name, value in spec.search.pruner.options.items())
    for (every, steps), arms in never.items():
        yield (
            f"{'arm' if len(arms) == 1 else 'arms'} {', '.join(arms)}: {spec.search.pruner.name} ({settings}) never ends a trial "
            f"early, since there is no evaluation between its first decision and the end (evaluations are every {every} steps, "
            f"and a trial ends at step {steps}); lower search.pruner.min_steps, or set search.pruner: none"
        )


def _pruner(spec: StudySpec) -> Pruner | None:
    """The study's pruner; None if it ends no trial of any length, or is a user's that can't be imported here."""
    try:
        found = pruner_of(spec.search.pruner)
    except SpecError:
        return None
    return found if found.decides(0, ANY) else None
