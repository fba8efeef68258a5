"""Whether the claim holds in a row, on results whose answer is plain."""

from __future__ import annotations

import pytest
from scipy import stats

from olfl_ray.paper import Method, Result
from olfl_ray.paper.verdicts import compare, verdict

NOISE = (0.0, 0.001, -0.001, 0.002, -0.002, 0.0015, -0.0005, 0.0005, -0.0015, 0.001)


def method(arm: str, level: float, *, spread: float = 1.0, seeds: int = 10, **changes: object) -> Method:
    noise = NOISE if arm == "online" else NOISE[::-1]
    settings = {
        "arm": arm,
        "settings": {},
        "trials": {"finished": 1},
        "errors": {str(seed): level + spread * noise[seed] for seed in range(seeds)},
        "lost": {},
        "steps": 10,
        "reached": {},
        "step_ms": 1.0,
        "smoothing": [],
        "rate": None,
    }
    return Method.model_validate({**settings, **changes})


def result(row: str, *methods: Method, settings: str = "fixed") -> Result:
    return Result.model_validate(
        {
            "row": row,
            "settings": settings,
            "scale": "full",
            "study": f"paper-{row}-{settings}",
            "digest": "d",
            "metric": "test/error",
            "seeds": 10,
            "machines": [],
            "methods": [one.model_dump() for one in methods],
        }
    )


def row(name: str, task: float, offline: float, online: float, *, settings: str = "fixed", **changes: object) -> Result:
    methods = method("baseline", task), method("offline", offline), method("online", online, **changes)  # type: ignore[arg-type]
    return result(name, *methods, settings=settings)


@pytest.mark.parametrize(
    ("task", "offline", "online", "says"),
    [
        (0.10, 0.09, 0.08, "holds"),
        (0.10, 0.08, 0.08, "not shown"),
        (0.08, 0.10, 0.09, "contradicted"),
        (0.10, 0.08, 0.09, "contradicted"),
    ],
)
def test_the_claim_needs_both_comparisons(task: float, offline: float, online: float, says: str) -> None:
    one = row("a", task, offline, online)
    assert verdict(one, compare([one])[one.study]) == says


def test_a_seed_that_online_lost_takes_the_claim_away() -> None:
    one = row("a", 0.10, 0.09, 0.08, seeds=9, lost={"diverged": 1})
    assert compare([one])[one.study]["baseline"].n == 9
    assert verdict(one, compare([one])[one.study]) == "not shown: online lost 1 of 10 seeds"


def test_p_values_are_corrected_over_the_rows_at_the_same_settings() -> None:
    noisy = [row(name, 0.10, 0.20, 0.0985) for name in ("a", "b", "c")]
    other = row("a", 0.10, 0.20, 0.0985, settings="tuned")
    found = compare([*noisy, other])
    one = noisy[0]
    errors = [[one.method(arm).errors[str(seed)] for seed in range(10)] for arm in ("online", "baseline")]  # type: ignore[union-attr]
    p = stats.ttest_rel(*errors).pvalue
    assert found[one.study]["baseline"].p == pytest.approx(p)
    # Six tests a family; the three against offline have smaller p values, so these three are multiplied by 3.
    assert found[one.study]["baseline"].holm == pytest.approx(min(1.0, 3 * p))
    assert found[other.study]["baseline"].holm == pytest.approx(p), "a family of its own, of two tests"


def test_further_methods_are_a_family_of_their_own() -> None:
    methods = method("baseline", 0.1), method("offline", 0.1), method("online", 0.09), method("focal", 0.1)
    one = result("a", *methods)
    found = compare([one])[one.study]
    assert found["focal"].holm == pytest.approx(found["focal"].p)
    assert found["baseline"].holm == pytest.approx(2 * found["baseline"].p)


def test_a_method_that_has_no_pair_is_not_compared() -> None:
    one = result("a", method("baseline", 0.1, seeds=1), method("online", 0.1))
    assert compare([one])[one.study] == {}
    assert verdict(one, {}) == "not shown"


def test_a_result_is_read_back_as_it_was_kept() -> None:
    one = row("a", 0.10, 0.09, 0.08, rate=(0.1, 0.01), smoothing=[0.1], reached={"0": None, "1": 20})
    assert Result.model_validate_json(one.model_dump_json()) == one
