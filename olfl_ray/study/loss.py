"""Load a learned loss for use in any training loop."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from olfl_ray.driver.home import Home
from olfl_ray.errors import DataError
from olfl_ray.losses import LearnedLoss, loss_from_bytes
from olfl_ray.worker import find_loss

__all__ = ["load_loss"]


def load_loss(
    source: str | Path,
    *,
    home: str | Path | Home | None = None,
    tracking_uri: str | None = None,
    allow: Iterable[str] = (),
) -> LearnedLoss:
    """A learned loss as an `nn.Module`: called with (outputs, targets), gives a scalar.

    Args:
        source: Its file or folder; a sweep's trial, `STUDY/ARM/ORDINAL`; or the id of an MLflow run.
        home: Home folder of the trial or run; None: `OLFL_HOME`, else `./.olfl`.
        tracking_uri: MLflow store of the run; None: `MLFLOW_TRACKING_URI`, else the home folder's own.
        allow: Packages, modules or full names (`package.module:builder`) of builders that may be called. A learned loss
            is data, and whoever wrote its files chose the builder that they name: one that is not allowed is refused.

    Raises:
        DataError: There is none, or a builder that is not allowed makes it.
    """
    allow = [allow] if isinstance(allow, str) else list(allow)
    if not isinstance(source, str | Path):
        raise DataError(
            f"load_loss: source must be a path, STUDY/ARM/ORDINAL or the id of a run, but it is {source!r}; name one"
        )
    if Path(source).exists():
        return find_loss(str(source), None, allow=allow)
    place = home if isinstance(home, Home) else Home.find(home)
    if re.fullmatch(r"[0-9a-f]{32}", str(source)):
        from olfl_ray.tracking.mlflow import fetch_learned_loss

        found = fetch_learned_loss(place.tracking_of(tracking_uri), str(source))
        return loss_from_bytes(*found, f"run {source}", allow)
    return find_loss(str(source), place.studies, allow=allow)
