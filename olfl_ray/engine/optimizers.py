"""Base optimizers as pure, differentiable maps (theta', state') = U(theta, g, state, alpha)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from olfl_ray.engine.arguments import check_rate
from olfl_ray.errors import SpecError
from olfl_ray.learnable import Params

__all__ = ["Adam", "Optimizer", "Sgd", "added", "clip_scale", "global_norm", "with_gradient"]


def _root(squares: Tensor) -> Tensor:
    """Square root whose derivative at 0 is defined as 0, not infinity (dead ReLUs give g = 0 exactly)."""
    if not torch.is_grad_enabled():
        return squares.sqrt()
    positive = squares > 0
    return torch.where(positive, squares, torch.ones_like(squares)).sqrt() * positive


def global_norm(tensors: Params) -> Tensor:
    """Euclidean norm of all entries together, a scalar."""
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors.values()])
    return _root((flat * flat).sum())


def clip_scale(norm: Tensor, limit: float) -> Tensor:
    """The factor that clips a gradient of that norm to `limit`."""
    return (limit / (norm + 1e-6)).clamp(max=1.0)


def with_gradient(names: Iterable[str], grads: Iterable[Tensor | None]) -> dict[str, Tensor]:
    """Gradients by name, for the parameters that have one: `Optimizer.update` does not change the others."""
    return {name: grad for name, grad in zip(names, grads, strict=True) if grad is not None}


def added(some: Params, others: Params) -> dict[str, Tensor]:
    """Sums by name; a name that only one of them has keeps its value."""
    found = dict(some)
    for name, value in others.items():
        found[name] = found[name] + value if name in found else value
    return found


def _scale(grads: Params, limit: float | None) -> Tensor | None:
    """The factor that clips all gradients together; None: no clipping."""
    return None if limit is None or not grads else clip_scale(global_norm(grads), limit)


def _taken(grads: dict[str, Tensor], name: str, scale: Tensor | None) -> Tensor:
    """Remove one gradient from `grads` and clip it, so that its memory is free once it is used.

    The result is contiguous: strides would persist in the optimizer's state, and a restored state, which is contiguous,
    would then round differently.
    """
    grad = grads.pop(name).contiguous()
    return grad if scale is None else grad * scale


def _moved(value: Tensor, direction: Tensor, lr: float | Tensor) -> Tensor:
    """value - lr direction, in one pass over memory."""
    return value.addcmul(direction, lr, value=-1) if isinstance(lr, Tensor) else value.sub(direction, alpha=lr)


def _check_clip(limit: float | None) -> None:
    if limit is not None:
        check_rate("clip_norm", limit, positive=True)


class Optimizer(ABC):
    """A base optimizer; `update` is differentiable with respect to the gradient and the learning rate.

    Attributes:
        penalties: Fields that penalise the weights of a base learner; 0 for the parameters of a loss.
    """

    clip_norm: float | None
    penalties: ClassVar[tuple[str, ...]] = ("weight_decay",)

    @abstractmethod
    def init(self, params: Params) -> dict[str, Tensor]:
        """State before the first step, tensors by name."""

    @abstractmethod
    def update(
        self, params: Params, grads: dict[str, Tensor], state: Params, lr: float | Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """One step. A parameter without a gradient keeps its value and its part of the state, as in `torch.optim`.

        Args:
            params: theta.
            grads: g, by the names of the parameters that have one. It is emptied in the process, so that each gradient is
                freed unless the caller holds it.
            state: From `init` or the previous step.
            lr: alpha, a number or a scalar tensor.

        Returns:
            theta' and the state after the step.
        """

    def gradient_factor(self, lr: float | Tensor) -> float | Tensor | None:
        """c if dtheta'/dg is c times the identity; None if autograd is needed."""
        return None

    def metric(self, state: Params, names: Iterable[str]) -> dict[str, Tensor]:
        """D by parameter name: the step that led to a state descends in the diagonal metric D. Default: none, which is D = 1.

        A proximal step (`olfl_ray.engine.proximal`) is taken in this metric.

        Args:
            state: The optimizer's state after the step.
            names: Parameters that had a gradient.
        """
        return {}

    def describe(self, theta: Params) -> dict[str, float]:
        """Extra metrics of weights, by name, recorded on each split next to the task's metrics. Default: none."""
        return {}


