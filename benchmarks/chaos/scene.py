"""A driver, a cluster and an MLflow server that are killed at random moments, and restarted as a watchdog would."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from benchmarks.chaos.driver import Driver
from benchmarks.chaos.nodes import Nodes
from benchmarks.services.servers import MlflowServer, postgres

__all__ = ["BACKENDS", "KINDS", "PATIENCE", "Backend", "Scene", "stage"]

KINDS = ("driver", "worker", "node", "mlflow")
"""What is killed, in turn."""
Backend = Literal["sqlite", "postgresql"]
BACKENDS: tuple[Backend, ...] = ("sqlite", "postgresql")
"""MLflow's possible backends."""
LONGEST_WAIT = 4.0
"""The longest time in seconds from the first training pass after a kill to the next kill."""
PATIENCE = 900.0
"""Maximum time in seconds of the sweep after the last kill."""


@contextmanager
def stage(folder: Path, backend: Backend) -> Iterator[tuple[Nodes, MlflowServer]]:
    """A running cluster and an MLflow server with its store; the server's files are in the folder."""
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
    """The disturbed sweep: its processes, and how to kill them.

    Args:
        start: Starts the driver.
        nodes: The nodes that run its trials.
        server: The server that records them.
        dice: Decides when a kill comes and which worker or node it hits.
        say: Called with each kill.
        work: Number of training passes so far. A kill waits for one since the last: without work there is nothing to lose.
    """

    def __init__(
        self,
        start: Callable[[], Driver],
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
        """Wait for a random time, then kill something with SIGKILL and restart what a watchdog would.

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
            most_starts: Give up after this many starts; None: never.

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
        """Stop the driver if it is running."""
        self._driver.kill()

    def _watch(self) -> None:
        """Restart the driver if it has ended."""
        if self._driver.poll() is not None:
            self._start()

    def _start(self) -> None:
        self._driver = self._begin()
        self.starts += 1
