"""Chaos: a sweep whose driver, workers, nodes and MLflow server are killed at random moments, against one left in peace."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from olfl_ray.bench.audit import Audit, audit
from olfl_ray.bench.services import MlflowServer, postgres

__all__ = ["BACKENDS", "KINDS", "Backend", "Nodes", "Outcome", "Scene", "chaos", "chaos_spec", "stage"]

KINDS = ("driver", "worker", "node", "mlflow")
"""What is killed, by turns."""
Backend = Literal["sqlite", "postgresql"]
BACKENDS: tuple[Backend, ...] = ("sqlite", "postgresql")
"""What may stand behind MLflow."""
NODE = {"num_cpus": 1, "node_ip_address": "127.0.0.2", "object_store_memory": 100 * 2**20}
LONGEST_WAIT = 4.0
"""The longest time from the first training pass since the last kill to the next kill, in seconds."""
TRIAL_PROCESSES = ("ray::ResourceTrainable", "ray::LossLearning", "ray::ImplicitFunc")
"""How Ray names a process that runs a trial, of a class or of a function."""
PATIENCE = 900.0
"""Seconds that the sweep may take after the last kill."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was killed, and what was found afterwards.

    Args:
        kills: Number by kind.
        backend: What stood behind MLflow.
        starts: Times that the driver was started.
        seconds: Wall-clock time of the disturbed sweep.
        passes: Training passes of the undisturbed sweep.
        repeated: Training passes that the disturbed sweep made beyond those.
        allowed: Repeated passes if each kill cost every running trial one checkpoint interval.
        found: What the stores hold.
    """

    kills: dict[str, int]
    backend: Backend
    starts: int
    seconds: float
    passes: int
    repeated: int
    allowed: int
    found: Audit

    @property
    def holds(self) -> bool:
        """Whether the promise was kept: nothing lost, nothing twice, nothing running, nothing different."""
        return self.found.clean and self.repeated <= self.allowed

    def line(self) -> str:
        """One line with every figure."""
        f = self.found
        return (
            f"kills {sum(self.kills.values())}  trials {f.trials}  commits {f.commits}  repeated passes {self.repeated} "
            f"of {self.passes} (allowed {self.allowed})  runs {f.runs}  duplicates {f.duplicates}  lost {f.lost}  "
            f"RUNNING {f.running}  difference {f.difference}"
        )


def chaos_spec(file: Path, *, steps: int, trials: int) -> dict[str, Any]:
    """A deterministic sweep of two arms whose base learner counts its training passes in a file."""
    return {
        "name": "chaos",
        "task": {
            "dataset": "digits",
            "model": {"name": "olfl_ray.bench.counting:build", "hidden": 16, "file": str(file)},
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


def chaos(
    folder: Path,
    *,
    kills: int,
    seed: int,
    backend: Backend,
    steps: int = 600,
    trials: int = 6,
    say: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Run the sweep twice, once in peace and once under kills, and compare.

    Args:
        folder: Where everything is written; made anew.
        kills: How many.
        seed: Decides what is killed when.
        backend: What stands behind MLflow.
        steps: Base steps of a trial.
        trials: Search trials of each of the two arms.
        say: Told of each kill and start.

    Raises:
        RuntimeError: The sweep ended before it was killed so often, or did not end.
    """
    folder.mkdir(parents=True)
    calm, wild = folder / "calm", folder / "wild"
    with ExitStack() as stack:
        nodes, server = stack.enter_context(stage(folder, backend))
        _write_spec(calm, steps, trials)
        say("the undisturbed sweep")
        _finish(_start(calm, nodes.address, None))
        _write_spec(wild, steps, trials)

        def start() -> subprocess.Popen[str]:
            return _start(wild, nodes.address, server.uri)

        began = time.monotonic()
        scene = Scene(start, nodes, server, random.Random(seed), say, lambda: _passes(wild))
        stack.callback(scene.end)
        for index in range(kills):
            scene.kill(KINDS[index % len(KINDS)])
        # A last start finds nothing to do: everything is delivered too.
        scene.finish(lambda: "nothing to do" in _finish(start()))
        seconds = time.monotonic() - began
        found = audit(calm, wild, server.uri)
    passes, again = (_passes(place) for place in (calm, wild))
    lost = 2 * (100 + 20)  # a commit is made at the first evaluation after its interval
    return Outcome(
        kills=scene.kills,
        backend=backend,
        starts=scene.starts,
        seconds=seconds,
        passes=passes,
        repeated=again - passes,
        allowed=2 * lost * kills,  # two trials run, and an online step makes two passes
        found=found,
    )


@contextmanager
def stage(folder: Path, backend: Backend) -> Iterator[tuple[Nodes, MlflowServer]]:
    """A cluster and an MLflow server on its store, started; the server's files lie in the folder."""
    with ExitStack() as stack:
        nodes = Nodes()
        stack.callback(nodes.close)
        store = f"sqlite:///{folder / 'mlflow.db'}"
        if backend == "postgresql":
            store = stack.enter_context(postgres())
        server = MlflowServer(store, folder / "mlflow")
        server.start()
        stack.callback(server.kill)
        yield nodes, server


