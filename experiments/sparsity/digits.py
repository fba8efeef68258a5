"""Multi-task digits: each arm's confirming networks, pruned, timed, and fine-tuned on the task that none of them saw."""

# N examples, D features of a backbone

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from olfl_ray import data
from olfl_ray.study import Home, Study
from olfl_ray.tasks.heads import columns, targets_of
from olfl_ray.trial import TrainedModel, pruned_model, speed
from olfl_ray.trial.build import splits_of

__all__ = ["SCRATCH", "SHOTS", "Confirmed", "Transfer", "confirmed_of", "tuned"]

UNSEEN = "at_least_5"
SHOTS = (50, 200)
"""Examples of the unseen task that a backbone is fine-tuned on."""
STEPS, LR = 200, 3e-3
"""Steps of Adam on all of them at once."""
SCRATCH = "new weights"


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """The error on the unseen task, by the number of examples.

    Args:
        probed: Only a new head was trained.
        tuned: Head and backbone were trained.
    """

    probed: Mapping[int, float]
    tuned: Mapping[int, float]


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """One confirming network.

    Args:
        metrics: Its metrics on the test split, by their own names.
        weights: Parameters of the pruned network.
        dense: Parameters of the network as it was trained.
        factor: How many times as fast the pruned network is.
        transfer: Of the pruned backbone.
    """

    metrics: Mapping[str, float]
    weights: int
    dense: int
    factor: float
    transfer: Transfer


def confirmed_of(study: Study, home: Home) -> tuple[dict[str, dict[int, Confirmed]], dict[int, Transfer]]:
    """By arm and seed what became of its confirming networks; by seed what a new backbone of the dense form learns.

    Args:
        study: The finished study.
        home: Its home folder, for the data set.
    """
    dataset = data.load("digits-tasks", {}, cache=home.cache, root=None)
    found: dict[str, dict[int, Confirmed]] = {}
    fresh: dict[int, Transfer] = {}
    for arm in study.spec.arms:
        found[arm] = {}
        for index in range(study.spec.confirm.seeds):
            trial = study.trial(f"{arm}/c{index}")
            if trial.state != "finished":
                continue
            seed, dense = trial.seeds[0], study.model(trial.name)
            unseen = _unseen(dense, dataset, splits_of(trial.config, dataset, seed), seed)
            small = pruned_model(dense)
            timed = speed(dense, small, seconds=0.3)
            found[arm][seed] = Confirmed(
                metrics={
                    name.removeprefix("test/"): value
                    for name, value in trial.metrics.items()
                    if name.startswith("test/")
                },
                weights=timed.pruned_weights,
                dense=timed.dense_weights,
                factor=timed.factor,
                transfer=_transfer(_backbone(small), unseen, seed),
            )
            if seed not in fresh:
                fresh[seed] = _transfer(_backbone(dense.origin.build(seed)), unseen, seed)
    return found, fresh


def _backbone(model: TrainedModel | nn.Module) -> nn.Module:
    module = model.module if isinstance(model, TrainedModel) else model
    backbone = module.backbone
    assert isinstance(backbone, nn.Module)
    return backbone


Unseen = tuple[Mapping[int, tuple[Tensor, Tensor]], tuple[Tensor, Tensor]]
"""Train examples by their number, and the test split: scaled inputs and classes."""


def _unseen(model: TrainedModel, dataset: data.Dataset, splits: data.Splits, seed: int) -> Unseen:
    head, place = next((head, place) for head, place in columns(dataset.heads) if head.name == UNSEEN)
    x, y = model.scaler(dataset.x), targets_of(head, dataset.y[:, place])
    order = splits.train[torch.randperm(len(splits.train), generator=torch.Generator().manual_seed(seed))]
    return {shots: (x[order[:shots]], y[order[:shots]]) for shots in SHOTS}, (x[splits.test], y[splits.test])


def _transfer(backbone: nn.Module, unseen: Unseen, seed: int) -> Transfer:
    few, test = unseen
    return Transfer(
        probed={shots: tuned(backbone, batch, test, seed, whole=False) for shots, batch in few.items()},
        tuned={shots: tuned(backbone, batch, test, seed, whole=True) for shots, batch in few.items()},
    )


def tuned(
    backbone: nn.Module, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], seed: int, *, whole: bool
) -> float:
    """The test error of a new head on a backbone.

    Args:
        backbone: Its features are the head's inputs; it is copied.
        train: Scaled inputs and classes.
        test: The same.
        seed: Of the head's initial weights.
        whole: Whether the backbone is trained as well.
    """
    (x, y), backbone = train, copy.deepcopy(backbone)
    torch.manual_seed(seed)
    head = nn.Linear(backbone(x[:2]).shape[1], 2)
    model = nn.Sequential(backbone, head).train()
    optimizer = torch.optim.Adam(model.parameters() if whole else head.parameters(), lr=LR)
    for _ in range(STEPS):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    with torch.no_grad():
        return float((model.eval()(test[0]).argmax(1) != test[1]).double().mean())
