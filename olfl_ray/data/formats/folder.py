"""Folders of images, one folder per class, as torchvision's `ImageFolder` reads them."""

# N images

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BeforeValidator, Field
from torch import Tensor

from olfl_ray.data.dataset import Dataset
from olfl_ray.data.formats.base import FIELD, FileFormat
from olfl_ray.errors import SpecError
from olfl_ray.memory import free_memory, refuse_too_large
from olfl_ray.spec import Strict
from olfl_ray.vision import torchvision

__all__ = ["Folder"]

Side = Annotated[int, Field(ge=1, le=4096)]
MODES = {1: "L", 3: "RGB"}


def _as_sides(value: Any) -> Any:
    return (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, list) else value


class Folder(FileFormat):
    """A folder of images: `CLASS/IMAGE`."""

    holds = "folder"

    class Config(Strict):
        """Where the images are, and how they are read."""

        size: Annotated[tuple[Side, Side] | None, BeforeValidator(_as_sides)] = None
        """Height and width to which images are resized, or one number for both; null: all have the same size."""
        channels: Literal[1, 3] = 3
        """3: RGB; 1: grey."""
        test: str = ""
        """Subfolder with the test set, such as test; empty: there is none, and task.split decides."""
        train: str = "train"
        """Subfolder with the other images; where there is no `test`, they are in the folder itself."""

    def read(self, path: Path) -> Dataset:
        """The data set of a folder: classes in the order of their names."""
        parts = [self._part(folder) for folder in self._folders(path)]
        x, y = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
        classes = parts[0][2]
        if any(part[2] != classes for part in parts):
            raise SpecError(
                FIELD, f"{path}: {self.config.train} has the classes {', '.join(classes)}, but {self.config.test} "
                f"{', '.join(parts[1][2])}; make them the same"
            )  # fmt: skip
        if len(classes) < 2:
            raise SpecError(FIELD, f"{path} has only one class folder, {classes[0]!r}; two or more are needed")
        return Dataset(
            name=path.name,
            kind="classification",
            x=x,
            y=y,
            outputs=len(classes),
            classes=classes,
            test=torch.arange(len(parts[0][1]), len(y)) if self.config.test else None,
        )

    def files(self, path: Path) -> list[Path]:
        """All files below the folder."""
        return sorted(file for file in path.rglob("*") if file.is_file())

    def _folders(self, path: Path) -> list[Path]:
        given = self.config
        if not given.test:
            return [path]
        for option in ("train", "test"):
            if not (path / getattr(given, option)).is_dir():
                raise SpecError(
                    f"{FIELD}.{option}", f"{path / getattr(given, option)} is not a folder; correct the name"
                )
        return [path / given.train, path / given.test]

    def _part(self, folder: Path) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        torchvision()
        from torchvision.datasets import ImageFolder

        _refuse_cycles(folder)
        try:
            found = ImageFolder(str(folder))
        except FileNotFoundError as error:
            reason = " ".join(str(error).split())
            raise SpecError(
                FIELD, f"{reason}; put each class's images into a folder of its own, {folder}/CLASS"
            ) from None
        images: list[np.ndarray] = []
        for file, _ in found.samples:
            images.append(self._image(file))
            if len(images) == 1:
                needed = 2 * images[0].nbytes * len(found.samples)
                what = f"{len(found.samples)} images of {images[0].nbytes:,} bytes in {folder}"
                refuse_too_large(needed, what, f"{FIELD}.size", free_memory())
            if images[-1].shape != images[0].shape:
                first, own = ("x".join(map(str, shape[-2:])) for shape in (images[0].shape, images[-1].shape))
                raise SpecError(
                    f"{FIELD}.size",
                    f"{found.samples[0][0]} has {first} pixels, but {file} {own} (height x width); give size: to which all "
                    "are resized",
                )
        return torch.from_numpy(np.stack(images)), torch.tensor(found.targets), tuple(found.classes)

    def _image(self, file: str) -> np.ndarray:
        from PIL import Image

        if not Path(file).is_file():  # opening a pipe without a writer would block
            raise SpecError(FIELD, f"{file} is a pipe, a device, or a link to nothing; remove it")
        try:
            with Image.open(file) as image:
                pixels = image.convert(MODES[self.config.channels])
                if self.config.size is not None:
                    pixels = pixels.resize(self.config.size[::-1], Image.Resampling.BILINEAR)
                array = np.asarray(pixels, dtype=np.uint8)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise SpecError(FIELD, f"{file} can't be read as an image ({error}); replace or remove it") from None
        return np.ascontiguousarray(array[None] if array.ndim == 2 else array.transpose(2, 0, 1))


def _refuse_cycles(folder: Path) -> None:
    """Refuse a folder in which links lead to the same folder twice: it would be listed again and again, perhaps for ever."""
    for one in folder.iterdir() if folder.is_dir() else ():
        seen: set[str] = set()
        for inner, _, _ in os.walk(one, followlinks=True):
            real = os.path.realpath(inner)
            if real in seen:
                raise SpecError(FIELD, f"{inner} is a link to {real}, whose images are in {one} already; remove it")
            seen.add(real)
