"""Where a study and its runs are kept: a relative path is resolved once, and a study gets no second location."""

from __future__ import annotations

from olfl_ray import data
from olfl_ray.driver.home import Home
from olfl_ray.driver.look import storage_of
from olfl_ray.errors import StudyError
from olfl_ray.spec import StudySpec, with_datasets
from olfl_ray.storage import expanded, is_relative
from olfl_ray.tracking import resolved_tracking

__all__ = ["check_location", "resolved"]


def resolved(spec: StudySpec) -> StudySpec:
    """The spec with paths from / for the folders and files that it names by relative ones."""
    storage = spec.storage
    if storage.url is not None and is_relative(storage.url):
        storage = storage.model_copy(update={"url": str(expanded(storage.url).absolute())})
    settled = spec.model_copy(update={"storage": storage, "tracking": resolved_tracking(spec.tracking)})
    before = settled.model_dump(mode="json", by_alias=True)
    after = with_datasets(before, data.absolute)
    return settled if after == before else StudySpec.model_validate(after)


def check_location(spec: StudySpec, home: Home) -> None:
    """Refuse to begin a study again while the home folder has one with its name in another location.

    Raises:
        StudyError: Names both locations.
    """
    known, wanted = home.storage(spec.name), storage_of(spec, home)
    if known.url != wanted.url and known.keys("ledger/"):
        raise StudyError(
            f"storage: the study {spec.name!r} is kept in {known.url}, but the spec names {wanted.url}; resume it with "
            f"`olfl sweep resume {spec.name}`, move that folder, or choose another name with `name=`"
        )
