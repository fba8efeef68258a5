"""A data set that `olfl_ray.dataset` wrote from an object of a Python program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from olfl_ray.data.dataset import Dataset
from olfl_ray.data.dataset_file import read_dataset
from olfl_ray.data.formats.base import FileFormat
from olfl_ray.spec import PART, Strict

__all__ = ["Arrow"]


class Arrow(FileFormat):
    """A data set's Arrow file."""

    class Config(Strict):
        """What the file alone may not decide."""

        kind: Annotated[str, Field(pattern=PART)] | None = None
        """The task, where it is `package.module:Class`: that is code, which a file may not choose; null: the file's."""

    def read(self, path: Path) -> Dataset:
        """The data set that was written."""
        return read_dataset(path, self.config.kind or "")
