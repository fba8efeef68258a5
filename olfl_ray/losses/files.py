"""A learned loss as files: safetensors for phi, JSON for its settings; both are data, and nothing in them is run."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors

from olfl_ray.errors import DataError, SetupError, SpecError
from olfl_ray.losses.build import build_loss, bytes_of
from olfl_ray.losses.chosen import LEARNED
from olfl_ray.losses.learned_loss import LearnedLoss
from olfl_ray.losses.seen import tensor_of
from olfl_ray.plugins import allows
from olfl_ray.spec import LearnedLossSpec
from olfl_ray.storage import LocalStorage

__all__ = ["loss_from_bytes", "read_loss"]

OF_MLP = ("hidden", "activation", "output", "bias", "init")
"""Settings that a file of format 1 has for every loss."""


def read_loss(folder: str | Path, allow: Iterable[str] = ()) -> LearnedLoss:
    """Read a learned loss back.

    Args:
        folder: Holds `learned_loss.safetensors` and `learned_loss.json`; or the path of the first.
        allow: As for `loss_from_bytes`.

    Raises:
        DataError: A file is missing or truncated, or names a builder that is not allowed.
    """
    path = Path(folder)
    if path.is_file() and path.suffix != ".safetensors":
        raise DataError(f"{path}: is no .safetensors file of a learned loss; name the folder that holds one")
    weights = path if path.suffix == ".safetensors" else path / "learned_loss.safetensors"
    try:
        there = LocalStorage(weights.parent)  # which waits for no pipe
        files = there.read(weights.name), there.read(weights.with_suffix(".json").name)
    except (OSError, ValueError, SetupError) as error:
        reason = f"{error.filename or weights}: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise DataError(f"{reason}; name a folder that holds a learned loss") from None
    return loss_from_bytes(*files, str(weights), allow)


def loss_from_bytes(weights: bytes, settings: bytes, source: str, allow: Iterable[str] = ()) -> LearnedLoss:
    """A learned loss from the bytes of its two files.

    Args:
        weights: Of `learned_loss.safetensors`.
        settings: Of `learned_loss.json`.
        source: Names them in an error.
        allow: Packages, modules or full names of the builders that may be called: a builder is code, and whoever wrote
            the files chose it.

    Raises:
        DataError: They are not a learned loss, or name a builder that is not allowed.
    """
    try:
        found: dict[str, Any] = json.loads(settings)
        if not isinstance(found, dict):
            raise ValueError("its settings are not a mapping")
        spec, kind = LearnedLossSpec.model_validate(_section(found)), found["kind"]
        if not isinstance(kind, str):
            raise ValueError(f"its kind is {kind!r}")
        for builder in (spec.name, kind):
            if ":" in builder and not allows(allow, builder):
                raise DataError(
                    f"{source}: the learned loss is built by {builder!r}, which is code that these files chose; allow it by "
                    f"name if you trust it (`allow={[builder]}`, or loss.name in the spec that reads it)"
                )
        if bytes_of(spec) > len(weights):  # before a few bytes of settings ask for gigabytes
            raise ValueError("its settings ask for more weights than there are")
        loss = build_loss(spec, kind, seed=0)
        loss.load_state_dict(load_tensors(weights))
        if "seen" in found:  # files of an earlier version have no range
            loss.seen, loss.limits = tensor_of(found["seen"]), tensor_of(found["seen"])
    except (SafetensorError, SpecError, ValueError, LookupError, TypeError, RuntimeError, RecursionError) as error:
        raise DataError(f"{source}: is not a learned loss, with its .json ({_reason(error)}); save it again") from None
    return loss


def _section(found: dict[str, Any]) -> dict[str, Any]:
    """The `loss` section of the settings. Format 1 had the settings of mlp in every loss, and a builder's own in `options`."""
    loss = dict(found["loss"])
    if found.get("format", 1) == 1:
        options = loss.pop("options", {})
        loss.pop("replay", None)
        name = str(loss.get("name", "mlp"))
        if name != "mlp":
            own = () if ":" in name else LEARNED.find(name, "loss.name").Config.model_fields
            loss = {key: value for key, value in loss.items() if key in own or key not in OF_MLP}
        loss.update(options)
    return loss


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, ('loss', *first['loc'])))}: {first['msg']}"
    return f"it has no {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
