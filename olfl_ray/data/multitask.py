"""The multi-task data sets: digits and Fashion-MNIST with derived tasks, and a regression whose tasks share a planted support."""

# N examples, D features, T tasks

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from olfl_ray.data.finding import Arrays, Source
from olfl_ray.data.images import FASHION_MNIST, IMAGES
from olfl_ray.tasks import Head
from olfl_ray.tasks.heads import packed_targets

__all__ = ["MULTITASK", "SUPPORT"]

GROUPS = {
    "top": (0, 2, 3, 4, 6),
    "trousers": (1,),
    "shoe": (5, 7, 9),
    "bag": (8,),
}
"""Coarse groups of Fashion-MNIST's classes: T-shirt, pullover, dress, coat and shirt are tops."""
FASHION = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")

EXAMPLES, FEATURES, TASKS = 600, 40, 4
SUPPORT = tuple(range(0, 40, 5))
"""Features of `shared-support` that its tasks depend on: every fifth."""
NOISE = 0.5
"""Standard deviation of the noise, in units of the signal's."""


def _arrays(
    x: np.ndarray, targets: Mapping[str, np.ndarray], source: str, rows: int | None = None, **names: object
) -> Arrays:
    """Integers are classes, with names if `names` has some; floats are numbers."""
    tensors = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in targets.items()}
    heads = tuple(
        Head(
            name=name,
            kind="regression" if values.is_floating_point() else "classification",
            outputs=1 if values.is_floating_point() else int(values.max()) + 1,
            classes=tuple(names.get(name, ())),  # type: ignore[arg-type]
        )
        for name, values in tensors.items()
    )
    shaped = {name: values[:, None] if values.is_floating_point() else values for name, values in tensors.items()}
    return Arrays(x=x, y=packed_targets(heads, shaped).numpy(), train_rows=rows, source=source, heads=heads)


def _digits(root: Path | None, scratch: Path) -> Arrays:
    """Images (1, 8, 8) with four tasks: the digit, whether it is odd, whether it is at least 5, and the sum of its pixels."""
    from sklearn.datasets import load_digits

    x, digit = load_digits(return_X_y=True)
    digit = digit.astype(np.int64)
    targets = {
        "digit": digit,
        "odd": digit % 2,
        "at_least_5": (digit >= 5).astype(np.int64),
        "ink": x.sum(1).astype(np.float32),
    }
    return _arrays(
        x.astype(np.float32).reshape(-1, 1, 8, 8),
        targets,
        "scikit-learn, bundled",
        odd=("even", "odd"),
        at_least_5=("below", "at_least_5"),
    )


def _fashion(root: Path | None, scratch: Path) -> Arrays:
    """Fashion-MNIST with its ten classes, four coarse groups, and the mean brightness."""
    found = IMAGES["fashion-mnist"].read(root, scratch)
    group = np.empty(10, np.int64)
    for index, members in enumerate(GROUPS.values()):
        group[list(members)] = index
    brightness = (found.x.reshape(len(found.x), -1).mean(1) / 255).astype(np.float32)
    targets = {"item": found.y, "group": group[found.y], "brightness": brightness}
    return _arrays(found.x, targets, found.source, found.train_rows, item=FASHION, group=tuple(GROUPS))


def _shared_support(root: Path | None, scratch: Path) -> Arrays:
    """T linear regressions on the same 8 of 40 features, with weights of each task's own and noise; always the same numbers."""
    draw = np.random.default_rng(0)
    x = draw.standard_normal((EXAMPLES, FEATURES))
    weights = np.zeros((FEATURES, TASKS))
    shape = (len(SUPPORT), TASKS)
    weights[list(SUPPORT)] = draw.uniform(0.5, 1.5, shape) * draw.choice([-1.0, 1.0], shape)
    signal = x @ weights
    y = signal + NOISE * signal.std(0) * draw.standard_normal(signal.shape)
    targets = {f"task_{index}": y[:, index].astype(np.float32) for index in range(TASKS)}
    return _arrays(x.astype(np.float32), targets, "generated")


MULTITASK: dict[str, Source] = {
    "digits-tasks": Source(kind="multitask", rows=1797, shape=(1, 8, 8), read=_digits, files={}),
    "fashion-mnist-tasks": Source(kind="multitask", rows=70000, shape=(1, 28, 28), read=_fashion, files=FASHION_MNIST),
    "shared-support": Source(kind="multitask", rows=EXAMPLES, shape=(FEATURES,), read=_shared_support, files={}),
}
