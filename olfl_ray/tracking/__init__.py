"""Tracking: where a study's records are sent. Each tracker is a file or a package."""

from olfl_ray.tracking.chosen import TRACKERS, check_same_place, explained, resolved_tracking, trackers_of
from olfl_ray.tracking.sink import Sink, parent_status
from olfl_ray.tracking.tracker import DatasetNote, TrackedArm, TrackedStudy, Tracker

__all__ = [
    "TRACKERS",
    "DatasetNote",
    "Sink",
    "TrackedArm",
    "TrackedStudy",
    "Tracker",
    "check_same_place",
    "explained",
    "parent_status",
    "resolved_tracking",
    "trackers_of",
]
