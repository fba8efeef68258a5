"""A learned loss as files: safetensors for phi, JSON for its settings; nothing is unpickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from olfl_ray.errors import DataError
from olfl_ray.losses.build import build_loss
from olfl_ray.losses.learned import LearnedLoss
from olfl_ray.spec import LearnedLossSpec

__all__ = ["dump_loss", "loss_from_bytes", "read_loss"]


def dump_loss(phi: dict[str, Tensor], loss: LearnedLoss) -> dict[str, bytes]:
    """File name -> bytes: `learned_loss.safetensors` with phi, and `learned_loss.json` with what `loss` was built from."""
    assert loss.settings is not None
    settings = {"format": 1, "kind": loss.kind, "loss": loss.settings.model_dump(mode="json", by_alias=True)}
    return {
        "learned_loss.safetensors": save_tensors(
            {name: value.detach().cpu().contiguous() for name, value in phi.items()}
        ),
        "learned_loss.json": json.dumps(settings, indent=2).encode(),
    }


def read_loss(folder: str | Path) -> LearnedLoss:
    """Read a learned loss back.

    Args:
        folder: Holds `learned_loss.safetensors` and `learned_loss.json`; or the path of the first.

    Raises:
        DataError: A file is missing or torn.
    """
    path = Path(folder)
    weights = path if path.suffix == ".safetensors" else path / "learned_loss.safetensors"
    try:
        return loss_from_bytes(weights.read_bytes(), weights.with_suffix(".json").read_bytes(), str(weights))
    except OSError as error:
        raise DataError(f"{error.filename or weights}: {error.strerror}; name a folder with a learned loss") from None


def loss_from_bytes(weights: bytes, settings: bytes, source: str) -> LearnedLoss:
    """A learned loss from the bytes of its two files; `source` names them in an error.

    Raises:
        DataError: They are not a learned loss.
    """
    try:
        found: dict[str, Any] = json.loads(settings)
        loss = build_loss(LearnedLossSpec.model_validate_json(json.dumps(found["loss"])), found["kind"], seed=0)
        loss.load_state_dict(load_tensors(weights))
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise DataError(f"{source}: is not a learned loss ({str(error).splitlines()[0]}); save it again") from None
    return loss
