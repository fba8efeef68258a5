"""Batches and evaluation sets of one replicate; a batch depends only on (seed, stream, step), so any step can be drawn again."""

# B batch, N examples, C outputs

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from olfl_ray.data.dataset import Dataset, Splits
from olfl_ray.data.scaler import InputScaler
from olfl_ray.errors import SpecError

__all__ = ["TaskData"]

BLOCK = 256
"""Number of batches whose examples are drawn together."""
CHUNK = 1024
"""Number of examples whose moments are computed together."""
PAD = 4
PARTS = ("train", "meta", "selection", "test")


class TaskData:
    """Batches and evaluation sets of one replicate.

    Inputs are scaled by the mean and standard deviation of the train split, per feature or per image channel; targets as
    the task specifies; ids stay integers. A missing value (NaN) is replaced by its feature's mean in the train split.
    A category that the train split lacks is none: its indicator is 0 everywhere.

    Args:
        dataset: All examples.
        splits: Their split.
        device: Where the tensors live.
        augment: none, or crop_flip (train batches of images only).
        batch_size: Number of examples in a batch.
        seed: Seed of the random draws.
        whole: Whether a batch is a complete split, as for an episode, which has few examples.
        standardize_x: Whether inputs are scaled; ids, and the inputs of a data set that is not `scaled`, never are.
        standardize_y: The same of targets.
    """

    def __init__(
        self,
        dataset: Dataset,
        splits: Splits,
        *,
        device: str,
        augment: str,
        batch_size: int,
        seed: int,
        whole: bool = False,
        standardize_x: bool = True,
        standardize_y: bool = True,
    ) -> None:
        self._task = dataset.task
        self._images = dataset.x.dim() == 4
        if augment == "crop_flip" and not self._images:
            raise SpecError("task.augment", f"crop_flip needs images, but {dataset.name} has feature vectors; use none")
        self._augment, self._batch_size, self._seed = augment == "crop_flip", batch_size, seed
        self._device = torch.device(device)
        self._whole = whole
        self.input_shape: tuple[int, ...] = tuple(dataset.x.shape[1:])
        self._fill = _means_of_missing(dataset.x, splits.train)
        x = dataset.x if self._fill is None else torch.where(dataset.x.isnan(), self._fill, dataset.x)
        self.ids = x.dtype == torch.int64
        self.largest_id = int(x.max()) if self.ids else 0
        self._exact = torch.float64 if x.dtype == torch.float64 else torch.float32
        standardized = dataset.scaled and standardize_x and not self.ids
        self._scales = standardized or dataset.indicators is not None
        if self._scales:
            mean, sd = _moments(x, splits.train) if standardized else _unchanged(x)
            if dataset.indicators is not None:
                sd = _without_unseen(sd, x, splits.train, dataset.indicators)
            self._mean, self._sd = (value.to(self._device, self._exact) for value in (mean, sd))
        y, scale = dataset.y, None
        self._raw_y = y
        if dataset.scaled and standardize_y:
            y, scale = self._task.scaled(dataset.y, splits.train)
        elif y.is_floating_point():
            y = y.to(torch.float32)
        self.target_scale = None if scale is None else scale.to(self._device)
        self._rows = {part: getattr(splits, part).to(self._device) for part in PARTS}
        self._x = dataset.x_on(self._device) if x is dataset.x else x.to(self._device)
        self._y = y.to(self._device)
        self._blocks: dict[tuple[str, str], tuple[int, Tensor, Tensor]] = {}

    def batch(self, stream: str, part: Literal["train", "meta"], step: int) -> tuple[Tensor, Tensor]:
        """The batch of a step: i.i.d. examples of a split, with replacement; for an episode the complete split.

        Args:
            stream: Name of a random stream; two streams are independent.
            part: Split to draw from; train is augmented if the task says so.
            step: Index of the batch, from 0.

        Returns:
            Inputs (B, ...) and targets, (B,) or (B, C), on the device.
        """
        key = f"{self._seed}/{stream.rpartition('_')[0]}/{step}"  # a step's train and meta batch share it
        if self._whole:
            x, y = self.evaluation(part)
            return x, self._task.shown(y, key)
        index_B, change_3B = self._draws(stream, part, step)
        rows_B = self._rows[part].index_select(0, index_B)
        x = self._x.index_select(0, rows_B)
        if self._augment and part == "train":
            x = _crop_flip(x, change_3B)
        return self._scaled(x), self._task.shown(self._y.index_select(0, rows_B), key)

    def evaluation(self, part: Literal["train", "meta", "selection", "test"]) -> tuple[Tensor, Tensor]:
        """All examples of a split in order, normalized, never augmented."""
        return next(self.chunks(part, len(self._rows[part])))

    def chunks(self, part: Literal["train", "meta", "selection", "test"], rows: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The same in chunks of `rows` examples."""
        for some in self._rows[part].split(rows):
            yield self._scaled(self._x.index_select(0, some)), self._y.index_select(0, some)

    def targets(self, part: Literal["train", "meta", "selection", "test"]) -> Tensor:
        """The targets of all examples of a split, in the order of `evaluation`."""
        return self._y.index_select(0, self._rows[part])

    def _scaled(self, x: Tensor) -> Tensor:
        """Features with mean 0 and standard deviation 1, computed in the input's precision, then cast to float32."""
        if self._scales:
            x = (x.to(self._exact) - self._mean) / self._sd
        return x if self.ids else x.to(torch.float32)

    def target_scaling(self) -> tuple[Tensor | None, Tensor | None]:
        """Center and scale (C,) that turn outputs into the targets' own units, on the CPU; None: they are as given."""
        if self.target_scale is None:
            return None, None
        scale = self.target_scale.cpu()
        center = (self._raw_y.to(torch.float64) - self._y.cpu().to(torch.float64) * scale.to(torch.float64)).mean(0)
        return center.to(torch.float32), scale.to(torch.float32)

    def scaler(self) -> InputScaler:
        """What turns raw inputs into those of a batch, on the CPU."""
        if not self._scales:
            return InputScaler(fill=self._fill, dtype=None if self.ids else torch.float32)
        mean, sd = self._mean.cpu(), self._sd.cpu()
        return InputScaler(fill=self._fill, mean=mean, sd=sd, dtype=torch.float32)

    def _draws(self, stream: str, part: str, step: int) -> tuple[Tensor, Tensor]:
        """Indices (B,) and, for augmentation, random numbers (3, B) of one step."""
        block, offset = divmod(step, BLOCK)
        kept = self._blocks.get((stream, part))
        if kept is None or kept[0] != block:
            text = f"{self._seed}/{stream}/{part}/{block}"
            seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
            generator = torch.Generator().manual_seed(seed)
            index = torch.randint(len(self._rows[part]), (BLOCK, self._batch_size), generator=generator)
            change = torch.rand((BLOCK if self._augment else 0, 3, self._batch_size), generator=generator)
            kept = (block, index.to(self._device), change.to(self._device))
            self._blocks[stream, part] = kept
        return kept[1][offset], kept[2][offset] if self._augment else kept[2]


def _means_of_missing(x: Tensor, rows: Tensor) -> Tensor | None:
    """What replaces a missing value: its feature's mean over some examples; None where none is missing."""
    if not x.is_floating_point() or not bool(x.isnan().any()):
        return None
    return x[rows].nanmean(0).nan_to_num(0.0)  # 0 where the train split has no value at all


def _unchanged(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean 0 and standard deviation 1 of each feature."""
    mean = torch.zeros_like(x[:1], dtype=torch.float64)
    return mean, torch.ones_like(mean)


def _without_unseen(sd: Tensor, x: Tensor, rows: Tensor, indicators: Tensor) -> Tensor:
    """Standard deviations (1, D), infinite for the indicator of a category without an example in `rows`: it becomes 0."""
    unseen = indicators & (x[rows].amax(0) == 0)
    return torch.where(unseen, torch.full_like(sd, torch.inf), sd)


def _moments(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over `rows`, per feature or per image channel; 1 where a feature is constant.

    Both are float64. A feature is constant if all its values are equal: its computed deviation may be a rounding error.
    """
    axes = (0, 2, 3) if x.dim() == 4 else (0,)
    count = len(rows) * (x.shape[2] * x.shape[3] if x.dim() == 4 else 1)
    mean = square = x.new_zeros((), dtype=torch.float64)
    for part in rows.split(CHUNK):
        mean = mean + x[part].to(torch.float64).sum(axes, keepdim=True) / count
    for part in rows.split(CHUNK):
        square = square + (x[part].to(torch.float64) - mean).square().sum(axes, keepdim=True) / count
    sd = square.sqrt()
    low, high = (
        torch.stack([found(x[part], axes) for part in rows.split(CHUNK)]) for found in (torch.amin, torch.amax)
    )
    same = torch.amin(low, 0) == torch.amax(high, 0)
    constant = same.reshape(sd.shape) | (sd < torch.finfo(torch.float32).tiny)
    return mean, torch.where(constant, torch.ones_like(sd), sd)


def _crop_flip(x: Tensor, change_3B: Tensor) -> Tensor:
    """Pad 4 with black, crop at random, flip half of them; on the device, without a loop over examples.

    Args:
        x: Images (B, channels, height, width) as the data set has them; black is 0.
        change_3B: Uniform random numbers: vertical offset, horizontal offset, flip below a half.
    """
    _, _, height, width = x.shape
    windows = F.pad(x, (PAD, PAD, PAD, PAD)).unfold(2, height, 1).unfold(3, width, 1)
    top, left = (change_3B[:2] * (2 * PAD + 1)).long().unbind(0)
    cropped = windows[torch.arange(len(x), device=x.device), :, top, left]
    return torch.where(change_3B[2, :, None, None, None] < 0.5, cropped.flip(-1), cropped)
