"""Iterative stratification of sets of labels (Sechidis, Tsoumakas and Vlahavas 2011).

The label with the fewest examples left is distributed first: each of its examples goes to the part that lacks most of them.
The package iterative-stratification has it too, but imports scikit-learn's private modules, and installs a package called `tests`.
"""

# N examples, C labels, P parts

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["stratified"]


def stratified(targets_NC: Tensor, fractions: Sequence[float], generator: torch.Generator) -> list[Tensor]:
    """Disjoint random parts of the examples, each with about its fraction of every label's examples.

    Args:
        targets_NC: Labels, 0 or 1.
        fractions: Size of each part; what is left of 1 is in none.
        generator: Decides the order of the examples, and which label or part comes first where several are equal.

    Returns:
        Positions of each part's examples, sorted.
    """
    count = len(targets_NC)
    shares_P = np.array([*fractions, 1.0 - sum(fractions)])
    order = torch.randperm(count, generator=generator).numpy()
    labels_NC = targets_NC.numpy()[order] > 0
    size_P = shares_P * count
    wanted_PC = shares_P[:, None] * labels_NC.sum(0)
    part_N = np.full(count, -1)
    left_C = labels_NC.sum(0)

    def put(example: int, wanted_P: np.ndarray) -> None:
        """Put an example into the part that wants most; if several do, into the one with the most room."""
        part = int(np.lexsort((size_P, wanted_P))[-1])
        part_N[example] = part
        size_P[part] -= 1
        wanted_PC[part, labels_NC[example]] -= 1

    while left_C.any():
        label = int(np.where(left_C > 0, left_C, count + 1).argmin())
        for example in np.flatnonzero(labels_NC[:, label] & (part_N < 0)):
            put(int(example), wanted_PC[:, label])
            left_C -= labels_NC[example]
    for example in np.flatnonzero(part_N < 0):  # without any label
        put(int(example), size_P)
    return [torch.from_numpy(np.sort(order[part_N == part])) for part in range(len(fractions))]
