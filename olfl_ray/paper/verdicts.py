"""Which method errs less, paired by seed and corrected over rows; and whether the claim holds in a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from olfl_ray.analysis import Difference, holm, mean, paired, sign_flips
from olfl_ray.paper.results import Method, Result
from olfl_ray.paper.rows import BASELINE, METHODS, OFFLINE, ONLINE

__all__ = ["CLAIM", "JUDGES", "Comparison", "Comparisons", "compare", "verdict"]

CLAIM = ((ONLINE, BASELINE), (ONLINE, OFFLINE), (OFFLINE, BASELINE))
"""The pairs that the claim orders: the first of each is said to err less. The claim holds or falls with online's two."""

JUDGES = ("more_data", "same_compute")
"""Methods that tell what online's gain is worth: the task loss with what online had."""

LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Test errors of a method minus another's, on the fresh seeds that both finished.

    Args:
        level: Mean error of the other method on them.
        difference: Of the errors, paired by seed.
        flips: p value of the exact test by sign flips, which supposes no normal distribution.
        holm: p value of the paired t-test, corrected by Holm over the family.
    """

    level: float
    difference: Difference
    flips: float
    holm: float

    @property
    def found(self) -> str:
        """better, worse, or no difference, at level 0.05 after the correction."""
        if self.holm >= LEVEL:
            return "no difference"
        return "better" if self.difference.mean < 0 else "worse"


Comparisons = Mapping[tuple[str, str], Comparison]
"""(method, the other) -> the first against the second."""


def compare(results: Sequence[Result]) -> dict[str, Comparisons]:
    """Study -> its comparisons: the pairs of the claim, and online against each further method.

    For each kind of settings there are two families of tests over all rows: the claim's pairs in the rows that judge
    it, and all others.
    """
    found = {result.study: _uncorrected(result) for result in results}
    for settings in ("fixed", "tuned"):
        own = [result for result in results if result.settings == settings]
        keys = [(result, pair) for result in own for pair in found[result.study]]
        for claim in (True, False):
            family = [
                (result.study, pair) for result, pair in keys if (pair in CLAIM and _of_the_claim(result)) == claim
            ]
            p = holm([found[study][pair].difference.p for study, pair in family])
            for (study, pair), corrected in zip(family, p, strict=True):
                found[study][pair] = replace(found[study][pair], holm=corrected)
    return dict(found)


def verdict(result: Result, comparisons: Comparisons) -> str:
    """holds: online is better than the task loss and than offline; contradicted: worse than one; else not shown.

    A row in which seeds have still to be run is incomplete, whatever they say so far; what was lost stands beside.
    """
    if not _of_the_claim(result):
        return "not of the claim"
    methods = [result.method(arm) for arm in (ONLINE, BASELINE, OFFLINE)]
    for method in methods:
        assert method is not None
        if not method.unrunnable and (done := len(method.errors) + sum(method.lost.values())) < result.seeds:
            return f"incomplete: {done} of {result.seeds} seeds of {METHODS[method.arm]}"
    words = [comparisons[pair].found if pair in comparisons else "" for pair in CLAIM[:2]]
    lost = "".join(f"; {told}" for method in methods if method is not None and (told := _lost(method, result.seeds)))
    if "worse" in words:
        return f"contradicted{lost}"
    online = methods[0]
    if words != ["better", "better"] or (online is not None and online.lost):
        return f"not shown{lost}"
    equal = [
        METHODS[arm] for arm in JUDGES if (one := comparisons.get((ONLINE, arm))) is not None and one.found != "better"
    ]
    return f"holds{lost}" + (f"; not better than {' and '.join(equal)}" if equal else "")


def _of_the_claim(result: Result) -> bool:
    return result.claim and all(result.method(arm) is not None for arm in (ONLINE, BASELINE, OFFLINE))


def _lost(method: Method, seeds: int) -> str:
    name = METHODS[method.arm]
    if method.unrunnable:
        return f"no search trial of {name} finished"
    return f"{name} lost {sum(method.lost.values())} of {seeds} seeds" if method.lost else ""


def _uncorrected(result: Result) -> dict[tuple[str, str], Comparison]:
    others = [(ONLINE, method.arm) for method in result.methods if method.arm != ONLINE]
    found = {}
    for pair in dict.fromkeys((*CLAIM, *others)):
        own, other = result.method(pair[0]), result.method(pair[1])
        if own is None or other is None:
            continue
        difference = paired(other.arm, own.errors, other.errors)
        if difference is None:
            continue
        shared = [seed for seed in own.errors if seed in other.errors]
        found[pair] = Comparison(
            level=mean([other.errors[seed] for seed in shared]),
            difference=difference,
            flips=sign_flips([own.errors[seed] - other.errors[seed] for seed in shared]),
            holm=difference.p,
        )
    return found
