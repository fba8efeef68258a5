"""A request to stop a driver and its workers, as an object in the study's storage; anyone with access may make it."""

from __future__ import annotations

import contextlib
import time

from olfl_ray.errors import SetupError
from olfl_ray.storage import Storage

__all__ = ["StopRequest"]

LOOK_SECONDS = 0.5
"""Minimum time between two reads of the storage, in seconds."""


class StopRequest:
    """Requests the driver of one epoch to stop; the next driver has another epoch, so the request expires with this one.

    Args:
        storage: The study's storage.
        epoch: Epoch of the driver's lease.
    """

    def __init__(self, storage: Storage, epoch: int) -> None:
        self._storage, self._key = storage, f"stop/{epoch:09d}.json"
        self._made, self._looked = False, 0.0

    def make(self) -> None:
        """Request it. Workers commit at their next evaluation and stop; the driver starts no more trials."""
        self._made = True
        with contextlib.suppress(SetupError):  # on a full disk the driver itself still stops
            self._storage.create(self._key, b"{}")

    def made(self) -> bool:
        """Whether anyone has requested it; a request of another process is noticed within half a second."""
        now = time.monotonic()
        if not self._made and now - self._looked >= LOOK_SECONDS:
            self._looked = now
            with contextlib.suppress(SetupError):  # an unreachable store is read again later
                self._made = self._storage.exists(self._key)
        return self._made
