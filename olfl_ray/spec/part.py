"""Sections that name a part: the settings of a built-in one are those of its class, found in the part's package."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from olfl_ray.errors import SpecError
from olfl_ray.registry import Registry
from olfl_ray.spec.base import PART, NamedBuilder, NonNegative, Strict, as_name, as_named

__all__ = ["NamedPart", "OptimizerSpec", "PartSpec", "PrunerSpec", "ScheduleSpec"]


class NamedPart:
    """What a section names: a file of the part's package, which says what its settings mean.

    A module with a built-in part must not import torch: it is imported where a spec is read.

    Args:
        config: Its settings.
    """

    class Config(Strict):
        """Its settings, next to its name. A subclass that has some replaces this class."""

    config: Any

    def __init__(self, config: Any) -> None:
        self.config = config


class PartSpec(NamedBuilder):
    """A part's name, and its settings next to it: of a built-in part each one, checked and in its field's type.

    A user's own part, `package.module:Class`, may not be importable where a spec is read, such as on a cluster's client. Its
    settings stay as they are given, and are checked with the data, before anything starts.
    """

    model_config = ConfigDict(populate_by_name=True, use_attribute_docstrings=True)

    package: ClassVar[str]
    """Dotted name of the package whose files are the built-in parts."""

    @classmethod
    def form(cls, name: str) -> type[Strict] | None:
        """The settings class of a built-in part; None for a user's own.

        Raises:
            SpecError: There is no such built-in part.
        """
        return None if ":" in name else Registry(cls.package, NamedPart).find(name, "name").Config

    @classmethod
    def forms(cls) -> list[type[Strict]]:
        """The settings class of each built-in part."""
        parts = Registry(cls.package, NamedPart)
        return [parts.find(name, "name").Config for name in parts.names()]

    @classmethod
    def settings_of(cls, name: Any) -> set[str] | None:
        """What the section of a part may contain; None if there is no such part."""
        try:
            form = cls.form(str(name))
        except SpecError:
            return None
        return {"name", *form.model_fields} if form is not None else set(cls.model_fields)

    @model_validator(mode="before")
    @classmethod
    def _in_full(cls, value: Any) -> Any:
        value = as_named(value)
        if isinstance(value, cls):
            return value
        name = as_name(value.get("name", cls.model_fields["name"].default)) if isinstance(value, dict) else None
        if not isinstance(name, str):
            raise PydanticCustomError("no_name", "must be a name, or a section with a name and its settings")
        try:
            form = cls.form(name)
        except SpecError as error:
            raise ValueError(error.problem) from None
        given = {key: inner for key, inner in value.items() if key != "name"}
        return {"name": name, **(given if form is None else form.model_validate(given).model_dump(by_alias=True))}


class OptimizerSpec(PartSpec):
    """A base optimizer, with its settings next to the name."""

    package = "olfl_ray.optimizers"

    name: Annotated[str, Field(pattern=PART)] = "sgd"
    """A built-in one, or `package.module:Class`, a subclass of `olfl_ray.engine.Optimizer`: the other keys are its arguments."""
    lr: NonNegative = 0.01
    """Learning rate alpha."""


class ScheduleSpec(PartSpec):
    """A schedule of the base learning rate, with its settings next to the name."""

    package = "olfl_ray.schedules"

    name: Annotated[str, Field(pattern=PART)] = "constant"
    """A built-in one, or `package.module:function`, from the fraction of `learner.steps` that is done to the factor on the
    learning rate: the other keys are its further arguments."""


class PrunerSpec(PartSpec):
    """A pruner, with its settings next to the name."""

    package = "olfl_ray.pruners"

    name: Annotated[str, Field(pattern=PART)] = "asha"
    """A built-in one, or `package.module:Class`, a subclass of `olfl_ray.pruners.Pruner`: the other keys are its settings."""
