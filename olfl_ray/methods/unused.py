"""Settings that a method does not use are refused: they would change a study's identity and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from olfl_ray.errors import SpecError
from olfl_ray.methods.method import Method
from olfl_ray.registry import Registry
from olfl_ray.spec import LearnedLossSpec, LearnerSpec, MetaSpec, StudySpec, base_values, get_dotted

__all__ = ["METHODS", "check_used"]

METHODS = Registry("olfl_ray.methods", Method)
"""Methods by name."""

_OPTIONAL = ("learner.fixed_loss", "loss", "meta")
"""Fields and sections that some methods do not read; every method reads the others."""


def check_used(spec: StudySpec) -> None:
    """Refuse what no arm, or the arm that sets or searches it, does not use.

    Raises:
        SpecError: Names the first such field, the arm and its method.
    """
    methods = {arm: _method_of(spec, arm) for arm in spec.arms}
    for arm, own in spec.arms.items():
        name, method = methods[arm]
        for where, fields in (("set", own.set), ("parameters", own.parameters)):
            for field in fields:
                if not _used(field, method):
                    raise SpecError(
                        f"arms.{arm}.{where}.{field}", f"is set, but the method {name} does not use it; remove it"
                    )
    for field in spec.search.parameters:
        for arm, (name, method) in methods.items():
            if not _used(field, method):
                raise SpecError(
                    f"search.parameters.{field}",
                    f"is searched in every arm, but arm {arm}'s method {name} does not use it; move it to "
                    "arms.ARM.parameters of the arms that do",
                )
    for field in _changed(spec):
        if not any(_used(field, method) for _, method in methods.values()):
            used = ", ".join(sorted({name for name, _ in methods.values()}))
            raise SpecError(field, f"is set, but no arm's method ({used}) uses it; remove it")


def _method_of(spec: StudySpec, arm: str) -> tuple[str, type[Method]]:
    name = str(get_dotted(base_values(spec, arm), "learner.method"))
    return name, METHODS.find(name, "learner.method")


def _used(field: str, method: type[Method]) -> bool:
    if not any(_within(field, section) for section in _OPTIONAL):
        return True
    return any(_within(field, used) for used in method.uses)


def _within(field: str, section: str) -> bool:
    return f"{field}.".startswith(f"{section}.")


def _changed(spec: StudySpec) -> Iterator[str]:
    """Fields of the study's own sections whose value is not the default."""
    sections: dict[str, tuple[Any, Any]] = {
        "learner": (spec.learner, LearnerSpec()),
        "loss": (spec.loss, LearnedLossSpec()),
        "meta": (spec.meta, MetaSpec()),
    }
    for section, (own, default) in sections.items():
        for name, field in type(own).model_fields.items():
            if getattr(own, name) != getattr(default, name):
                yield f"{section}.{field.alias or name}"
