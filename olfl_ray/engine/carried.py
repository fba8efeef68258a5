"""Losses with parameters of their own, which are trained with theta: f_theta(x) carries them to the loss in its outputs."""

# B batch, C outputs, P parameters of the losses

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from olfl_ray.engine.calling import Stateless
from olfl_ray.engine.optimizers import Optimizer, clip_scale, global_norm
from olfl_ray.errors import SpecError
from olfl_ray.learnable import Params

__all__ = ["Carrier", "Grouped", "carrying", "completed", "measured", "optimizer_for"]

Loss = Callable[[Tensor, Any], Tensor]
"""From outputs and targets to a scalar."""
BASE_LOSS, TASK_LOSS = "base_loss", "task_loss"
"""Names under which theta holds the parameters of the loss that trains it, and of the task loss."""


class Carrier(nn.Module):
    """A base learner together with losses that have parameters; the outputs (B, C + P) end with these parameters.

    A loss is then a function of outputs and targets alone, so every meta-gradient is exact without a rule for its parameters.
    theta's names are those of the base learner, and `base_loss.NAME` or `task_loss.NAME`.

    Args:
        module: The base learner.
        losses: The losses by name.
        select: From what the base learner returns to its outputs (B, C); None: it returns them.
    """

    def __init__(
        self, module: nn.Module, losses: Mapping[str, nn.Module], select: Callable[[Any], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.module, self.losses, self.select = module, nn.ModuleDict(dict(losses)), select
        self._trained = list(_trained(self.losses))  # the engine puts tensors without gradients in their places
        taken = [name for name, _ in module.named_parameters() if name.partition(".")[0] in losses]
        if taken:
            raise SpecError("task.model", f"has a parameter {taken[0]}, a name that belongs to a loss; rename it")

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """The base learner's modules by their own names, then the losses'."""
        memo = set() if memo is None else memo
        for name, part in (("", self.module), *self.losses.items()):
            inner = f"{prefix}.{name}" if prefix and name else prefix or name
            yield from part.named_modules(memo, inner, remove_duplicate)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Outputs (B, C + P)."""
        found = self.module(*args, **kwargs)
        return self.completed(found if self.select is None else self.select(found))

    def completed(self, outputs: Tensor) -> Tensor:
        """Outputs (B, C) with the losses' parameters."""
        there = dict(self.losses.named_parameters())
        own_P = torch.cat([there[name].reshape(-1) for name in self._trained])
        return torch.cat([outputs, own_P.expand(*outputs.shape[:-1], -1)], -1)


def completed(module: nn.Module, outputs: Tensor) -> Tensor:
    """Outputs that a base learner did not make, in the form of its own."""
    return module.completed(outputs).detach() if isinstance(module, Carrier) else outputs


def measured(module: nn.Module) -> dict[str, float]:
    """What the losses that a base learner carries report of their parameters, by a method `measured`."""
    losses: list[Any] = list(module.losses.values()) if isinstance(module, Carrier) else []
    return {name: value for loss in losses if hasattr(loss, "measured") for name, value in loss.measured().items()}


def carrying(
    module: nn.Module, base_loss: Loss, task_loss: Loss, select: Callable[[Any], Tensor] | None = None
) -> tuple[nn.Module, Loss, Loss]:
    """The base learner and its two losses, where a loss may be a module whose parameters are trained with theta.

    Args:
        module: The base learner.
        base_loss: What theta is trained on.
        task_loss: The meta-objective; the same object if theta is trained on it.
        select: As of `Carrier`.

    Returns:
        The three arguments as they are, if no loss has parameters; else a `Carrier` and losses that take its outputs.
    """
    wanted = {TASK_LOSS: task_loss} if base_loss is task_loss else {BASE_LOSS: base_loss, TASK_LOSS: task_loss}
    owners = {name: loss for name, loss in wanted.items() if isinstance(loss, nn.Module) and _trained(loss)}
    if not owners:
        return module, base_loss, task_loss
    sizes = {name: sum(value.numel() for value in _trained(loss).values()) for name, loss in owners.items()}
    total, start, found = sum(sizes.values()), 0, {}
    for name, loss in wanted.items():
        found[name] = _Carried(loss, total, start)
        start += sizes.get(name, 0)
    return Carrier(module, owners, select), found.get(BASE_LOSS, found[TASK_LOSS]), found[TASK_LOSS]


def _trained(loss: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in loss.named_parameters() if value.requires_grad}


class _Carried:
    """A loss of outputs (B, C + P), which reads its own parameters from them."""

    def __init__(self, loss: Loss, total: int, start: int) -> None:
        self._loss, self._total, self._start = loss, total, start
        self._at = Stateless(loss) if isinstance(loss, nn.Module) else None
        module = loss if isinstance(loss, nn.Module) else nn.Module()
        self._shapes = {name: value.shape for name, value in _trained(module).items()}

    def __call__(self, outputs: Tensor, targets: Any) -> Tensor:
        outputs_BC = outputs[..., : outputs.shape[-1] - self._total]
        if self._at is None:
            return self._loss(outputs_BC, targets)
        row_P = outputs[..., outputs.shape[-1] - self._total :].reshape(-1, self._total)[0]  # all rows are equal
        own, start = {}, self._start
        for name, shape in self._shapes.items():
            own[name] = row_P[start : start + shape.numel()].reshape(shape)
            start += shape.numel()
        with self._at.placed(own):
            return self._loss(outputs_BC, targets)


@dataclass(frozen=True, kw_only=True)
class Grouped(Optimizer):
    """The base optimizer, with settings of its own for the parameters of losses: no weight decay or other penalty, and a
    learning rate factor.

    The gradient is clipped as a whole, if the optimizer is a dataclass with the field `clip_norm`, as this package's are.

    Args:
        inner: The base optimizer.
        factors: Factor on the learning rate, by the first part of a parameter's name.
    """

    inner: Optimizer
    factors: Mapping[str, float]

    @property
    def clip_norm(self) -> float | None:  # type: ignore[override]
        """The base optimizer's."""
        return self.inner.clip_norm

    def init(self, params: Params) -> dict[str, Tensor]:
        """The state of each group, its name before a slash."""
        groups = self._groups(params)
        found = {name: self._optimizer(name).init(part) for name, part in groups.items()}
        return {f"{name}/{key}": value for name, state in found.items() for key, value in state.items()}

    def update(
        self, params: Params, grads: dict[str, Tensor], state: Params, lr: float | Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """One step of each group."""
        limit = self.clip_norm
        if limit is not None and grads and _has(self.inner, "clip_norm"):
            scale = clip_scale(global_norm(grads), limit)
            for name in list(grads):
                grads[name] = grads[name] * scale
        moved: dict[str, Tensor] = {}
        kept: dict[str, Tensor] = {}
        for group, part in self._groups(params).items():
            own = {key.partition("/")[2]: value for key, value in state.items() if key.partition("/")[0] == group}
            found = {name: grads.pop(name) for name in part if name in grads}
            new, after = self._optimizer(group).update(part, found, own, lr * self.factors.get(group, 1.0))
            moved.update(new)
            kept.update({f"{group}/{key}": value for key, value in after.items()})
        return {name: moved[name] for name in params}, kept

    def metric(self, state: Params, names: Iterable[str]) -> dict[str, Tensor]:
        """Each group's."""
        found: dict[str, Tensor] = {}
        for group, part in self._groups(dict.fromkeys(names, torch.empty(0))).items():
            own = {key.partition("/")[2]: value for key, value in state.items() if key.partition("/")[0] == group}
            found.update(self._optimizer(group).metric(own, part))
        return found

    def describe(self, theta: Params) -> dict[str, float]:
        """That of the base learner's parameters."""
        return self.inner.describe(self._groups(theta)["module"])

    def _groups(self, params: Params) -> dict[str, dict[str, Tensor]]:
        """Parameters by group: those of the base learner, then those of each loss."""
        found: dict[str, dict[str, Tensor]] = {}
        for name, value in params.items():
            first = name.partition(".")[0]
            found.setdefault(first if first in self.factors else "module", {})[name] = value
        return found

    def _optimizer(self, group: str) -> Optimizer:
        changes: dict[str, Any] = {"clip_norm": None} if _has(self.inner, "clip_norm") else {}
        if group in self.factors:
            changes |= {name: 0.0 for name in self.inner.penalties if _has(self.inner, name)}
        return dataclasses.replace(self.inner, **changes) if changes else self.inner  # type: ignore[type-var]


def _has(optimizer: Optimizer, field: str) -> bool:
    return dataclasses.is_dataclass(optimizer) and field in {one.name for one in dataclasses.fields(optimizer)}


def optimizer_for(module: nn.Module, optimizer: Optimizer) -> Optimizer:
    """The base optimizer of a base learner: `Grouped`, where it carries losses that need settings of their own.

    A loss sets its factor on the learning rate by an attribute `lr_factor`.
    """
    if not isinstance(module, Carrier):
        return optimizer
    factors = {name: float(getattr(loss, "lr_factor", 1.0)) for name, loss in module.losses.items()}
    plain = all(factor == 1 for factor in factors.values()) and not getattr(optimizer, "weight_decay", 0.0)
    return optimizer if plain else Grouped(inner=optimizer, factors=factors)
