"""One replicate's data on its device: batches that depend on (seed, stream, step) alone, so that any step can be asked again."""

# B batch, N rows, C outputs

from __future__ import annotations

import hashlib
from typing import Literal

import torch
from torch import Tensor

from olfl_ray.data.dataset import Dataset, Splits
from olfl_ray.errors import SpecError

__all__ = ["TaskData"]

BLOCK = 256
PAD = 4


class TaskData:
    """Batches and evaluation sets of one replicate.

    Scalers are fitted on its train split alone: mean and standard deviation a feature, or a channel of images;
    regression targets likewise.

    Args:
        dataset: All rows.
        splits: Their split.
        device: Where the tensors live.
        augment: none, or crop_flip (train batches of images only).
        batch_size: Rows of a batch.
        seed: Seed of the draws.
    """

    def __init__(
        self, dataset: Dataset, splits: Splits, *, device: str, augment: str, batch_size: int, seed: int
    ) -> None:
        self._images = dataset.x.dim() == 4
        if augment == "crop_flip" and not self._images:
            raise SpecError("task.augment", f"crop_flip needs images, but {dataset.name} has rows; use none")
        self._augment, self._batch_size, self._seed = augment == "crop_flip", batch_size, seed
        self._device = torch.device(device)
        self.input_shape: tuple[int, ...] = tuple(dataset.x.shape[1:])
        train = dataset.x[splits.train].to(torch.float32)
        axes = (0, 2, 3) if self._images else (0,)
        mean = train.mean(axes, keepdim=True)
        sd = (train - mean).square().mean(axes, keepdim=True).sqrt()
        sd = torch.where(sd > 1e-7, sd, torch.ones_like(sd))
        self.target_scale: Tensor | None = None
        y = dataset.y
        if dataset.kind == "regression":
            center, scale = y[splits.train].mean(0), y[splits.train].std(0, correction=0)
            scale = torch.where(scale > 0, scale, torch.ones_like(scale))
            y = (y - center) / scale
            self.target_scale = scale.to(self._device)
        self._x: dict[str, Tensor] = {}
        self._y: dict[str, Tensor] = {}
        for part in ("train", "meta", "selection", "test"):
            rows = getattr(splits, part)
            self._x[part] = ((dataset.x[rows].to(torch.float32) - mean) / sd).to(self._device)
            self._y[part] = y[rows].to(self._device)
        self._black = ((0 - mean) / sd).to(self._device) if self._images else None
        self._blocks: dict[tuple[str, str], tuple[int, Tensor, Tensor]] = {}

    def batch(self, stream: str, part: Literal["train", "meta"], step: int) -> tuple[Tensor, Tensor]:
        """The batch of a step: i.i.d. rows of a split, with replacement.

        Args:
            stream: Draws of two streams are independent.
            part: Split to draw from; train is augmented where the task says so.
            step: Which batch, from 0.

        Returns:
            Inputs (B, ...) and targets, (B,) or (B, C), on the device.
        """
        index_B, change_B = self._draws(stream, part, step)
        x = self._x[part].index_select(0, index_B)
        if self._augment and part == "train":
            x = self._crop_flip(x, change_B)
        return x, self._y[part].index_select(0, index_B)

    def evaluation(self, part: Literal["train", "meta", "selection", "test"]) -> tuple[Tensor, Tensor]:
        """All rows of a split in order, normalised, never augmented."""
        return self._x[part], self._y[part]

    def _draws(self, stream: str, part: str, step: int) -> tuple[Tensor, Tensor]:
        """Row numbers (B,) and, for augmentation, random numbers (3, B) of a step."""
        block, offset = divmod(step, BLOCK)
        kept = self._blocks.get((stream, part))
        if kept is None or kept[0] != block:
            text = f"{self._seed}/{stream}/{part}/{block}"
            seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
            generator = torch.Generator().manual_seed(seed)
            index = torch.randint(len(self._x[part]), (BLOCK, self._batch_size), generator=generator)
            change = torch.rand((BLOCK if self._augment else 0, 3, self._batch_size), generator=generator)
            kept = (block, index.to(self._device), change.to(self._device))
            self._blocks[stream, part] = kept
        return kept[1][offset], kept[2][offset] if self._augment else kept[2]

    def _crop_flip(self, x: Tensor, change_3B: Tensor) -> Tensor:
        """Pad 4 with black, crop at random, flip half of them; on the device, without a loop over rows."""
        assert self._black is not None
        rows, channels, height, width = x.shape
        padded = self._black.expand(rows, channels, height + 2 * PAD, width + 2 * PAD).clone()
        padded[:, :, PAD:-PAD, PAD:-PAD] = x
        top, left = ((change_3B[:2] * (2 * PAD + 1)).long()).unbind(0)
        down = top[:, None] + torch.arange(height, device=x.device)
        across = left[:, None] + torch.arange(width, device=x.device)
        across = torch.where(change_3B[2, :, None] < 0.5, across.flip(1), across)
        batch = torch.arange(rows, device=x.device)[:, None, None, None]
        channel = torch.arange(channels, device=x.device)[None, :, None, None]
        return padded[batch, channel, down[:, None, :, None], across[:, None, None, :]]
