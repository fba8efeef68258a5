"""A data set as tensors, and its four splits."""

# N examples, C outputs

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from olfl_ray.errors import DataError
from olfl_ray.tasks import Head, Task, task_of
from olfl_ray.tasks.heads import columns

__all__ = ["Dataset", "Splits", "for_task", "split"]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """All examples of a data set. A builder may return any arrays; `load` converts them to the tensors described here.

    Args:
        name: Its name.
        kind: Name of its task: classification, regression, multilabel, or your own `package.module:Class`.
        x: (N, ...) uint8 images in NCHW, float32 or float64 features, or int64 ids, which are never scaled.
        y: Classes (N,) int64, or targets (N, C) float32 or float64; of several labels 0 or 1. Of several tasks a builder returns a
            dict by head; `load` puts them side by side.
        test: Examples of the original test set (indices, a range, or a mask of N booleans); None if it has none.
        outputs: C: number of classes, labels or regression targets; 0: inferred from y.
        classes: Name of each class or label; empty: its number.
        fingerprint: SHA-256 of the content; for a user's own data set it is always computed.
        source: Where it was found; empty: its builder.
        scaled: Whether features and targets are scaled by the train split; False: they are used unchanged.
        episode: For a family of tasks (few-shot learning), the function from a seed to the (x, y) of one task; x and y are then
            omitted. Each replicate trains on its own task, drawn by its seed, and each round of Algorithm 1 on another one.
            The train split is the support set, the meta split the query set; a batch is a complete split. Nothing is scaled.
        columns: Name of each feature; empty: they have none.
        indicators: Which features (D,) are 1 for one category and 0 for others; None: none. Where the train split has no
            example of a category, its feature is 0 everywhere.
        dropped: Examples of its file that are left out since a value is missing.
        heads: Of a data set with several tasks: each head, in the order of its columns of y.
        options: Settings of its task, `task.options`.
        whole: The data set with all heads, which decides the splits: they do not depend on which heads are chosen. None: itself.
    """

    name: str
    kind: str
    x: Tensor = field(default_factory=lambda: torch.zeros(0))
    y: Tensor = field(default_factory=lambda: torch.zeros(0))
    test: Tensor | None = None
    outputs: int = 0
    classes: tuple[str, ...] = ()
    fingerprint: str = ""
    source: str = ""
    scaled: bool = True
    episode: Callable[[int], tuple[Any, Any]] | None = None
    columns: tuple[str, ...] = ()
    indicators: Tensor | None = None
    dropped: int = 0
    heads: tuple[Head, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    whole: Dataset | None = None
    _copies: dict[torch.device, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Name of each class or label in the order of the outputs; of those without names their numbers."""
        return self.classes or tuple(map(str, range(self.outputs)))

    @property
    def task(self) -> Task:
        """Its task, with its settings and heads."""
        return task_of(self.kind, options=self.options, heads=self.heads)

    def x_on(self, device: torch.device) -> Tensor:
        """The inputs on a device: one copy there for all replicates; on the CPU the tensor itself."""
        if device not in self._copies:
            self._copies[device] = self.x.to(device)
        return self._copies[device]


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Indices of the four splits, sorted, disjoint: train for theta, meta for phi, selection (validation) for the search."""

    train: Tensor
    meta: Tensor
    selection: Tensor
    test: Tensor

    def trained_on(self, parts: Sequence[str]) -> Splits:
        """The same splits, with the examples of these in train."""
        return replace(self, train=torch.cat([getattr(self, part) for part in parts]).sort().values)


def for_task(dataset: Dataset, options: Mapping[str, Any]) -> Dataset:
    """The data set with settings of its task, and with only the heads that they choose.

    Raises:
        SpecError: A setting breaks one of the task's rules.
    """
    if not options:
        return dataset
    heads, y = task_of(dataset.kind, options=options, heads=dataset.heads).heads, dataset.y
    if heads != dataset.heads:
        places = {head.name: place for head, place in columns(dataset.heads)}
        y = torch.cat([y[:, places[head.name]] for head in heads], 1)
    whole = dataset.whole or (dataset if heads != dataset.heads else None)
    outputs = sum(head.outputs for head in heads) or dataset.outputs
    return replace(dataset, y=y, heads=heads, options=options, outputs=outputs, whole=whole)


def split(dataset: Dataset, *, study_seed: int, seed: int, test: float, meta: float, selection: float) -> Splits:
    """Split the examples as the task says: stratified by class or label, or (regression) at random.

    Args:
        dataset: The examples.
        study_seed: Determines the test split if the data set has none. It is the same for every replicate of a study, so
            that no search trial ever sees a test example.
        seed: Determines the other three splits.
        test: Fraction of all examples.
        meta: Fraction of the examples outside test.
        selection: Fraction of the examples outside test.

    Raises:
        DataError: A split would be empty, or train would lack a class.
    """
    rows = torch.arange(len(dataset.y))
    if dataset.test is not None:
        held = dataset.test.sort().values
    else:
        (held,) = _take(rows, dataset, [test], study_seed)
    mask = torch.ones(len(rows), dtype=torch.bool)
    mask[held] = False
    rest = rows[mask]
    meta_rows, selection_rows = _take(rest, dataset, [meta, selection], seed)
    mask[meta_rows] = False
    mask[selection_rows] = False
    found = Splits(train=rows[mask], meta=meta_rows, selection=selection_rows, test=held)
    for name in ("train", "meta", "selection", "test"):
        if len(getattr(found, name)) == 0:
            raise DataError(
                f"{dataset.name}: {len(rows)} examples are too few for a {name} split; enlarge task.split.{name}"
            )
    source = dataset.whole or dataset
    strata = source.task.strata(source.y)
    if len(strata[found.train].unique()) < len(strata.unique()):
        raise DataError(f"{dataset.name}: the train split lacks a class; make the other splits smaller (task.split)")
    return found


def _take(rows: Tensor, dataset: Dataset, fractions: list[float], seed: int) -> list[Tensor]:
    """Disjoint random parts of `rows`, each with its fraction of every class or label."""
    generator = torch.Generator().manual_seed(seed)
    source = dataset.whole or dataset
    parts = source.task.parts(source.y[rows], fractions, generator)
    return [rows[part].sort().values for part in parts]
