"""An initialized learned loss, cached by the digest of its inputs, so that Algorithm 1 need not run twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from olfl_ray.methods import method_of
from olfl_ray.spec import TrialConfig

__all__ = ["initial_phi_key", "phi_from_bytes", "phi_to_bytes"]

Curve = tuple[tuple[int, tuple[float, ...]], ...]


def initial_phi_key(config: TrialConfig, fingerprint: str, code: Mapping[str, str]) -> str:
    """Digest of exactly what the initialization depends on.

    Args:
        config: The trial's settings.
        fingerprint: Digest of the data set's content.
        code: Digest of the source of each module that a builder comes from.
    """
    data = config.model_dump(mode="json", by_alias=True)
    del data["confirming"], data["metric"], data["goal"], data["learner"]["steps"], data["learner"]["schedule"]
    data["learner"]["method"] = method_of(config.learner).phi or config.learner.method
    data["eval"] = {"every": config.eval.every}
    for name in ("eta_online", "every"):
        del data["meta"][name]
    return hashlib.sha256(json.dumps([data, fingerprint, dict(code)], sort_keys=True).encode()).hexdigest()


Seen = Sequence[Tensor | None]


def phi_to_bytes(phis: Sequence[dict[str, Tensor]], curve: Curve, seen: Seen) -> bytes:
    """Serialize one phi per replicate, what each has seen, and the learning curve of the initialization."""
    tensors = {
        f"{index}/{name}": value.detach().cpu().clone() for index, phi in enumerate(phis) for name, value in phi.items()
    }
    shown = [None if own is None else own.tolist() for own in seen]
    numbers = {"curve": curve, "order": list(tensors), "replicates": len(phis), "seen": shown}
    return save_tensors(tensors, metadata={"numbers": json.dumps(numbers)})


def phi_from_bytes(data: bytes) -> tuple[list[dict[str, Tensor]], Curve, Seen]:
    """The inverse of `phi_to_bytes`."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    numbers = json.loads(header["__metadata__"]["numbers"])
    phis: list[dict[str, Tensor]] = [{} for _ in range(numbers["replicates"])]
    tensors = load_tensors(data)
    for key in numbers["order"]:  # sums over parameters round by their order, which the file format does not preserve
        index, name = key.split("/", 1)
        phis[int(index)][name] = tensors[key].clone()  # aligned like a fresh tensor
    seen = [None if own is None else torch.tensor(own) for own in numbers.get("seen", [None] * len(phis))]
    return phis, tuple((step, tuple(values)) for step, values in numbers["curve"]), seen