class Scene:
    """The disturbed work: what runs, and what can be killed of it.

    Args:
        start: Starts the driver.
        nodes: Where its trials run.
        server: Where they are recorded.
        dice: Decides when a kill comes and which worker or node it hits.
        say: Told of each kill.
        work: Training passes so far. A kill waits for one since the last: what begins can lose nothing.
    """

    def __init__(
        self,
        start: Callable[[], subprocess.Popen[str]],
        nodes: Nodes,
        server: MlflowServer,
        dice: random.Random,
        say: Callable[[str], None],
        work: Callable[[], int],
    ) -> None:
        self._begin, self._nodes, self._server, self._dice = start, nodes, server, dice
        self._say, self._work = say, work
        self.kills = dict.fromkeys(KINDS, 0)
        self.starts = 0
        self._start()

    def kill(self, kind: str) -> None:
        """Wait a random while, then kill one thing with SIGKILL and put back what a watchdog would.

        Raises:
            RuntimeError: The driver has ended its work, or no trial runs.
        """
        self._watch()
        before, end = self._work(), time.monotonic() + PATIENCE
        while self._work() <= before and self._driver.poll() != 0 and time.monotonic() < end:
            self._watch()
            time.sleep(0.1)
        time.sleep(self._dice.uniform(0, LONGEST_WAIT))
        if self._driver.poll() == 0:
            raise RuntimeError(f"the sweep ended after {sum(self.kills.values())} kills; give it more steps")
        if kind == "driver":
            self._driver.kill()
            self._driver.wait()
        elif kind == "worker":
            self._nodes.kill_worker(self._dice, self._watch)
        elif kind == "node":
            self._nodes.lose_one(self._dice)
        else:
            self._server.kill()
            self._server.start(wait=False)
        self.kills[kind] += 1
        self._say(f"kill {sum(self.kills.values())}: {kind}")

    def finish(self, done: Callable[[], bool], *, most_starts: int | None = None) -> bool:
        """Start the driver until it exits 0 and its work is done.

        Args:
            done: Whether the work is done, after an exit with 0.
            most_starts: Give up after so many; None: never.

        Returns:
            Whether it was done.

        Raises:
            RuntimeError, subprocess.TimeoutExpired: It took too long.
        """
        end, most = time.monotonic() + PATIENCE, None if most_starts is None else self.starts + most_starts
        while self._driver.wait(max(1.0, end - time.monotonic())) != 0 or not done():
            if time.monotonic() > end:
                raise RuntimeError("the sweep did not end")
            if self.starts == most:
                return False
            self._start()
        return True

    def end(self) -> None:
        """Leave no driver behind."""
        self._driver.kill()
        self._driver.wait()

    def _watch(self) -> None:
        """Start the driver again where it ended."""
        if self._driver.poll() is not None:
            self._start()

    def _start(self) -> None:
        self._driver = self._begin()
        self.starts += 1


class Nodes:
    """A head without CPUs and two nodes of one CPU."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {**NODE, "num_cpus": 0, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, connect=False, head_node_args=head)
        self._nodes = [self._cluster.add_node(**NODE) for _ in range(2)]
        self.address: str = self._cluster.address

    def kill_worker(self, dice: random.Random, meanwhile: Callable[[], None]) -> None:
        """Kill a process that runs a trial, as soon as there is one.

        Raises:
            RuntimeError: There is none for a minute.
        """
        end = time.monotonic() + 300
        while time.monotonic() < end:
            found = sorted(process.pid for process in _descendants() if _runs_a_trial(process))
            if found:
                os.kill(dice.choice(found), signal.SIGKILL)
                return
            meanwhile()
            time.sleep(0.1)
        raise RuntimeError("no trial ran for five minutes")

    def lose_one(self, dice: random.Random) -> None:
        """Kill a node with all that runs on it; another joins."""
        self._cluster.remove_node(self._nodes.pop(dice.randrange(2)), allow_graceful=False)
        self._nodes.append(self._cluster.add_node(**NODE))

    def close(self) -> None:
        """End all of them."""
        self._cluster.shutdown()


def _descendants() -> list[psutil.Process]:
    found: list[psutil.Process] = psutil.Process().children(recursive=True)
    return found


def _runs_a_trial(process: psutil.Process) -> bool:
    try:
        command: Sequence[str] = process.cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
    return bool(command) and command[0].startswith(TRIAL_PROCESSES)


def _write_spec(home: Path, steps: int, trials: int) -> None:
    home.mkdir()
    spec = chaos_spec(home / "passes", steps=steps, trials=trials)
    (home / "spec.yaml").write_text(json.dumps(spec))


def _passes(home: Path) -> int:
    file = home / "passes"
    return file.stat().st_size if file.exists() else 0


def _start(home: Path, address: str, uri: str | None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "olfl_ray.cli", "sweep", "run", str(home / "spec.yaml"), "--home", str(home)]
    if uri is not None:
        command += ["--set", f"tracking.uri={uri}"]
    with (home / "driver.log").open("a") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, text=True, env={**os.environ, "RAY_ADDRESS": address})


def _finish(driver: subprocess.Popen[str]) -> str:
    """Wait for a driver that nobody disturbs; its output so far."""
    command: Any = driver.args
    log = Path(command[-3 if "--set" in command else -1]) / "driver.log"
    if driver.wait(PATIENCE) != 0:
        raise RuntimeError(f"the sweep failed: {log.read_text()[-3000:]}")
    return log.read_text()
