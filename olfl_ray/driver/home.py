"""The home folder: where studies, prepared data and the tracking store live."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from olfl_ray import data
from olfl_ray.errors import SetupError, StudyError
from olfl_ray.spec import NAME
from olfl_ray.storage import (
    POINTER,
    UNTRUSTED,
    LocalStorage,
    Storage,
    expanded,
    is_untrusted,
    open_folder,
    writable_folder,
)
from olfl_ray.tracking.mlflow import artifacts_in, embedded_uri, store_uri

__all__ = ["Home"]


@dataclass(frozen=True)
class Home:
    """One folder for all state of this package on this machine.

    Args:
        path: The folder.
    """

    path: Path

    @classmethod
    def find(cls, path: str | Path | None = None) -> Home:
        """The given folder, else `OLFL_HOME`, else `./.olfl`; made if it is not there.

        Raises:
            SetupError: It can't be written.
        """
        return cls(writable_folder(path or os.environ.get("OLFL_HOME") or ".olfl", "home", private=True))

    @property
    def cache(self) -> Path:
        """Prepared data sets: `OLFL_CACHE`, else in the home folder."""
        return expanded(os.environ.get(data.CACHE) or self.path / "data").absolute()

    @property
    def tracking_uri(self) -> str:
        """The embedded MLflow store."""
        return embedded_uri(self.path)

    def tracking_of(self, given: str | None) -> str:
        """The MLflow store of a study: what its spec gives, else what the environment names, else the embedded one.

        Raises:
            SetupError: The environment names a file by a relative path, which is another file in another folder.
        """
        return store_uri(given, self.path)

    @property
    def artifacts(self) -> Path:
        """Artifacts of an MLflow store without a server."""
        return artifacts_in(self.path)

    @property
    def studies(self) -> Path:
        """Folder of the studies."""
        return self.path / "studies"

    def study_folder(self, name: str) -> Path:
        """The folder of a study; its name can't lead out of the home folder."""
        if not re.fullmatch(NAME, name, re.ASCII) or ".." in name:
            raise StudyError(f"study: {name!r} is not a name of a study; use at most 64 letters, digits, `_`, `.`, `-`")
        return self.studies / name

    def report_folder(self, name: str) -> Path:
        """Where a study's report is written."""
        return self.study_folder(name) / "report"

    def storage(self, name: str) -> Storage:
        """The storage of a study that was begun here: its folder, or the storage that `point_to` recorded there."""
        return open_folder(self.study_folder(name))

    def point_to(self, name: str, storage: Storage, *, untrusted: bool = False) -> None:
        """Note where a study is kept, if that is not its folder: inside the home folder as a relative path.

        Args:
            name: The study.
            storage: Where it is kept.
            untrusted: Whether MLflow says so, and no user: then the study is read there, and never run.

        Raises:
            SetupError: It can't be written.
        """
        folder = self.study_folder(name)
        here = LocalStorage(folder)
        if storage.url == self.storage(name).url and (untrusted or not is_untrusted(folder)):
            return
        location = storage.url
        if isinstance(storage, LocalStorage) and storage.root.is_relative_to(self.path):
            location = os.path.relpath(storage.root, folder)
        try:
            if storage.url == here.url:
                here.delete(POINTER)
            else:
                here.write(POINTER, f"{location}\n{UNTRUSTED if untrusted else ''}".encode())
        except SetupError as error:
            raise SetupError(
                f"{folder}: can't record the study's storage there ({error}); move away the file there, or "
                "choose another home folder with `home=`"
            ) from None

    def refuse_untrusted(self, name: str) -> None:
        """Refuse to run a study whose storage only MLflow knows: whoever writes there would choose what runs here.

        Raises:
            StudyError: It is such a study.
        """
        if is_untrusted(self.study_folder(name)):
            place = self.storage(name).url.rpartition("/")[0]
            raise StudyError(
                f"study: only MLflow says that {name!r} is kept in {place}, so it is read but not run; if you trust "
                f"who writes there, give `storage={place}`"
            )

    def names(self) -> list[str]:
        """Names of the studies here."""
        if not self.studies.is_dir():
            return []
        return sorted(entry.name for entry in self.studies.iterdir() if entry.is_dir())


def data_root() -> Path | None:
    """The folder of given data sets, from `OLFL_DATA`."""
    value = os.environ.get("OLFL_DATA")
    return expanded(value).absolute() if value else None
