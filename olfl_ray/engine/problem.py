"""The learning problem as pure functions: the base learner f_theta, the learnable's hooks at phi, the task loss L_T."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from olfl_ray.engine.arithmetic import Precision, autocast
from olfl_ray.engine.attributes import attributes_kept
from olfl_ray.engine.batches import Batch, first_examples, tensors
from olfl_ray.engine.calling import Stateless
from olfl_ray.engine.drawing import RandomStates, random_kept, random_states, set_random_states
from olfl_ray.engine.optimizers import Optimizer, with_gradient
from olfl_ray.errors import SpecError
from olfl_ray.learnable import Learnable, Params

__all__ = ["Hooks", "Problem", "leaves"]


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """Where phi enters a base step: which defaults of plain training a learnable overrides."""

    start: bool = False
    loss: bool = False
    penalty: bool = False
    update: bool = False

    @property
    def gradient(self) -> bool:
        """Whether the gradient that theta follows depends on phi."""
        return self.loss or self.penalty


def _hooks(learned: nn.Module) -> Hooks:
    """The hooks of a learnable; any other module is a learned loss."""
    if not isinstance(learned, Learnable):
        return Hooks(loss=True)

    def own(name: str) -> bool:
        return getattr(type(learned), name) is not getattr(Learnable, name)

    loss = own("loss") or own("forward")
    return Hooks(start=own("start"), loss=loss, penalty=own("penalty"), update=own("update"))


@dataclass(frozen=True, kw_only=True)
class Problem:
    """The parts of one trial that do not change while it trains.

    Args:
        module: Base learner; its own parameters are never changed. In train mode.
        learned: A `Learnable`, which changes nothing if it has no hooks; or a learned loss M_phi, called with (outputs,
            targets).
        task_loss: L_T, the meta-objective.
        base_loss: The loss that theta is trained on if no loss is learned (the task loss, possibly smoothed).
        optimizer: Base optimizer.
        draws_random: Whether a forward pass draws random numbers (dropout).
        draws_python: Whether some of them come from Python's own generator (layers dropped by `random.random()`).
        precision: Precision of the base learner's passes. bf16 casts their outputs to the inputs' dtype, or to theta's if the
            inputs are integers; otherwise outputs keep the dtype that the module returns.
        select: Extracts the outputs, one tensor, from what the module returns; None: it returns them directly.
        unpack: Whether the inputs are the module's arguments: a dict by keyword, a tuple or list by position.
    """

    module: nn.Module
    learned: nn.Module
    task_loss: Callable[[Tensor, Any], Tensor]
    base_loss: Callable[[Tensor, Any], Tensor]
    optimizer: Optimizer
    draws_random: bool
    draws_python: bool = False
    precision: Precision = "float32"
    select: Callable[[Any], Any] | None = None
    unpack: bool = False

    @cached_property
    def _f(self) -> Stateless:
        return Stateless(self.module)

    @cached_property
    def _m(self) -> Stateless:
        return Stateless(self.learned)

    @cached_property
    def hooks(self) -> Hooks:
        """Where phi enters a base step."""
        return _hooks(self.learned)

    def moved_from(self, theta: Params, buffers: Params, phi: Params) -> dict[str, list[str]]:
        """By module, the tensors whose memory is no longer that of the module's own."""
        return {"module": self._f.moved_from({**theta, **buffers}), "learned_loss": self._m.moved_from(phi)}

    @property
    def device(self) -> torch.device:
        """Device of the module, and so of its random draws; batches may contain no tensor."""
        return self._f.device

    def theta(self) -> dict[str, Tensor]:
        """The module's own trainable parameters, copied."""
        return {name: p.detach().clone() for name, p in self.module.named_parameters() if p.requires_grad}

    def phi(self) -> dict[str, Tensor]:
        """The learnable's own trainable parameters, copied."""
        return {name: p.detach().clone() for name, p in self.learned.named_parameters() if p.requires_grad}

    def buffers(self) -> dict[str, Tensor]:
        """The module's own buffers, copied."""
        return {name: value.detach().clone() for name, value in self.module.named_buffers()}

    def loss_buffers(self, *, copied: bool = True) -> dict[str, Tensor]:
        """The learnable's own buffers."""
        own = self._m.buffers()
        return _copies(own) if copied else own

    def outputs_gradient(
        self, phi: Params, loss_buffers: Params, outputs: Tensor, targets: Any
    ) -> tuple[Tensor, Tensor, Callable[[Tensor], dict[str, Tensor]], Params]:
        """M_phi, df = dM_phi/df, the function from u to d <df, u> / d phi, and M's buffers after it; all detached.

        A learned loss may implement the first three in closed form, as a method of this name that returns the same, or None.
        """
        closed = getattr(self.learned, "outputs_gradient", None)
        found = closed(phi, outputs.detach(), targets) if closed is not None else None
        if found is not None:
            return *found, loss_buffers
        f, phi = outputs.detach().requires_grad_(), leaves(phi)
        with self.learned_pass(phi, loss_buffers, f, targets) as (loss, after):
            (df,) = torch.autograd.grad(loss, f, create_graph=True, materialize_grads=True)

        def along(u: Tensor) -> dict[str, Tensor]:
            # Not all of phi need be used: a bias of the last layer does not change the gradient of M_phi.
            with self.loss_placed(phi, loss_buffers):
                return _grads(df, phi, u)

        return loss.detach(), df.detach(), along, {name: value.detach() for name, value in after.items()}

    @contextlib.contextmanager
    def placed(self, theta: Params, buffers: Params) -> Iterator[None]:
        """Theta and copies of buffers replace the module's own.

        A module may recompute activations in its backward pass (`torch.utils.checkpoint`), from the tensors that are in it
        then: wherever the graph of a pass is traversed, the tensors of that pass must be in the module.
        """
        with self._f.placed({**theta, **_copies(buffers)}):
            yield

    def loss_placed(self, phi: Params, loss_buffers: Params) -> contextlib.AbstractContextManager[None]:
        """The same for the learnable."""
        return self._m.placed({**phi, **_copies(loss_buffers)})

    @contextlib.contextmanager
    def learned_pass(
        self, phi: Params, loss_buffers: Params, outputs: Tensor, targets: Any, theta: Params | None = None
    ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """The loss that theta is trained on, and the learnable's buffers after it; compute its gradients inside.

        Args:
            phi: Parameters of the learnable.
            loss_buffers: Its buffers.
            outputs: Outputs of the base learner.
            targets: Targets of the batch.
            theta: Parameters for the learnable's penalty; None: without it.
        """
        with self.loss_placed(phi, loss_buffers):
            loss: Tensor = self._m.module(outputs, targets) if self.hooks.loss else self.base_loss(outputs, targets)
            after = self._m.buffers()
            if self.hooks.penalty and theta is not None:
                loss = loss + self._penalty(theta)
            with self._m.placed(_copies(loss_buffers)):
                yield loss, after

    def _penalty(self, theta: Params) -> Tensor:
        found: Tensor = self._m.module.penalty(theta)  # type: ignore[operator]
        return found

    def penalty_gradient(
        self, phi: Params, loss_buffers: Params, theta: Params, *, create_graph: bool = False
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """R_phi(theta), detached, and its gradient in the parameters that it reads; `theta` must be leaves."""
        with self.loss_placed(phi, loss_buffers):
            value = self._penalty(theta)
            found = torch.autograd.grad(value, list(theta.values()), create_graph=create_graph, allow_unused=True)
        return value.detach(), with_gradient(theta, found)

    def starting(self, phi: Params, loss_buffers: Params, theta: Params) -> dict[str, Tensor]:
        """theta_0 by the learnable's `start`, from a base learner's initial weights."""
        if not self.hooks.start:
            return dict(theta)
        with self.loss_placed(phi, loss_buffers):
            found: Params = self._m.module.start(theta)  # type: ignore[operator]
        if list(found) != list(theta) or any(found[name].shape != value.shape for name, value in theta.items()):
            raise SpecError(
                "learnable", "start must give the names and shapes of theta that it was given, in their order"
            )
        return dict(found)

    def update(
        self, phi: Params, loss_buffers: Params, theta: Params, g: dict[str, Tensor], state: Params, lr: float | Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """theta' and the optimizer's state after a step: by the optimizer, or by the learnable's `update`."""
        if not self.hooks.update:
            return self.optimizer.update(theta, g, state, lr)
        with self.loss_placed(phi, loss_buffers):
            found: tuple[dict[str, Tensor], dict[str, Tensor]] = self._m.module.update(  # type: ignore[operator]
                self.optimizer, theta, g, state, lr
            )
        return found

    @contextlib.contextmanager
    def train_pass(
        self,
        theta: Params,
        buffers: Params,
        x: Any,
        kernels: contextlib.AbstractContextManager[object] | None = None,
    ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """f_theta(x) in train mode, and the buffers after it; compute its gradients inside, as explained in `placed`.

        Args:
            theta: Parameters.
            buffers: Buffers before the pass.
            x: Inputs, one tensor or a tree of tensors, which is the module's only argument, or all its arguments (`unpack`).
            kernels: Context that is entered only around the forward pass.
        """
        with self._f.placed({**theta, **_copies(buffers)}):
            with kernels or contextlib.nullcontext(), autocast(self.precision, self.device):
                outputs = self._outputs(x)
            live = self._f.buffers()
            with self._f.placed(_copies(buffers)):
                yield self._typed(outputs, theta, x), live

    @contextlib.contextmanager
    def quiet_pass(self, theta: Params, buffers: Params, x: Any) -> Iterator[Tensor]:
        """Like `train_pass`, with the batch's own statistics; buffers do not change."""
        with self._f.quiet(), self.train_pass(theta, buffers, x) as (outputs, _):
            yield outputs

    @contextlib.contextmanager
    def loss_pass(
        self, theta: Params, buffers: Params, phi: Params, loss_buffers: Params, batch: Batch
    ) -> Iterator[Tensor]:
        """The loss that theta is trained on after a quiet pass; compute its gradients inside."""
        x, y = batch
        with (
            self.quiet_pass(theta, buffers, x) as outputs,
            self.learned_pass(phi, loss_buffers, outputs, y, theta) as (loss, _),
        ):
            yield loss

    def base_loss_of(self, batch: Batch) -> Tensor:
        """What a base step at the module's own theta computes; nothing is updated."""
        theta = self.theta()
        with (
            self.train_pass(theta, self.buffers(), batch[0]) as (outputs, _),
            self.learned_pass({}, self.loss_buffers(), outputs, batch[1], theta) as (loss, _),
        ):
            return loss

    def train_forward(self, theta: Params, buffers: Params, x: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """A `train_pass` without gradients."""
        with self.train_pass(theta, buffers, x) as found:
            return found

    def quiet_forward(self, theta: Params, buffers: Params, x: Any) -> Tensor:
        """A `quiet_pass` without gradients in backward mode."""
        with self.quiet_pass(theta, buffers, x) as outputs:
            return outputs

    @torch.no_grad()
    def predict(self, theta: Params, buffers: Params, x: Tensor, chunk: int = 2048) -> Tensor:
        """f_theta(x) in evaluation mode, without gradients, in chunks of examples."""
        tensors = {**theta, **buffers}
        self.module.eval()
        try:
            with autocast(self.precision, x.device):
                parts = [self._typed(self._predicted(tensors, part), theta, part) for part in x.split(chunk)]
        finally:
            self.module.train()
        return torch.cat(parts)

    def _predicted(self, tensors: Params, x: Tensor) -> Any:
        with self._f.placed(tensors):
            return self._outputs(x)

    def _outputs(self, x: Any) -> Any:
        """The selected part of what the module returns for x."""
        if not self.unpack:
            found = self.module(x)
        elif isinstance(x, Mapping):
            found = self.module(**x)
        elif isinstance(x, (tuple, list)):
            found = self.module(*x)
        else:
            raise SpecError(
                "unpack", f"is True, but the inputs are a {type(x).__name__}, not a dict, tuple or list; leave it out"
            )
        return found if self.select is None else self.select(found)

    def _typed(self, outputs: Tensor, theta: Params, x: Any) -> Tensor:
        """Outputs as the module returns them; with autocast in the inputs' dtype (for integers: in theta's)."""
        if not isinstance(outputs, Tensor):
            raise SpecError(
                "module" if self.select is None else "select",
                f"returns a {type(outputs).__name__}, but must return one tensor, the outputs; "
                "select=... takes it from what a module returns, such as lambda returned: returned.logits",
            )
        if self.precision != "bf16":
            return outputs
        kinds = [value.dtype for value in (*tensors(x), *theta.values())]
        return outputs.to(next((kind for kind in kinds if kind.is_floating_point), outputs.dtype))

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """Passes inside do not change random states and the modules' attributes."""
        with random_kept(self.device), attributes_kept(self.module, self.learned, self.task_loss, self.base_loss):
            yield

    def look_again(self) -> None:
        """Look up the modules' tensors again, after submodules changed."""
        for cached in ("_f", "_m", "hooks"):
            vars(self).pop(cached, None)

    def few(self, batch: Batch) -> Batch:
        """Two examples of a batch for a trial step; the full batch if the module or a loss needs its size."""
        try:
            few = first_examples(batch, 2)
            with self.unchanged(), torch.no_grad():
                outputs, _ = self.train_forward(self.theta(), self.buffers(), few[0])
                self.task_loss(outputs, few[1])
                with self.learned_pass({}, self.loss_buffers(), outputs, few[1]):
                    pass
        except Exception:  # a user's module may raise anything; the full batch shows why
            return batch
        return few

    def random_state(self) -> RandomStates | None:
        """The random states before a forward pass; None if a pass draws nothing."""
        return random_states(self.device, python=self.draws_python) if self.draws_random else None

    @contextlib.contextmanager
    def replay(self, states: RandomStates | None) -> Iterator[None]:
        """Passes inside repeat the draws that followed `states`; the random states are restored afterwards."""
        now = self.random_state() if states is not None else None
        try:
            if states is not None:
                set_random_states(states, self.device)
            yield
        finally:
            if now is not None:
                set_random_states(now, self.device)


def leaves(tensors: Params) -> dict[str, Tensor]:
    """The same values as leaves of a new graph."""
    return {name: value.detach().requires_grad_() for name, value in tensors.items()}


def _copies(buffers: Params) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in buffers.items()}


def _grads(value: Tensor, of: Params, seed: Tensor) -> dict[str, Tensor]:
    if not value.requires_grad:
        return {name: torch.zeros_like(tensor) for name, tensor in of.items()}
    return dict(zip(of, torch.autograd.grad(value, list(of.values()), seed, materialize_grads=True), strict=True))
