"""A method: a name for what is meta-learned, and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from olfl_ray.learnable import Learnable, Params
from olfl_ray.losses import Losses, TaskLoss
from olfl_ray.spec import Strict, TrialConfig
from olfl_ray.tasks import Task

__all__ = ["OF_ADAPTATION", "Method", "Setting"]

OF_ADAPTATION = (
    "meta.optimizer",
    "meta.eta_online",
    "meta.every",
    "meta.batch",
    "meta.clip_norm",
    "meta.estimator",
    "meta.memory",
)
"""The settings that a method uses if it only adapts phi during training (Algorithm 2)."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a method is applied to.

    Args:
        config: The trial's settings.
        kind: Name of the task.
        task: The task, with its settings and heads.
        outputs: C, outputs of the base learner.
        theta: The base learner's trainable parameters by name, as it was built.
        seed: Of phi's initial values.
        losses: The learned losses that `loss.from` may name.
    """

    config: TrialConfig
    kind: str
    task: Task
    outputs: int
    theta: Mapping[str, Tensor]
    seed: int
    losses: Losses


class Method:
    """A preset. A subclass is one file that says what is learned, when, and which settings it reads.

    Attributes:
        phi: Names what is learned: methods that agree in it, and in their settings, share what Algorithm 1 finds.
        before: Whether phi is learned before training (Algorithm 1).
        during: Whether phi is learned during training (Algorithm 2).
        trained_on: The splits whose examples train theta.
        uses: Settings that it reads, of those that not every method does: dotted names of fields or sections.

    Args:
        config: Its settings.
    """

    class Config(Strict):
        """Its settings, in `learner.options`. A subclass that has some replaces this class."""

    config: Any
    phi: ClassVar[str] = ""
    before: ClassVar[bool] = False
    during: ClassVar[bool] = False
    trained_on: ClassVar[tuple[Literal["train", "meta"], ...]] = ("train",)
    uses: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Any) -> None:
        self.config = config

    def learnable(self, setting: Setting) -> Learnable:
        """What is meta-learned, at its initial phi. Default: nothing.

        Args:
            setting: What it is made for.
        """
        return Learnable()

    def base_loss(self, setting: Setting, task_loss: TaskLoss) -> TaskLoss:
        """What theta is trained on where the learnable has no loss of its own. Default: the task loss.

        Evaluation and the outer objective keep the task loss.

        Args:
            setting: What it is made for.
            task_loss: The task loss.
        """
        return task_loss

    def phis(self, setting: Setting) -> Sequence[tuple[float, Params]]:
        """Values that phi takes during training, each with the fraction of the steps after which it does. Default: none.

        Args:
            setting: What they are made for.
        """
        return ()
