"""Labels that arrive in blocks: the F1 score of each block after each block, and what is forgotten."""

# K blocks

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from olfl_ray import data
from olfl_ray.driver import data_root
from olfl_ray.errors import StudyError
from olfl_ray.study import Home, Study

__all__ = ["block_scores", "block_table", "forgetting"]

BLOCKS = "blocks"


def block_table(study: Study, arm: str, home: Home) -> list[str]:
    """Macro-F1 on the validation split of each block's labels after each block, mean over fresh seeds.

    Args:
        study: A study whose evaluations include the end of each block.
        arm: An arm whose method takes blocks of labels.
        home: Its home folder, for the data.

    Raises:
        StudyError: An end of a block has no evaluation.
    """
    spec = study.loaded()[0]
    options = {**spec.learner.options, **spec.arms[arm].set.get("learner.options", {})}
    found = data.load(spec.task.dataset.name, spec.task.dataset.options, cache=home.cache, root=data_root())
    blocks = [[found.output_names[label] for label in block] for block in options[BLOCKS]]
    curves = study.curves(arm=arm)
    ends = [-(-(index + 1) * spec.learner.steps // len(blocks)) for index in range(len(blocks))]
    scores_KK = block_scores(curves[curves["confirming"]], blocks, ends)
    numbers = [str(index + 1) for index in range(len(blocks))]
    lines = [f"| {arm}, after block | {' | '.join(f'F1 of block {one}' for one in numbers)} |"]
    lines.append("|---" * (1 + len(blocks)) + "|")
    lines += [
        f"| {one} | {' | '.join(f'{value:.3f}' for value in row)} |"
        for one, row in zip(numbers, scores_KK, strict=True)
    ]
    return [*lines, "", f"Forgetting of {arm}: {forgetting(scores_KK):.3f}."]


def block_scores(curves: pd.DataFrame, blocks: Sequence[Sequence[str]], ends: Sequence[int]) -> list[list[float]]:
    """Mean F1 of each block's labels after each block; a row is a time, a column a block.

    Args:
        curves: Columns step, metric, value.
        blocks: Names of the labels of each block.
        ends: The step at which each block ends.

    Raises:
        StudyError: There is no evaluation at one of these steps.
    """
    scores_KK = []
    for end in ends:
        now = curves[curves["step"] == end]
        row = []
        for block in blocks:
            own = now[now["metric"].isin([f"selection/f1_{label}" for label in block])]
            if own.empty:
                raise StudyError(f"no evaluation at step {end}, where a block ends; set eval.every to a divisor of it")
            row.append(float(own["value"].mean()))
        scores_KK.append(row)
    return scores_KK


def forgetting(scores_KK: Sequence[Sequence[float]]) -> float:
    """How far the score of each block but the last fell from its own end to the end of the training, mean over these blocks."""
    falls = [row[index] - scores_KK[-1][index] for index, row in enumerate(scores_KK[:-1])]
    return sum(falls) / len(falls) if falls else 0.0
