"""What a searcher knows: its search space, and the trials so far."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from olfl_ray.errors import SpecError
from olfl_ray.ledger import TrialState
from olfl_ray.spec import Parameter, PrunerSpec, StudySpec, active, base_values, own_point, same, seed_of

__all__ = ["Filtered", "SearchTrial", "Space", "share_of", "space_of", "trial_of", "value_at"]


@dataclass(frozen=True, kw_only=True)
class Filtered:
    """A candidate that a searcher dropped instead of proposing it.

    Args:
        filter: Why: symbolic or gradient (it is as good as another), or rejection (it is none).
        params: Its point.
        same_as: Ordinal of the trial whose value it takes over; None: the worst.
    """

    filter: Literal["symbolic", "gradient", "rejection"]
    params: Mapping[str, Any]
    same_as: int | None = None


@dataclass(frozen=True, kw_only=True)
class SearchTrial:
    """A search trial as a searcher sees it.

    Args:
        ordinal: Its number within the arm, from 0.
        params: The values of the searched fields, by dotted name.
        values: The searched metric at the pruner's decision steps: (step, value).
        state: running; or how it ended: finished, pruned, diverged or failed.
        value: The searched metric of a finished trial.
        filtered: Number of candidates that were dropped since the proposal before.
    """

    ordinal: int
    params: Mapping[str, Any]
    values: tuple[tuple[int, float], ...] = ()
    state: Literal["running", "finished", "pruned", "diverged", "failed"] = "running"
    value: float | None = None
    filtered: int = 0


@dataclass(frozen=True, kw_only=True)
class Space:
    """The search space of one arm.

    Args:
        arm: Name of the arm.
        parameters: Searched fields by dotted name.
        base: The arm's settings before the search, as plain data; conditions may name them.
        own: The point with the spec's own values; None if one of them is outside its list or range.
        goal: Which value of the metric is better.
        pruner: The settings of `search.pruner`.
        seed: The same at every start of the study.
        where: Location of each searched field in the spec, for messages.
        task: Name of the arm's task; empty before its data was examined.
    """

    arm: str
    parameters: Mapping[str, Parameter]
    base: Mapping[str, Any]
    own: Mapping[str, Any] | None
    goal: Literal["minimize", "maximize"]
    pruner: PrunerSpec
    seed: int
    where: Mapping[str, str]
    task: str = ""

    def point(self, choose: Callable[[str, Parameter], Any]) -> dict[str, Any]:
        """A point: each field whose conditions hold, chosen after the fields that its conditions depend on.

        Args:
            choose: Returns the value of a field, given its name and parameter.
        """
        params: dict[str, Any] = {}
        waiting = list(self.parameters)
        while True:
            ready = [
                name
                for name in waiting
                if name in active(self.parameters, params, self.base)
                and not any(field in waiting for field in self.parameters[name].when)
            ]
            if not ready:
                return params
            for name in ready:
                params[name] = choose(name, self.parameters[name])
                waiting.remove(name)

    def spelled(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Values of lists as the list's own text, however they are written (0, 0.0); other values unchanged."""

        def spelled(parameter: Parameter, value: Any) -> Any:
            if parameter.values is None:
                return value
            return json.dumps(next((choice for choice in parameter.values if same(choice, value)), value))

        return {name: spelled(self.parameters[name], value) for name, value in params.items()}

    def taken(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """A proposed point with each value in the form of its field.

        Raises:
            SpecError: It lacks a field, has an extra one, or a value outside its list or range.
        """

        def taken(name: str, parameter: Parameter) -> Any:
            if name not in params:
                raise SpecError("search.sampler", f"the searcher proposed no value of {name}: {dict(params)}")
            value = params[name]
            if parameter.values is not None:
                if choices := [choice for choice in parameter.values if same(choice, value)]:
                    return json.loads(json.dumps(choices[0]))
            elif parameter.expression is not None:
                try:
                    return parameter.expression.taken(str(value))
                except ValueError as error:
                    raise SpecError("search.sampler", f"the searcher proposed {value!r} for {name}: {error}") from None
            elif isinstance(value, int | float) and not isinstance(value, bool):
                assert parameter.min is not None
                assert parameter.max is not None
                integral = value == int(value) or not parameter.is_integer
                if integral and parameter.min <= value <= parameter.max:
                    return int(value) if parameter.is_integer else float(value)
            raise SpecError(
                "search.sampler", f"the searcher proposed {value!r} for {name}, which is not among its values"
            )

        point = self.point(taken)
        if more := [name for name in params if name not in point]:
            raise SpecError(
                "search.sampler", f"the searcher proposed a value of {more[0]}, which is not searched there"
            )
        return point


def value_at(parameter: Parameter, share: float) -> Any:
    """The value at a fraction in [0, 1) of a range or a list."""
    if parameter.values is not None:
        return parameter.values[int(share * len(parameter.values))]
    low, high = parameter.min, parameter.max
    assert low is not None
    assert high is not None
    end = high + 1 if parameter.is_integer else high
    value = low * (end / low) ** share if parameter.log else low + (end - low) * share
    return min(int(value), high) if parameter.is_integer else min(value, high)


def share_of(parameter: Parameter, value: Any) -> float:
    """A fraction in [0, 1) of a range or a list at which `value_at` gives this value."""
    if parameter.values is not None:
        place = next(place for place, choice in enumerate(parameter.values) if same(choice, value))
        return (place + 0.5) / len(parameter.values)
    low, high = parameter.min, parameter.max
    assert low is not None
    assert high is not None
    end, middle = (high + 1, value + 0.5) if parameter.is_integer else (high, value)
    share = math.log(middle / low) / math.log(end / low) if parameter.log else (middle - low) / (end - low)
    return min(max(share, 0.0), math.nextafter(1.0, 0.0))


def space_of(spec: StudySpec, arm: str, task: str = "") -> Space:
    """The search space of an arm of a study, with the name of the arm's task where it is known."""
    own = spec.arms[arm].parameters
    parameters = spec.parameters_of(arm)
    return Space(
        arm=arm,
        parameters=parameters,
        base=base_values(spec, arm),
        own=own_point(spec, arm),
        goal=spec.search.goal,
        pruner=spec.search.pruner,
        seed=seed_of(spec.seed, arm, "sequence"),
        where={
            name: f"arms.{arm}.parameters.{name}" if name in own else f"search.parameters.{name}" for name in parameters
        },
        task=task,
    )


def trial_of(state: TrialState, decided: Mapping[str, list[tuple[int, float]]]) -> SearchTrial:
    """A trial of the ledger as a searcher sees it.

    Args:
        state: The trial's state in the ledger.
        decided: Values of each trial at decision steps.
    """
    return SearchTrial(
        ordinal=state.id.ordinal,
        params=state.params,
        values=tuple(decided.get(str(state.id), ())),
        state=state.state if state.ended else "running",  # type: ignore[arg-type]
        value=state.value if state.ended else None,
        filtered=len(state.filtered),
    )
