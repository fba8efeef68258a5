"""The engine in your own training loop: `OnlineLossLearner`, and `meta_gradient` as a pure function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from olfl_ray.engine.arguments import check_batch, check_name, check_parts, check_rate, check_state, each_batch
from olfl_ray.engine.arithmetic import Precision, arithmetic
from olfl_ray.engine.attributes import attributes_kept
from olfl_ray.engine.batches import Batch, joined, parted
from olfl_ray.engine.drawing import drawn
from olfl_ray.engine.estimators.choice import EstimatorName, Memory, choose_estimator
from olfl_ray.engine.estimators.probing import probe
from olfl_ray.engine.followed import Followed
from olfl_ray.engine.graphed import Graphed, copy_state
from olfl_ray.engine.optimizers import Optimizer
from olfl_ray.engine.problem import Problem
from olfl_ray.engine.state import Estimator, LearnerState, StepResult
from olfl_ray.engine.steps import Metrics, meta_optimizer, online_step
from olfl_ray.errors import SpecError
from olfl_ray.learnable import Params

__all__ = ["OnlineLossLearner", "meta_gradient"]

TaskLoss = Callable[[Tensor, Tensor], Tensor]


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
        eta: float = 1e-5,
        meta: Literal["adam", "sgd"] = "adam",
        meta_clip_norm: float | None = None,
        estimator: EstimatorName = "auto",
        memory: Memory = "auto",
        graph: bool = False,
        precision: Precision | None = None,
        deterministic: bool = False,
    ) -> None:
        _check_choice(estimator, memory)
        check_name("meta", meta, ("adam", "sgd"))
        if precision is not None:
            check_name("precision", precision, get_args(Precision))
        check_rate("eta", eta)
        if meta_clip_norm is not None:
            check_rate("meta_clip_norm", meta_clip_norm, positive=True)
        check_parts(module, learned_loss, task_loss)
        self._optimizer, self._lr = _optimizer(module, optimizer, lr)
        self._problem = _problem(module, self._optimizer, learned_loss, task_loss, precision or "float32")
        self._arithmetic: Callable[[], AbstractContextManager[None]] = nullcontext
        if precision is not None or deterministic:
            self._arithmetic = partial(arithmetic, precision or "float32", deterministic=deterministic)
        self._meta_optimizer, self._meta_clip_norm, self.eta = meta_optimizer(meta), meta_clip_norm, eta
        self._learned, self._graph = learned_loss, graph
        self._choice: tuple[EstimatorName, Memory] = (estimator, memory)
        self._estimator: Estimator | None = None
        self._captured: Optimizer | None = None
        self._form: Any = None  # of the batches, which a graph is captured with
        theta, buffers, phi = _tensors(module, learned_loss)
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
        module = self._problem.module
        if not module.training:
            raise SpecError(
                "module",
                "is in eval mode; call its train() before a step (parts of it may stay in eval mode, as frozen)",
            )
        check_rate("eta", self.eta)
        check_batch("train_batch", train_batch, module)
        check_batch("meta_batch", meta_batch, module)
        with self._arithmetic():
            return self._step(train_batch, meta_batch)

    def _step(self, train_batch: Batch, meta_batch: Batch) -> Metrics:
        problem, graphed = self._problem, self._graphed
        if self._estimator is None:
            probe(problem, train_batch, meta_batch)
            problem = self._problem = _knows_draws(problem, train_batch, replayed=self._graph)
            self._estimator = choose_estimator(*self._choice, 1, problem, train_batch)
        if isinstance(self._optimizer, Followed):
            self._follow(self._optimizer)
        if graphed.captured:
            check_in_place(problem, graphed.state)
        else:  # a parameter may have been given other data since
            theta, buffers, phi = _tensors(problem.module, self._learned)
            _check_trained("module", graphed.state.theta, theta, graphed.state.opt_state)
            _check_trained("learned_loss", graphed.state.phi, phi, graphed.state.meta_state)
            of_loss = problem.loss_buffers(copied=False)
            graphed.state = replace(graphed.state, theta=theta, buffers=buffers, phi=phi, loss_buffers=of_loss)
        values, form = parted((train_batch, meta_batch))
        if not graphed.captured or form == self._form:
            self._form = form
            return graphed((*values, self._lr(), self.eta))
        captured, self._form = self._form, form
        try:
            return graphed.uncaptured((*values, self._lr(), self.eta))
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
        train, meta = joined(values, self._form)
        assert self._estimator is not None
        return online_step(
            self._problem,
            state,
            train,
            meta,
            lr=lr,
            eta=eta,
            estimator=self._estimator,
            meta_optimizer=self._meta_optimizer,
            clip_norm=self._meta_clip_norm,
        )

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """The optimizers' states; the module and the learned loss have state_dicts of their own."""
        state = self._graphed.state
        parts = {"optimizer": state.opt_state, "meta_optimizer": state.meta_state}
        return {part: {name: value.clone() for name, value in tensors.items()} for part, tensors in parts.items()}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Resume from a `state_dict` of a learner with the same optimizers and parameters; all of it is checked first.

        Raises:
            SpecError: It has other tensors, shapes or types; nothing was copied then.
        """
        own = self._graphed.state
        parts = {"optimizer": own.opt_state, "meta_optimizer": own.meta_state}
        if not isinstance(state, Mapping) or state.keys() != parts.keys():
            raise SpecError("state", f"must be a learner's state_dict, which holds {' and '.join(parts)}")
        for part, mine in parts.items():
            check_state(part, state[part], mine)
        given = replace(own, opt_state=dict(state["optimizer"]), meta_state=dict(state["meta_optimizer"]))
        copy_state(given, own)


def meta_gradient(
    module: nn.Module,
    optimizer: Optimizer | torch.optim.Optimizer,
    learned_loss: nn.Module,
    task_loss: TaskLoss,
    train: Batch | list[Batch],
    meta: Batch,
    *,
    lr: float | None = None,
    opt_state: Params | None = None,
    estimator: EstimatorName = "auto",
    memory: Memory = "auto",
    fresh: bool = False,
) -> StepResult:
    """One base step (or several) and the gradient of L_T after it with respect to phi; nothing is changed.

    Args:
        module: Base learner at theta, in train mode.
        optimizer: As of `OnlineLossLearner`.
        learned_loss: M_phi at phi, or any other `Learnable`.
        task_loss: L_T.
        train: One batch, a tuple (inputs, targets), or a list with one batch a base step. Inputs and targets are tensors or
            trees of tensors. A list of two that are not both pairs, as a data loader gives it, is one batch.
        meta: The batch of L_T.
        lr: Base learning rate alpha; only with this package's own optimizers.
        opt_state: State of the base optimizer, as a `StepResult` gives it; None: before the first step.
        estimator: As of `OnlineLossLearner`.
        memory: As of `OnlineLossLearner`.
        fresh: Whether training starts here, so that a learnable's `start` comes before the first step.

    Returns:
        `theta`, `buffers` and `opt_state` after the steps; `phi_grad`; the losses. Random numbers (dropout) are drawn.

    Raises:
        SpecError: As of `OnlineLossLearner`.
    """
    _check_choice(estimator, memory)
    check_parts(module, learned_loss, task_loss)
    pure, rate = _optimizer(module, optimizer, lr)
    problem = _problem(module, pure, learned_loss, task_loss)
    batches = each_batch(train)
    for batch in batches:
        check_batch("train", batch, module)
    check_batch("meta", meta, module)
    theta, buffers, phi = _tensors(module, learned_loss)
    state: Params = pure.init(theta)
    if opt_state is not None:
        check_state("opt_state", opt_state, state)
        state = opt_state
    probe(problem, batches[0], meta)
    chosen = choose_estimator(estimator, memory, len(batches), problem, batches[0])
    with attributes_kept(module, learned_loss, task_loss):
        at = LearnerState(
            theta=theta,
            buffers=buffers,
            opt_state=dict(state),
            phi=phi,
            meta_state={},
            loss_buffers=problem.loss_buffers(),
        )
        return chosen(problem, at, rate(), batches, meta, fresh=fresh)


def _check_choice(estimator: str, memory: str) -> None:
    check_name("estimator", estimator, get_args(EstimatorName))
    check_name("memory", memory, get_args(Memory))


def _check_trained(field: str, before: Params, now: Params, state: Params) -> None:
    """What the optimizer keeps is of the parameters that it began with."""
    if state and before.keys() != now.keys():
        names = ", ".join(sorted(before.keys() ^ now.keys()))
        raise SpecError(field, f"has frozen or unfrozen {names} since the learner was made; make a new learner")


def check_in_place(problem: Problem, state: LearnerState) -> None:
    """A graph writes where the modules' tensors stood when it was captured.

    Raises:
        SpecError: One of them stands elsewhere now.
    """
    for field, moved in problem.moved_from(state.theta, state.buffers, state.phi).items():
        if moved:
            raise SpecError(
                field,
                f"has {', '.join(moved)} in other memory than the captured graph writes to (an assignment to `.data`, "
                "`flatten_parameters` or `to` moves them); make a new learner after such a change, or use graph=False",
            )


def _tensors(module: nn.Module, learned: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """theta, buffers and phi: the modules' own tensors, without their graphs."""
    theta, phi = (
        {name: value.detach() for name, value in part.named_parameters() if value.requires_grad}
        for part in (module, learned)
    )
    return theta, dict(module.named_buffers()), phi


