"""One trial, from its settings (and a state) to an iterator of records; no Ray, no MLflow: the same code everywhere."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from olfl_ray.data import Dataset
from olfl_ray.engine import LearnerState, keep_freed_memory
from olfl_ray.engine.randomness import RandomState, fresh_random
from olfl_ray.methods import method_of
from olfl_ray.records import Record, names
from olfl_ray.spec import TrialConfig, seed_of
from olfl_ray.trial.build import Replicate, arithmetic_of, build_replicate, code_of, load_data
from olfl_ray.trial.environment import TrialEnvironment
from olfl_ray.trial.initial import initial_phi_key, phi_from_bytes, phi_to_bytes
from olfl_ray.trial.measure import evaluate, evaluate_trivial, gradients, learned_now, surfaces, system
from olfl_ray.trial.state import Best, ReplicateState, TrialState
from olfl_ray.trial.stepping import Stepper

__all__ = ["PhiCache", "Progress", "run"]

SURFACE_MOMENTS = (0.0, 0.1, 0.25, 0.5, 1.0)
"""Fractions of training at which the learned loss is recorded on a grid."""


class PhiCache(Protocol):
    """Stores initialized learned losses by the digest of their inputs."""

    def get(self, key: str) -> bytes | None:
        """The bytes stored under a key, or None."""

    def put(self, key: str, value: bytes) -> None:
        """Store bytes, unless the key exists already."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The result of a trial at each record.

    Args:
        records: The measurements; more than one only if an initialized phi was cached.
        state: The state after them, from which `run` resumes.
        report: The evaluation that counts so far (`eval.report`), one value per replicate; empty before the first one.
        outcome: finished or diverged at the last one, else None.
        files: The files of the first replicate's learnable, name -> bytes; empty before it is initialized, and if nothing is
            learned.
    """

    records: tuple[Record, ...]
    state: TrialState
    report: Mapping[str, tuple[float, ...]]
    outcome: Literal["finished", "diverged"] | None
    files: Mapping[str, bytes]


def run(
    config: TrialConfig,
    environment: TrialEnvironment,
    state: TrialState | None = None,
    phi_cache: PhiCache | None = None,
) -> Iterator[Progress]:
    """Run a trial, all replicates in lockstep. From its first step on, the process keeps the memory that it frees.

    Args:
        config: Settings.
        environment: Device and folders.
        state: Resume from here; None: start from the beginning.
        phi_cache: Stores initialized learned losses.

    Yields:
        One `Progress` every `eval.every` steps, of initialization and of training.

    Raises:
        UserError: A name, shape or option is invalid.
    """
    dataset = load_data(config, environment)
    with arithmetic_of(config):
        replicates = [build_replicate(config, environment, dataset, seed) for seed in config.seeds]
    if state is None:
        state = TrialState(
            init_steps=0,
            step=0,
            replicates=tuple(
                ReplicateState(learner=replicate.start, rng=_fresh_rng(replicate)) for replicate in replicates
            ),
        )
    _show(replicates, state)
    keep_freed_memory()
    steppers = [Stepper(config, replicate, in_place=_device(replicate).type == "cuda") for replicate in replicates]
    for progress in _initialise(config, replicates, steppers, state, phi_cache, dataset):
        state = progress.state
        yield progress
        if progress.outcome is not None:
            return
    yield from _train(config, replicates, steppers, state)


def _fresh_rng(replicate: Replicate) -> Tensor:
    return fresh_random(seed_of(replicate.seed, "dropout"), _device(replicate))


def _seen(replicate: Replicate) -> Tensor | None:
    seen = replicate.learnable.seen
    return None if seen is None else seen.cpu().clone()


def _show(replicates: Sequence[Replicate], state: TrialState) -> None:
    """Give each learnable what it had seen when the state was kept."""
    for replicate, own in zip(replicates, state.replicates, strict=True):
        if own.seen is not None:
            replicate.learnable.seen = own.seen.clone()


def _needs_initialisation(config: TrialConfig) -> bool:
    return method_of(config.learner).before and config.loss.from_ is None and config.meta.init_steps > 0


def _initialise(
    config: TrialConfig,
    replicates: list[Replicate],
    steppers: list[Stepper],
    state: TrialState,
    cache: PhiCache | None,
    dataset: Dataset,
) -> Iterator[Progress]:
    """Algorithm 1, for every replicate; a cached phi gives the same records as the computation."""
    total = config.meta.init_steps if _needs_initialisation(config) else 0
    if state.init_steps >= total:
        return
    key = initial_phi_key(config, dataset.fingerprint, code_of(config, dataset.kind))
    if any(replicate.start.loss_buffers for replicate in replicates):
        cache = None  # it stores only phi
    kept = cache.get(key) if cache is not None and state.init_steps == 0 else None
    if kept is not None:
        phis, curve, seen = phi_from_bytes(kept)
        done = tuple(
            replace(
                old,
                learner=_with_phi(replicate, old.learner, {k: v.to(_device(replicate)) for k, v in phi.items()}),
                seen=own,
            )
            for replicate, old, phi, own in zip(replicates, state.replicates, phis, seen, strict=True)
        )
        now = replace(state, init_steps=total, init_curve=curve, replicates=done)
        _show(replicates, now)
        yield _init_progress(now, curve, _files(replicates, now))
        return
    while state.init_steps < total:
        end = min(state.init_steps + config.eval.every, total)
        new, losses = [], []
        for replicate, stepper, old in zip(replicates, steppers, state.replicates, strict=True):
            with RandomState(old.rng, _device(replicate)) as random, arithmetic_of(config):
                learner, loss = stepper.initialise(old.learner, state.init_steps, end)
            new.append(replace(old, learner=learner, rng=random.after, seen=_seen(replicate)))
            losses.append(loss)
        values = tuple(losses)
        if end == total:
            new = [
                replace(old, learner=_with_phi(replicate, old.learner, old.learner.phi))
                for replicate, old in zip(replicates, new, strict=True)
            ]
        state = replace(state, init_steps=end, replicates=tuple(new), init_curve=(*state.init_curve, (end, values)))
        if end == total and cache is not None and all(map(math.isfinite, values)):
            cache.put(key, phi_to_bytes([old.learner.phi for old in new], state.init_curve, [old.seen for old in new]))
        yield _init_progress(state, state.init_curve[-1:], _files(replicates, state) if end == total else {})


def _init_progress(
    state: TrialState, points: Sequence[tuple[int, tuple[float, ...]]], files: Mapping[str, bytes]
) -> Progress:
    """Records of `init/...` metrics; their step counts the rounds of Algorithm 1."""
    outcome: Literal["diverged"] | None = None if all(map(math.isfinite, points[-1][1])) else "diverged"
    now = _now_ms()
    records = tuple(Record(step=step, time_ms=now, metrics={names.INIT_TASK_LOSS: values}) for step, values in points)
    return Progress(records=records, state=state, report={}, outcome=outcome, files=files)


def _files(replicates: Sequence[Replicate], state: TrialState) -> Mapping[str, bytes]:
    """The files of the first replicate's learnable."""
    with learned_now(replicates[0], state.replicates[0].learner) as learnable:
        return learnable.files()


