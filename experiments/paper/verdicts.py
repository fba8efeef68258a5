"""Which method errs less, paired by seed and corrected over benchmarks; and whether the claim holds on each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from experiments.paper.results import Method, Result
from experiments.paper.rows import BASELINE, METHODS, OFFLINE, ONLINE
from olfl_ray.analysis import Difference, detectable, holm, mean, paired, sign_flips, sign_test

__all__ = ["CLAIM", "JUDGES", "Comparison", "Comparisons", "compare", "verdict"]

CLAIM = ((ONLINE, BASELINE), (ONLINE, OFFLINE), (OFFLINE, BASELINE))
"""The pairs that the claim orders: the first of each is said to err less. The claim holds or falls with online's two."""

JUDGES = ("more_data", "same_compute")
"""Methods that tell what online's gain is worth: the task loss with what online had."""

LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Test errors of a method minus another's, on the fresh seeds of both.

    Args:
        level: Mean error of the other method on the seeds that both finished.
        difference: Of the errors on those, paired by seed.
        flips: p value of the exact test by sign flips on those, which supposes no normal distribution.
        lost: Seeds that one of the two lost.
        ahead: Seeds on which the first erred less, or the other alone was lost, minus those of the opposite.
        p: Of the paired t-test; where seeds were lost, of the sign test, in which a lost seed is the method's loss.
        holm: p corrected by Holm over the family.
        detectable: Smallest true difference found with power 0.8 at the level of the family's first test.
    """

    level: float
    difference: Difference
    flips: float
    lost: int
    ahead: int
    p: float
    holm: float
    detectable: float

    @property
    def percent(self) -> float:
        """The mean difference in percent of the other method's error."""
        return 100 * self.difference.mean / self.level

    @property
    def found(self) -> str:
        """better, worse, or no difference, at level 0.05 after the correction."""
        if self.holm >= LEVEL:
            return "no difference"
        return "better" if (self.ahead > 0 if self.lost else self.difference.mean < 0) else "worse"


Comparisons = Mapping[tuple[str, str], Comparison]
"""(method, the other) -> the first against the second; of methods whose fresh seeds have all ended."""


def compare(results: Sequence[Result]) -> dict[str, Comparisons]:
    """Study -> its comparisons.

    For each kind of settings there are three families of tests over all rows: in the rows that judge the claim, its
    pairs, and online against each further method; in the others, each further method against the task loss and offline.
    """
    found = {result.study: _uncorrected(result) for result in results}
    families = defaultdict(list)
    for result in results:
        for pair in found[result.study]:
            kind = "transfer" if not of_the_claim(result) else "claim" if pair in CLAIM else "further"
            families[result.settings, kind].append((result.study, pair))
    for family in families.values():
        p = holm([found[study][pair].p for study, pair in family])
        for (study, pair), corrected in zip(family, p, strict=True):
            one = found[study][pair]
            least = detectable(one.difference.sd, one.difference.n, level=LEVEL / len(family))
            found[study][pair] = replace(one, holm=corrected, detectable=least)
    return dict(found)


def of_the_claim(result: Result) -> bool:
    """Whether the benchmark tests the claim, and has the methods for it."""
    return result.claim and all(result.method(arm) is not None for arm in (ONLINE, BASELINE, OFFLINE))


def verdict(result: Result, comparisons: Comparisons) -> str:
    """holds: online is better than the task loss and than offline; contradicted: worse than one; else not shown.

    A benchmark with seeds still to be run is incomplete, whatever its results so far; fixed settings that nobody
    searched have no verdict. Lost seeds and the results of the further controls are added.
    """
    if not of_the_claim(result):
        return "not tested by this benchmark"
    methods = [method for arm in (ONLINE, BASELINE, OFFLINE) if (method := result.method(arm)) is not None]
    for method in methods:
        if not method.unrunnable and not result.complete(method):
            done = len(method.errors) + len(method.lost)
            return f"incomplete: {done} of {result.seeds} seeds of {METHODS[method.arm]}"
    if result.settings == "fixed" and not result.searched:
        return "no verdict: the recipe was not searched"
    words = [comparisons[pair].found if pair in comparisons else "" for pair in CLAIM[:2]]
    lost = "".join(f"; {told}" for method in methods if (told := _lost(method, result.seeds)))
    if "worse" in words:
        return f"contradicted{lost}"
    if words != ["better", "better"] or methods[0].lost:
        return f"not shown{lost}"
    return f"holds{lost}{_judged(result, comparisons)}"


def _judged(result: Result, comparisons: Comparisons) -> str:
    """What the task loss with online's means says of a claim that holds."""
    there = [method for method in result.methods if method.arm in JUDGES]
    equal = [
        METHODS[method.arm]
        for method in there
        if (one := comparisons.get((ONLINE, method.arm))) is not None and one.found != "better"
    ]
    waiting = [METHODS[method.arm] for method in there if not method.unrunnable and not result.complete(method)]
    return (f"; not better than {' and '.join(equal)}" if equal else "") + (
        f"; not yet compared with {' and '.join(waiting)}" if waiting else ""
    )


def _lost(method: Method, seeds: int) -> str:
    name = METHODS[method.arm]
    if method.unrunnable:
        return f"no search trial of {name} finished"
    return f"{name} lost {len(method.lost)} of {seeds} seeds" if method.lost else ""


def _pairs(result: Result) -> list[tuple[str, str]]:
    arms = [method.arm for method in result.methods]
    if not of_the_claim(result):
        return [(arm, other) for arm in arms for other in (BASELINE, OFFLINE) if arm not in (BASELINE, OFFLINE)]
    return list(dict.fromkeys((*CLAIM, *((ONLINE, arm) for arm in arms if arm != ONLINE))))


def _uncorrected(result: Result) -> dict[tuple[str, str], Comparison]:
    found = {}
    for pair in _pairs(result):
        own, other = result.method(pair[0]), result.method(pair[1])
        if own is None or other is None or not (result.complete(own) and result.complete(other)):
            continue
        difference = paired(other.arm, own.errors, other.errors)
        if difference is None:
            continue
        shared = [seed for seed in own.errors if seed in other.errors]
        less = sum(own.errors[seed] < other.errors[seed] for seed in shared) + len(other.lost.keys() - own.lost.keys())
        more = sum(own.errors[seed] > other.errors[seed] for seed in shared) + len(own.lost.keys() - other.lost.keys())
        lost = len(own.lost.keys() | other.lost.keys())
        p = sign_test(less, more) if lost else difference.p
        found[pair] = Comparison(
            level=mean([other.errors[seed] for seed in shared]),
            difference=difference,
            flips=sign_flips([own.errors[seed] - other.errors[seed] for seed in shared]),
            lost=lost,
            ahead=less - more,
            p=p,
            holm=p,
            detectable=difference.detectable,
        )
    return found
