"""The sweeps that are disturbed: small, deterministic, of two arms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["chaos_spec", "evolution_spec", "failing_spec", "small_spec"]

FAILING = "benchmarks.chaos.failing:build"


def chaos_spec(file: Path, *, steps: int, trials: int) -> dict[str, Any]:
    """A deterministic sweep of two arms whose base learner counts its training passes in a file."""
    return {
        "name": "chaos",
        "task": {
            "dataset": "digits",
            "model": {"name": "benchmarks.engine.counting:build", "hidden": 16, "file": str(file)},
            "batch_size": 16,
        },
        "learner": {"steps": steps, "optimizer": {"name": "sgd", "lr": 0.1}},
        "loss": {"activation": {"name": "smooth_leaky_relu", "gamma": 0.5}},
        "meta": {"eta_init": 0.01, "eta_online": 0.001, "init_steps": 40},
        "eval": {"every": 20},
        "replicates": 1,
        "search": {
            "deterministic": True,
            "pruner": {"name": "asha", "min_steps": steps // 3, "reduction": 3},
            "parameters": {"learner.optimizer.lr": {"min": 0.01, "max": 1.0, "log": True}},
        },
        "arms": {
            "baseline": {"set": {"learner.method": "baseline"}, "trials": trials},
            "online": {"trials": trials, "parameters": {"meta.eta_online": {"min": 1e-5, "max": 1e-2, "log": True}}},
        },
        "confirm": {"seeds": 2},
        "concurrency": 2,
        "checkpoint": {"every_steps": 100},
    }


def evolution_spec(file: Path, *, steps: int, trials: int) -> dict[str, Any]:
    """The same base learner and checkpoints; evolution searches a formula, whose weights are learned before each training."""
    spec = chaos_spec(file, steps=steps, trials=trials)
    del spec["loss"], spec["meta"]
    search = {"deterministic": True, "pruner": "none", "parameters": {}}
    learned = {
        "learner.method": "offline",
        "loss.name": "expression",
        "loss.formula": "square(y - f)",
        "meta.init_steps": 40,
    }
    return {
        **spec,
        "search": {**search, "sampler": {"name": "evolution", "population": 4}},
        "arms": {
            "baseline": {"set": {"learner.method": "baseline"}, "trials": 1},
            "evomal": {"set": learned, "trials": 2 * trials, "parameters": {"loss.formula": {"expression": {}}}},
        },
        "confirm": {"seeds": 2, "relearn": False},
    }


def small_spec() -> dict[str, Any]:
    """A deterministic sweep of two arms that is as short as possible: one search trial and one confirming trial each."""
    return {
        "name": "edge",
        "task": {"dataset": "digits", "model": {"name": "mlp", "hidden": [16]}, "batch_size": 16},
        "learner": {"steps": 60, "optimizer": {"name": "sgd", "lr": 0.1}},
        "meta": {"eta_init": 0.01, "eta_online": 0.001, "init_steps": 10},
        "eval": {"every": 20},
        "replicates": 1,
        "search": {
            "deterministic": True,
            "pruner": "none",
            "parameters": {"learner.optimizer.lr": {"min": 0.01, "max": 1.0, "log": True}},
        },
        "arms": {"baseline": {"set": {"learner.method": "baseline"}, "trials": 1}, "online": {"trials": 1}},
        "confirm": {"seeds": 1},
        "concurrency": 1,
        "checkpoint": {"every_steps": 20},
    }


def failing_spec(flag: Path) -> dict[str, Any]:
    """The same, with an arm whose trials fail while a file exists."""
    spec = small_spec()
    del spec["meta"]  # neither arm learns anything
    failing = {"learner.method": "baseline", "task.model": {"name": FAILING, "flag": str(flag)}}
    arms = {"baseline": spec["arms"]["baseline"], "failing": {"set": failing, "trials": 1}}
    return {**spec, "name": "edge-retry", "arms": arms}
