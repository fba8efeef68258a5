"""Raw inputs to those that a base learner was trained on: (x - mean) / sd, fitted on the train split."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["InputScaler"]


class InputScaler(nn.Module):
    """Fills missing values, then scales; a module without parameters, so that it is exported with its base learner.

    Args:
        fill: Replaces a missing value (NaN), by feature; None: none was missing.
        mean: Subtracted, by feature or channel; None: inputs are not scaled.
        sd: Divides.
        dtype: Type of the result; None: that of the input (ids).
    """

    fill: Tensor | None
    mean: Tensor | None
    sd: Tensor | None

    def __init__(
        self,
        *,
        fill: Tensor | None = None,
        mean: Tensor | None = None,
        sd: Tensor | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("fill", fill)
        self.register_buffer("mean", None if mean is None else mean[0])
        self.register_buffer("sd", None if sd is None else sd[0])
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """Scaled inputs (B, ...), in the precision of `mean`, then as `dtype`."""
        if self.fill is not None:
            x = torch.where(x.isnan(), self.fill, x)
        if self.mean is not None and self.sd is not None:
            x = (x.to(self.mean.dtype) - self.mean) / self.sd
        return x if self.dtype is None else x.to(self.dtype)
