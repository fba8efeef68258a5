"""A long sweep whose driver, workers, nodes and MLflow server are killed at random moments, against one left in peace."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chaos.audit import Audit, audit
from benchmarks.chaos.driver import Driver
from benchmarks.chaos.scene import KINDS, PATIENCE, Backend, Scene, stage
from benchmarks.chaos.specs import chaos_spec

__all__ = ["Outcome", "chaos"]


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
        folder: Where everything is written; created from scratch.
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

        def start() -> Driver:
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


def _write_spec(home: Path, steps: int, trials: int) -> None:
    home.mkdir()
    spec = chaos_spec(home / "passes", steps=steps, trials=trials)
    (home / "spec.yaml").write_text(json.dumps(spec))


def _passes(home: Path) -> int:
    file = home / "passes"
    return file.stat().st_size if file.exists() else 0


def _start(home: Path, address: str, uri: str | None) -> Driver:
    command = ["sweep", "run", str(home / "spec.yaml"), "--home", str(home)]
    if uri is not None:
        command += ["--set", f"tracking.uri={uri}"]
    return Driver(*command, log=home / "driver.log", environment={"RAY_ADDRESS": address})


def _finish(driver: Driver) -> str:
    """Wait for a driver that nobody disturbs; its output."""
    if driver.wait(PATIENCE) != 0:
        raise RuntimeError(f"the sweep failed: {driver.said()[-3000:]}")
    return driver.said()
