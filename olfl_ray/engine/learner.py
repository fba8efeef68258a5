"""Algorithm 2 in your own training loop: `OnlineLossLearner`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from olfl_ray.engine.arguments import check_batch, check_batches, check_name, check_parts, check_rate
from olfl_ray.engine.arithmetic import Precision, arithmetic
from olfl_ray.engine.batches import Batch, joined, parted
from olfl_ray.engine.estimators.choice import Memory, choose_estimator
from olfl_ray.engine.estimators.probing import probe
from olfl_ray.engine.followed import Followed
from olfl_ray.engine.given import (
    Select,
    TaskLoss,
    check_choice,
    check_in_place,
    check_trained,
    knows_draws,
    optimizer_of,
    problem_of,
    tensors_of,
)
from olfl_ray.engine.graphed import Graphed
from olfl_ray.engine.initialised import Initialised
from olfl_ray.engine.kept import load_state, state_of
from olfl_ray.engine.optimizers import Optimizer
from olfl_ray.engine.state import Estimator, LearnerState
from olfl_ray.engine.steps import Metrics, accumulated_step, meta_optimizer, online_step
from olfl_ray.errors import SpecError

__all__ = ["OnlineLossLearner"]


class OnlineLossLearner:
    """Algorithm 2 around any module: each step moves the module on the learned loss, then the learned loss itself.

    The module's parameters and buffers and the learned loss's parameters are updated in place; the optimizers' states
    are kept in here.

    Args:
        module: Base learner f, in train mode; parts of it may be in eval mode (a frozen batch norm) and stay so.
        optimizer: `Sgd` or `Adam` of `olfl_ray.engine` with `lr`; their `clip_norm` is the largest global norm of the base
            gradient, and the meta-gradient goes through the clipping. Or a `torch.optim.SGD`, `Adam` or `AdamW` over the module's
            trainable parameters. The latter is never stepped: its settings are read at each step, so that torch's
            schedulers work; in a graph only the learning rate may change.
        learned_loss: M_phi, called with (outputs, targets), which gives a scalar; or any other `Learnable`. Its `start` takes no
            part in a step: training has begun.
        task_loss: L_T, called with (outputs, targets); gives a scalar.
        lr: Base learning rate alpha; only with this package's own optimizers.
        clip_norm: Largest global norm of the base gradient, only with torch's optimizers; None: no clipping.
        eta: Meta learning rate.
        meta: Meta-optimizer, on phi.
        meta_clip_norm: Largest norm of the meta-gradient; None: no clipping.
        estimator: auto, exact, reverse, or finite_difference.
        memory: Of exact: low, fast or auto.
        graph: On a GPU, capture the step as a CUDA graph, which small networks gain most from. Batches keep their shape
            then, the module's and the loss's tensors their place, and what the host draws (layers dropped by Python's
            `random`, say) is drawn once, for all steps.
        precision: float32, tf32 or bf16, as of `learner.precision`; None: products are rounded as torch's own flags say.
        deterministic: On a GPU, only deterministic kernels; in float32 where no precision is given.
        select: From what the module returns to its outputs, one tensor: `lambda returned: returned.logits`, say.
        unpack: Call the module with the inputs as its arguments, of a dict by keyword, of a tuple or list by position; else the
            inputs, whatever tree they are, are its one argument.

    Attributes:
        eta: Meta learning rate, read at each step.
        steps: Steps taken, by the learner that saved a state and by this one.

    Raises:
        SpecError: An optimizer or an option without a counterpart here; parameters that are not the module's; a name that
            is not known; nothing to train.
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: Optimizer | torch.optim.Optimizer,
        learned_loss: nn.Module,
        task_loss: TaskLoss,
        *,
        lr: float | None = None,
        clip_norm: float | None = None,
        eta: float = 1e-5,
        meta: Literal["adam", "sgd"] = "adam",
        meta_clip_norm: float | None = None,
        estimator: str = "auto",
        memory: Memory = "auto",
        graph: bool = False,
        precision: Precision | None = None,
        deterministic: bool = False,
        select: Select | None = None,
        unpack: bool = False,
    ) -> None:
        check_choice(estimator, memory)
        check_name("meta", meta, ("adam", "sgd"))
        if precision is not None:
            check_name("precision", precision, get_args(Precision))
        check_rate("eta", eta)
        if meta_clip_norm is not None:
            check_rate("meta_clip_norm", meta_clip_norm, positive=True)
        check_parts(module, learned_loss, task_loss)
        self._optimizer, self._lr = optimizer_of(module, optimizer, lr, clip_norm)
        self._problem = problem_of(
            module,
            self._optimizer,
            learned_loss,
            task_loss,
            precision=precision or "float32",
            select=select,
            unpack=unpack,
        )
        self._arithmetic: Callable[[], AbstractContextManager[None]] = nullcontext
        if precision is not None or deterministic:
            self._arithmetic = partial(arithmetic, precision or "float32", deterministic=deterministic)
        self._meta_optimizer, self._meta_clip_norm, self.eta = meta_optimizer(meta), meta_clip_norm, eta
        self._learned, self._graph = learned_loss, graph
        self._choice: tuple[str, Memory] = (estimator, memory)
        self.steps = 0
        self._estimators: dict[bool, Estimator] = {}  # of a step that accumulates, or not
        self._captured: Optimizer | None = None
        self._form: Any = None  # of the batches, which a graph is captured with
        theta, buffers, phi = tensors_of(module, learned_loss)
        device = next(iter(theta.values())).device
        if graph and device.type != "cuda":
            raise SpecError(
                "graph", f"is True, but the module is on {device}; leave it out, or move the module to a GPU"
            )
        self._graphed = Graphed(
            self._once,
            LearnerState(
                theta=theta,
                buffers=buffers,
                opt_state=self._optimizer.init(theta),
                phi=phi,
                meta_state=self._meta_optimizer.init(phi),
                loss_buffers=dict(learned_loss.named_buffers()),
            ),
            capture=graph,
        )

    @classmethod
    def from_initialised(
        cls, initialised: Initialised, module: nn.Module, optimizer: Optimizer | torch.optim.Optimizer, **settings: Any
    ) -> OnlineLossLearner:
        """Algorithm 2 after Algorithm 1: a learner on the learned loss, task loss and calls of `initialise`.

        A learnable's `start` sets the module's parameters here, as training starts.

        Args:
            initialised: What `initialise` returned.
            module: Base learner; a new one, as `initialise` learned on.
            optimizer: As of this class.
            settings: Its other arguments; `select` and `unpack` are those of `initialise` where they are left out.
        """
        same = {"select": initialised.select, "unpack": initialised.unpack, **settings}
        found = cls(module, optimizer, initialised.learned_loss, initialised.task_loss, **same)
        problem, state = found._problem, found._graphed.state
        with torch.no_grad():
            begun = problem.starting(state.phi, problem.loss_buffers(), state.theta)
            for name, value in state.theta.items():
                value.copy_(begun[name].clone())
        return found

    def step(self, train_batch: Batch, meta_batch: Batch) -> Metrics:
        """One step of Algorithm 2.

        Args:
            train_batch: Inputs and targets that theta moves on, each a tensor or a tree of tensors.
            meta_batch: Inputs and targets that phi moves on.

        Returns:
            Scalars on the device: base_loss, task_loss, meta_loss, grad_norm.

        Raises:
            SpecError: A batch, a rate or the module's mode is not what a step can be taken with; nothing was changed.
        """
        self._check()
        check_batch("train_batch", train_batch, self._problem.module)
        check_batch("meta_batch", meta_batch, self._problem.module)
        with self._arithmetic():
            return self._step(train_batch, meta_batch, [train_batch], [meta_batch], accumulates=False)

    def step_accumulated(self, train_batches: Sequence[Batch], meta_batches: Sequence[Batch]) -> Metrics:
        """One step of Algorithm 2 on micro-batches: theta moves on their mean gradient, phi on the mean of L_T.

        The meta-gradient is exact: that of the step that is taken (`engine/estimators/accumulated.py`). Batches have equal weight,
        whatever their size, as in a loop that divides each loss by their number. Without batch norm, and with micro-batches of one
        size, the step is that of one large batch.

        Args:
            train_batches: A list of micro-batches, each inputs and targets.
            meta_batches: Another; their numbers may differ.

        Raises:
            SpecError: As `step`; or the estimator is finite_difference, which has no such step.
        """
        self._check()
        check_batches("train_batches", train_batches, self._problem.module)
        check_batches("meta_batches", meta_batches, self._problem.module)
        train, meta = list(train_batches), list(meta_batches)
        with self._arithmetic():
            return self._step(train, meta, train, meta, accumulates=True)

    def _check(self) -> None:
        if not self._problem.module.training:
            raise SpecError(
                "module",
                "is in eval mode; call its train() before a step (parts of it may stay in eval mode, as frozen)",
            )
        check_rate("eta", self.eta)

    def _step(
        self, train: Any, meta: Any, trains: Sequence[Batch], metas: Sequence[Batch], *, accumulates: bool
    ) -> Metrics:
        problem, graphed = self._problem, self._graphed
        if accumulates not in self._estimators:
            probe(problem, trains[0], metas[0])
            random, python = knows_draws(problem, trains[0], replayed=self._graph and not accumulates)
            if self._estimators:  # the problem is that of both kinds of step
                random, python = random or problem.draws_random, python or problem.draws_python
            problem = self._problem = replace(problem, draws_random=random, draws_python=python)
            self._estimators[accumulates] = choose_estimator(
                *self._choice, 1, problem, trains[0], accumulates=accumulates
            )
        if isinstance(self._optimizer, Followed):
            self._follow(self._optimizer)
        if graphed.captured:
            check_in_place(problem, graphed.state)
        else:  # a parameter may have been given other data since
            theta, buffers, phi = tensors_of(problem.module, self._learned)
            check_trained("module", graphed.state.theta, theta, graphed.state.opt_state)
            check_trained("learned_loss", graphed.state.phi, phi, graphed.state.meta_state)
            of_loss = problem.loss_buffers(copied=False)
            graphed.state = replace(graphed.state, theta=theta, buffers=buffers, phi=phi, loss_buffers=of_loss)
        metrics = self._moved(train, meta, accumulates)
        self.steps += 1
        return metrics

    def _moved(self, train: Any, meta: Any, accumulates: bool) -> Metrics:
        graphed = self._graphed
        values, form = parted((train, meta))
        form = accumulates, form
        inputs: list[Tensor | float] = [*values, self._lr(), self.eta]
        if not accumulates and (not graphed.captured or form == self._form):
            self._form = form
            return graphed(inputs)
        captured, self._form = self._form, form
        try:
            return graphed.uncaptured(inputs)
        finally:
            self._form = captured

    def _follow(self, optimizer: Followed) -> None:
        now = optimizer.now()
        if self._graphed.captured and now != self._captured:
            raise SpecError("graph", f"has captured {self._captured}, but the optimizer is {now} now; use graph=False")
        self._captured = now
        optimizer.stepped()

    def _once(self, state: LearnerState, inputs: Sequence[Any]) -> tuple[LearnerState, Metrics]:
        *values, lr, eta = inputs
        accumulates, form = self._form
        train, meta = joined(values, form)
        step: Callable[..., tuple[LearnerState, Metrics]] = accumulated_step if accumulates else online_step
        return step(
            self._problem,
            state,
            train,
            meta,
            lr=lr,
            eta=eta,
            estimator=self._estimators[accumulates],
            meta_optimizer=self._meta_optimizer,
            clip_norm=self._meta_clip_norm,
        )

    def state_dict(self, *, modules: bool = True) -> dict[str, Any]:
        """All that training needs to resume but random states, schedulers and data loaders, which have states of their own.

        Args:
            modules: Whether the module's and the learned loss's tensors are part of it; False where they are saved elsewhere.

        Returns:
            steps, eta, the optimizers' states and a torch optimizer's settings (its learning rate), and the modules' state_dicts.
        """
        state = self._graphed.state
        return state_of(self._problem, state, self._optimizer, steps=self.steps, eta=self.eta, modules=modules)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a `state_dict` of a learner with the same optimizers and parameters; all of it is checked first.

        Raises:
            SpecError: It has other parts, tensors, shapes or types; nothing was copied then.
        """
        self.steps, self.eta = load_state(self._problem, self._graphed.state, self._optimizer, state)
