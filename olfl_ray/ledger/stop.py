"""A request to stop a driver and its workers, as an object in the study's storage: anyone with access may request it."""

from __future__ import annotations

import contextlib
import time

from olfl_ray.errors import SetupError
from olfl_ray.storage import Storage

__all__ = ["StopRequest"]

LOOK_SECONDS = 0.5
"""Least time between two looks into the storage, in seconds."""


class StopRequest:
    """Asks the driver of one epoch to stop; the next driver has another epoch, so the request ends with this one.

    Args:
        storage: The study's storage.
        epoch: Epoch of the driver's lease.
    """

    def __init__(self, storage: Storage, epoch: int) -> None:
        self._storage, self._key = storage, f"stop/{epoch:09d}.json"
        self._made, self._looked = False, 0.0

    def make(self) -> None:
        """Ask. Workers commit at their next evaluation and stop; the driver starts nothing more."""
        self._made = True
        with contextlib.suppress(SetupError):  # on a full disk the driver itself still stops
            self._storage.create(self._key, b"{}")

    def made(self) -> bool:
        """Whether anyone has asked; what another process asked is seen within half a second."""
        now = time.monotonic()
        if not self._made and now - self._looked >= LOOK_SECONDS:
            self._looked = now
            with contextlib.suppress(SetupError):  # a store that is out of reach is asked again
                self._made = self._storage.exists(self._key)
        return self._made
