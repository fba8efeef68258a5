"""l_phi, what a learned loss consists of: the loss of one output and its target."""

# N pairs (batch times outputs), P grid points

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from olfl_ray.tasks.task import NoSettings

if TYPE_CHECKING:
    from olfl_ray.spec import Strict

__all__ = ["ElementwiseLoss", "Slopes"]

Slopes = tuple[Tensor, Tensor, Callable[[Tensor], Mapping[str, Tensor]]]
"""loss_N, slope_N = d loss / d output, and the function from t_N to the gradient of <slope_N, t_N> in each parameter."""


class ElementwiseLoss(nn.Module):
    """A loss of pairs, whose parameters are phi. A subclass is one file; `loss.name` finds it.

    Attributes:
        Config: Its settings, next to `loss.name`, a subclass of `olfl_ray.spec.Strict`; a subclass without it has none.
        by_output: Whether `forward` also takes the index of each output, that is of its label or class.
        sized_by: Setting that decides how many parameters it has, for a message; empty: several do.

    Args:
        config: Its settings.
    """

    Config: ClassVar[type[Strict]] = NoSettings()  # type: ignore[assignment]
    by_output: ClassVar[bool] = False
    sized_by: ClassVar[str] = ""

    def __init__(self, config: Any) -> None:
        super().__init__()

    @classmethod
    def parameters_of(cls, config: Any) -> int:
        """How many parameters it has, counted without making any. Default: 0, too few to check for memory."""
        return 0

    def begin(self, targets_P: Tensor, outputs_P: Tensor) -> None:
        """Set the initial phi, or refuse the task, once after it is built. Default: nothing.

        Args:
            targets_P: Targets on a grid such as the task's.
            outputs_P: Predictions on it.

        Raises:
            SpecError: It does not fit the task.
        """

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """l_phi of each pair; differentiable twice.

        Args:
            output: f(x)_i, any shape.
            target: y_i, the same shape.

        With `by_output` a third argument follows, by default None: i, integers of the same shape. Without it, the mean over all
        outputs is returned: what is plotted and explained.

        Returns:
            The same shape.
        """
        raise NotImplementedError

    @property
    def closed(self) -> bool:
        """Whether `slopes` holds for it as it is built. Default: no, and autograd differentiates `forward`."""
        return False

    def slopes(self, phi: Mapping[str, Tensor], output_N: Tensor, target_N: Tensor) -> Slopes:
        """`forward` with its derivatives in closed form, which saves autograd's passes.

        Args:
            phi: Parameters by name, instead of its own; it may lack some that are frozen.
            output_N: f(x)_i.
            target_N: y_i.
        """
        raise NotImplementedError
