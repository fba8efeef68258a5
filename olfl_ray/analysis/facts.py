"""What a report says besides results: when and where the study ran, on which data, at which cost, and how each trial ended."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow.compute as pc

from olfl_ray.analysis.series import Read
from olfl_ray.analysis.tables import ArmResult, baseline_arm
from olfl_ray.analysis.wording import number, short
from olfl_ray.ledger import Examined, StudyState, TrialState
from olfl_ray.records import names
from olfl_ray.spec import StudySpec, trial_config

__all__ = [
    "ArmCost",
    "DataFacts",
    "TrialRow",
    "costs",
    "data_facts",
    "duration",
    "filtered_rows",
    "moment",
    "seed_rows",
    "trial_rows",
]

MOST_TRIALS, MOST_CLASSES = 1000, 40
"""Rows of the page's tables; `tables/trials.csv` has all trials."""
_FIRST = ("failed", "diverged", "running", "stopped", "planned")
"""States that are listed first, in this order."""


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """A data set of the study.

    Args:
        name: Its name.
        arms: The arms that use it.
        rows: What is known of it: a name and a value each.
        classes: Name, number of examples and share of each class or label; empty if unknown.
        hidden: Number of classes that are not listed.
        labels: Whether these are labels.
    """

    name: str
    arms: list[str]
    rows: list[tuple[str, str]]
    classes: list[tuple[str, int, float]]
    hidden: int
    labels: bool


@dataclass(frozen=True, kw_only=True)
class ArmCost:
    """What an arm has cost so far; None: unknown.

    Args:
        arm: The arm.
        trials: Number of its trials that have started, confirming ones included.
        steps: Base steps of these trials, replicates added up.
        passes: Passes over the train split that these steps amount to.
        seconds: Wall-clock seconds of the ended trials, each from its first start to its end.
        typical: Median wall-clock seconds of a finished trial.
        rate: Base steps per second of one trial, all replicates together; median over the records of its trials.
        relative: Time of one base step as a multiple of the baseline's.
    """

    arm: str
    trials: int
    steps: int
    passes: float | None
    seconds: float
    typical: float | None
    rate: float | None
    relative: float | None = None


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """One trial in the page's table.

    Args:
        trial: Its id.
        arm: Its arm.
        state: Its stage.
        value: Search metric of the result; a dash if there is none.
        step: Base steps.
        duration: Wall-clock time from its first start to its end; a dash if it has not ended.
        settings: Its searched settings.
        cause: First line of why it failed or was cut short.
        more: The cause's other lines.
        link: Web address of its run in a tracker; empty if unknown.
        run: Id of its run in a tracker without a known address; else empty.
    """

    trial: str
    arm: str
    state: str
    value: str
    step: int
    duration: str
    settings: str
    cause: str
    more: str
    link: str
    run: str


def data_facts(spec: StudySpec, state: StudyState, notes: Mapping[str, Mapping[str, Any]]) -> list[DataFacts]:
    """Each data set once, in the order of the arms.

    Args:
        spec: The study.
        state: Its state; a ledger of an older version has no sizes and shares.
        notes: For each arm its data set: name, source, rows, kind, and names of its classes.
    """
    found: dict[str, DataFacts] = {}
    for arm in spec.arms:
        note, facts = notes.get(arm, {}), state.facts.get(arm)
        name = str(note.get("name", spec.task.dataset.name))
        key = name + (facts.data if facts is not None else "")
        if key in found:
            found[key].arms.append(arm)
            continue
        rows = [("examples", f"{int(note['rows']):,}")] if note.get("rows") else []
        rows += [("source", str(note["source"]))] if note.get("source") else []
        heads = note.get("heads", {})
        rows += [(f"head {head}", str(about)) for head, about in heads.items()] if isinstance(heads, dict) else []
        classes: list[tuple[str, int, float]] = []
        if facts is not None:
            rows += _examined(spec, facts)
            total = sum(facts.classes)
            if facts.labels and facts.classes and note.get("rows"):
                total = int(note["rows"])
                cardinality = sum(facts.classes) / total
                density = f"density {number(cardinality / len(facts.classes))}"
                rows.append(("labels per example (cardinality)", f"{number(cardinality)}, {density}"))
            given = [str(text) for text in note.get("classes", [])]
            labels = given if len(given) == len(facts.classes) else [str(k) for k in range(len(facts.classes))]
            classes = [(label, n, n / total) for label, n in zip(labels, facts.classes, strict=True) if total]
        shown = classes[:MOST_CLASSES]
        found[key] = DataFacts(
            name=name,
            arms=[arm],
            rows=rows,
            classes=shown,
            hidden=len(classes) - len(shown),
            labels=facts is not None and facts.labels,
        )
    return list(found.values())


