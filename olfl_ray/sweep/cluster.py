"""The Ray that trials run on: embedded here, or a cluster that was started before; what it has, and what it can hold."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import ray
from ray._private.ray_logging import global_worker_stdstream_dispatcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from olfl_ray.errors import SetupError
from olfl_ray.spec import Resources

__all__ = ["Cluster", "Node", "amounts", "check_resources", "connected", "on_cluster", "start_ray"]

ADDRESS = "RAY_ADDRESS"
LOOPBACK = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"
"""Ray takes 127.0.0.1 for the machine's own address, and would speak over the network."""
PROBE_SECONDS = 60.0
"""A node that has not answered a probe by then can't be used."""
PLAIN = ("CPU", "GPU", "memory")
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Node:
    """A living node of a cluster.

    Args:
        id: Ray's name of it.
        address: Its network address: nodes of one machine share it.
        resources: What it offers, by Ray's names.
    """

    id: str
    address: str
    resources: Mapping[str, float]

    @property
    def kind(self) -> str:
        """What it offers, in words."""
        plain = [f"{self.resources.get(name, 0):g} {name}" for name in PLAIN[:2]]
        memory = f"{self.resources.get('memory', 0) / GIB:.1f} GiB of memory"
        own = [f"{amount:g} {name}" for name, amount in sorted(self.resources.items()) if _is_custom(name)]
        return ", ".join([*plain, memory, *own])


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A cluster that was started before.

    Args:
        nodes: Its living nodes.
        driver: Address of the machine that this process runs on.
    """

    nodes: tuple[Node, ...]
    driver: str

    @property
    def workers(self) -> list[Node]:
        """One node of each machine that may run trials."""
        found = {node.address: node for node in self.nodes if node.resources.get("CPU") or node.resources.get("GPU")}
        return [found[address] for address in sorted(found)]

    @property
    def machines(self) -> list[str]:
        """Addresses of the machines that must see a study: those that may run its trials, and this one."""
        return sorted({self.driver, *(node.address for node in self.workers)})

    def unable_to_read(self, path: Path, content: bytes) -> dict[str, str]:
        """Machines that do not see a file as it is here, each with the reason.

        Args:
            path: The file.
            content: What is in it.
        """
        probe = ray.remote(_read)
        asked = {
            node.address: probe.options(
                num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
            ).remote(str(path))
            for node in self.workers
        }
        ready, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=PROBE_SECONDS)
        unable = {}
        for address, answer in asked.items():
            if answer not in ready:
                unable[address] = f"no answer for {PROBE_SECONDS:g} s"
                continue
            try:
                found = ray.get(answer)
            except Exception as error:
                unable[address] = (str(error).strip() or type(error).__name__).splitlines()[-1]
                continue
            if found != content:
                unable[address] = "it is not there" if found is None else "another file is there"
        return unable


def _read(path: str) -> bytes | None:
    """What a file holds on the node where this runs; None where it is not there."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return None


def on_cluster() -> bool:
    """Whether trials run on a cluster that was started before."""
    return bool(os.environ.get(ADDRESS)) or bool(ray.is_initialized())


@contextmanager
def connected() -> Iterator[Cluster | None]:
    """The cluster that `RAY_ADDRESS` names, or to which this process is connected; None: trials run on this machine alone.

    Raises:
        SetupError: It can't be reached.
    """
    if not on_cluster():
        yield None
        return
    started = start_ray()
    try:
        yield _cluster()
    finally:
        if started:
            ray.shutdown()


def _cluster() -> Cluster:
    nodes = tuple(
        Node(id=node["NodeID"], address=node["NodeManagerAddress"], resources=node["Resources"])
        for node in ray.nodes()
        if node["Alive"]
    )
    here = ray.get_runtime_context().get_node_id()
    driver = next((node.address for node in nodes if node.id == here), socket.gethostname())
    return Cluster(nodes=nodes, driver=driver)


def amounts(resources: Resources) -> dict[str, float]:
    """What one trial takes, by Ray's names."""
    wanted = {
        "CPU": float(resources.cpu),
        "GPU": resources.gpu,
        "memory": float(resources.memory or 0),
        **resources.custom,
    }
    return {name: amount for name, amount in wanted.items() if amount}


def check_resources(resources: Resources, cluster: Cluster | None) -> None:
    """Refuse trials that can never be placed.

    Args:
        resources: What one trial takes.
        cluster: Where trials run; None: on this machine.

    Raises:
        SetupError: No node can ever satisfy it, and none that can is said to join.
    """
    if cluster is not None and resources.may_join:
        return
    # GPUs of this machine are for torch to count, as `trial.check` does.
    here = {"CPU": float(os.cpu_count() or 1), "memory": float(psutil.virtual_memory().total)}
    nodes = cluster.nodes if cluster is not None else (Node(id="", address="", resources=here),)
    wanted = amounts(resources)
    if cluster is None:
        wanted.pop("GPU", None)
    if any(all(node.resources.get(name, 0) >= amount for name, amount in wanted.items()) for node in nodes):
        return
    field, problem = "resources", f"no node has all that a trial takes together ({_in_words(wanted)})"
    for name, amount in wanted.items():
        most = max((node.resources.get(name, 0) for node in nodes), default=0)
        if amount > most:
            field = f"resources.{name.lower()}" if name in PLAIN else f"resources.custom.{name}"
            problem = f"a trial takes {_in_words({name: amount})}, but no node has more than {_in_words({name: most})}"
            break
    kinds = Counter(node.kind for node in nodes)
    shown = "; ".join(f"{count} x {kind}" for kind, count in kinds.most_common(8))
    place, move = "this machine has", "lower it"
    if cluster is not None:
        place, move = "the cluster has", "lower it, or set resources.may_join: true where nodes that have it join later"
    raise SetupError(f"{field}: {problem}; {place} {shown or 'no nodes'}; {move}")


def _in_words(wanted: Mapping[str, float]) -> str:
    return ", ".join(
        f"{amount / GIB:.2f} GiB of memory" if name == "memory" else f"{amount:g} {name}"
        for name, amount in wanted.items()
    )


def _is_custom(name: str) -> bool:
    """Whether a node was given this resource by a person."""
    return name not in (*PLAIN, "object_store_memory") and not name.startswith(("node:", "accelerator_type:"))


def start_ray() -> bool:
    """Start an embedded Ray, or connect to the cluster that `RAY_ADDRESS` names; whether that was done here.

    Raises:
        SetupError: The cluster can't be reached.
    """
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the newer one prints a banner even when told to be silent
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "inf")  # of Tune's state, which is never restored: the ledger is
    if ray.is_initialized():
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # The study's own view says what becomes of a trial; Ray's and Tune's words on lost workers would tear it.
    global_worker_stdstream_dispatcher.remove_handler("ray_print_logs")
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if os.environ.get(ADDRESS, "").startswith(("http://", "https://")):
        raise SetupError(
            f"{ADDRESS}: {os.environ[ADDRESS]!r} is a job server's; send the study there with `olfl sweep submit`, or unset it "
            "to run here"
        )
    if os.environ.get(ADDRESS):
        try:
            ray.init(**quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise SetupError(
                f"{ADDRESS}: {os.environ[ADDRESS]!r} can't be reached ({reason}); start the cluster, or unset it"
            ) from None
    else:
        ray.init("local", num_cpus=os.cpu_count(), include_dashboard=False, _node_ip_address=LOOPBACK, **quiet)
    return True
