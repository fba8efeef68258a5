"""A torch optimizer as a pure one: its settings are read at each step, since torch's schedulers change them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from olfl_ray.engine.arguments import check_rate
from olfl_ray.engine.optimizers import Adam, Optimizer, Sgd
from olfl_ray.errors import SpecError
from olfl_ray.learnable import Params

__all__ = ["Followed"]

PLAIN: Mapping[type[torch.optim.Optimizer], Mapping[str, Any]] = {
    torch.optim.SGD: {"dampening": 0, "maximize": False},
    torch.optim.Adam: {"amsgrad": False, "maximize": False},
    torch.optim.AdamW: {"amsgrad": False, "maximize": False},
}
"""torch's optimizers with a counterpart here -> the options that it lacks, with the values that disable them."""


class Followed(Optimizer):
    """The counterpart of a torch optimizer, which itself is never stepped.

    Args:
        given: `torch.optim.SGD`, `Adam` or `AdamW`.
        module: The optimizer's parameters must be exactly its trainable ones.
        clip_norm: Largest global norm of the gradient; None: no clipping.

    Raises:
        SpecError: It has no counterpart here, or other parameters.
    """

    def __init__(self, given: torch.optim.Optimizer, module: nn.Module, clip_norm: float | None = None) -> None:
        self.clip_norm = clip_norm
        kind = type(given)
        if kind not in PLAIN:
            known = ", ".join(one.__name__ for one in PLAIN)
            raise SpecError(
                "optimizer", f"{kind.__name__} is not supported (its update must be differentiable); use {known}"
            )
        if len(given.param_groups) != 1:
            raise SpecError("optimizer", f"has {len(given.param_groups)} parameter groups, but must have 1; join them")
        group = given.param_groups[0]
        if {id(one) for one in group["params"]} != {id(one) for one in module.parameters() if one.requires_grad}:
            raise SpecError(
                "optimizer", "must hold all trainable parameters of the module and no others; build a new one"
            )
        self._given, self._names = given, [name for name in group if name not in ("params", "lr", "initial_lr")]
        self._options: list[Any] = []
        self._keeps = bool(group.get("momentum", True))
        self.now()

    def now(self) -> Optimizer:
        """The counterpart with the current settings.

        Raises:
            SpecError: An option without a counterpart; momentum that was zero before; optimizer state or step hooks.
        """
        if self._given.state:
            raise SpecError("optimizer", "has already taken steps, which a learner would lose; give a new one")
        if self._given._optimizer_step_pre_hooks or self._given._optimizer_step_post_hooks:
            raise SpecError(
                "optimizer",
                "has step hooks, but is never stepped, so they would not run; remove them, or call them yourself",
            )
        group = self._given.param_groups[0]
        options = [group.get(name) for name in self._names]
        if options != self._options:
            self._pure, self._options = self._counterpart(group), options
        return self._pure

    def settings(self) -> dict[str, Any]:
        """The torch optimizer's settings now, without its parameters."""
        return {name: value for name, value in self._given.param_groups[0].items() if name != "params"}

    def set(self, settings: Mapping[str, Any]) -> None:
        """Give the torch optimizer other settings."""
        self._given.param_groups[0].update(settings)

    def lr(self) -> float:
        """Its current learning rate.

        Raises:
            SpecError: A scheduler has made it negative or NaN.
        """
        lr = float(self._given.param_groups[0]["lr"])
        check_rate("optimizer.lr", lr)
        return lr

    def stepped(self) -> None:
        """Inform its schedulers that a step was taken: they warn if a scheduler is stepped first."""
        self._given._opt_called = True  # type: ignore[attr-defined]

    def init(self, params: Params) -> dict[str, Tensor]:
        return self.now().init(params)

    def update(
        self, params: Params, grads: dict[str, Tensor], state: Params, lr: float | Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return self.now().update(params, grads, state, lr)

    def gradient_factor(self, lr: float | Tensor) -> float | Tensor | None:
        return self.now().gradient_factor(lr)

    def metric(self, state: Params, names: Iterable[str]) -> dict[str, Tensor]:
        return self.now().metric(state, names)

    def _counterpart(self, group: Mapping[str, Any]) -> Optimizer:
        kind = type(self._given)
        for option, plain in PLAIN[kind].items():
            if group[option] != plain:
                raise SpecError(f"optimizer.{option}", f"is {group[option]!r}, but must be {plain!r}; change it")
        if bool(group.get("momentum", True)) != self._keeps:
            raise SpecError("optimizer.momentum", f"is {group['momentum']} now; to start or end it, make a new learner")
        decay = float(group["weight_decay"])
        try:
            if kind is torch.optim.SGD:
                return Sgd(
                    momentum=float(group["momentum"]),
                    nesterov=group["nesterov"],
                    weight_decay=decay,
                    clip_norm=self.clip_norm,
                )
            beta1, beta2 = map(float, group["betas"])
            decoupled = kind is torch.optim.AdamW or bool(group.get("decoupled_weight_decay", False))
            return Adam(
                beta1=beta1,
                beta2=beta2,
                eps=group["eps"],
                weight_decay=decay,
                decoupled=decoupled,
                clip_norm=self.clip_norm,
            )
        except SpecError as error:  # a scheduler changes momentum and betas
            raise SpecError(f"optimizer.{error.field}", error.problem) from None
