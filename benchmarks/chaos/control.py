"""The control of the chaos benchmark: the same scenario with only Ray Tune, OptunaSearch and MLflowLoggerCallback.

`python -m benchmarks.chaos.control drive FOLDER URI` starts its driver once, as a watchdog would.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.chaos.driver import Driver
from benchmarks.chaos.scene import KINDS, Backend, Scene, stage
from benchmarks.chaos.specs import chaos_spec
from olfl_ray.records import names
from olfl_ray.spec import TrialConfig, parse_spec, trial_config
from olfl_ray.trial import TrialEnvironment, run, state_from_bytes, state_to_bytes

__all__ = ["Found", "control", "drive"]

NAME = "control"
"""The experiment's name, in Tune and in MLflow."""
CHECKPOINT_STEPS, EVERY = 100, 20
"""Steps between checkpoints and between evaluations, as in the chaos benchmark's spec."""
MOST_STARTS = 10
"""Maximum number of restarts of the driver after the last kill."""
ARMS = ("baseline", "online")
REPORTED = (names.SELECTION_PREFIX, "train/")


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was killed, and the content of the three libraries' own stores afterwards.

    Args:
        kills: Number by kind.
        backend: MLflow's backend.
        starts: Number of starts of the driver.
        seconds: Wall-clock time.
        finished: Whether the driver exited with 0.
        asked: Number of requested trials.
        trials: Number of trials of the experiment that ended without an error.
        executions: Number of times that training of a trial started, from the beginning or from a checkpoint.
        passes: Number of training passes.
        repeated: Number of training passes beyond those of an undisturbed run.
        runs: MLflow runs.
        extra: Runs beyond one per trial of the experiment.
        running: Runs still RUNNING.
        orphans: Runs without a parent.
        twice: Evaluations delivered to MLflow again, over all runs of a trial.
        missing: Evaluations of the experiment's trials that are in no run.
    """

    kills: dict[str, int]
    backend: Backend
    starts: int
    seconds: float
    finished: bool
    asked: int
    trials: int
    executions: int
    passes: int
    repeated: int
    runs: int
    extra: int
    running: int
    orphans: int
    twice: int
    missing: int

    def line(self) -> str:
        """One line with every figure."""
        return (
            f"kills {sum(self.kills.values())}  starts {self.starts}  finished {'yes' if self.finished else 'no'}  "
            f"trials {self.trials} of {self.asked}  executions {self.executions}  "
            f"repeated passes {self.repeated} of {self.passes}  runs {self.runs}  beyond one a trial {self.extra}  "
            f"RUNNING {self.running}  without a parent {self.orphans}  steps twice {self.twice}  "
            f"steps missing {self.missing}"
        )


def control(
    folder: Path,
    *,
    kills: int,
    seed: int,
    backend: Backend,
    steps: int = 600,
    trials: int = 16,
    say: Callable[[str], None] = lambda text: None,
) -> Found:
    """Apply the chaos benchmark's kills to the three libraries alone, combined as in their documentation.

    Args:
        folder: Folder for all files; created from scratch.
        kills: Number of kills; fewer if the driver ends before.
        seed: Seed of the random kills, as in `chaos`.
        backend: MLflow's backend.
        steps: Base steps of a trial.
        trials: Number of requested trials.
        say: Called with each kill, and with why a driver is given up.
    """
    folder.mkdir(parents=True)
    (folder / "executions").touch()
    with ExitStack() as stack:
        nodes, server = stack.enter_context(stage(folder, backend))
        began = time.monotonic()

        def start() -> Driver:
            sizes = ("--steps", str(steps), "--trials", str(trials))
            log, environment = folder / "driver.log", {"RAY_ADDRESS": nodes.address}
            return Driver("drive", folder, server.uri, *sizes, log=log, environment=environment, module=__name__)

        scene = Scene(
            start,
            nodes,
            server,
            random.Random(seed),
            say,
            lambda: sum(f.stat().st_size for f in folder.glob("passes/*")),
        )
        stack.callback(scene.end)
        finished = False
        with suppress(RuntimeError):  # the driver ended before
            for index in range(kills):
                scene.kill(KINDS[index % len(KINDS)])
        try:
            finished = scene.finish(lambda: True, most_starts=MOST_STARTS)
        except (RuntimeError, subprocess.TimeoutExpired) as late:
            say(str(late))
        seconds = time.monotonic() - began
        ended = _ended(folder)
        recorded = _recorded(server.uri, ended)
    passes = sum(file.stat().st_size for file in folder.glob("passes/*"))
    return Found(
        kills=scene.kills,
        backend=backend,
        starts=scene.starts,
        seconds=seconds,
        finished=finished,
        asked=trials,
        trials=sum(trial.ended for trial in ended.values()),
        executions=(folder / "executions").stat().st_size,
        passes=passes,
        repeated=passes - _needed(folder, steps, ended),
        **recorded,
    )


def drive(folder: Path, uri: str, *, steps: int, trials: int) -> bool:
    """Start the driver once: a new experiment, or Tune's own restore of an existing one.

    Args:
        folder: Folder of the experiment.
        uri: MLflow tracking URI.
        steps: Base steps of a trial.
        trials: Number of requested trials.

    Returns:
        Whether every trial ended without an error.
    """
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    experiment, train = folder / NAME, _trainable(folder, steps)
    (folder / "passes").mkdir(parents=True, exist_ok=True)
    # `can_restore` is true before there is a state to restore, and the restore then fails: look for the state too.
    if tune.Tuner.can_restore(str(experiment)) and any(experiment.glob("experiment_state-*.json")):
        tuner = tune.Tuner.restore(str(experiment), train, resume_unfinished=True, resume_errored=True)
    else:
        tuner = tune.Tuner(
            train,
            param_space={
                "arm": tune.choice(ARMS),
                "lr": tune.loguniform(0.01, 1.0),
                "eta_online": tune.loguniform(1e-5, 1e-2),
            },
            tune_config=tune.TuneConfig(
                metric="selection/error",
                mode="min",
                num_samples=trials,
                search_alg=tune.search.ConcurrencyLimiter(OptunaSearch(seed=0), max_concurrent=2),
                scheduler=ASHAScheduler("step", max_t=steps, grace_period=steps // 3, reduction_factor=3),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=NAME,
                storage_path=str(folder),
                failure_config=tune.FailureConfig(max_failures=3),
                callbacks=[MLflowLoggerCallback(tracking_uri=uri, experiment_name=NAME)],
            ),
        )
    return bool(tuner.fit().num_errors == 0)


def _trainable(folder: Path, steps: int) -> Callable[[dict[str, Any]], None]:
    """Trains with the settings from Tune; resumes from its checkpoint."""
    from ray import tune

    def train(config: dict[str, Any]) -> None:
        trial = tune.get_context().get_trial_id()
        with (folder / "executions").open("a") as beginnings:
            beginnings.write(".")
        state, checkpoint = None, tune.get_checkpoint()
        if checkpoint is not None:
            with checkpoint.as_directory() as place:
                state = state_from_bytes(Path(place, "state").read_bytes())
        for progress in run(
            _config(config, folder / "passes" / trial, steps), TrialEnvironment(cache=folder / "cache"), state
        ):
            if not progress.report:
                continue
            step = progress.state.step
            measured = progress.records[-1].metrics
            metrics = {name: values[0] for name, values in measured.items() if name.startswith(REPORTED)}
            with tempfile.TemporaryDirectory() as place:
                kept = None
                if step % CHECKPOINT_STEPS == 0 or progress.outcome is not None:
                    Path(place, "state").write_bytes(state_to_bytes(progress.state))
                    kept = tune.Checkpoint.from_directory(place)
                tune.report({"step": step, **metrics}, checkpoint=kept)

    return train


def _config(point: Mapping[str, Any], file: Path, steps: int) -> TrialConfig:
    """The settings of the chaos benchmark's trials, at a point of its search space."""
    spec = parse_spec(json.dumps(chaos_spec(file, steps=steps, trials=1)).encode())
    params = {"learner.optimizer.lr": point["lr"]}
    if point["arm"] == "online":
        params["meta.eta_online"] = point["eta_online"]
    return trial_config(spec, point["arm"], params, seeds=(spec.seed,))


