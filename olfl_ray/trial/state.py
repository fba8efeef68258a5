"""A trial's state: everything that training changes, as tensors and numbers; to bytes and back, without pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from olfl_ray.engine import LearnerState

__all__ = ["Best", "ReplicateState", "TrialState", "state_from_bytes", "state_to_bytes"]

FORMAT = 1
"""Of the bytes of a state."""
PARTS = ("theta", "buffers", "opt_state", "phi", "meta_state", "loss_buffers")


@dataclass(frozen=True, kw_only=True)
class Best:
    """The evaluation that counts so far, with its weights.

    Args:
        step: Number of base steps done at that point.
        metrics: Its `selection/...` metrics.
        theta: Parameters at that point.
        buffers: Buffers at that point.
    """

    step: int
    metrics: Mapping[str, float]
    theta: dict[str, Tensor]
    buffers: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class ReplicateState:
    """One replicate: its learner, its random state (dropout; bytes of the CPU's and the GPU's), its best evaluation,
    and what its learnable has seen."""

    learner: LearnerState
    rng: Tensor
    best: Best | None = None
    seen: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class TrialState:
    """A trial between two records.

    Args:
        init_steps: Number of meta-updates of Algorithm 1 done.
        step: Number of base steps done.
        replicates: One state each, in the order of the seeds.
        init_curve: For each record of the initialization (step, one value per replicate).
    """

    init_steps: int
    step: int
    replicates: tuple[ReplicateState, ...]
    init_curve: tuple[tuple[int, tuple[float, ...]], ...] = ()

    @property
    def position(self) -> int:
        """Number of steps done in initialization and training together: it grows with every record."""
        return self.init_steps + self.step


def state_to_bytes(state: TrialState) -> bytes:
    """Serialize as a safetensors file; numbers are JSON in its metadata."""
    tensors: dict[str, Tensor] = {}
    bests: list[Any] = []
    for index, replicate in enumerate(state.replicates):
        for part in PARTS:
            for name, value in getattr(replicate.learner, part).items():
                tensors[f"{index}/{part}/{name}"] = value
        tensors[f"{index}/rng/cpu"] = replicate.rng
        if replicate.seen is not None:
            tensors[f"{index}/seen/range"] = replicate.seen
        best = replicate.best
        bests.append(None if best is None else {"step": best.step, "metrics": dict(best.metrics)})
        if best is not None:
            for name, value in best.theta.items():
                tensors[f"{index}/best_theta/{name}"] = value
            for name, value in best.buffers.items():
                tensors[f"{index}/best_buffers/{name}"] = value
    numbers = {
        "format": FORMAT,
        "order": list(tensors),
        "init_steps": state.init_steps,
        "step": state.step,
        "bests": bests,
        "init_curve": state.init_curve,
    }
    plain = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    return save_tensors(plain, metadata={"state": json.dumps(numbers)})


def state_from_bytes(data: bytes, device: str = "cpu") -> TrialState:
    """The inverse of `state_to_bytes`.

    Raises:
        ValueError: The bytes are not a trial's state, or one that another version wrote.
    """
    header_bytes = int.from_bytes(data[:8], "little")
    numbers = json.loads(json.loads(data[8 : 8 + header_bytes])["__metadata__"]["state"])
    if numbers["format"] != FORMAT:
        raise ValueError(f"a state of format {numbers['format']}, and this version reads format {FORMAT}")
    parts: dict[tuple[int, str], dict[str, Tensor]] = {}
    tensors = load_tensors(data)
    for key in numbers["order"]:  # sums over parameters round by their order, which the file format does not preserve
        number, part, name = key.split("/", 2)
        value = tensors[key]
        # Cloned: a view into the file is not aligned like a fresh tensor, which changes the last bit of a product.
        parts.setdefault((int(number), part), {})[name] = value.clone() if part == "rng" else value.clone().to(device)
    replicates = []
    for index, best in enumerate(numbers["bests"]):
        learner = LearnerState(**{part: parts.get((index, part), {}) for part in PARTS})
        replicates.append(
            ReplicateState(
                learner=learner,
                rng=parts[index, "rng"]["cpu"],
                seen=parts.get((index, "seen"), {}).get("range"),
                best=None
                if best is None
                else Best(
                    step=best["step"],
                    metrics=best["metrics"],
                    theta=parts.get((index, "best_theta"), {}),
                    buffers=parts.get((index, "best_buffers"), {}),
                ),
            )
        )
    curve = tuple((step, tuple(values)) for step, values in numbers["init_curve"])
    return TrialState(
        init_steps=numbers["init_steps"], step=numbers["step"], replicates=tuple(replicates), init_curve=curve
    )