@dataclass(frozen=True, kw_only=True)
class Sgd(Optimizer):
    """Like `torch.optim.SGD`: momentum, Nesterov, L2 weight decay."""

    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        check_rate("momentum", self.momentum)
        check_rate("weight_decay", self.weight_decay)
        _check_clip(self.clip_norm)
        if self.nesterov and self.momentum == 0:
            raise SpecError("nesterov", "is True, but needs a momentum above 0; set momentum, or leave it out")

    def init(self, params: Params) -> dict[str, Tensor]:
        if self.momentum == 0:
            return {}
        return {name: torch.zeros_like(value) for name, value in params.items()}

    def update(
        self, params: Params, grads: dict[str, Tensor], state: Params, lr: float | Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        scale = _scale(grads, self.clip_norm)
        new_params, new_state = {}, {}
        for name, value in params.items():
            if name not in grads:
                new_params[name] = value
                if self.momentum:
                    new_state[name] = state[name]
                continue
            direction = _taken(grads, name, scale)
            if self.weight_decay:
                direction = direction.add(value, alpha=self.weight_decay)
            if self.momentum:
                velocity = direction.add(state[name], alpha=self.momentum)
                new_state[name] = velocity
                direction = direction.add(velocity, alpha=self.momentum) if self.nesterov else velocity
            new_params[name] = _moved(value, direction, lr)
        return new_params, new_state

    def gradient_factor(self, lr: float | Tensor) -> float | Tensor | None:
        if self.clip_norm is not None:
            return None
        return -lr * (1 + self.momentum if self.nesterov else 1.0)


@dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    """Like `torch.optim.Adam`, or `AdamW` with `decoupled` weight decay; the derivative of its root of v at v = 0 is set to 0."""

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    decoupled: bool = False
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        for name in ("beta1", "beta2"):
            check_rate(name, getattr(self, name))
            if getattr(self, name) >= 1:
                raise SpecError(name, f"is {getattr(self, name)!r}, but must be below 1")
        check_rate("eps", self.eps)
        check_rate("weight_decay", self.weight_decay)
        _check_clip(self.clip_norm)

    def init(self, params: Params) -> dict[str, Tensor]:
        state = {f"{kind}.{name}": torch.zeros_like(value) for kind in "mv" for name, value in params.items()}
        first = next(iter(params.values()))
        return {**state, "t": torch.zeros(len(params), dtype=torch.float64, device=first.device)}

    def update(
        self, params: Params, grads: dict[str, Tensor], state: Params, lr: float | Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        scale = _scale(grads, self.clip_norm)
        # Number of steps per parameter; states of earlier versions have one number for all.
        t = state["t"].expand(len(params))
        if len(grads) == len(params):
            t = t + 1
        else:
            t = torch.stack([own + 1 if name in grads else own for name, own in zip(params, t.unbind(), strict=True)])
        dtype = next(iter(params.values())).dtype
        m_scales, v_scales = ((1 / (1 - beta**t)).to(dtype).unbind() for beta in (self.beta1, self.beta2))
        new_params: dict[str, Tensor] = {}
        new_state: dict[str, Tensor] = {"t": t}
        for (name, value), m_scale, v_scale in zip(params.items(), m_scales, v_scales, strict=True):
            if name not in grads:
                new_params[name] = value
                new_state[f"m.{name}"], new_state[f"v.{name}"] = state[f"m.{name}"], state[f"v.{name}"]
                continue
            grad = _taken(grads, name, scale)
            if self.weight_decay and not self.decoupled:
                grad = grad.add(value, alpha=self.weight_decay)
            m = (self.beta1 * state[f"m.{name}"]).add(grad, alpha=1 - self.beta1)
            v = (self.beta2 * state[f"v.{name}"]).addcmul(grad, grad, value=1 - self.beta2)
            new_state[f"m.{name}"], new_state[f"v.{name}"] = m, v
            if self.weight_decay and self.decoupled:
                value = value * (1 - lr * self.weight_decay)
            new_params[name] = _moved(value, (m * m_scale) / (_root(v * v_scale) + self.eps), lr)
        return new_params, new_state

    def metric(self, state: Params, names: Iterable[str]) -> dict[str, Tensor]:
        """The denominator of the step: the root of v, corrected for its bias, plus eps."""
        order = [name.removeprefix("m.") for name in state if name.startswith("m.")]
        scales = dict(zip(order, (1 / (1 - self.beta2 ** state["t"].expand(len(order)))).unbind(), strict=True))
        return {name: _root((v := state[f"v.{name}"]) * scales[name].to(v.dtype)) + self.eps for name in names}
