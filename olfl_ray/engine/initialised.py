"""Algorithm 1 in one call: a learned loss is initialised on base learners that are new each round."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from olfl_ray.engine.algorithm1 import Algorithm1
from olfl_ray.engine.arguments import check_batch, check_count, check_name, check_parts, check_rate, check_state
from olfl_ray.engine.arithmetic import Precision, arithmetic
from olfl_ray.engine.batches import Batch
from olfl_ray.engine.estimators.choice import Memory, choose_estimator
from olfl_ray.engine.estimators.probing import probe
from olfl_ray.engine.followed import Followed
from olfl_ray.engine.given import Select, TaskLoss, check_choice, knows_draws, optimizer_of, problem_of, tensors_of
from olfl_ray.engine.graphed import copy_state
from olfl_ray.engine.optimizers import Optimizer, Sgd
from olfl_ray.engine.randomness import RandomState, fresh_random
from olfl_ray.engine.state import LearnerState
from olfl_ray.engine.steps import Metrics, meta_optimizer
from olfl_ray.errors import SpecError
from olfl_ray.seeds import seed_of

__all__ = ["Initialised", "initialise"]

Batches = Callable[[int], Batch] | Iterable[Batch]
"""A function of the batch's number; a list, used in turn; one batch, a tuple; or a data loader."""


@dataclass(frozen=True, kw_only=True)
class Initialised:
    """What Algorithm 1 leaves.

    Args:
        learned_loss: M_phi with the learned phi: the module that was given.
        task_loss: L_T.
        losses: L_T after the unrolled steps, of each round.
        state: All that the next round needs, as a dict of tensors and numbers, which `torch.save` keeps.
        select: As of `initialise`.
        unpack: As of `initialise`.
    """

    learned_loss: nn.Module
    task_loss: TaskLoss
    losses: tuple[float, ...]
    state: Mapping[str, Any]
    select: Select | None = None
    unpack: bool = False

    @property
    def steps(self) -> int:
        """Rounds done."""
        return len(self.losses)

    def __repr__(self) -> str:
        last = f", task loss {self.losses[-1]:.4g}" if self.losses else ""
        return f"Initialised({self.steps} steps{last})"


