"""A format of files that hold a data set: `task.dataset: {name: "FORMAT:PATH", ...}`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from olfl_ray.data.dataset import Dataset
from olfl_ray.errors import SpecError
from olfl_ray.plugins import nearest
from olfl_ray.spec import Strict

__all__ = ["FIELD", "FileFormat"]

FIELD = "task.dataset"


class FileFormat(ABC):
    """A format. Its settings stand next to the name.

    Args:
        config: Its settings.
    """

    Config: ClassVar[type[Strict]] = Strict
    holds: ClassVar[str] = "file"
    """What its path names: a file or a folder."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def read(self, path: Path) -> Dataset:
        """The data set; `load` adds its fingerprint.

        Raises:
            SpecError: The content can't be read, or does not fit the settings.
        """

    def files(self, path: Path) -> list[Path]:
        """The files that it reads; a process that has read them does so again if one has changed."""
        return [path]

    def check(self, path: Path) -> None:
        """Refuse a path that is not what the format reads.

        Raises:
            SpecError: Names the path, and a near one.
        """
        if path.is_dir() if self.holds == "folder" else path.is_file():
            return
        if path.exists():
            raise SpecError(FIELD, f"{path} is not a {self.holds}; name a {self.holds}")
        there = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise SpecError(
            FIELD,
            f"{path} does not exist{nearest(path.name, there)}; correct the path (a relative one starts at the folder in which "
            "the study is started)",
        )
