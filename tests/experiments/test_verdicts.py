"""Whether the claim holds in a row, on results whose answer is plain."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from scipy import stats

from experiments.paper import Method, Result, write_result, write_table
from experiments.paper.verdicts import compare, verdict
from olfl_ray.study import Home

FOLDER = Path(__file__).parents[2] / "experiments" / "paper" / "rows"

NOISE = (0.0, 0.001, -0.001, 0.002, -0.002, 0.0015, -0.0005, 0.0005, -0.0015, 0.001)


def method(arm: str, level: float, *, spread: float = 1.0, seeds: int = 10, **changes: object) -> Method:
    noise = NOISE if arm == "online" else NOISE[::-1]
    settings = {
        "arm": arm,
        "settings": {"learner.method": "online"},
        "searched": {},
        "trials": {"finished": 1},
        "budget": 1,
        "errors": {str(seed): level + spread * noise[seed] for seed in range(seeds)},
        "lost": {},
        "steps": 10,
        "reached": {},
        "seconds": 1.0,
        "step_ms": 1.0,
        "smoothing": [],
        "rate": None,
    }
    return Method.model_validate({**settings, **changes})


def lost(*seeds: int, why: str = "diverged") -> dict[str, str]:
    return {str(seed): why for seed in seeds}


def result(row: str, *methods: Method, settings: str = "fixed", **changes: object) -> Result:
    return Result.model_validate(
        {
            "row": row,
            "settings": settings,
            "scale": "full",
            "study": f"paper-{row}-{settings}",
            "digest": "d",
            "versions": {},
            "seeds": 10,
            "machines": [],
            "methods": [one.model_dump() for one in methods],
            **changes,
        }
    )


def said(one: Result) -> str:
    return verdict(one, compare([one])[one.study])


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
    assert said(one) == says


@pytest.mark.parametrize(
    ("online", "seeds", "says"),
    [
        (0.08, 9, "not shown; online (AdaLFL) lost 1 of 10 seeds"),
        (0.20, 7, "contradicted; online (AdaLFL) lost 3 of 10 seeds"),
    ],
)
def test_seeds_that_online_lost_take_the_claim_away_and_hide_no_contradiction(
    online: float, seeds: int, says: str
) -> None:
    one = row("a", 0.10, 0.09, online, seeds=seeds, lost=lost(*range(seeds, 10)))
    assert compare([one])[one.study]["online", "baseline"].difference.n == seeds
    assert said(one) == says


def test_seeds_that_another_method_lost_stand_beside_the_claim() -> None:
    methods = method("baseline", 0.1), method("offline", 0.09, seeds=8, lost=lost(8, 9)), method("online", 0.08)
    assert said(result("a", *methods)) == "holds; offline (ML3) lost 2 of 10 seeds"
    never = method("offline", 0.09, seeds=0, trials={"diverged": 1})
    assert said(result("a", methods[0], never, methods[2])) == "not shown; no search trial of offline (ML3) finished"


def test_a_seed_that_one_method_lost_counts_for_the_other() -> None:
    """Two of ten seeds are lost and eight are a little worse: ten of ten, whatever the spread of the eight."""
    errors = {str(seed): 0.1 + 0.001 * 10 ** (seed / 2) for seed in range(8)}
    offline = method("offline", 0.1, errors=errors, lost=lost(8, 9))
    one = result("a", method("baseline", 0.095, spread=0.0), offline, method("online", 0.094, spread=0.0))
    found = compare([one])[one.study]["offline", "baseline"]
    assert found.difference.p > 0.05, "Student's t sees nothing in the eight"
    assert found.p == pytest.approx(stats.binomtest(10, 10).pvalue)
    assert found.found == "worse"
    baseline = method("baseline", 0.095, spread=0.0, seeds=8, lost=lost(8, 9))
    both = result("b", baseline, offline, method("online", 0.1))
    assert compare([both])[both.study]["offline", "baseline"].p == pytest.approx(stats.binomtest(8, 8).pvalue)


def test_a_row_with_seeds_to_run_is_incomplete_whatever_they_say() -> None:
    assert said(row("a", 0.10, 0.09, 0.08, seeds=3)) == "incomplete: 3 of 10 seeds of online (AdaLFL)"


def test_where_the_task_loss_with_the_same_means_is_as_good_the_claim_says_so() -> None:
    methods = method("baseline", 0.1), method("offline", 0.09), method("online", 0.08)
    judges = method("more_data", 0.09), method("same_compute", 0.08)
    assert said(result("a", *methods, *judges)) == "holds; not better than task loss, same compute"
    waiting = method("more_data", 0.09, seeds=3)
    one = result("a", *methods, waiting)
    assert said(one) == "holds; not yet compared with task loss, train + meta examples"
    assert ("online", "more_data") not in compare([one])[one.study], "and takes no part in the correction"


def test_a_recipe_that_nobody_searched_has_no_verdict_at_fixed_settings() -> None:
    methods = method("baseline", 0.1), method("offline", 0.09), method("online", 0.08)
    assert said(result("a", *methods, searched=False)) == "no verdict: the recipe was not searched"
    assert said(result("a", *methods, settings="tuned", searched=False)) == "holds"


def test_an_arm_whose_first_trials_were_pruned_may_still_find_a_winner() -> None:
    methods = method("baseline", 0.1), method("offline", 0.09)
    waiting = method("online", 0.08, seeds=0, trials={"pruned": 3}, budget=12)
    assert said(result("a", *methods, waiting)) == "incomplete: 0 of 10 seeds of online (AdaLFL)"
    ended = waiting.model_copy(update={"trials": {"pruned": 12}})
    assert said(result("a", *methods, ended)) == "not shown; no search trial of online (AdaLFL) finished"


def test_a_row_of_another_question_counts_for_no_claim() -> None:
    transfer = row("a", 0.10, 0.09, 0.08).model_copy(update={"claim": False})
    other = row("b", 0.10, 0.20, 0.0985)
    assert said(transfer) == "not tested by this benchmark"
    assert compare([transfer, other])[other.study] == compare([other])[other.study]


def test_p_values_are_corrected_over_the_rows_at_the_same_settings() -> None:
    noisy = [row(name, 0.10, 0.20, 0.0985) for name in ("a", "b", "c")]
    other = row("a", 0.10, 0.20, 0.0985, settings="tuned")
    found = compare([*noisy, other])
    one = noisy[0]
    errors = [[one.method(arm).errors[str(seed)] for seed in range(10)] for arm in ("online", "baseline")]  # type: ignore[union-attr]
    p = stats.ttest_rel(*errors).pvalue
    against = found[one.study]["online", "baseline"]
    assert against.difference.p == pytest.approx(p)
    # Nine tests a family; the six with offline have smaller p values, so these three are multiplied by 3.
    assert against.holm == pytest.approx(min(1.0, 3 * p))
    assert found[other.study]["online", "baseline"].holm == pytest.approx(p), "a family of its own, of three tests"


def test_further_methods_are_a_family_of_their_own() -> None:
    methods = method("baseline", 0.1), method("offline", 0.1), method("online", 0.09), method("focal", 0.1)
    found = compare([result("a", *methods)])["paper-a-fixed"]
    assert list(found) == [("online", "baseline"), ("online", "offline"), ("offline", "baseline"), ("online", "focal")]
    assert found["online", "focal"].holm == pytest.approx(found["online", "focal"].difference.p)
    assert found["online", "baseline"].holm == pytest.approx(3 * found["online", "baseline"].difference.p)


def test_the_detectable_difference_is_that_of_the_corrected_test() -> None:
    one = row("a", 0.10, 0.20, 0.0985)
    found = compare([one])[one.study]["online", "baseline"]
    t = stats.t(found.difference.n - 1)
    error = found.difference.sd / found.difference.n**0.5
    assert found.detectable == pytest.approx((t.ppf(1 - 0.05 / 3 / 2) + t.ppf(0.8)) * error), "of three tests"


def test_a_row_of_transfer_compares_each_loss_with_the_task_loss_and_offline() -> None:
    methods = method("baseline", 0.1), method("offline", 0.1), method("from_mlp", 0.09)
    found = compare([result("a", *methods, claim=False)])["paper-a-fixed"]
    assert list(found) == [("from_mlp", "baseline"), ("from_mlp", "offline")]


def test_a_row_of_transfer_stands_in_a_table_of_its_own(tmp_path: Path) -> None:
    methods = method("baseline", 0.1), method("offline", 0.08), method("from_mlp", 0.09, spread=0.5)
    one = result("mnist_transfer", *methods, claim=False)
    write_result(one, tmp_path / "results")
    text = write_table(tmp_path, tmp_path / "summary.md", folder=FOLDER, home=Home(tmp_path / "home")).read_text()
    claim, transfer, detail = re.split("^## (?:Loss transfer|How it is measured)$", text, flags=re.MULTILINE)
    title, name = "MNIST, LeNet-5 on a loss learned with the MLP (1,000)", "offline, on the MLP's last loss"
    assert f"| {title} |" not in claim
    (cells,) = re.findall(
        rf"^{re.escape(f'| {title} | fixed | full, 10 | {name} | 10 |')}(.*)$", transfer, re.MULTILINE
    )
    assert re.match(r" 0\.09\d* ± \d\S* \| \*\*-10\.\d %\*\* \[.*?, p .*? \| \*\*\+12\.\d %\*\* \[", cells)
    assert "Claim: not tested by this benchmark." in detail
    against = re.findall(rf"^\| {name} \| 0\.09[^|]+ \| 10 \| ([^|]+) \|", detail, re.MULTILINE)
    assert against == ["task loss", "offline (ML3)"]


def test_a_method_that_has_no_pair_is_not_compared() -> None:
    one = result("a", method("baseline", 0.1, seeds=1), method("online", 0.1))
    assert compare([one])[one.study] == {}
    assert verdict(one, {}) == "not tested by this benchmark"


def test_a_result_is_read_back_as_it_was_kept() -> None:
    one = row("a", 0.10, 0.09, 0.08, rate=(0.1, 0.01), smoothing=[0.1], reached={"0": None, "1": 20})
    assert Result.model_validate_json(one.model_dump_json()) == one
