"""The tables of DOSA's benchmark: the score of a block after each block, and how far it falls."""

from __future__ import annotations

import pandas as pd
import pytest

from experiments.dosa.blocks import block_scores, forgetting
from olfl_ray.errors import StudyError

CURVES = pd.DataFrame(
    [
        (step, f"selection/f1_{label}", value)
        for step, values in {2: (0.8, 0.6, 0.1), 4: (0.4, 0.2, 0.9), 3: (9.0, 9.0, 9.0)}.items()
        for label, value in zip("abc", values, strict=True)
        for _ in range(2)  # seeds
    ],
    columns=["step", "metric", "value"],
)


def test_score_of_a_block_is_the_mean_of_its_labels_after_each_block() -> None:
    found = block_scores(CURVES, [["a", "b"], ["c"]], [2, 4])
    assert [[pytest.approx(value) for value in row] for row in found] == [[0.7, 0.1], [0.3, 0.9]]
    assert forgetting(found) == pytest.approx(0.4)
    assert forgetting([[0.5]]) == 0.0


def test_end_of_a_block_without_an_evaluation_is_refused() -> None:
    with pytest.raises(StudyError, match=r"step 5.*eval\.every"):
        block_scores(CURVES, [["a"]], [5])
