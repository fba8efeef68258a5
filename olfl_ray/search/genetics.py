"""Genetic programming by DEAP: trees of a formula's space, with the other searched fields as numbers next to the tree."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any

import deap.algorithms
import deap.tools
from deap import base, gp

from olfl_ray.formula import OPERATORS, TERMINALS, Formula, canonical, read_formula
from olfl_ray.search.space import Space, share_of, value_at
from olfl_ray.spec import ExpressionSpace, Parameter

__all__ = ["Genetics", "Individual"]

SPREAD = 0.1
"""Standard deviation by which a mutation moves a number, as a fraction of its range."""
MUTANT = (0, 2)
"""Heights of a subtree that a mutation inserts."""


class Fitness(base.Fitness):  # type: ignore[misc]
    """A value to be minimised."""

    weights = (-1.0,)


class Individual(gp.PrimitiveTree):  # type: ignore[misc]
    """A tree, and a fraction of its range or list for each other searched field.

    Args:
        nodes: Of the tree, in prefix order.
        shares: One of each other field, in [0, 1).
    """

    def __init__(self, nodes: Any, shares: Sequence[float] = ()) -> None:
        super().__init__(nodes)
        self.shares, self.fitness = list(shares), Fitness()


class Genetics:
    """The operators of evolution on the points of a space.

    Args:
        space: A space with one formula.
        tournament: Individuals of a tournament of fitness.
        parsimony: From 1 to 2: the smaller of two individuals enters a tournament with probability parsimony / 2.
        crossover: Probability that a child comes from a crossover.
        mutation: Probability that it comes from a mutation; else it is a copy.
    """

    def __init__(self, space: Space, *, tournament: int, parsimony: float, crossover: float, mutation: float) -> None:
        self._space = space
        self.field = next(name for name, one in space.parameters.items() if one.expression is not None)
        expression = space.parameters[self.field].expression
        assert expression is not None
        self._expression: ExpressionSpace = expression
        self._others = {name: one for name, one in space.parameters.items() if name != self.field}
        self._odds = {"cxpb": crossover, "mutpb": mutation}
        self._nodes = gp.PrimitiveSet("formula", 0)
        for name in expression.functions:
            self._nodes.addPrimitive(operator.itemgetter(0), OPERATORS[name].arity, name=name)  # never evaluated
        for name in TERMINALS:
            self._nodes.addTerminal(name)
        self._tournament, self._parsimony = tournament, parsimony
        self._random = Random(0)
        toolbox = self._toolbox = base.Toolbox()
        toolbox.register("mate", self._mate)
        toolbox.register("mutate", self._mutate)
        for name in ("mate", "mutate"):
            toolbox.decorate(name, gp.staticLimit(operator.attrgetter("height"), expression.max_height))

    def drawn(self, random: Random) -> Individual:
        """A random individual: ramped half-and-half, repaired."""
        with self._using(random):
            tree = gp.genHalfAndHalf(self._nodes, *self._expression.height)
            return self._repaired(Individual(tree, [random.random() for _ in self._others]))

    def children(self, population: Sequence[Individual], count: int, random: Random) -> list[Individual]:
        """Children of a population whose fitness is known: double tournament, then crossover, mutation or copy."""
        with self._using(random):
            parents = deap.tools.selDoubleTournament(
                population, max(count, 2), self._tournament, self._parsimony, fitness_first=False
            )
            found = deap.algorithms.varOr(parents, self._toolbox, count, **self._odds)
            return [self._toolbox.clone(child) for child in found]

    def point(self, individual: Individual) -> dict[str, Any]:
        """The point of the space that an individual stands for."""
        shares = dict(zip(self._others, individual.shares, strict=True))

        def value(name: str, parameter: Parameter) -> Any:
            if name == self.field:
                return self._formula(individual).infix
            return value_at(parameter, shares[name])

        return self._space.point(value)

    def individual(self, point: Mapping[str, Any]) -> Individual:
        """The individual of a point; a number that the point lacks, since its condition does not hold, is in the middle."""
        nodes = [self._node(name) for name in read_formula(point[self.field]).names()]
        shares = [share_of(one, point[name]) if name in point else 0.5 for name, one in self._others.items()]
        return Individual(nodes, shares)

    def key(self, point: Mapping[str, Any]) -> str:
        """A text that two points share if they have the same canonical formula and the same other values."""
        spelled = self._space.spelled({name: value for name, value in point.items() if name != self.field})
        others = [
            f"{name}={value:.12g}" if isinstance(value, float) else f"{name}={value}" for name, value in spelled.items()
        ]
        return "; ".join([canonical(read_formula(point[self.field])), *others])

    def _node(self, name: str) -> Any:
        """A node of the space; a number other than 1 and -1 comes from the spec's own formula only."""
        return self._nodes.mapping.get(name) or gp.Terminal(name, False, self._nodes.ret)

    def _formula(self, individual: Individual) -> Formula:
        return Formula.of_names(node.name for node in individual)

    def _mate(self, one: Individual, other: Individual) -> tuple[Individual, Individual]:
        gp.cxOnePoint(one, other)
        deap.tools.cxUniform(one.shares, other.shares, indpb=0.5)
        return self._repaired(one), self._repaired(other)

    def _mutate(self, one: Individual) -> tuple[Individual]:
        def grown(pset: Any, type_: Any) -> Any:
            return gp.genHalfAndHalf(pset, *MUTANT, type_)

        gp.mutUniform(one, grown, self._nodes)
        deap.tools.mutGaussian(one.shares, mu=0, sigma=SPREAD, indpb=1)
        one.shares = [abs(1 - abs(1 - share)) % 1 for share in one.shares]  # reflected at 0 and 1
        return (self._repaired(one),)

    def _repaired(self, one: Individual) -> Individual:
        """The individual with y and f(x): while one is missing, a random terminal becomes a function of the two."""
        while not {"y", "f"} <= {node.name for node in one}:
            place = self._random.choice([place for place, node in enumerate(one) if node.arity == 0])
            function = self._random.choice(self._expression.binary)
            pair = self._random.sample(["y", "f"], 2)
            one[place : place + 1] = [self._nodes.mapping[name] for name in (function, *pair)]
        return one

    @contextmanager
    def _using(self, random: Random) -> Iterator[None]:
        """Let DEAP draw from this generator: its modules use that of the process, which other threads draw from, too."""
        modules: list[Any] = [
            gp,
            deap.algorithms,
            *(getattr(deap.tools, name) for name in ("selection", "crossover", "mutation")),
        ]
        before, self._random = [module.random for module in modules], random
        try:
            for module in modules:
                module.random = random
            yield
        finally:
            for module, own in zip(modules, before, strict=True):
                module.random = own
