"""Small recorded studies for tests of the analysis: a ledger and commits, without training."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping

from olfl_ray.ledger import Began, Commit, Committed, Ended, Ledger, Proposed, write_commit
from olfl_ray.records import Record, Surface, names, records_to_table, surfaces_to_table, to_parquet
from olfl_ray.spec import StudySpec
from olfl_ray.storage import Storage

BASE = [0.10, 0.12, 0.11, 0.13, 0.09]
ONLINE = [0.08, 0.11, 0.10, 0.10, 0.09]


def make_spec(arms: dict[str, str] | None = None) -> StudySpec:
    arms = arms or {"baseline": "baseline", "online": "online", "offline": "offline"}
    return StudySpec.model_validate(
        {
            "name": "demo",
            "task": {"dataset": "digits"},
            "learner": {"steps": 300},
            "search": {
                "metric": "selection/error",
                "parameters": {
                    "learner.optimizer.lr": {"min": 0.003, "max": 0.3, "log": True},
                    "meta.init_steps": {"values": [250, 500]},
                },
            },
            "arms": {name: {"trials": 4, "set": {"learner.method": method}} for name, method in arms.items()},
            "replicates": 2,
        }
    )


def make_ledger(storage: Storage, spec: StudySpec) -> Ledger:
    return Ledger.create(storage, spec.model_dump(mode="json", by_alias=True), spec.digest, spec.name, {})


def surface(step: int) -> Surface:
    grid = [(target, (k + 0.5) / 20) for target in (0.0, 1.0) for k in range(20)]
    return Surface(
        step=step,
        replicate=0,
        target=tuple(t for t, _ in grid),
        output=tuple(o for _, o in grid),
        learned=tuple((t - o) ** 2 * (1 + step / 100) for t, o in grid),
        task=tuple(-t * math.log(o) for t, o in grid),
    )


def add(
    ledger: Ledger,
    storage: Storage,
    trial: str,
    *,
    lr: float = 0.05,
    state: str = "finished",
    value: float | None = 0.1,
    test: list[float] | None = None,
    curve: bool = False,
    more: Mapping[str, float] | None = None,
    cause: str = "it broke",
) -> None:
    seeds = [100 + int(trial.rpartition("/c")[2])] if "/c" in trial else [0, 1]
    params = {"learner.optimizer.lr": lr, "meta.init_steps": 250 if lr < 0.05 else 500}
    ledger.append(Proposed(trial=trial, params=params, seeds=seeds))
    ledger.append(Began(trial=trial, attempt=1))
    noise = random.Random(trial)
    for step in (100, 200, 300) if curve else ():
        metrics: dict[str, tuple[float, ...]] = {
            "selection/error": tuple(10 / step + 0.02 * noise.random() for _ in seeds),
            names.TRAIN_GRAD_NORM: tuple(100 / step for _ in seeds),
            names.TRAIN_TASK_GRAD_NORM: tuple(50 / step for _ in seeds),
            names.TRAIN_GRAD_COSINE: tuple(step / 400 for _ in seeds),
            names.PERF_STEPS_PER_SECOND: (2000.0 if trial.startswith("baseline") else 500.0,),
            **{name: (value,) for name, value in (more or {}).items() if not name.startswith("test/")},
        }
        commit = write_commit(
            storage,
            Commit(trial=trial, attempt=1, position=step, step=step, outcome=None, report={}, parent=None),
            {
                "records.parquet": to_parquet(records_to_table([Record(step=step, time_ms=step, metrics=metrics)])),
                "surfaces.parquet": to_parquet(surfaces_to_table([surface(step)])),
            },
        )
        ledger.append(Committed(trial=trial, attempt=1, commit=commit.key, step=step, value=value, values={}))
    metrics_out = {"test/error": test} if test is not None else {}
    metrics_out |= {name: [value] for name, value in (more or {}).items() if name.startswith("test/")}
    why = cause if state == "failed" else None
    ledger.append(Ended(trial=trial, state=state, step=300, value=value, metrics=metrics_out, cause=why))  # type: ignore[arg-type]


def add_confirmed(ledger: Ledger, storage: Storage, arm: str, errors: list[float], *, curve: bool = False) -> None:
    add(ledger, storage, f"{arm}/0", value=0.1)
    for index, error in reversed(list(enumerate(errors))):
        add(ledger, storage, f"{arm}/c{index}", test=[error], curve=curve)
