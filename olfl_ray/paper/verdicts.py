"""Online against each other method, paired by seed and corrected over rows; and whether the claim holds in a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from olfl_ray.analysis import holm, mean, paired, sign_flips
from olfl_ray.paper.results import Result
from olfl_ray.paper.rows import BASELINE, OFFLINE, ONLINE

__all__ = ["CLAIM", "Comparison", "compare", "verdict"]

CLAIM = (BASELINE, OFFLINE)
"""The methods that the claim says online beats."""

LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Test errors of online minus another method's, on the fresh seeds that both finished.

    Args:
        other: The other arm.
        n: Those seeds.
        level: Mean error of the other method on them.
        mean: Mean difference; below 0 online errs less.
        low: Lower end of its 95 % confidence interval (Student's t).
        high: Its upper end.
        detectable: Smallest true difference found with power 0.8 at level 0.05, uncorrected.
        p: Two-sided p value of the paired t-test.
        flips: Of the exact test by sign flips, which supposes no normal distribution.
        holm: p, corrected by Holm over the family.
    """

    other: str
    n: int
    level: float
    mean: float
    low: float
    high: float
    detectable: float
    p: float
    flips: float
    holm: float

    @property
    def found(self) -> str:
        """better, worse, or no difference, at level 0.05 after the correction."""
        if self.holm >= LEVEL:
            return "no difference"
        return "better" if self.mean < 0 else "worse"


def compare(results: Sequence[Result]) -> dict[str, dict[str, Comparison]]:
    """Study -> other arm -> online against it.

    For each kind of settings there are two families of tests: those of the claim (the task loss, offline) over all rows,
    and those of the further methods over all rows.
    """
    found = {result.study: {one.other: one for one in _uncorrected(result)} for result in results}
    for settings in ("fixed", "tuned"):
        studies = [result.study for result in results if result.settings == settings]
        for claim in (True, False):
            family = [one for study in studies for one in found[study].items() if (one[0] in CLAIM) == claim]
            places = [study for study in studies for other in found[study] if (other in CLAIM) == claim]
            for study, (other, one), p in zip(places, family, holm([one.p for _, one in family]), strict=True):
                found[study][other] = replace(one, holm=p)
    return found


def _uncorrected(result: Result) -> list[Comparison]:
    online = result.method(ONLINE)
    found = []
    for method in result.methods if online is not None else ():
        assert online is not None
        difference = paired(method.arm, online.errors, method.errors) if method.arm != ONLINE else None
        if difference is None:
            continue
        shared = [seed for seed in online.errors if seed in method.errors]
        found.append(
            Comparison(
                other=method.arm,
                n=difference.n,
                level=mean([method.errors[seed] for seed in shared]),
                mean=difference.mean,
                low=difference.low,
                high=difference.high,
                detectable=difference.detectable,
                p=difference.p,
                flips=sign_flips([online.errors[seed] - method.errors[seed] for seed in shared]),
                holm=difference.p,
            )
        )
    return found


def verdict(result: Result, comparisons: Mapping[str, Comparison]) -> str:
    """holds: online is better than both; contradicted: worse than one; else not shown."""
    online = result.method(ONLINE)
    if online is not None and online.lost:
        return f"not shown: online lost {sum(online.lost.values())} of {result.seeds} seeds"
    words = [comparisons[arm].found if arm in comparisons else "" for arm in CLAIM]
    if "worse" in words:
        return "contradicted"
    return "holds" if words == ["better", "better"] else "not shown"
