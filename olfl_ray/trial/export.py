"""A trained model as one file: safetensors, torch.export's pt2, or ONNX. Each takes raw inputs, as `TrainedModel` does."""

from __future__ import annotations

import io
import json
import logging
import math
import warnings
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from olfl_ray import models
from olfl_ray.data import InputScaler
from olfl_ray.errors import DataError, SetupError, SpecError
from olfl_ray.plugins import allows, nearest
from olfl_ray.tasks import Head
from olfl_ray.tasks.heads import from_plain, to_plain
from olfl_ray.trial.model import Origin, TrainedModel

__all__ = ["FORMATS", "describe", "model_to_bytes", "read_model", "traced"]

FORMATS = ("safetensors", "pt2", "onnx")
"""Names of the formats, which are the suffixes of their files."""
NOTE = "olfl_ray"
"""Key of the JSON text in a file: safetensors' and ONNX's metadata; the extra file `olfl_ray.json` of a pt2."""
DTYPES = {
    str(dtype).removeprefix("torch."): dtype for dtype in (torch.uint8, torch.int64, torch.float32, torch.float64)
}
TRIED = (1, 3)
"""Batch sizes at which a graph, traced with another one, must give what the model gives."""


def model_to_bytes(model: TrainedModel, form: str, about: Mapping[str, Any] | None = None) -> bytes:
    """The content of a file.

    Args:
        model: The model, on the CPU.
        form: `safetensors`: weights and settings, from which `read_model` builds it again; `pt2` and `onnx`: the graph with
            the input scaler inside, for batches of any size.
        about: What else the file says of it: plain values.

    Raises:
        DataError: There is no such format, or the model can't be traced.
        SetupError: A package that the format needs is not installed.
    """
    if form not in FORMATS:
        raise DataError(f"format: there is no {form!r}{nearest(form, list(FORMATS))}; use one of {', '.join(FORMATS)}")
    if form == "safetensors" and model.origin.pruned:
        raise DataError(
            "format: safetensors holds weights for the builder, which makes the network without pruning; use pt2 or onnx"
        )
    note = json.dumps(describe(model) | dict(about or {}))
    if form == "safetensors":
        return save(
            {name: value.detach().cpu().clone().contiguous() for name, value in _tensors(model).items()}, {NOTE: note}
        )
    if form == "onnx" and (lacking := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]):
        raise SetupError(f"format: onnx needs {' and '.join(lacking)}; install with: pip install 'olfl_ray[onnx]'")
    program = traced(model)
    if form == "onnx":
        return _onnx(program, note)
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={f"{NOTE}.json": note})
    return buffer.getvalue()


