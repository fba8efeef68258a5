"""The names of all metrics: writers and readers import them from here.

The task defines what is measured on a split (`olfl_ray.tasks`): its metric `error` is recorded as `selection/error`, in
confirming trials also as `test/error`, and as `trivial/error` for the best constant prediction on the test split.
"""

from typing import Literal

INIT_TASK_LOSS = "init/task_loss"
TRAIN_LEARNED_LOSS = "train/learned_loss"
TRAIN_TASK_LOSS = "train/task_loss"
TRAIN_LR = "train/lr"
TRAIN_GRAD_NORM = "train/grad_norm"
TRAIN_TASK_GRAD_NORM = "train/task_grad_norm"
TRAIN_GRAD_COSINE = "train/grad_cosine"
META_TASK_LOSS = "meta/task_loss"
META_GRAD_NORM = "meta/grad_norm"
PERF_STEPS_PER_SECOND = "perf/steps_per_second"
SYSTEM_MEMORY_MB = "system/memory_mb"
SYSTEM_DEVICE_MEMORY_MB = "system/device_memory_mb"

METRICS: dict[str, str] = {
    INIT_TASK_LOSS: "task loss after S_inner steps on the learned loss, during the initialisation of phi (Algorithm 1)",
    TRAIN_LEARNED_LOSS: "learned loss on the train batches, mean since the last record",
    TRAIN_TASK_LOSS: "task loss on the train batches before each step, mean since the last record",
    TRAIN_LR: "base learning rate of the last step",
    TRAIN_GRAD_NORM: "Euclidean norm of the gradient that theta follows (of the learned loss, if any), next train batch",
    TRAIN_TASK_GRAD_NORM: "the same of the task loss's gradient, at the same theta on the same batch",
    TRAIN_GRAD_COSINE: "cosine of the angle between those two gradients; 0 where one of them vanishes",
    META_TASK_LOSS: "task loss on the meta batches after each step, mean since the last record",
    META_GRAD_NORM: "Euclidean norm of the meta-gradient, mean since the last record",
    PERF_STEPS_PER_SECOND: "base steps per second, all replicates together, since the last record",
    SYSTEM_MEMORY_MB: "resident memory of the worker's process, in MB",
    SYSTEM_DEVICE_MEMORY_MB: "peak memory allocated on the trial's GPU, in MB",
}
"""Every metric that does not depend on the task, with its meaning and unit."""

VOLATILE = frozenset({PERF_STEPS_PER_SECOND, SYSTEM_MEMORY_MB, SYSTEM_DEVICE_MEMORY_MB})
"""Metrics that measure the machine, not the method: they differ between two runs of the same trial."""

SPLITS: dict[Literal["train", "meta", "selection", "test"], str] = {
    "train": "train",
    "meta": "meta",
    "selection": "validation",
    "test": "test",
}
"""The splits, and what people call them."""
SELECTION_PREFIX, TEST_PREFIX, TRIVIAL_PREFIX = "selection/", "test/", "trivial/"
TASK_LOSS = "task_loss"
"""The metric that every task has."""


def metric_of(name: str) -> str:
    """A metric's own name: `error` of `selection/error`."""
    return name.rpartition("/")[2]


def on_test(metric: str) -> str:
    """The name under which a confirming trial records a metric: `test/error` for `selection/error`, or for `error`."""
    return TEST_PREFIX + metric_of(metric)


def of_trivial(metric: str) -> str:
    """The name under which it records the same metric of the best constant prediction: `trivial/error`."""
    return TRIVIAL_PREFIX + metric_of(metric)
