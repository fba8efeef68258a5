"""The machines that trials would run on: a task on each says which versions and devices it has."""

from __future__ import annotations

import platform
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from olfl_ray.machine import version_of
from olfl_ray.sweep.cluster import PROBE_SECONDS, on_cluster, running_ray

__all__ = ["COMPARED", "Machine", "RayFound", "probed"]

COMPARED = ("python", "olfl_ray", "torch", "ray")
"""What must have one version on all machines."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine that may run trials.

    Args:
        address: Its network address.
        resources: Its resources by Ray's names.
        versions: Its versions of `COMPARED`; empty if it did not answer.
        problem: Why it did not answer.
    """

    address: str
    resources: dict[str, float]
    versions: dict[str, str]
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class RayFound:
    """A running Ray.

    Args:
        embedded: Whether it was started for this process.
        here: The versions of this process.
        machines: Its machines.
    """

    embedded: bool
    here: dict[str, str]
    machines: tuple[Machine, ...]


@contextmanager
def probed() -> Iterator[RayFound]:
    """Start Ray, or connect to the cluster that `RAY_ADDRESS` names, and ask each machine.

    Raises:
        SetupError: It can't be started or reached.
    """
    embedded = not on_cluster()
    with running_ray():
        yield RayFound(embedded=embedded, here=_versions(), machines=tuple(_machines()))


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "host": socket.gethostname()}
    return {**found, **{name: version_of(name) for name in COMPARED[1:]}}


def _machines() -> Iterator[Machine]:
    nodes = {node["NodeManagerAddress"]: node for node in ray.nodes() if node["Alive"]}
    able = {address: node for address, node in nodes.items() if {"CPU", "GPU"} & node["Resources"].keys()}
    task = ray.remote(_versions)
    asked = {
        address: task.options(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote()
        for address, node in able.items()
    }
    answers: list[Any] = list(asked.values())
    ready, _ = ray.wait(answers, num_returns=len(answers), timeout=PROBE_SECONDS) if answers else ([], [])
    for address, answer in asked.items():
        versions, problem = {}, ""
        if answer not in ready:
            problem = f"no answer for {PROBE_SECONDS:g} s"
        else:
            try:
                versions = ray.get(answer)
            except Exception as error:
                problem = (str(error).strip() or type(error).__name__).splitlines()[-1]
        yield Machine(address=address, resources=able[address]["Resources"], versions=versions, problem=problem)
