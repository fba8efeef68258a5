"""Paired tests and Holm's correction, against scipy and by hand."""

from __future__ import annotations

import random

import pytest
from scipy import stats

from olfl_ray.analysis import holm, paired, sign_flips


@pytest.mark.parametrize("n", [2, 5, 10])
def test_sign_flips_match_scipys_exact_permutation_test(n: int) -> None:
    draw = random.Random(n)
    differences = [draw.gauss(-0.5, 1.0) for _ in range(n)]
    expected = stats.permutation_test(
        (differences,),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        n_resamples=100_000,
        vectorized=True,
    )
    assert sign_flips(differences) == pytest.approx(expected.pvalue)


def test_sign_flips_of_many_differences_are_sampled_reproducibly() -> None:
    draw = random.Random(0)
    differences = [draw.gauss(-0.3, 1.0) for _ in range(40)]
    assert sign_flips(differences) == sign_flips(differences)
    assert sign_flips(differences) == pytest.approx(stats.ttest_1samp(differences, 0.0).pvalue, abs=0.01)


def test_equal_signs_give_the_smallest_p_possible_with_n_seeds() -> None:
    assert sign_flips([-0.1, -0.3, -0.2]) == pytest.approx(2 / 2**3)
    assert sign_flips([0.0, 0.0]) == 1.0
    assert sign_flips([0.1 + index for index in range(16)]) == 2 / 2**16, "16 are still enumerated"


def test_holm_by_hand() -> None:
    # Ordered .005 .01 .03 .04, times 4 3 2 1: .02 .03 .06 .04, and none below the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_pairs_are_seeds_that_both_have() -> None:
    found = paired("task", {1: 0.3, 2: 0.1, 3: 0.5}, {2: 0.2, 3: 0.4, 4: 9.0})
    assert found is not None
    assert (found.n, found.baseline) == (2, "task")
    assert found.mean == pytest.approx(0.0)
    assert paired("task", {1: 0.3}, {1: 0.1}) is None
