"""Random formulas."""

from __future__ import annotations

from random import Random

from olfl_ray.formula import OPERATORS, TERMINALS, Formula


def drawn(random: Random, height: int) -> Formula:
    """A random tree of at most this height."""
    if height == 0 or random.random() < 0.15:
        return Formula(random.choice(list(TERMINALS)))
    name = random.choice(list(OPERATORS))
    return Formula(name, tuple(drawn(random, height - 1) for _ in range(OPERATORS[name].arity)))