def _examined(spec: StudySpec, facts: Examined) -> list[tuple[str, str]]:
    """What was found of an arm's data before its first trial."""
    rows = [("task", facts.task)]
    if facts.shape:
        rows.append(("input of one example", " × ".join(map(str, facts.shape))))
    if facts.outputs:
        rows.append(("labels" if facts.labels else "classes" if facts.classes else "outputs", str(facts.outputs)))
    if facts.splits:
        sizes = ", ".join(
            f"{text} {facts.splits[name]:,}" for name, text in names.SPLITS.items() if name in facts.splits
        )
        rows.append(("split, first seed", sizes))
    metric = names.metric_of(spec.search.metric)
    shown = dict.fromkeys((metric, facts.primary))
    trivial = ", ".join(f"{name} {number(facts.trivial[name])}" for name in shown if name in facts.trivial)
    if trivial:
        rows.append(("best constant prediction, test split", trivial))
    return [*rows, ("digest", facts.data[:12])]


def filtered_rows(spec: StudySpec, state: StudyState) -> list[dict[str, Any]]:
    """For each arm whose searcher dropped candidates, its search trials and how many each filter dropped."""
    counts = {arm: state.filtered(arm) for arm in spec.arms}
    return [
        {"arm": arm, "trials": len(state.search_trials(arm)), "symbolic": 0, "gradient": 0, "rejection": 0, **found}
        for arm, found in counts.items()
        if found
    ]


def costs(spec: StudySpec, state: StudyState, read: Read) -> list[ArmCost]:
    """The cost of each arm, in the spec's order."""
    found = {}
    for arm in spec.arms:
        trials = [trial for trial in state.trials.values() if trial.id.arm == arm and trial.began_at is not None]
        seconds = {str(trial.id): own for trial in trials if (own := seconds_of(trial)) is not None}
        done = [seconds[str(trial.id)] for trial in trials if trial.state == "finished" and str(trial.id) in seconds]
        rates = [
            rate
            for trial in trials
            for rate in read(trial).filter(pc.field("metric") == names.PERF_STEPS_PER_SECOND)["value"].to_pylist()
            if math.isfinite(rate) and rate > 0
        ]
        found[arm] = ArmCost(
            arm=arm,
            trials=len(trials),
            steps=sum(trial.step * len(trial.seeds) for trial in trials),
            passes=_passes(spec, state.facts.get(arm), arm, trials),
            seconds=math.fsum(seconds.values()),
            typical=statistics.median(done) if done else None,
            rate=statistics.median(rates) if rates else None,
        )
    against = found.get(baseline_arm(spec, state) or "")
    if against is None or against.rate is None:
        return list(found.values())
    return [replace(own, relative=against.rate / own.rate if own.rate else None) for own in found.values()]


def _passes(spec: StudySpec, facts: Examined | None, arm: str, trials: Sequence[TrialState]) -> float | None:
    train = 0 if facts is None else facts.splits.get("train", 0)
    if not train or facts is None:
        return None
    given = trial_config(spec, arm, {}, seeds=(spec.seed,)).task.batch_size
    total = 0.0
    for trial in trials:
        # An episode's batch is its complete split, whatever the batch size.
        batch = train if facts.splits.get("batch") == train else int(trial.params.get("task.batch_size", given))
        total += trial.step * len(trial.seeds) * min(batch, train) / train
    return total


def seed_rows(results: Sequence[ArmResult]) -> list[tuple[int, list[str]]]:
    """For each confirming seed the test metric of each arm; a dash where there is none."""
    seeds = sorted({seed for result in results for seed in result.test.values})
    return [(seed, [number(result.test.values.get(seed)) for result in results]) for seed in seeds]


def trial_rows(state: StudyState, links: Mapping[str, str]) -> tuple[list[TrialRow], int]:
    """The trials that did not finish, then the others in the order of proposal; and the number of those left out.

    Args:
        state: The study.
        links: Web address of each trial's run in a tracker, or the run's id, by the trial's id.
    """
    rank = {name: place for place, name in enumerate(_FIRST)}
    trials = sorted(state.trials.values(), key=lambda trial: rank.get(trial.state, len(rank)))
    rows = []
    for trial in trials[:MOST_TRIALS]:
        first, _, more = (trial.cause or "").partition("\n")
        seconds = seconds_of(trial)
        link = links.get(str(trial.id), "")
        row = TrialRow(
            trial=str(trial.id),
            arm=trial.id.arm,
            state=trial.state,
            value=number(trial.value),
            step=trial.step,
            duration="–" if seconds is None else duration(seconds),
            settings=", ".join(f"{name} = {short(value)}" for name, value in trial.params.items()),
            cause=first,
            more=more.strip("\n"),
            link=link if link.startswith(("http://", "https://")) else "",
            run="" if link.startswith(("http://", "https://")) else link,
        )
        rows.append(row)
    return rows, len(trials) - len(rows)


def seconds_of(trial: TrialState) -> float | None:
    """Wall-clock seconds from a trial's first start to its end; None if it has not ended."""
    if trial.began_at is None or trial.ended_at is None:
        return None
    return trial.ended_at - trial.began_at


def moment(seconds: float) -> str:
    """A date and a time of day, from seconds since 1970."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):
        return "unknown"


def duration(seconds: float) -> str:
    """A duration in its two largest units."""
    if seconds < 60:
        return f"{seconds:.{2 if seconds < 10 else 0}f} s"
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if minutes < 60:
        return f"{int(minutes)} min {int(seconds % 60):02d} s"
    if hours < 48:
        return f"{int(hours)} h {int(minutes % 60):02d} min"
    return f"{int(days)} d {int(hours % 24):02d} h"