def initialise(
    module_factory: Callable[[], nn.Module],
    learned_loss: nn.Module,
    train_batches: Batches,
    meta_batches: Batches,
    *,
    task_loss: TaskLoss,
    lr: float | None = None,
    steps: int = 250,
    inner_steps: int = 1,
    optimizer: Optimizer | Callable[[nn.Module], torch.optim.Optimizer] | None = None,
    eta: float = 1e-3,
    meta: Literal["adam", "sgd"] = "adam",
    meta_clip_norm: float | None = None,
    estimator: str = "auto",
    memory: Memory = "auto",
    precision: Precision | None = None,
    deterministic: bool = False,
    select: Select | None = None,
    unpack: bool = False,
    seed: int = 0,
    state: Mapping[str, Any] | None = None,
    every: int = 25,
    progress: bool | Callable[[Initialised], object] = False,
) -> Initialised:
    """Algorithm 1: `steps` rounds, each with a new base learner, `inner_steps` base steps on M_phi and one update of phi.

    It is the code that a sweep's trials run. The learned loss's parameters are updated in place, every `every` rounds.

    Args:
        module_factory: Called without arguments, once a round; returns the base learner with new initial weights, drawn from
            torch's generator, which has a seed of its own for each round.
        learned_loss: M_phi, called with (outputs, targets), or any other `Learnable`.
        train_batches: What theta moves on. A function of the batch's number; a list, used in turn; one batch, a tuple; or a data
            loader, read again and again.
        meta_batches: What phi moves on, one a round; in the same way.
        task_loss: L_T, called with (outputs, targets).
        lr: Base learning rate alpha; left out with torch's optimizers.
        steps: S_init, rounds in all, those of `state` included.
        inner_steps: S_inner, base steps in a round.
        optimizer: `Sgd` or `Adam` of `olfl_ray.engine`; or a function from the module to its torch optimizer. None: `Sgd()`.
        eta: Meta learning rate.
        meta: Meta-optimizer, on phi.
        meta_clip_norm: Largest norm of the meta-gradient; None: no clipping.
        estimator: As of `OnlineLossLearner`.
        memory: As of `OnlineLossLearner`.
        precision: As of `OnlineLossLearner`.
        deterministic: As of `OnlineLossLearner`.
        select: As of `OnlineLossLearner`.
        unpack: As of `OnlineLossLearner`.
        seed: Of initial weights and of all that is drawn inside; the global random state is not changed.
        state: `Initialised.state` of an earlier call with the same settings: it resumes there, to the same bits. The batches must
            be a function, a list or a tuple then; a data loader can't be read from its middle.
        every: Rounds between two records.
        progress: True prints a line at each record; a function is called with the current result at each.

    Returns:
        The learned loss with its phi; `OnlineLossLearner.from_initialised` continues with Algorithm 2.

    Raises:
        SpecError: An argument is not what rounds can be run with; or L_T is not finite, where phi stays as of the last record.
    """
    check_choice(estimator, memory)
    check_name("meta", meta, ("adam", "sgd"))
    check_rate("eta", eta)
    for field, count in (("steps", steps), ("inner_steps", inner_steps), ("every", every)):
        check_count(field, count)
    if meta_clip_norm is not None:
        check_rate("meta_clip_norm", meta_clip_norm, positive=True)
    if precision is not None:
        check_name("precision", precision, get_args(Precision))
    train, outer = _Numbered("train_batches", train_batches), _Numbered("meta_batches", meta_batches)
    module = _new(module_factory, seed_of(seed, "weights"))
    check_parts(module, learned_loss, task_loss)
    device = next(module.parameters()).device
    given = optimizer if isinstance(optimizer, Optimizer) else optimizer(module) if optimizer is not None else Sgd()
    pure, rate = optimizer_of(module, given, lr)
    pure = pure.now() if isinstance(pure, Followed) else pure
    settings = {
        "lr": rate(),
        "inner_steps": inner_steps,
        "optimizer": repr(pure),
        "eta": eta,
        "meta": meta,
        "meta_clip_norm": meta_clip_norm,
        "estimator": estimator,
        "memory": memory,
        "precision": precision,
        "deterministic": deterministic,
        "seed": seed,
    }
    problem = problem_of(
        module, pure, learned_loss, task_loss, precision=precision or "float32", select=select, unpack=unpack
    )
    theta, buffers, phi = tensors_of(module, learned_loss)
    outer_optimizer = meta_optimizer(meta)
    live = LearnerState(
        theta=theta,
        buffers=buffers,
        opt_state=pure.init(theta),
        phi=phi,
        meta_state=outer_optimizer.init(phi),
        loss_buffers=problem.loss_buffers(copied=False),
    )
    losses: list[float] = []
    rng = fresh_random(seed_of(seed, "dropout"), device)
    if state is not None:
        losses, rng = _resumed(state, settings, live, (train, outer))
        if len(losses) > steps:
            raise SpecError("steps", f"is {steps}, but the state has {len(losses)} already; set as many or more")
    way: Callable[[], AbstractContextManager[None]] = nullcontext
    if precision is not None or deterministic:
        way = partial(arithmetic, precision or "float32", deterministic=deterministic)

    def found() -> Initialised:
        return Initialised(
            learned_loss=learned_loss,
            task_loss=task_loss,
            losses=tuple(losses),
            state=_state(settings, live, rng, losses),
            select=select,
            unpack=unpack,
        )

    if len(losses) == steps:
        return found()
    with RandomState(rng, device) as random, way():
        first = train(len(losses) * inner_steps)
        last = outer(len(losses))
        check_batch("train_batches", first, module)
        check_batch("meta_batches", last, module)
        probe(problem, first, last)
        draws = knows_draws(problem, first, replayed=False)
        problem = replace(problem, draws_random=draws[0], draws_python=draws[1])
        chosen = choose_estimator(estimator, memory, inner_steps, problem, first)
    shapes = [(name, value.shape) for name, value in theta.items()]

    def fresh(index: int) -> nn.Module:
        new = _new(module_factory, seed_of(seed, "reset", index))
        if [(name, value.shape) for name, value in new.named_parameters() if value.requires_grad] != shapes:
            raise SpecError(
                "module_factory", f"returns other parameters in round {index} than before; build the same module"
            )
        return new

    def batches(index: int) -> tuple[list[Batch], Batch]:
        numbers = range(index * inner_steps, (index + 1) * inner_steps)
        return [train(number) for number in numbers], outer(index)

    rounds = Algorithm1(
        problem,
        fresh=fresh,
        batches=batches,
        lr=rate(),
        eta=eta,
        estimator=chosen,
        meta_optimizer=outer_optimizer,
        clip_norm=meta_clip_norm,
    )
    current = live

    def advance(inputs: Sequence[Tensor]) -> Metrics:
        nonlocal current
        current, measured = rounds.step(current, inputs)
        return measured

    while len(losses) < steps:
        start, end = len(losses), min((len(losses) // every + 1) * every, steps)
        with RandomState(rng, device) as random, way():
            values = torch.stack(rounds.rounds(start, end, advance)).tolist()
        if not all(map(math.isfinite, values)):
            raise SpecError(
                "eta",
                f"is {eta}, with which L_T was {values[-1]} by round {end}; lower eta or lr, or set meta_clip_norm",
            )
        rng = random.after
        losses.extend(values)
        copy_state(replace(current, theta=theta, buffers=buffers), replace(live, opt_state=current.opt_state))
        if callable(progress):
            progress(found())
        elif progress:
            print(f"initialise: round {end} of {steps}, task loss {values[-1]:.4g}", file=sys.stderr, flush=True)
    return found()


def _new(module_factory: Callable[[], nn.Module], seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        module = module_factory()
    if not isinstance(module, nn.Module):
        raise SpecError("module_factory", f"returns a {type(module).__name__}, but must return an nn.Module")
    return module.train()


def _state(settings: Mapping[str, Any], live: LearnerState, rng: Tensor, losses: Sequence[float]) -> dict[str, Any]:
    parts = {"phi": live.phi, "meta_optimizer": live.meta_state, "loss_buffers": live.loss_buffers}
    copies = {part: {name: value.clone() for name, value in own.items()} for part, own in parts.items()}
    return {"settings": dict(settings), **copies, "random": rng.clone(), "losses": list(losses)}


def _resumed(
    state: Mapping[str, Any], settings: Mapping[str, Any], live: LearnerState, batches: Iterable[_Numbered]
) -> tuple[list[float], Tensor]:
    """Copy a state into the learner's tensors; its losses and its random state."""
    parts = {"phi": live.phi, "meta_optimizer": live.meta_state, "loss_buffers": live.loss_buffers}
    if not isinstance(state, Mapping) or state.keys() != {"settings", *parts, "random", "losses"}:
        raise SpecError("state", "must be the state of what initialise returned; give Initialised.state")
    for field, value in settings.items():
        before = state["settings"].get(field)
        if before != value:
            raise SpecError(
                field, f"is {value!r}, but the state was made with {before!r}; use that, or start without a state"
            )
    for field, own in parts.items():
        check_state(field, state[field], own)
    for one in batches:
        one.check_resumes()
    given = replace(
        live, phi=dict(state["phi"]), meta_state=dict(state["meta_optimizer"]), loss_buffers=dict(state["loss_buffers"])
    )
    copy_state(given, live)
    return list(state["losses"]), state["random"]


class _Numbered:
    """Batches by their number, each asked for in order."""

    def __init__(self, field: str, given: Any) -> None:
        self._field, self._given = field, given
        self._stream: Iterator[tuple[int, Batch]] | None = None
        self._last: tuple[int, Batch] | None = None
        if isinstance(given, list) and not given:
            raise SpecError(field, "is empty, but must have a batch (inputs, targets)")
        if not (callable(given) or isinstance(given, Iterable)):
            raise SpecError(
                field,
                f"is a {type(given).__name__}, but must be a function of a batch's number, a list of batches, one batch as a "
                "tuple (inputs, targets), or a data loader",
            )

    def __call__(self, number: int) -> Batch:
        given = self._given
        if isinstance(given, tuple):
            return given
        if isinstance(given, list):
            return self._pair(given[number % len(given)])
        if callable(given):
            return self._pair(given(number))
        if self._last is not None and self._last[0] == number:
            return self._last[1]
        self._stream = self._stream or enumerate(self._again())
        self._last = next(self._stream)
        assert self._last[0] == number
        return self._last[1]

    def check_resumes(self) -> None:
        """Whether a batch can be had without those before it."""
        if not (callable(self._given) or isinstance(self._given, (list, tuple))):
            raise SpecError(
                self._field,
                f"is a {type(self._given).__name__}, which can't be read from its middle, so a state can't be resumed with it; "
                "give a function of the batch's number, or a list",
            )

    def _again(self) -> Iterator[Batch]:
        for turn in itertools.count():
            count = 0
            for batch in self._given:
                count += 1
                yield self._pair(batch)
            if not count:
                raise SpecError(
                    self._field, f"has no batch in turn {turn + 1}; give what can be read again, or enough batches"
                )

    def _pair(self, batch: Any) -> Batch:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise SpecError(self._field, f"gives a {type(batch).__name__}, but must give pairs (inputs, targets)")
        return batch[0], batch[1]
