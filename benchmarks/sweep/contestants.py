"""Sweeps of sleeping trials by one or several contestants, in a separate process that records the time of each.

`python -m benchmarks.sweep.contestants FOLDER CONTESTANT ... --trials 100 --seconds 1 --slots 2`
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import psutil

__all__ = ["CONTESTANTS", "sleeping_spec"]

SPACE = {
    "learner.optimizer.lr": {"min": 0.001, "max": 1.0, "log": True},
    "learner.optimizer.momentum": {"min": 0.0, "max": 0.95},
    "learner.optimizer.weight_decay": {"min": 1e-6, "max": 1e-2, "log": True},
}
METRIC = "selection/error"


def sleeping_spec(folder: Path, *, trials: int, seconds: float, slots: int) -> dict[str, Any]:
    """A study whose trials take one base step and an evaluation that sleeps."""
    model = {"name": "benchmarks.sweep.sleeping:build", "seconds": seconds, "file": str(folder / "spans")}
    return {
        "name": "sleeping",
        "task": {"dataset": "digits", "model": model},
        "learner": {"method": "baseline", "steps": 1, "optimizer": {"name": "sgd", "momentum": 0.0}},
        "eval": {"every": 1},
        "replicates": 1,
        "search": {"metric": METRIC, "pruner": {"name": "none"}, "parameters": SPACE},
        "arms": {"baseline": {"trials": trials}},
        "confirm": {"seeds": 0},
        "concurrency": slots,
    }


def ours(folder: Path, *, trials: int, seconds: float, slots: int) -> None:
    """`olfl sweep run`: ledger, commits, MLflow, report."""
    from olfl_ray.spec import parse_spec
    from olfl_ray.study import Study

    spec = parse_spec(json.dumps(sleeping_spec(folder, trials=trials, seconds=seconds, slots=slots)).encode())
    result = Study.from_spec(spec, home=folder / "home").run(progress=False)
    if result.undelivered or not result.finished:
        raise RuntimeError(f"the study is not whole: {result.problem or 'trials are missing'}")


def tune_alone(folder: Path, *, trials: int, seconds: float, slots: int, mlflow: bool = False) -> None:
    """Ray Tune and OptunaSearch, combined as in their documentation; no ledger, no checkpoint.

    With `mlflow`, also MLflowLoggerCallback on SQLite.
    """
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.search.optuna import OptunaSearch

    from olfl_ray.spec import parse_spec, trial_config
    from olfl_ray.sweep.embedded import LOOPBACK
    from olfl_ray.trial import TrialEnvironment, run, set_threads

    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    ray.init("local", num_cpus=slots, ignore_reinit_error=True, _node_ip_address=LOOPBACK, **quiet)
    spec = parse_spec(json.dumps(sleeping_spec(folder, trials=trials, seconds=seconds, slots=slots)).encode())
    cache = folder / "cache"

    def train(point: dict[str, Any]) -> None:
        set_threads(1)
        for progress in run(trial_config(spec, "baseline", point, seeds=(spec.seed,)), TrialEnvironment(cache=cache)):
            tune.report({name.replace("/", "_"): values[0] for name, values in progress.report.items()})

    uri = f"sqlite:///{folder / 'mlflow.db'}"
    callbacks = [MLflowLoggerCallback(tracking_uri=uri, experiment_name="sleeping")] if mlflow else []
    tuner = tune.Tuner(
        tune.with_resources(train, {"cpu": 1}),
        param_space={name: _domain(tune, limits) for name, limits in SPACE.items()},
        tune_config=tune.TuneConfig(
            metric=METRIC.replace("/", "_"),
            mode="min",
            num_samples=trials,
            max_concurrent_trials=slots,
            search_alg=OptunaSearch(),
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(storage_path=str(folder / "tune"), callbacks=callbacks, verbose=0),
    )
    if tuner.fit().num_errors:
        raise RuntimeError("trials of the control failed")


def _domain(tune: Any, limits: Mapping[str, float]) -> Any:
    return (tune.loguniform if limits.get("log") else tune.uniform)(limits["min"], limits["max"])


CONTESTANTS: dict[str, Callable[..., None]] = {
    "olfl": ours,
    "tune": tune_alone,
    "tune-mlflow": partial(tune_alone, mlflow=True),
}
"""The contestants, by the name of their folder."""


def _timed_sampler() -> dict[str, float]:
    """Add up the time in Optuna's TPE, whoever calls it."""
    import optuna

    spent = {"seconds": 0.0}

    def timed(sample: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            began = time.perf_counter()
            try:
                return sample(*arguments)
            finally:
                spent["seconds"] += time.perf_counter() - began

        return call

    for name in ("infer_relative_search_space", "sample_relative", "sample_independent"):
        setattr(optuna.samplers.TPESampler, name, timed(getattr(optuna.samplers.TPESampler, name)))
    return spent


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("contestants", nargs="+", choices=list(CONTESTANTS))
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--slots", type=int, required=True)
    asked = parser.parse_args()
    sampler = _timed_sampler()
    for name in asked.contestants:
        folder = asked.folder / name
        folder.mkdir(parents=True)
        sampler["seconds"], began, thread, process = 0.0, time.monotonic(), time.thread_time(), time.process_time()
        CONTESTANTS[name](folder, trials=asked.trials, seconds=asked.seconds, slots=asked.slots)
        found = {
            "whole_seconds": time.monotonic() - began,
            "sampler_seconds": sampler["seconds"],
            "loop_cpu_seconds": time.thread_time() - thread,
            "driver_cpu_seconds": time.process_time() - process,
            "driver_memory_bytes": psutil.Process().memory_info().rss,
        }
        (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    _main()
