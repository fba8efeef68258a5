"""Two studies compared, arm by arm: paired by seed if splits and seeds agree, else with the reason."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from olfl_ray.analysis import Difference, mean, paired, sd, values_on_test
from olfl_ray.errors import StudyError
from olfl_ray.ledger import Examined, StudyState, TrialState
from olfl_ray.records import names
from olfl_ray.spec import StudySpec, trial_config
from olfl_ray.study.trial_view import leaves
from olfl_ray.tasks import task_of

if TYPE_CHECKING:
    import pandas as pd

    from olfl_ray.study.results import Results

__all__ = ["ArmComparison", "compared", "comparison_frame", "settings_frame"]


@dataclass(frozen=True, kw_only=True)
class ArmComparison:
    """The winners of two arms on fresh seeds.

    Args:
        arm: Arm of the first study.
        other_arm: Arm of the second study.
        metric: The metric, on the test split.
        goal: minimize or maximize.
        a: The first arm's metric by confirming seed.
        b: The second arm's.
        difference: b minus a, paired by seed; None where they are not paired.
        unpaired: Why they are not; None where they are.
    """

    arm: str
    other_arm: str
    metric: str
    goal: str
    a: Mapping[int, float]
    b: Mapping[int, float]
    difference: Difference | None
    unpaired: str | None


def compared(a: Results, b: Results, arms: Mapping[str, str] | None = None) -> list[ArmComparison]:
    """Compare the arms of two studies by the first one's search metric, on the test split.

    Args:
        a: The first study.
        b: The second study.
        arms: Arm of the first study -> arm of the second; None: the arms that have the same name in both.

    Raises:
        StudyError: There is no such arm, or the studies have no arm of the same name.
    """
    spec, other = a.loaded()[0], b.loaded()[0]
    pairs = {arm: arm for arm in spec.arms if arm in other.arms} if arms is None else dict(arms)
    if not pairs:
        raise StudyError(
            f"arms: {a.name!r} ({', '.join(spec.arms)}) and {b.name!r} ({', '.join(other.arms)}) have no arm of the same "
            "name; say which to compare: `arms=ARM=ARM`"
        )
    return [_arm(a, b, *pair) for pair in pairs.items()]


def comparison_frame(found: list[ArmComparison]) -> pd.DataFrame:
    """One row per arm.

    Columns: other_arm, metric, a_mean, a_sd, a_n, b_mean, b_sd, b_n, then of the paired comparison n, difference (b - a), low,
    high, p, detectable (NaN where they are not paired), and unpaired, the reason.
    """
    import pandas as pd

    rows = []
    for one in found:
        d = one.difference
        paired_ = {name: math.nan if d is None else getattr(d, name) for name in ("low", "high", "p", "detectable")}
        rows.append(
            {
                "arm": one.arm,
                "other_arm": one.other_arm,
                "metric": one.metric,
                **{f"a_{name}": value for name, value in spread(one.a).items()},
                **{f"b_{name}": value for name, value in spread(one.b).items()},
                "n": 0 if d is None else d.n,
                "difference": math.nan if d is None else d.mean,
                **paired_,
                "unpaired": one.unpaired,
            }
        )
    return pd.DataFrame(rows).set_index("arm")


def spread(values: Mapping[int, float]) -> dict[str, Any]:
    """Mean, standard deviation and number of values; NaN where there are too few."""
    own = list(values.values())
    return {"mean": mean(own) if own else math.nan, "sd": sd(own) if len(own) > 1 else math.nan, "n": len(own)}


def settings_frame(a: StudySpec, b: StudySpec) -> pd.DataFrame:
    """The settings that affect results and differ: one row per dotted field; columns a and b, None where it is not set."""
    import pandas as pd

    mine, others = leaves(a.identity()), leaves(b.identity())
    fields = [name for name in dict.fromkeys([*mine, *others]) if mine.get(name) != others.get(name)]
    columns = {
        side: pd.Series([own.get(name) for name in fields], dtype=object) for side, own in (("a", mine), ("b", others))
    }
    found = pd.DataFrame(columns)
    found.index = pd.Index(fields, name="setting", dtype=str)
    return found


def _arm(a: Results, b: Results, arm: str, other_arm: str) -> ArmComparison:
    (spec, state, _), (other, other_state, _) = a.loaded(arm), b.loaded(other_arm)
    metric = names.on_test(spec.search.metric)
    values = values_on_test(spec, state, arm, metric)
    others = values_on_test(other, other_state, other_arm, metric)
    reason = _unpaired(spec, state, arm, other, other_state, other_arm)
    if reason is None and len(set(values) & set(others)) < 2:
        reason = f"fewer than two seeds have {metric} in both"
    return ArmComparison(
        arm=arm,
        other_arm=other_arm,
        metric=metric,
        goal=spec.search.goal,
        a=values,
        b=others,
        difference=None if reason is not None else paired(f"{a.name}/{arm}", others, values),
        unpaired=reason,
    )


def _unpaired(
    spec: StudySpec, state: StudyState, arm: str, other: StudySpec, other_state: StudyState, other_arm: str
) -> str | None:
    """Why two arms' winners do not have the same splits and seeds; None if they do."""
    facts, other_facts = state.facts.get(arm), other_state.facts.get(other_arm)
    best, other_best = state.best(arm, spec.search.goal), other_state.best(other_arm, other.search.goal)
    if facts is None or other_facts is None or best is None or other_best is None:
        return "no trial has finished in one of them"
    if facts.data != other_facts.data:
        return f"other data: digest {facts.data[:12]} and {other_facts.data[:12]}"
    if spec.seed != other.seed:
        return f"seed: {spec.seed} and {other.seed}, so test examples and confirming seeds differ"
    tasks = _task(spec, best), _task(other, other_best)
    for field in ("split", "dataset"):
        mine, theirs = (leaves(task[field], f"task.{field}") for task in tasks)
        for name in dict.fromkeys([*mine, *theirs]):
            if mine.get(name) != theirs.get(name):
                return f"{name}: {mine.get(name)} and {theirs.get(name)}, so other splits"
    return _other_metric(names.metric_of(spec.search.metric), tasks, (facts, other_facts))


