"""What a trial's data are, before training: examples, classes, splits, missing values, duplicates, the constant prediction."""

# N examples, D features, C outputs

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from olfl_ray import data
from olfl_ray.losses import task_loss
from olfl_ray.records import names
from olfl_ray.spec import TrialConfig, seed_of
from olfl_ray.tasks import Head, metrics_of
from olfl_ray.tasks.heads import columns
from olfl_ray.trial.build import load_data, splits_of
from olfl_ray.trial.environment import TrialEnvironment
from olfl_ray.trial.measure import class_sizes, constant_metrics

__all__ = ["DataSummary", "data_summary"]

PARTS: tuple[str, ...] = tuple(names.SPLITS)
SHOWN = 12
"""Classes, columns or targets that are named."""


@dataclass(frozen=True, kw_only=True)
class DataSummary:
    """What a trial's data are; `print` it.

    Args:
        name: Name of the data set.
        kind: Its task.
        examples: N; of a family, in its first task.
        shape: Of one example.
        inputs: What the inputs are, and whether they are scaled.
        columns: Names of the features, if they have names.
        classes: Examples of each class or label, by name in the order of the outputs; empty: neither.
        labels: Whether they are labels, of which an example has any number.
        targets: Least, mean and largest value of each target of a regression.
        missing: Missing values by feature, of those that have any.
        dropped: Examples that were dropped since a value is missing.
        splits: Examples of each split of the first replicate.
        rarest: The class or label with the fewest examples; empty: neither.
        rarest_splits: Its examples in each split.
        trivial: Metrics of the best constant prediction on the validation split.
        duplicates: By split the examples whose inputs are those of a train example.
        contradictions: Those of them with another target than the train example.
        heads: Of a data set with several tasks, a line about each head's targets.
    """

    name: str
    kind: str
    examples: int
    shape: tuple[int, ...]
    inputs: str
    columns: tuple[str, ...]
    classes: Mapping[str, int]
    labels: bool
    targets: tuple[tuple[float, float, float], ...]
    missing: Mapping[str, int]
    dropped: int
    splits: Mapping[str, int]
    rarest: str
    rarest_splits: Mapping[str, int]
    trivial: Mapping[str, float]
    duplicates: Mapping[str, int]
    contradictions: Mapping[str, int]
    heads: Mapping[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The summary as lines of text."""
        shape = " x ".join(map(str, self.shape))
        found = [f"data {self.name}: {self.examples:,} examples, {self.kind}; inputs {shape}, {self.inputs}"]
        if self.columns:
            found.append(f"  features: {_some(list(self.columns))}")
        if self.classes:
            shares = [f"{name} {count:,} ({count / self.examples:.1%})" for name, count in self.classes.items()]
            found.append(f"  {'labels' if self.labels else 'classes'}: {_some(shares)}")
        if self.labels:
            cardinality = sum(self.classes.values()) / self.examples
            found.append(
                f"  labels per example (cardinality): {cardinality:.4g} of {len(self.classes)}, density "
                f"{cardinality / len(self.classes):.4g}"
            )
        found += [f"  head {name}: {about}" for name, about in self.heads.items()]
        for index, (low, mean, high) in enumerate(self.targets[:SHOWN]):
            title = "target" if len(self.targets) == 1 else f"target {index}"
            found.append(f"  {title}: {low:.5g} to {high:.5g}, mean {mean:.5g}")
        gaps = [f"{name} {count:,} ({count / self.examples:.1%})" for name, count in self.missing.items()]
        dropped = f"; {self.dropped:,} examples with one were dropped" if self.dropped else ""
        found.append(f"  missing values: {_some(gaps) or 'none'}{dropped}")
        found.append(f"  splits: {', '.join(f'{part} {count:,}' for part, count in self.splits.items())}")
        if self.classes:
            counts = ", ".join(f"{part} {count:,}" for part, count in self.rarest_splits.items())
            found.append(f"  rarest {'label' if self.labels else 'class'} {self.rarest}: {counts}")
        measured = ", ".join(f"{name} {value:.4g}" for name, value in self.trivial.items())
        found.append(f"  best constant prediction on selection: {measured}")
        same = [
            f"{part} {count:,} of {self.splits[part]:,}"
            + (f", {self.contradictions[part]:,} with another target" if self.contradictions[part] else "")
            for part, count in self.duplicates.items()
            if count
        ]
        found.append(f"  duplicates of train examples: {'; '.join(same) or 'none'}")
        return found

    def __str__(self) -> str:
        return "\n".join(self.lines())


def data_summary(config: TrialConfig, environment: TrialEnvironment) -> DataSummary:
    """What a trial's data are, with the splits of its first replicate.

    Raises:
        UserError: The data set can't be loaded, or is too small to be split.
    """
    loaded, seed, task = load_data(config, environment), config.seeds[0], config.task
    dataset = data.episode(loaded, seed_of(seed, "task"))
    predicted = dataset.task
    splits = splits_of(config, dataset, seed)
    classes: dict[str, int] = {}
    held: dict[str, int] = {}
    if counts := class_sizes(predicted, dataset):
        classes = dict(zip(dataset.output_names, counts, strict=True))
        fewest = counts.index(min(counts))
        held = {
            part: class_sizes(predicted, replace(dataset, y=dataset.y[getattr(splits, part)]))[fewest] for part in PARTS
        }
    y = dataset.y.double()
    ranges = (
        zip(*(values.tolist() for values in (y.amin(0), y.mean(0), y.amax(0))), strict=True)
        if y.dim() == 2 and not dataset.heads and not classes
        else ()
    )
    duplicates, contradictions = _duplicates(dataset, splits)
    return DataSummary(
        name=dataset.name,
        kind=dataset.kind,
        examples=len(dataset.y),
        shape=tuple(dataset.x.shape[1:]),
        inputs=_inputs(dataset, task.standardize.x),
        columns=dataset.columns,
        classes=classes,
        labels=predicted.labels,
        targets=tuple(ranges),
        missing=_missing(dataset),
        dropped=dataset.dropped,
        splits={part: len(getattr(splits, part)) for part in PARTS},
        rarest=min(classes, key=lambda name: classes[name], default=""),
        rarest_splits=held,
        trivial=_trivial(config, dataset, splits),
        duplicates=duplicates,
        contradictions=contradictions,
        heads={head.name: _head(head, y[:, place]) for head, place in columns(dataset.heads)},
    )


def _head(head: Head, block: Tensor) -> str:
    """A head's task, and its classes or the ranges of its targets."""
    if not head.task.classes:
        ranges = [f"{low:.5g} to {high:.5g}" for low, high in zip(block.amin(0), block.amax(0), strict=True)]
        return f"{head.kind}, {_some(ranges)}"
    counts = block.sum(0).long().tolist()
    titles = head.classes or tuple(map(str, range(head.outputs)))
    shares = [f"{name} {n:,} ({n / len(block):.1%})" for name, n in zip(titles, counts, strict=True)]
    return f"{head.kind}, {_some(shares)}"


def _inputs(dataset: data.Dataset, standardize: bool) -> str:
    kind = str(dataset.x.dtype).removeprefix("torch.")
    if dataset.x.dtype == torch.int64:
        return f"{kind} ids from {int(dataset.x.min()):,} to {int(dataset.x.max()):,}, never scaled"
    return f"{kind}, {'scaled by the train split' if standardize and dataset.scaled else 'not scaled'}"


def _missing(dataset: data.Dataset) -> dict[str, int]:
    if not dataset.x.is_floating_point():
        return {}
    counts = dataset.x.isnan().flatten(1).sum(0)
    titles = dataset.columns or tuple(map(str, range(len(counts))))
    return {titles[place]: int(counts[place]) for place in counts.nonzero().flatten().tolist()}


def _trivial(config: TrialConfig, dataset: data.Dataset, splits: data.Splits) -> dict[str, float]:
    """The task's primary metric and the study's, of the best constant prediction, on the validation split."""
    task, spec = dataset.task, config.task
    y, scale = dataset.y, None
    if dataset.scaled and spec.standardize.y:
        y, scale = task.scaled(y, splits.train)
    elif y.is_floating_point():
        y = y.to(torch.float32)
    wanted = dict.fromkeys([task.primary, names.metric_of(config.metric)])
    found = constant_metrics(
        task,
        [metric for metric in metrics_of(task, spec.metrics, dataset.output_names) if metric.name in wanted],
        task_loss(spec.loss, task) if names.TASK_LOSS in wanted else None,
        y[splits.train],
        y[splits.selection],
        y[splits.selection],
        outputs=dataset.outputs,
        scale=scale,
    )
    return {name: found[name] for name in wanted if name in found}


def _duplicates(dataset: data.Dataset, splits: data.Splits) -> tuple[dict[str, int], dict[str, int]]:
    """By split the examples whose inputs are also in train, and those of them whose target no such example has."""
    train: dict[bytes, set[bytes]] = {}
    for x, y in _digests(dataset, splits.train):
        train.setdefault(x, set()).add(y)
    same, other = {}, {}
    for part in PARTS[1:]:
        there = [(x, y) for x, y in _digests(dataset, getattr(splits, part)) if x in train]
        same[part], other[part] = len(there), sum(y not in train[x] for x, y in there)
    return same, other


def _digests(dataset: data.Dataset, rows: Tensor) -> list[tuple[bytes, bytes]]:
    x, y = (part[rows] + 0 for part in (dataset.x.numpy(), dataset.y.numpy()))  # -0.0 + 0 is 0.0
    return [(hashlib.blake2b(one.tobytes(), digest_size=16).digest(), y[i].tobytes()) for i, one in enumerate(x)]


def _some(shown: list[str]) -> str:
    return ", ".join(shown[:SHOWN]) + (f", ... ({len(shown):,})" if len(shown) > SHOWN else "")
