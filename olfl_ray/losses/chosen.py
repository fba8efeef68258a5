"""The learned loss that a spec names, and its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from torch import nn

from olfl_ray.errors import SpecError
from olfl_ray.losses.elementwise import ElementwiseLoss
from olfl_ray.plugins import check_call, load_builder
from olfl_ray.registry import Registry
from olfl_ray.spec import LearnedLossSpec, checked_options

__all__ = ["LEARNED", "Builder", "loss_settings", "named_loss"]

NAME, SECTION = "loss.name", "loss"
LEARNED = Registry("olfl_ray.losses.learned", ElementwiseLoss)
"""Built-in learned losses by name."""
Builder: TypeAlias = type[ElementwiseLoss] | Callable[..., nn.Module]


def named_loss(name: str) -> Builder:
    """The class of a learned loss, or a user's own builder of a module l_phi(output, target).

    Raises:
        SpecError: There is none of that name.
    """
    return load_builder(name, NAME, (nn.Module,)) if ":" in name else LEARNED.find(name, NAME)


def loss_settings(section: Mapping[str, Any]) -> dict[str, Any]:
    """A `loss` section with every setting of the loss that it names. Of a user's own, the settings stay as they are given.

    With `loss.from` the settings are those of that loss, so none is missing.

    Raises:
        SpecError: There is no such loss, or a setting breaks one of its rules.
    """
    spec = LearnedLossSpec.model_validate(dict(section))
    builder = named_loss(spec.name)
    try:
        if not (isinstance(builder, type) and issubclass(builder, ElementwiseLoss)):
            check_call(spec.name, builder, spec.options, SECTION)
            return dict(section)
        settings = checked_options(builder.Config, spec.options, SECTION)
    except SpecError as error:
        setting = error.field.removeprefix(f"{SECTION}.").partition(".")[0]
        if spec.from_ is None or error.field in (SECTION, NAME) or setting in spec.options:
            raise
        return dict(section)
    if ":" in spec.name:  # a cluster's client may lack its module, and must find the same study
        return dict(section)
    shared = {key: value for key, value in section.items() if key not in spec.options}
    return {**shared, **settings.model_dump(mode="json", by_alias=True)}
