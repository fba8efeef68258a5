"""Ray Tune's side of a study: thin adapters that ask the conductor and tell it."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable
from typing import Any

import psutil
import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from olfl_ray.errors import SetupError
from olfl_ray.ledger import Commit, TrialState
from olfl_ray.spec import StudySpec
from olfl_ray.sweep.conductor import Conductor
from olfl_ray.worker import Assignment
from olfl_ray.worker.trainable import LossLearning

__all__ = ["check_resources", "run_trials"]

Assign = Callable[[TrialState], Assignment]
MAX_LOSSES = 3


class _Searcher(Searcher):  # type: ignore[misc]
    """Gives Tune the conductor's next trial."""

    def __init__(self, conductor: Conductor, assign: Assign, names: dict[str, str]) -> None:
        super().__init__(metric="position", mode="max")
        self._conductor, self._assign, self._names = conductor, assign, names

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._conductor.closing or self._conductor.finished:
            return str(Searcher.FINISHED)
        trial = self._conductor.next()
        if trial is None:
            return None
        self._names[trial_id] = str(trial.id)
        return self._assign(trial).to_dict()

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if error:
            self._conductor.lost(self._names[trial_id], f"worker lost {MAX_LOSSES} times")

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles it for a restore that is never asked for: the ledger is the only state."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the only state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the only state."""


class _Scheduler(FIFOScheduler):  # type: ignore[misc]
    """Passes each commit to the conductor, which says whether the trial goes on."""

    def __init__(self, conductor: Conductor) -> None:
        super().__init__()
        self._conductor = conductor

    def __getstate__(self) -> dict[str, Any]:
        """As for the searcher."""
        return {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        goes_on = self._conductor.commit(Commit(**json.loads(result["commit"])))
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        if "commit" in result:
            self._conductor.commit(Commit(**json.loads(result["commit"])))


def check_resources(spec: StudySpec) -> None:
    """Refuse a study whose trials can never be placed.

    Raises:
        SetupError: No node can ever satisfy what one trial takes.
    """
    if ray.is_initialized():
        have = ray.cluster_resources()
    else:  # GPUs are for torch to count, as `trial.check` does
        have = {"CPU": os.cpu_count() or 1, "GPU": math.inf, "memory": psutil.virtual_memory().total}
    for name, amount in _wanted(spec).items():
        if amount > have.get(name, 0):
            raise SetupError(
                f"resources.{name.lower()}: a trial takes {amount:g}, but there are {have.get(name, 0):g} here; lower it"
            )


def _wanted(spec: StudySpec) -> dict[str, float]:
    """What one trial takes, by Ray's names."""
    wanted = {"CPU": float(spec.resources.cpu), "GPU": spec.resources.gpu, "memory": float(spec.resources.memory or 0)}
    return {name: amount for name, amount in wanted.items() if amount}


def run_trials(conductor: Conductor, assign: Assign) -> None:
    """Run the study's trials on Ray until nothing is left or it is interrupted.

    Args:
        conductor: Decides.
        assign: What a worker is told about a trial.

    """
    spec = conductor.spec
    started = _start_ray()
    try:
        resources = _wanted(spec)
        with tempfile.TemporaryDirectory(prefix="olfl-tune-") as scratch:
            tuner = tune.Tuner(
                tune.with_resources(LossLearning, tune.PlacementGroupFactory([resources])),
                tune_config=tune.TuneConfig(
                    search_alg=_Searcher(conductor, assign, {}),
                    scheduler=_Scheduler(conductor),
                    num_samples=-1,
                    max_concurrent_trials=spec.concurrency,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    name="study",
                    storage_path=scratch,
                    verbose=0,
                    failure_config=tune.FailureConfig(max_failures=MAX_LOSSES - 1),
                    checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                ),
            )
            tuner.fit()
    finally:
        if started:
            ray.shutdown()


def _start_ray() -> bool:
    """Start an embedded Ray on loopback, unless one is there; whether it was started here."""
    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the newer one prints a banner even when told to be silent
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(
        num_cpus=os.cpu_count(),
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        _node_ip_address="127.0.0.1",
    )
    return True