def _with_phi(replicate: Replicate, learner: LearnerState, phi: dict[str, Tensor]) -> LearnerState:
    """The learned phi with a fresh meta-optimizer: the start of Algorithm 2."""
    return replace(learner, phi=phi, meta_state=replicate.meta_optimizer.init(phi))


def _device(replicate: Replicate) -> torch.device:
    return next(iter(replicate.start.theta.values())).device


def _train(
    config: TrialConfig, replicates: list[Replicate], steppers: list[Stepper], state: TrialState
) -> Iterator[Progress]:
    """Algorithm 2 (or ordinary training), evaluated on the validation split every `eval.every` steps."""
    total, every = config.learner.steps, config.eval.every
    checked = (config.metric, names.SELECTION_PREFIX + names.TASK_LOSS)  # others may be undefined on a split
    if state.step == 0:
        begun = [_begun(*parts) for parts in zip(replicates, state.replicates, strict=True)]
        state = replace(state, replicates=tuple(begun))
    grids = surfaces(replicates, _learners(state), 0) if state.step == 0 else ()
    moments = [math.ceil(moment * total) for moment in SURFACE_MOMENTS]
    while state.step < total:
        start, end = state.step, min((state.step // every + 1) * every, total)
        began = time.perf_counter()
        new: list[ReplicateState] = []
        measured: list[dict[str, float]] = []
        for replicate, stepper, old in zip(replicates, steppers, state.replicates, strict=True):
            with RandomState(old.rng, _device(replicate)) as random, arithmetic_of(config):
                learner, means = stepper.train(replicate.at(start / total, old.learner), start, end)
            with RandomState(random.after, _device(replicate)), arithmetic_of(config):
                now = evaluate(replicate, learner.theta, learner.buffers, "selection")
                slopes = gradients(replicate, learner, replicate.data.batch("train", "train", end))
            measured.append({**means, **slopes, **now})
            best = _best(config, old.best, learner, now, end)
            new.append(replace(old, learner=learner, rng=random.after, best=best, seen=_seen(replicate)))
        seconds = time.perf_counter() - began
        state = replace(state, step=end, replicates=tuple(new))
        if any(start < moment <= end for moment in moments):
            grids = (*grids, *surfaces(replicates, _learners(state), end))
        metrics = {name: tuple(values[name] for values in measured) for name in measured[0]}
        metrics[names.PERF_STEPS_PER_SECOND] = (len(replicates) * (end - start) / seconds,)
        metrics.update(system())
        report = {
            name: tuple(replicate.best.metrics[name] for replicate in new if replicate.best is not None)
            for name in measured[0]
            if name.startswith(names.SELECTION_PREFIX)
        }
        diverged = not all(
            math.isfinite(value)
            for name, values in metrics.items()
            for value in values
            if not name.startswith(names.SELECTION_PREFIX) or name in checked
        )
        if end == total and not diverged and config.confirming:
            bests = [own.best for own in new if own.best is not None]
            with arithmetic_of(config):
                tests = [
                    evaluate(replicate, best.theta, best.buffers, "test") | evaluate_trivial(replicate)
                    for replicate, best in zip(replicates, bests, strict=True)
                ]
            report.update({name: tuple(values[name] for values in tests) for name in tests[0]})
            metrics.update({name: report[name] for name in tests[0] if name.startswith(names.TEST_PREFIX)})
        outcome: Literal["finished", "diverged"] | None = None
        if diverged:
            outcome = "diverged"
        elif end == total:
            outcome = "finished"
        record = Record(step=end, time_ms=_now_ms(), metrics=metrics, surfaces=grids)
        grids = ()
        files = _files(replicates, state)
        yield Progress(records=(record,), state=state, report=report, outcome=outcome, files=files)
        if outcome is not None:
            return


def _begun(replicate: Replicate, state: ReplicateState) -> ReplicateState:
    """The state at theta_0, as the learnable's `start` defines it."""
    learner = state.learner
    with torch.no_grad():
        theta = replicate.problem.starting(learner.phi, learner.loss_buffers, replicate.start.theta)
    return replace(state, learner=replace(learner, theta=theta))


def _best(
    config: TrialConfig, best: Best | None, learner: LearnerState, metrics: Mapping[str, float], step: int
) -> Best:
    """The evaluation that counts: the last, or the best by the study's metric (ties: the lower task loss)."""
    sign = 1 if config.goal == "minimize" else -1

    def rank(values: Mapping[str, float]) -> tuple[float, float]:
        return sign * values[config.metric], values[names.SELECTION_PREFIX + names.TASK_LOSS]

    if best is not None and config.eval.report == "best" and not rank(metrics) < rank(best.metrics):
        return best
    return Best(step=step, metrics=dict(metrics), theta=learner.theta, buffers=learner.buffers)


def _learners(state: TrialState) -> list[LearnerState]:
    return [own.learner for own in state.replicates]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
