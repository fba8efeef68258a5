"""torchvision, even if its compiled operators can't be loaded, as with its CUDA build and a CPU-only torch."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import torch

__all__ = ["torchvision"]

_kept: list[Any] = []


def torchvision() -> ModuleType:
    """Import torchvision; if its compiled operators can't be loaded, declare the two that its import requires.

    Models, transforms and data set readers then work; `ops.nms` and `io.read_image` do not.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)
    return importlib.import_module("torchvision")
