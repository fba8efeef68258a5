"""Cells of the document's tables."""

from __future__ import annotations

import math
from collections import Counter
from statistics import median

from experiments.paper.results import Method
from olfl_ray.analysis import Difference, mean, sd

__all__ = ["count", "error", "interval", "line", "rate", "reached", "seconds", "short", "smoothing", "step_time"]


def line(*cells: str) -> str:
    """A row of a table."""
    return "| " + " | ".join(cells) + " |"


def error(method: Method | None) -> str:
    """Mean and standard deviation of the test errors."""
    if method is None or not method.errors:
        return "–"
    values = list(method.errors.values())
    return f"{mean(values):.4g}" + (f" ± {sd(values):.2g}" if len(values) > 1 else "")


def count(method: Method | None) -> str:
    """Fresh seeds with a test error, and what became of others."""
    if method is None:
        return "–"
    if method.unrunnable:
        return f"0 (search trials: {', '.join(method.trials)})"
    lost = ", ".join(f"{number} {why}" for why, number in sorted(Counter(method.lost.values()).items()))
    return f"{len(method.errors)}" + (f" ({lost})" if lost else "")


def interval(one: Difference) -> str:
    """A mean difference and its 95 % interval."""
    return f"{one.mean:+.3g} [{one.low:+.3g}, {one.high:+.3g}]"


def reached(method: Method) -> str:
    """Steps to the baseline's error, median over all seeds; those that never got there count as later than any other."""
    steps = sorted(math.inf if step is None else step for step in method.reached.values())
    if not steps:
        return ""
    there, middle = sum(map(math.isfinite, steps)), median(steps)
    return f"{f'{middle:,.0f}' if math.isfinite(middle) else 'later'} ({there} of {len(steps)})"


def rate(method: Method) -> str:
    """Effective learning rate at the first and the last record."""
    return "" if method.rate is None else f"{method.rate[0]:.2g} → {method.rate[1]:.2g}"


def smoothing(method: Method) -> str:
    """Implicit smoothing: median over seeds, and the range."""
    if not method.smoothing:
        return ""
    low, high = min(method.smoothing), max(method.smoothing)
    return f"{median(method.smoothing):.2g}" + (f" ({low:.2g} to {high:.2g})" if high > low else "")


def seconds(method: Method, baseline: Method | None) -> str:
    """Seconds of a run, and how many runs of the baseline they are."""
    if method.seconds is None:
        return ""
    ratio = f" ({method.seconds / baseline.seconds:.2g} ×)" if baseline is not None and baseline.seconds else ""
    return f"{method.seconds:.3g}{ratio}"


def step_time(method: Method) -> str:
    """Milliseconds of a base step."""
    return "" if method.step_ms is None else f"{method.step_ms:.3g}"


def short(value: object) -> str:
    """A setting."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
