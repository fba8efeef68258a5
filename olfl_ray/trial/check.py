"""What is checked and recorded of a trial before anything starts: its data, task, shapes, device and code."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from olfl_ray.data import Dataset
from olfl_ray.errors import SetupError
from olfl_ray.memory import free_memory
from olfl_ray.records import names
from olfl_ray.spec import TrialConfig
from olfl_ray.tasks import Task
from olfl_ray.trial.build import Replicate, arithmetic_of, build_replicate, code_of, load_data, refuse_unfit
from olfl_ray.trial.environment import TrialEnvironment
from olfl_ray.trial.measure import class_sizes, evaluate_trivial

__all__ = ["Examination", "check"]

MOST_CLASSES = 1000
"""Classes whose sizes are recorded, at most."""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What a check finds of a trial's data, task and code.

    Args:
        data: Digest of the data set's content.
        code: Digest of each module that one of the trial's builders comes from.
        task: Name of the task.
        primary: Name of the task's primary metric.
        goals: For each metric of a split minimize or maximize.
        units: For each metric its unit.
        learns: Whether anything is learned besides theta.
        shape: Shape of one input.
        outputs: Outputs of the base learner.
        classes: Number of examples of each class or label; empty if the targets are neither, or there are too many.
        labels: Whether they are labels, of which an example has any number.
        splits: Number of examples of each split, and of a train `batch`.
        trivial: Metrics of the best constant prediction on the test split.
    """

    data: str
    code: dict[str, str]
    task: str
    primary: str
    goals: dict[str, str]
    units: dict[str, str]
    learns: bool
    shape: list[int]
    outputs: int
    classes: list[int]
    labels: bool
    splits: dict[str, int]
    trivial: dict[str, float]


def check(config: TrialConfig, environment: TrialEnvironment) -> Examination:
    """Check what only a live system can know: names, shapes, data, device, a user's builders.

    Returns:
        What was found of its data, task and code.

    Raises:
        UserError: One message that names the field, the value and the next move.
    """
    if environment.device.startswith("cuda") and not torch.cuda.is_available():
        raise SetupError("resources.gpu: a GPU was requested, but torch sees none here; set resources.gpu: 0")
    dataset = load_data(config, environment)
    refuse_unfit(config, environment, dataset, free_memory())
    with arithmetic_of(config):
        replicate = build_replicate(config, environment, dataset, config.seeds[0])
        trivial = _trivial(replicate)
    splits: dict[str, int] = {part: len(replicate.data.targets(part)) for part in names.SPLITS}
    return Examination(
        data=dataset.fingerprint,
        code=code_of(config, dataset.kind),
        task=dataset.kind,
        primary=replicate.task.primary,
        goals={names.TASK_LOSS: "minimize", **{metric.name: metric.goal for metric in replicate.metrics}},
        units={metric.name: metric.unit for metric in replicate.metrics},
        learns=bool(replicate.start.phi),
        shape=list(replicate.data.input_shape),
        outputs=replicate.outputs,
        classes=_recorded_sizes(replicate.task, dataset),
        labels=replicate.task.labels,
        splits={**splits, "batch": len(replicate.data.batch("probe", "train", 0)[1])},
        trivial={names.metric_of(name): value for name, value in trivial.items()},
    )


def _trivial(replicate: Replicate) -> dict[str, float]:
    """Metrics of the best constant prediction; none if a user's metric fails, which is a trial's cause of failure."""
    try:
        return evaluate_trivial(replicate)
    except Exception:
        return {}


def _recorded_sizes(task: Task, dataset: Dataset) -> list[int]:
    """Sizes of the classes or labels; empty for a family, whose tasks differ, or if there are too many."""
    return [] if dataset.episode is not None or dataset.outputs > MOST_CLASSES else class_sizes(task, dataset)
