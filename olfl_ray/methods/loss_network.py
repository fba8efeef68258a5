"""The learned loss of a trial's settings: a new one, or the one that `loss.from` names."""

from __future__ import annotations

from olfl_ray.errors import DataError, SpecError
from olfl_ray.learnable import Learnable
from olfl_ray.losses import build_loss
from olfl_ray.losses.per_head import HeadLosses
from olfl_ray.methods.chosen import method_of
from olfl_ray.methods.heads import several_heads
from olfl_ray.methods.method import Setting
from olfl_ray.tasks.multitask import MultiTask

__all__ = ["loss_network"]


def loss_network(setting: Setting) -> Learnable:
    """A learned loss; of a task with several heads, one for each kind of head.

    Raises:
        SpecError: `loss.from` names none, or one of another task, or the method would learn a loss that has no parameters.
    """
    loss = setting.config.loss
    if setting.task.heads:
        return _per_head(several_heads(setting), setting)
    if loss.from_ is None:
        built = build_loss(loss, setting.kind, seed=setting.seed)
        _check_learned(built, setting)
        return built
    try:
        found = setting.losses.loss(loss.from_, (loss.name, setting.kind))
    except DataError as error:
        raise SpecError("loss.from", str(error)) from None
    if found.kind != setting.kind:
        raise SpecError("loss.from", f"{loss.from_!r} was learned for {found.kind}, but the task is {setting.kind}")
    _check_learned(found, setting)
    return found


def _per_head(task: MultiTask, setting: Setting) -> Learnable:
    loss = setting.config.loss
    if loss.from_ is not None:
        raise SpecError(
            "loss.from", f"is {loss.from_!r}, a loss of one task, but the data set has several; leave it out"
        )
    kinds = dict.fromkeys(head.kind for head in task.heads)
    losses = {kind: build_loss(loss, kind, seed=setting.seed) for kind in kinds}
    for kind in kinds:
        alike = [head for head in task.heads if head.kind == kind]
        if getattr(losses[kind].network, "by_output", False) and len({head.outputs for head in alike}) > 1:
            sizes = ", ".join(f"{head.name} ({head.outputs})" for head in alike)
            raise SpecError(
                "loss.name",
                f"is {loss.name}, which differs between outputs, but these heads of kind {kind} share a loss and have different "
                f"numbers of them: {sizes}; use another loss, or fewer heads (task.options.heads)",
            )
    built = HeadLosses(losses, task)
    _check_learned(built, setting)
    return built


def _check_learned(loss: Learnable, setting: Setting) -> None:
    """Refuse to learn a loss without parameters."""
    config, method = setting.config, method_of(setting.config.learner)
    before = method.before and config.loss.from_ is None and config.meta.init_steps > 0
    if (before or method.during) and not any(value.requires_grad for value in loss.parameters()):
        settings = ", ".join(f"{name}: {value}" for name, value in config.loss.options.items())
        raise SpecError(
            "learner.method",
            f"is {config.learner.method}, which learns the loss, but {config.loss.name} has no parameters with its settings "
            f"({settings}); give it some, or use learner.method: offline with meta.init_steps: 0, which trains on it as it is",
        )