@dataclass(frozen=True)
class _Trial:
    arm: str
    step: int
    ended: bool


def _ended(folder: Path) -> dict[str, _Trial]:
    """The experiment's trials by id, from its last state file."""
    from ray import tune

    if not any((folder / NAME).glob("experiment_state-*.json")):
        return {}
    return {
        trial.trial_id: _Trial(trial.config["arm"], trial.last_result.get("step", 0), trial.status == "TERMINATED")
        for trial in tune.ExperimentAnalysis(str(folder / NAME)).trials
    }


def _needed(folder: Path, steps: int, trials: Mapping[str, _Trial]) -> int:
    """Number of training passes of the trials in an undisturbed run, counted by running them once."""
    passes: dict[tuple[str, int], int] = {}
    for arm in ARMS:
        file = folder / f"undisturbed-{arm}"
        config = _config({"arm": arm, "lr": 0.05, "eta_online": 1e-4}, file, steps)
        for progress in run(config, TrialEnvironment(cache=folder / "cache")):
            passes[arm, progress.state.step] = file.stat().st_size
    return sum(passes[trial.arm, trial.step] for trial in trials.values() if trial.step)


def _recorded(uri: str, trials: Mapping[str, _Trial]) -> dict[str, int]:
    """The content of MLflow."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(NAME)
    runs = list(client.search_runs([experiment.experiment_id], max_results=50_000)) if experiment is not None else []
    owners = [found.data.tags["trial_name"].removeprefix("train_") for found in runs]
    delivered: Counter[tuple[str, int]] = Counter()
    for owner, found in zip(owners, runs, strict=True):
        delivered.update((owner, int(point.value)) for point in client.get_metric_history(found.info.run_id, "step"))
    wanted = {(name, step) for name, trial in trials.items() for step in range(EVERY, trial.step + 1, EVERY)}
    return {
        "runs": len(runs),
        "extra": len(runs) - len(trials.keys() & set(owners)),
        "running": sum(found.info.status == "RUNNING" for found in runs),
        "orphans": sum("mlflow.parentRunId" not in found.data.tags for found in runs),
        "twice": sum(count - 1 for count in delivered.values()),
        "missing": len(wanted - delivered.keys()),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["drive"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("uri")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--trials", type=int, default=16)
    arguments = parser.parse_args()
    sys.exit(0 if drive(arguments.folder, arguments.uri, steps=arguments.steps, trials=arguments.trials) else 1)
