"""Methods that only the benchmarks need: more examples for the task loss, and the losses of another trial in turn."""

from __future__ import annotations

from collections.abc import Sequence

from olfl_ray.errors import DataError, SpecError
from olfl_ray.learnable import Learnable, Params
from olfl_ray.methods import Method, Setting, loss_network

__all__ = ["MoreData", "Replay"]


class MoreData(Method):
    """Ordinary training on the task loss, on all examples that a learned loss has: those of train and of meta."""

    phi = "nothing"
    trained_on = ("train", "meta")


class Replay(Method):
    """theta is trained on the losses that the commits of the trial `loss.from` recorded, each at its part of the training."""

    phi = "loss"
    uses = ("loss",)

    def learnable(self, setting: Setting) -> Learnable:
        """The last of the losses.

        Raises:
            SpecError: There are none.
        """
        self._source(setting)
        return loss_network(setting)

    def phis(self, setting: Setting) -> Sequence[tuple[float, Params]]:
        """All of them, by their step.

        Raises:
            SpecError: There are none.
        """
        try:
            found = setting.losses.sequence(self._source(setting), (setting.config.loss.name, setting.kind))
        except DataError as error:
            raise SpecError("loss.from", str(error)) from None
        last = found[-1][0]
        return [
            (step / last, {name: value.detach() for name, value in loss.named_parameters()}) for step, loss in found
        ]

    def _source(self, setting: Setting) -> str:
        source = setting.config.loss.from_
        if source is None:
            raise SpecError("loss.from", "is null, but Replay trains on another trial's losses; name STUDY/ARM/ORDINAL")
        return source