def _other_metric(name: str, tasks: tuple[dict[str, Any], ...], facts: tuple[Examined, ...]) -> str | None:
    """Why a metric of this name measures different things in two arms; None if it does not."""
    if facts[0].task != facts[1].task:
        return f"task: {facts[0].task} and {facts[1].task}"
    mine, others = (_definition(name, *pair) for pair in zip(tasks, facts, strict=True))
    for field in dict.fromkeys([*mine, *others]):
        if mine.get(field) != others.get(field):
            return f"{field}: {mine.get(field)} and {others.get(field)}, so {name} measures different things"
    return None


def _definition(name: str, task: dict[str, Any], facts: Examined) -> dict[str, Any]:
    """The settings that a metric's values depend on besides the predictions, and the digest of a user's own code."""
    if name == names.TASK_LOSS:
        used = task["loss"]
        if used == "auto" and ":" not in facts.task:
            used = next(iter(task_of(facts.task).losses))
        found = {"task.loss": used, "task.standardize.y": task["standardize"]["y"]}
    else:
        used = next((one["name"] for one in task["metrics"] if one["name"].rpartition(":")[2] == name), facts.task)
        found = {"task.metrics": used}
    if task.get("options"):
        found["task.options"] = json.dumps(task["options"], sort_keys=True)
    module = used.partition(":")[0]
    return {**found, f"code of {module}": facts.code[module][:12]} if module in facts.code else found


def _task(spec: StudySpec, trial: TrialState) -> dict[str, Any]:
    config = trial_config(spec, trial.id.arm, trial.params, seeds=tuple(trial.seeds))
    return config.task.model_dump(mode="json", by_alias=True)
