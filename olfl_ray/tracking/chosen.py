"""The trackers of a spec; an error in a user's own tracker becomes one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from olfl_ray.errors import OlflError, SetupError
from olfl_ray.registry import Registry
from olfl_ray.spec import StudySpec, TrackerSpec, checked_options, trackers_from, without_secrets
from olfl_ray.tracking.tracker import TrackedStudy, Tracker

__all__ = ["TRACKERS", "check_same_place", "explained", "resolved_tracking", "trackers_of"]

TRACKERS = Registry("olfl_ray.tracking", Tracker)  # type: ignore[type-abstract]
"""Trackers by name; a user's own is `package.module:Class`."""


def trackers_of(study: TrackedStudy) -> list[Tracker]:
    """The trackers of a study.

    Raises:
        SpecError: There is no such tracker, or it does not accept these settings.
    """
    found = []
    for named, kind, config in _chosen(study.spec.tracking):
        with explained(named.name):
            found.append(kind(config, study))
        found[-1].name = named.name
    return found


def resolved_tracking(tracking: tuple[TrackerSpec, ...], *, own: bool = True) -> tuple[TrackerSpec, ...]:
    """The trackers' settings, made independent of the current folder.

    Args:
        tracking: The settings in the spec.
        own: Whether to include a user's own trackers, whose code may not be on this machine.
    """
    resolved = []
    for index, named in enumerate(tracking):
        if ":" in named.name and not own:
            resolved.append(named)
            continue
        kind, config = _kind(named, index, len(tracking))
        settled = kind.resolve(config)
        if settled != config:
            changed = settled.model_dump(mode="json", by_alias=True, include=set(named.options))
            named = TrackerSpec.model_validate({"name": named.name, **changed})
        resolved.append(named)
    return tuple(resolved)


def check_same_place(spec: StudySpec, before: Mapping[str, Any]) -> None:
    """Refuse a relative path that refers to another location than that of the study's existing records.

    Args:
        spec: The new spec as written.
        before: The study's spec so far, as plain values.

    Raises:
        StudyError: Names both locations.
    """
    previous = {named.name: config for named, _, config in _chosen(trackers_from(before["tracking"]))}
    for named, kind, config in _chosen(spec.tracking):
        if named.name in previous:
            kind.resolve(config, previous[named.name])


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn any other exception of a tracker into a one-line error.

    Raises:
        SetupError: Names the tracker and the exception.
    """
    try:
        yield
    except OlflError:
        raise
    except Exception as error:
        reason = without_secrets(str(error)).strip().splitlines() or [""]
        raise SetupError(
            f"tracking: the tracker {name} raised {type(error).__name__}: {reason[0][:200]}; correct it, or its settings"
        ) from error


def _chosen(tracking: tuple[TrackerSpec, ...]) -> Iterator[tuple[TrackerSpec, type[Tracker], Any]]:
    for index, named in enumerate(tracking):
        yield named, *_kind(named, index, len(tracking))


def _kind(named: TrackerSpec, index: int, count: int) -> tuple[type[Tracker], Any]:
    field = "tracking" if count == 1 else f"tracking.{index}"
    kind = TRACKERS.find(named.name, f"{field}.name")
    return kind, checked_options(kind.Config, named.options, field)
