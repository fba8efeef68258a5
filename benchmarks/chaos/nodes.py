"""A Ray cluster of a head and two nodes, managed by this process, whose workers and nodes can be killed."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Sequence

import psutil

__all__ = ["TRIAL_PROCESSES", "Nodes"]

NODE = {"num_cpus": 1, "node_ip_address": "127.0.0.2", "object_store_memory": 100 * 2**20}
TRIAL_PROCESSES = ("ray::ResourceTrainable", "ray::LossLearning", "ray::ImplicitFunc")
"""Ray's names of processes that run a trial, of a class or of a function."""


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
        """Kill a node with everything that runs on it; another joins."""
        self._cluster.remove_node(self._nodes.pop(dice.randrange(2)), allow_graceful=False)
        self._nodes.append(self._cluster.add_node(**NODE))

    def close(self) -> None:
        """Stop all nodes."""
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
