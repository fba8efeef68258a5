"""Studies whose ledgers are written by hand: no Ray, no training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.conducting import study as spec_of

from olfl_ray.ledger import Began, Committed, DriverStarted, DriverStopped, Ended, Examined, Ledger, Proposed
from olfl_ray.spec import seed_of
from olfl_ray.storage import open_storage
from olfl_ray.study import Home

METRIC = "selection/error"
LR = {"learner.optimizer.lr": 0.05}


def begun(home: Path) -> Ledger:
    """The study s: a finished, a failed and a running trial of 900 steps."""
    spec = spec_of(tracking=[])
    ledger = Ledger.create(
        open_storage(home / "studies" / "s"), spec.model_dump(mode="json", by_alias=True), spec.digest, "s", {}
    )
    ledger.append(DriverStarted(epoch=1, host="here", pid=7, time=100.0))
    for name, began in (("baseline/0", 100.0), ("baseline/1", 100.0), ("online/0", 200.0)):
        params = {"learner.optimizer.lr": 0.05} | ({"meta.eta_online": 0.001} if name.startswith("online") else {})
        ledger.append(Proposed(trial=name, params=params, seeds=[1, 2], time=began))
        ledger.append(Began(trial=name, attempt=1, time=began))
    commit(ledger, "baseline/0", 900, 190.0)
    ledger.append(
        Ended(
            trial="baseline/0",
            state="finished",
            step=900,
            value=0.25,
            metrics={METRIC: [0.2, 0.3]},
            cause=None,
            time=190.0,
        )
    )
    ledger.append(
        Ended(
            trial="baseline/1",
            state="failed",
            step=0,
            value=None,
            metrics={},
            cause="ValueError: boom\nTraceback",
            time=195.0,
        )
    )
    commit(ledger, "online/0", 300, 290.0)
    return ledger


def commit(ledger: Ledger, trial: str, step: int, time: float, attempt: int = 1) -> None:
    key = f"trials/{trial}/attempt-{attempt}/{step}"
    ledger.append(
        Committed(trial=trial, attempt=attempt, commit=key, step=step, value=0.5, values={METRIC: 0.5}, time=time)
    )


def finished(home: Home, name: str = "s", offset: float = 0.0, data: str = "d", **changes: Any) -> Any:
    """A finished study with an arm that is 0.01 better than the baseline, and all values higher by an offset."""
    kind, code = changes.pop("kind", "classification"), changes.pop("code", {})
    spec = spec_of(
        name=name,
        tracking=[],
        arms={"baseline": {"set": {"learner.method": "baseline"}, "trials": 1}, "online": {"trials": 1}},
        **changes,
    )
    ledger = Ledger.create(home.storage(name), spec.model_dump(mode="json", by_alias=True), spec.digest, name, {})
    ledger.append(DriverStarted(epoch=1, host="here", pid=7))
    for arm, better in (("baseline", 0.0), ("online", 0.01)):
        facts = {"task": kind, "primary": "error", "goals": {"error": "minimize"}, "units": {}}
        ledger.append(Examined(arm=arm, data=data, code=code, learns=arm == "online", **facts))
        for trial, seed in ((f"{arm}/0", 1), *((f"{arm}/c{index}", confirming(spec, index)) for index in range(2))):
            ledger.append(Proposed(trial=trial, params=LR, seeds=[seed]))
            ledger.append(Began(trial=trial, attempt=1))
            value = 0.1 + offset - better + seed % 7 / 1000
            metrics = {METRIC: [value], "test/error": [value], "test/task_loss": [value]}
            ledger.append(Ended(trial=trial, state="finished", step=900, value=value, metrics=metrics, cause=None))
    ledger.append(DriverStopped(epoch=1, reason="finished"))
    return spec


def confirming(spec: Any, index: int) -> int:
    return seed_of(spec.seed, "confirm", index)