def read_model(path: Path, allow: Iterable[str] = ()) -> TrainedModel:
    """The model of a safetensors file.

    Args:
        path: The file.
        allow: Packages, modules or full names of builders that may be called.

    Raises:
        DataError: It is no such file, or a builder that is not allowed makes its base learner.
    """
    if path.suffix in (".pt2", ".onnx"):
        reader = "torch.export.load(file).module()" if path.suffix == ".pt2" else "an ONNX runtime"
        raise DataError(f"{path}: is the graph of a model; load it with {reader}, or export the model as safetensors")
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{path}: is a folder, a pipe or a device; name a file that `export` wrote")
        with safe_open(path, framework="pt") as file:
            note = json.loads((file.metadata() or {})[NOTE])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
        origin = Origin(
            name=_text(note["model"]["name"]),
            options=dict(note["model"]["options"]),
            input_shape=tuple(map(_count, _listed(note["input"]["shape"]))),
            outputs=_count(note["outputs"]),
            dtype=DTYPES[note["input"]["dtype"]],
            heads=_heads(note.get("heads", [])),
        )
        if ":" in origin.name and not allows(allow, origin.name):
            raise DataError(
                f"{path}: its base learner is built by {origin.name!r}, which is code that this file chose; allow it by "
                f"name if you trust it: `allow={[origin.name]}`"
            )
        size = models.bytes_of(
            origin.name,
            dict(origin.options),
            input_shape=origin.input_shape,
            outputs=origin.outputs,
            heads=origin.heads,
        )
        if size > path.stat().st_size:  # before a few bytes of settings ask for gigabytes
            raise ValueError("its settings ask for more weights than there are")
        model = TrainedModel(
            origin.build(0),
            _scaler(tensors, note["input"]["scaled_to"]),
            origin=origin,
            kind=_text(note["kind"]),
            classes=tuple(map(_text, _listed(note["classes"]))),
            center=tensors.get("center_C"),
            scale=tensors.get("scale_C"),
            thresholds=tuple(map(_number, _listed(note.get("thresholds", [])))),
            step=_count(note["step"]),
        )
        if model.thresholds and not len(model.thresholds) == len(model.classes) == origin.outputs:
            raise ValueError("its thresholds are not one for each label")
        _fill(model, tensors)
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror or error}); name a file that `export` wrote") from None
    except (SafetensorError, SpecError, ValueError, LookupError, TypeError, RuntimeError, ArithmeticError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else _first(error)
        raise DataError(
            f"{path}: is no model that olfl_ray exported as safetensors ({reason}); export it again"
        ) from None
    return model


def traced(model: TrainedModel) -> torch.export.ExportedProgram:
    """Its graph, for batches of any size.

    Raises:
        DataError: torch can't trace it, or the graph computes something else.
    """
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # torch's own, about its parts
            program = torch.export.export(model, (model.example(2),), dynamic_shapes=({0: torch.export.Dim("batch")},))
            graph = program.module()
            same = all(torch.allclose(graph(x), model(x), rtol=1e-4, atol=1e-5) for x in map(model.example, TRIED))
    except Exception as error:
        raise DataError(
            f"format: torch.export can't trace {model.origin.name!r} ({type(error).__name__}: {_first(error)}); change that in "
            "its forward, or use safetensors"
        ) from error
    if not same:
        raise DataError(
            f"format: the graph that torch.export traced of {model.origin.name!r} gives other outputs than the module, as where "
            "forward draws random numbers or depends on the batch size; correct it, or use safetensors"
        )
    return program


def _onnx(program: torch.export.ExportedProgram, note: str) -> bytes:
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = torch.onnx.export(program, input_names=["input"], output_names=["output"], verbose=False)
            assert found is not None, "without a file name it returns the program"
            found.model.metadata_props[NOTE] = note
            data: bytes = found.model_proto.SerializeToString()
    except Exception as error:
        raise DataError(
            f"format: torch.onnx can't write this base learner ({type(error).__name__}: {_first(error)}); use pt2 or safetensors"
        ) from error
    finally:
        quiet.setLevel(level)
    return data


def describe(model: TrainedModel) -> dict[str, Any]:
    """What a file says of a model, as plain values."""
    origin, target = model.origin, model.scaler.dtype
    return {
        "format": 1,
        "olfl_ray": version("olfl_ray"),
        "model": {"name": origin.name, "options": dict(origin.options)},
        "input": {
            "shape": list(origin.input_shape),
            "dtype": str(origin.dtype).removeprefix("torch."),
            "scaled_to": None if target is None else str(target).removeprefix("torch."),
        },
        "outputs": origin.outputs,
        "kind": model.kind,
        "classes": list(model.classes),
        **({"thresholds": list(model.thresholds)} if model.thresholds else {}),
        "step": model.step,
        **({"pruned": True} if origin.pruned else {}),
        **({"heads": to_plain(origin.heads)} if origin.heads else {}),
    }


def _tensors(model: TrainedModel) -> dict[str, Tensor]:
    """Also buffers that a state dict leaves out: training may have changed them."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@torch.no_grad()
def _fill(model: TrainedModel, tensors: Mapping[str, Tensor]) -> None:
    own = _tensors(model)
    if own.keys() != tensors.keys():
        name = min(own.keys() ^ tensors.keys())
        raise ValueError(f"{name} is {'missing' if name in own else 'no part of its base learner'}")
    for name, value in own.items():
        if value.shape != tensors[name].shape or value.dtype != tensors[name].dtype:
            raise ValueError(f"{name} has another shape or type than in its base learner")
        value.copy_(tensors[name])


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:80]!r} is no text")
    return value


def _heads(value: Any) -> tuple[Head, ...]:
    """Heads of built-in kinds."""
    found = from_plain(_listed(value))
    for head in found:
        _count(head.outputs)
        if not _text(head.kind).isidentifier() or not _text(head.name).isidentifier():
            raise ValueError(f"a head {head.name!r} of kind {head.kind!r}")
    return found


def _number(value: Any) -> float:
    if type(value) is not float or not math.isfinite(value):
        raise TypeError(f"{str(value)[:80]!r} is no number")
    return value


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{str(value)[:80]!r} is no list")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise TypeError(f"{str(value)[:80]!r} is no count")
    return value


def _scaler(tensors: Mapping[str, Tensor], target: str | None) -> InputScaler:
    fill, mean, sd = (tensors.get(f"scaler.{name}") for name in ("fill", "mean", "sd"))
    return InputScaler(
        fill=fill,
        mean=None if mean is None else mean[None],
        sd=None if sd is None else sd[None],
        dtype=None if target is None else DTYPES[target],
    )


def _first(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")
