"""The final table as text: numbers, spreads, and remarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from olfl_ray.analysis.outcome import Outcome
from olfl_ray.analysis.tables import ArmResult

__all__ = ["cells_of", "head_of", "number", "remarks", "short", "spread_of"]

HEAD = ("arm", "trials", "best settings", "selection", "test", "n", "difference [95 % CI]", "p", "detectable")


def number(value: float | None, sign: str = "") -> str:
    """Four decimals if they are precise enough, else three significant digits; a dash for no value."""
    if value is None:
        return "–"
    return f"{value:{sign}.4f}" if value == 0 or 1e-3 <= abs(value) < 1e4 else f"{value:{sign}.3g}"


def spread_of(outcome: Outcome) -> str:
    """Mean ± standard deviation over seeds; empty if there is no seed."""
    if outcome.mean is None:
        return ""
    return number(outcome.mean) + (f" ± {number(outcome.sd)}" if outcome.sd is not None else "")


def remarks(results: Sequence[ArmResult]) -> list[str]:
    """Notes below the table: arms no better than a constant, metrics that disagree, gradients that mislead."""
    found = []
    trivial = next((result.test.trivial for result in results if result.test.trivial is not None), None)
    if trivial is not None:
        found.append(f"The best constant prediction has a test {results[0].test.metric} of {number(trivial)}.")
    for result in results:
        if result.test.no_better_than_trivial:
            found.append(f"{result.arm} is no better than that: it has not learned to use its inputs.")
        if result.contradicted and result.primary is not None:
            better, worse = result.test, result.primary
            if better.gain < 0:
                better, worse = worse, better
            found.append(
                f"{result.arm} is better than {_against(better)} by {better.metric} but worse by {worse.metric}; "
                f"the study was searched by {result.test.metric}."
            )
    for result in results:
        if (gradient := result.gradient) is None:
            continue
        if gradient.far_smaller:
            found.append(
                f"{result.arm} trained on a gradient {_times(gradient.ratio)} the task loss's (median over training), so its "
                "base learner hardly moved: search larger values of learner.optimizer.lr or meta.eta_online."
            )
        if gradient.against:
            found.append(
                f"{result.arm} trained on a gradient that points away from the task loss's (mean cosine "
                f"{gradient.cosine:.2g}): its steps increase the task loss."
            )
    return found


def cells_of(result: ArmResult) -> tuple[str, ...]:
    """An arm's cells of the final table, in the order of `head_of`."""
    test, difference, p, detectable = spread_of(result.test) or "–", "–", "–", "–"
    if result.test.no_better_than_trivial:
        test += "\n(no better than a constant)"
    if result.primary is not None:
        test += f"\n({result.primary.metric} {spread_of(result.primary)})"
    test += "".join(f"\n({one.metric} {spread_of(one)})" for one in result.described)
    if (d := result.test.difference) is not None:
        difference = f"{number(d.mean, '+')} [{number(d.low, '+')}, {number(d.high, '+')}]"
        p, detectable = ("< 0.0001" if d.p < 1e-4 else f"{d.p:.4f}"), number(d.detectable)
    total = sum(result.trials.values())
    trials = f"{total}: " + ", ".join(f"{count} {name}" for name, count in result.trials.items()) if total else "0"
    settings = "\n".join(f"{name} = {short(value)}" for name, value in result.best_params.items()) or "–"
    lost = {name: count for name, count in result.confirming.items() if name in ("diverged", "failed")}
    n = str(result.n) + "".join(f"\n({count} {name})" for name, count in lost.items())
    return (result.arm, trials, settings, number(result.selection_value), test, n, difference, p, detectable)


def head_of(results: Sequence[ArmResult]) -> tuple[str, ...]:
    """The columns of the final table."""
    return tuple(f"test {results[0].test.metric}" if name == "test" and results else name for name in HEAD)


def short(value: Any) -> str:
    """A setting's value, with four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _times(ratio: float) -> str:
    return f"{1 / ratio:,.0f} times smaller than" if ratio > 0 else "of 0, unlike"


def _against(outcome: Outcome) -> str:
    return outcome.difference.baseline if outcome.difference is not None else "the baseline"
