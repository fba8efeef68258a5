"""How well a study used its slots: the share of their time in which no trial ran."""

from __future__ import annotations

import math
from collections.abc import Iterable

from olfl_ray.ledger import TrialState

__all__ = ["idle_share"]


def idle_share(trials: Iterable[TrialState], slots: int) -> float | None:
    """The share of slot time without a trial, from the first start of a trial to the last end; None if none has ended.

    A trial counts from its first start to its end, so only a study that ran in one piece has a meaningful share.

    Args:
        trials: The trials. Those that have not ended are left out.
        slots: Number of trials that can run at the same time (`concurrency`, or fewer on a small cluster).
    """
    spans = [(one.began_at, one.ended_at) for one in trials if one.began_at is not None and one.ended_at is not None]
    if not spans:
        return None
    first, last = min(began for began, _ in spans), max(ended for _, ended in spans)
    busy = math.fsum(ended - began for began, ended in spans)
    return max(0.0, 1 - busy / (slots * (last - first))) if last > first else None