def _problem(
    module: nn.Module,
    optimizer: Optimizer,
    learned: nn.Module,
    task_loss: TaskLoss,
    precision: Precision = "float32",
) -> Problem:
    return Problem(
        module=module,
        learned=learned,
        task_loss=task_loss,
        base_loss=task_loss,
        optimizer=optimizer,
        draws_random=True,
        draws_python=True,
        precision=precision,
    )


def _knows_draws(problem: Problem, batch: Batch, *, replayed: bool) -> Problem:
    """The problem with what a pass on a batch draws.

    A user's loop may raise a dropout rate from 0 during training, so torch's generators count as drawn from, except
    in a graph, where all that the host decides is fixed and a generator that is put back could not be captured.
    """
    few = problem.few(batch)
    with problem.unchanged():
        random, python = drawn(lambda: problem.base_loss_of(few), problem.device)
    return replace(problem, draws_random=random or not replayed, draws_python=python)


def _optimizer(
    module: nn.Module, given: Optimizer | torch.optim.Optimizer, lr: float | None
) -> tuple[Optimizer, Callable[[], float]]:
    """The pure optimizer, and where its learning rate is read."""
    if isinstance(given, Optimizer):
        if lr is None:
            raise SpecError(
                "lr", "is None, but this package's optimizers have no learning rate; set lr, for example lr=0.01"
            )
        check_rate("lr", lr)
        return given, lambda: lr
    if not isinstance(given, torch.optim.Optimizer):
        raise SpecError("optimizer", f"is a {type(given).__name__}, but must be one of this package's or of torch's")
    if lr is not None:
        raise SpecError("lr", f"is {lr}, but a torch optimizer brings its own; leave lr out")
    followed = Followed(given, module)
    return followed, followed.lr
