"""The learned loss of a trial's settings: a new one, or the one that `loss.from` names."""

from __future__ import annotations

from olfl_ray.errors import DataError, SpecError
from olfl_ray.losses import LearnedLoss, build_loss
from olfl_ray.methods.method import Setting

__all__ = ["loss_network"]


def loss_network(setting: Setting) -> LearnedLoss:
    """A learned loss.

    Raises:
        SpecError: `loss.from` names none, or one of another task.
    """
    loss = setting.config.loss
    if loss.from_ is None:
        return build_loss(loss, setting.kind, seed=setting.seed)
    try:
        found = setting.losses.loss(loss.from_, (loss.name, setting.kind))
    except DataError as error:
        raise SpecError("loss.from", str(error)) from None
    if found.kind != setting.kind:
        raise SpecError("loss.from", f"{loss.from_!r} was learned for {found.kind}, but the task is {setting.kind}")
    return found
