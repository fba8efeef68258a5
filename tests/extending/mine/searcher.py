"""A searcher that changes one field of a good trial (regularised evolution, Real et al. 2019)."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from olfl_ray.search import Searcher
from olfl_ray.spec import Parameter, Strict


class Evolution(Searcher):
    class Config(Strict):
        population: Annotated[int, Field(ge=1)] = 20
        tournament: Annotated[int, Field(ge=1)] = 5

    def suggest(self, ordinal: int) -> Mapping[str, Any]:
        sign = 1 if self.space.goal == "minimize" else -1
        alive = [trial for trial in self.trials.values() if trial.state == "finished"][-self.config.population :]
        if len(alive) < self.config.tournament:
            return self.space.point(self.draw)
        drawn = self.random.sample(alive, self.config.tournament)
        parent = min(drawn, key=lambda trial: sign * trial.value).params
        changed = self.random.choice(list(parent)) if parent else None

        def inherit(name: str, parameter: Parameter) -> Any:
            return parent[name] if name in parent and name != changed else self.draw(name, parameter)

        return self.space.point(inherit)
