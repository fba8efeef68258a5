"""Explain the learned loss of a trial or of a file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from olfl_ray.driver import Home
from olfl_ray.study.handle import Study
from olfl_ray.study.loss import load_loss

if TYPE_CHECKING:
    from olfl_ray.explain import Explanation

__all__ = ["explain_loss"]


def explain_loss(
    source: str | Path,
    *,
    at: float | None = None,
    classes: int | None = None,
    home: str | Path | Home | None = None,
    cluster: str | None = None,
    storage: str | None = None,
    allow: Iterable[str] = (),
) -> Explanation:
    """Explain a learned loss: known losses near it, a formula, its faults, and how it came about (docs/explain.md).

    Args:
        source: As of `load_loss`.
        at: As of `load_loss`.
        classes: Number of classes on which its gradients are compared; None: of a trial those of its data set, else 2.
        home: As of `load_loss`.
        cluster: As of `load_loss`.
        storage: As of `load_loss`.
        allow: As of `load_loss`.

    Raises:
        DataError: There is no such loss, or it can't be explained.
    """
    from olfl_ray.explain import explain

    if Path(source).exists() or str(source).count("/") != 2:
        loss = load_loss(source, at=at, home=home, allow=allow)
        return explain([(None, loss)], str(source), classes=2 if classes is None else classes)
    name, _, trial = str(source).partition("/")
    opened = Study.open(name, home=home, cluster=cluster, storage=storage)
    return opened.explain(trial, 1.0 if at is None else at, classes=classes, allow=allow)
