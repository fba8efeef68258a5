"""What a base learner requires of its input's shape and of its options."""

from __future__ import annotations

from typing import Any

from olfl_ray.errors import SpecError

__all__ = ["Shape", "image", "positive_int", "rate"]

Shape = tuple[int, ...]


def image(shape: Shape, name: str, smallest: int) -> tuple[int, int, int]:
    """Channels, height and width.

    Raises:
        SpecError: The examples are not images of at least `smallest` pixels per side.
    """
    if len(shape) != 3 or min(shape[1:]) < smallest:
        raise SpecError(
            "task.model.name", f"{name} takes images of at least {smallest}x{smallest}, not examples of shape {shape}"
        )
    return shape[0], shape[1], shape[2]


def rate(value: Any, option: str) -> float:
    """A dropout rate.

    Raises:
        SpecError: It is not a number in [0, 1).
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise SpecError(f"task.model.{option}", f"`0 <= {option} < 1` must hold, but it is {value!r}; change it")
    return value


def positive_int(value: Any, option: str) -> int:
    """A positive integer, such as a width.

    Raises:
        SpecError: It is not a positive integer.
    """
    if type(value) is not int or value < 1:
        raise SpecError(f"task.model.{option}", f"must be a positive integer, but it is {value!r}; change it")
    return value
