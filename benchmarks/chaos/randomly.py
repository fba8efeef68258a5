"""A long sweep whose driver, workers, nodes and MLflow server are killed at random moments, compared with an undisturbed one."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.chaos.audit import Audit, audit
from benchmarks.chaos.driver import Driver
from benchmarks.chaos.scene import KINDS, PATIENCE, Backend, Scene, stage
from benchmarks.chaos.specs import chaos_spec, evolution_spec

__all__ = ["Outcome", "chaos"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was killed, and the findings afterwards.

    Args:
        kills: Number by kind.
        backend: MLflow's backend.
        starts: Number of starts of the driver.
        seconds: Wall-clock time of the disturbed sweep.
        passes: Number of training passes of the undisturbed sweep.
        repeated: Number of additional training passes of the disturbed sweep.
        allowed: Number of repeated passes if each kill costs every running trial one checkpoint interval.
        found: Audit of the stores.
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
        """Whether nothing is lost, duplicated, running or different."""
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
    evolution: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Outcome:
    """Run the sweep twice, once undisturbed and once with kills, and compare.

    Args:
        folder: Folder for all files; created from scratch.
        kills: Number of kills.
        seed: Seed of the random kills.
        backend: MLflow's backend.
        steps: Base steps of a trial.
        trials: Number of search trials of each of the two arms.
        evolution: Whether the sweep is a search by evolution, of twice as many trials in one arm.
        say: Called with each kill and start.

    Raises:
        RuntimeError: The sweep ended before all kills, or did not end.
    """
    folder.mkdir(parents=True)
    spec_of = evolution_spec if evolution else chaos_spec
    reference, disturbed = folder / "reference", folder / "disturbed"
    with ExitStack() as stack:
        nodes, server = stack.enter_context(stage(folder, backend))
        _write_spec(reference, spec_of, steps, trials)
        say("the undisturbed sweep")
        _finish(_start(reference, nodes.address, None))
        _write_spec(disturbed, spec_of, steps, trials)

        def start() -> Driver:
            return _start(disturbed, nodes.address, server.uri)

        began = time.monotonic()
        scene = Scene(start, nodes, server, random.Random(seed), say, lambda: _passes(disturbed))
        stack.callback(scene.end)
        for index in range(kills):
            scene.kill(KINDS[index % len(KINDS)])
        # A last start finds nothing to do: everything is delivered too.
        scene.finish(lambda: "nothing to do" in _finish(start()))
        seconds = time.monotonic() - began
        found = audit(reference, disturbed, server.uri)
    passes, again = (_passes(place) for place in (reference, disturbed))
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


def _write_spec(home: Path, spec_of: Callable[..., dict[str, Any]], steps: int, trials: int) -> None:
    home.mkdir()
    spec = spec_of(home / "passes", steps=steps, trials=trials)
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
    """Wait for an undisturbed driver; returns its output."""
    if driver.wait(PATIENCE) != 0:
        raise RuntimeError(f"the sweep failed: {driver.output()[-3000:]}")
    return driver.output()
