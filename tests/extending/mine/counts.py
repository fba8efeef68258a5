"""A task: counts, by Poisson regression; outputs are the logarithms of the expected counts."""

import torch
from torch import Tensor
from torch.nn.functional import poisson_nll_loss

from olfl_ray.tasks import Metric, Task


def deviance(outputs_NC: Tensor, y_NC: Tensor, _scale: Tensor | None = None) -> float:
    rate, y = outputs_NC.double().exp(), y_NC.double()
    return 2 * (torch.xlogy(y, y / rate) - y + rate).mean().item()


class Counts(Task):
    primary = "deviance"
    losses = {"poisson": poisson_nll_loss}
    metrics = (Metric(name="deviance", goal="minimize", unit="", meaning="mean Poisson deviance", compute=deviance),)

    def checked(self, targets: Tensor) -> Tensor:
        if (targets < 0).any():
            raise ValueError("a count is negative; counts are 0 or more")
        return targets

    def trivial(self, train_targets: Tensor, count: int, outputs: int) -> Tensor:
        return train_targets.mean(0).log().expand(count, outputs)

    def pairs(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return outputs.exp(), targets  # what a learned loss sees

    def pull(self, predictions: Tensor, vector: Tensor) -> Tensor:
        return predictions * vector  # J^T v of those predictions

    def examples(self, count: int, outputs: int) -> Tensor:
        return torch.arange(count * outputs).reshape(count, outputs).remainder(5).float()
