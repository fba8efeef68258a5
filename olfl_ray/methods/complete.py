"""A study with every setting of its open sections: the parts that it names are known here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from olfl_ray.errors import SpecError
from olfl_ray.losses import loss_settings
from olfl_ray.methods.chosen import METHODS
from olfl_ray.methods.unused import methods_of, uses
from olfl_ray.spec import Parts, StudySpec, TrialConfig, resolve_search

__all__ = ["check_settings", "complete"]

PARTS = {"loss": loss_settings}
"""Open sections, each with the function that checks and completes it."""


def complete(spec: StudySpec, *, own: bool = True) -> StudySpec:
    """The spec with every setting, in its field's type: two spellings of one study have one digest.

    Args:
        spec: The study.
        own: Whether a user's own parts can be imported here. Their settings are then checked as well, but not completed.

    Raises:
        SpecError: Names the field, the value and the rule.
    """

    def settings(section: str) -> Any:
        def of(data: Mapping[str, Any]) -> dict[str, Any]:
            return dict(data) if not own and ":" in str(data["name"]) else PARTS[section](data)

        return of

    def used(arm: str, section: str) -> bool:
        try:
            return uses(section, methods_of(spec, arm))
        except SpecError:
            if own:
                raise
            return False  # a method of the user's own

    return resolve_search(spec, Parts(settings={section: settings(section) for section in PARTS}, used=used))


def check_settings(config: TrialConfig) -> None:
    """Check the open sections of a trial that its method uses.

    Raises:
        SpecError: Values that are valid by themselves are not together.
    """
    method = METHODS.find(config.learner.method, "learner.method")
    for section, check in PARTS.items():
        if uses(section, {config.learner.method: method}):
            check(getattr(config, section).model_dump(mode="json", by_alias=True))
