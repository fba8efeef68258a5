"""A data set of counts: its `kind` names the task."""

import torch

from olfl_ray.data import Dataset


def visits(count: int = 300) -> Dataset:
    x = torch.randn(count, 6, generator=torch.Generator().manual_seed(0))
    return Dataset(name="visits", kind="mine.counts:Counts", x=x, y=(x[:, :2] / 2 + 1).exp().round())
