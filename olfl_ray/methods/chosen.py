"""The method that a trial's settings name."""

from __future__ import annotations

from olfl_ray.methods.method import Method
from olfl_ray.registry import Registry
from olfl_ray.spec import LearnerSpec, checked_options

__all__ = ["METHOD", "METHODS", "OPTIONS", "method_of"]

METHOD, OPTIONS = "learner.method", "learner.options"
METHODS = Registry("olfl_ray.methods", Method)
"""Methods by name."""


def method_of(learner: LearnerSpec) -> Method:
    """The method of a trial, with its settings.

    Raises:
        SpecError: There is none of that name, or it has no such settings.
    """
    found = METHODS.find(learner.method, METHOD)
    return found(checked_options(found.Config, learner.options, OPTIONS))
