"""A method: a name for what is meta-learned, and when."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from olfl_ray.learnable import Learnable
from olfl_ray.losses import LearnedLoss
from olfl_ray.spec import Strict, TrialConfig

__all__ = ["Method", "Setting"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a learnable is made for.

    Args:
        config: The trial's settings.
        kind: Name of the task.
        outputs: C, outputs of the base learner.
        theta: The base learner's trainable parameters by name, as it was built.
        seed: Of phi's initial values.
        find_loss: From what `loss.from` names to the learned loss there.
    """

    config: TrialConfig
    kind: str
    outputs: int
    theta: Mapping[str, Tensor]
    seed: int
    find_loss: Callable[[str], LearnedLoss]


class Method:
    """A preset. A subclass is one file that says what is learned, when, and which settings it reads.

    Attributes:
        phi: Names what is learned: methods that agree in it, and in their settings, share what Algorithm 1 finds.
        before: Whether phi is learned before training (Algorithm 1).
        during: Whether phi is learned during training (Algorithm 2).
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
    uses: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Any) -> None:
        self.config = config

    def learnable(self, setting: Setting) -> Learnable:
        """What is meta-learned, at its initial phi. Default: nothing.

        Args:
            setting: What it is made for.
        """
        return Learnable()
