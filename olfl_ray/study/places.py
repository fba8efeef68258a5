"""Where a study and its runs are kept: a relative path is resolved once, and a study gets no second location."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from olfl_ray.errors import StudyError
from olfl_ray.spec import StudySpec
from olfl_ray.storage import expanded, is_relative
from olfl_ray.study.home import Home
from olfl_ray.study.look import storage_of
from olfl_ray.tracking import absolute_uri, file_of

__all__ = ["check_place", "check_tracking", "resolved"]


def resolved(spec: StudySpec) -> StudySpec:
    """The spec with paths from / for the folder and the SQLite file that it names by relative ones."""
    storage, tracking = spec.storage, spec.tracking
    if storage.url is not None and is_relative(storage.url):
        storage = storage.model_copy(update={"url": str(expanded(storage.url).absolute())})
    if tracking.uri is not None:
        tracking = tracking.model_copy(update={"uri": absolute_uri(tracking.uri)})
    return spec.model_copy(update={"storage": storage, "tracking": tracking})


def check_place(spec: StudySpec, home: Home) -> None:
    """Refuse to begin a study again while the home folder has one with its name in another location.

    Raises:
        StudyError: Names both locations.
    """
    known, wanted = home.storage(spec.name), storage_of(spec, home)
    if known.url != wanted.url and known.keys("ledger/"):
        raise StudyError(
            f"storage: the study {spec.name!r} is kept in {known.url}, but the spec names {wanted.url}; resume it with "
            f"`olfl sweep resume {spec.name}`, move that folder, or choose another name with --name"
        )


def check_tracking(spec: StudySpec, before: Mapping[str, Any]) -> None:
    """Refuse a relative path of an SQLite file that is another file than the one that the study's runs are in.

    Args:
        spec: As it was written.
        before: The study's spec so far, as plain values.

    Raises:
        StudyError: Names both files.
    """
    given, noted = spec.tracking.uri, before["tracking"]["uri"]
    if given is None or noted in (None, given) or noted == (wanted := absolute_uri(given)) or wanted == given:
        return
    if (file := file_of(noted)) is not None and file.exists():
        raise StudyError(
            f"tracking.uri: {given!r} is {wanted} here, but the study's runs are in {noted}; give the intended one "
            "as an absolute path"
        )
