"""What a study would do, before anything starts: its resolved spec, each arm's first points, its data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from olfl_ray.driver import sample
from olfl_ray.search import notes
from olfl_ray.spec import StudySpec, planned, spec_as_yaml

__all__ = ["Plan", "plan_of"]

SHOWN = 3
"""Points of each arm."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A study before it starts; `print` it.

    Args:
        spec: The resolved spec.
        trials: Search trials by arm; each arm's winner then runs on `spec.confirm.seeds` fresh seeds.
        points: By arm the first points that its search proposes, if it learned nothing from them.
        notes: What the study does other than its spec seems to ask.
        data: What each data set is, as lines; empty where it is not on this machine.
    """

    spec: StudySpec
    trials: Mapping[str, int]
    points: Mapping[str, list[dict[str, Any]]]
    notes: tuple[str, ...]
    data: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [spec_as_yaml(self.spec), f"digest {self.spec.digest}"]
        for arm, count in self.trials.items():
            lines.append(f"arm {arm}: {count} trials over {', '.join(self.spec.parameters_of(arm)) or 'nothing'}")
            lines += [f"  {arm}/{index}: {json.dumps(point)}" for index, point in enumerate(self.points[arm])]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes), *self.data])

    def __repr__(self) -> str:
        return f"Plan({self.spec.name!r}, {sum(self.trials.values())} search trials, {len(self.trials)} arms)"


def plan_of(spec: StudySpec, data: tuple[str, ...] = ()) -> Plan:
    """The plan of a checked spec."""
    return Plan(
        spec=spec,
        trials={arm: planned(spec, arm) for arm in spec.arms},
        points={arm: sample(spec, arm, SHOWN) for arm in spec.arms},
        notes=tuple(notes(spec)),
        data=data,
    )
