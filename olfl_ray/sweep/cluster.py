"""The Ray that trials run on: embedded in this process, or an existing cluster; its nodes, and what they can run."""

from __future__ import annotations

import logging
import os
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import psutil
import ray
from ray._private.grpc_utils import init_grpc_channel
from ray._private.ray_logging import global_worker_stdstream_dispatcher
from ray.exceptions import AuthenticationError, RayError
from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from olfl_ray.errors import SetupError
from olfl_ray.spec import Resources
from olfl_ray.sweep.embedded import MODE, TOKEN, TOKEN_FILE, embedded_ray

__all__ = ["Cluster", "Node", "amounts", "check_resources", "connected", "on_cluster", "running_ray"]

ADDRESS = "RAY_ADDRESS"
PROBE_SECONDS = 60.0
"""A node that has not answered a probe within this time can't be used."""
REACH_SECONDS = 10.0
"""A cluster that does not respond within this time is unreachable."""
PLAIN = ("CPU", "GPU", "memory")
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Node:
    """A live node of a cluster.

    Args:
        id: Ray's node id.
        address: Its network address, which nodes of one machine share.
        resources: Its resources, by Ray's names.
    """

    id: str
    address: str
    resources: Mapping[str, float]

    @property
    def kind(self) -> str:
        """Its resources, as text."""
        plain = [f"{self.resources.get(name, 0):g} {name}" for name in PLAIN[:2]]
        memory = f"{self.resources.get('memory', 0) / GIB:.1f} GiB of memory"
        own = [f"{amount:g} {name}" for name, amount in sorted(self.resources.items()) if _is_custom(name)]
        return ", ".join([*plain, memory, *own])


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """An existing cluster.

    Args:
        nodes: Its live nodes.
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
        """Addresses of the machines that must access a study: those that may run its trials, and this one."""
        return sorted({self.driver, *(node.address for node in self.workers)})

    def unable_to_read(self, path: Path, content: bytes) -> dict[str, str]:
        """Machines that can't read a file with the given content, each with the reason.

        Args:
            path: The file.
            content: Its content.
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
                unable[address] = f"no response for {PROBE_SECONDS:g} s"
                continue
            try:
                found = ray.get(answer)
            except Exception as error:
                unable[address] = (str(error).strip() or type(error).__name__).splitlines()[-1]
                continue
            if found != content:
                unable[address] = "it is not there" if found is None else "its content differs"
        return unable


def _read(path: str) -> bytes | None:
    """The content of a file on the node where this runs; None if it does not exist."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return None


def on_cluster() -> bool:
    """Whether trials run on an existing cluster."""
    return os.environ.get(ADDRESS, "local") not in ("", "local") or bool(ray.is_initialized())


@contextmanager
def connected() -> Iterator[Cluster | None]:
    """The cluster that `RAY_ADDRESS` names, or to which this process is connected; None: trials run only on this machine.

    Raises:
        SetupError: It can't be reached.
    """
    if not on_cluster():
        yield None
        return
    with running_ray():
        yield _cluster()


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
    """What one trial needs, by Ray's names."""
    wanted = {
        "CPU": float(resources.cpu),
        "GPU": resources.gpu,
        "memory": float(resources.memory or 0),
        **resources.custom,
    }
    return {name: amount for name, amount in wanted.items() if amount}


def check_resources(resources: Resources, cluster: Cluster | None) -> None:
    """Refuse trials that can never be scheduled.

    Args:
        resources: What one trial needs.
        cluster: The cluster; None: this machine.

    Raises:
        SetupError: No node can ever satisfy it, and no such node is declared to join.
    """
    if cluster is not None and resources.may_join:
        return
    # GPUs of this machine are counted by torch, in `trial.check`.
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
        place, move = "the cluster has", "lower it, or set resources.may_join: true if nodes that have it join later"
    raise SetupError(f"{field}: {problem}; {place} {shown or 'no nodes'}; {move}")


def _in_words(wanted: Mapping[str, float]) -> str:
    return ", ".join(
        f"{amount / GIB:.2f} GiB of memory" if name == "memory" else f"{amount:g} {name}"
        for name, amount in wanted.items()
    )


def _is_custom(name: str) -> bool:
    """Whether a resource was assigned to a node by a user."""
    return name not in (*PLAIN, "object_store_memory") and not name.startswith(("node:", "accelerator_type:"))


@contextmanager
def running_ray() -> Iterator[Path | None]:
    """The Ray of this process: the one it is connected to, the cluster that `RAY_ADDRESS` names, or an embedded one.

    Yields the private folder of an embedded one; None on a cluster.

    Raises:
        SetupError: The cluster can't be reached, or this machine lacks what an embedded Ray needs.
    """
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the newer output prints a banner even when set to be silent
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "inf")  # Tune's state is never restored: the ledger is
    # Ray logs an actor's environment, so it must hold no credentials: nodes have their own, embedded workers this process's.
    ENV_VARS_TO_PROPAGATE.difference_update([name for name in ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")])
    if ray.is_initialized():
        yield None
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # The study's own view reports lost workers; messages of Ray and Tune would break its layout.
    global_worker_stdstream_dispatcher.remove_handler("ray_print_logs")
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if not on_cluster():
        with embedded_ray(**quiet) as folder:
            yield folder
        return
    address = os.environ[ADDRESS]
    _check_address(address)
    _check_token()
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", f"{REACH_SECONDS:g}")
    try:
        ray.init(**quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError, RayError) as error:
        said = f"{error} {error.__cause__}"
        denied = isinstance(error, AuthenticationError) or "authentic" in said.lower()
        reason = "it requires another token" if denied else (str(error) or type(error).__name__).splitlines()[0]
        move = f"set {TOKEN_FILE} to the cluster's token" if denied else "start the cluster, or unset it"
        raise SetupError(f"{ADDRESS}: {address!r} can't be used ({reason}); {move}") from None
    try:
        yield None
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Refuse an address without a Ray at once: Ray itself would retry, and log, for a quarter of an hour."""
    if address.startswith(("http://", "https://")):
        raise SetupError(
            f"{ADDRESS}: {address!r} is a job server; submit the study there with `olfl sweep submit`, or unset it to run "
            "here"
        )
    if address == "auto":
        return
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None or port is None or "://" in address or "@" in address:
        raise SetupError(
            f"{ADDRESS}: {address!r} must be HOST:PORT of the cluster's head (6379 is its usual port), or auto; correct it, "
            "or unset it to run here"
        )
    try:
        socket.create_connection((host, port), timeout=REACH_SECONDS).close()
        channel = init_grpc_channel(address)
        try:
            grpc.channel_ready_future(channel).result(timeout=REACH_SECONDS)
        finally:
            channel.close()
    except (OSError, grpc.FutureTimeoutError) as error:
        silent = isinstance(error, grpc.FutureTimeoutError)
        reason = "no Ray head listens there" if silent else getattr(error, "strerror", None) or str(error)
        raise SetupError(
            f"{ADDRESS}: {address!r} can't be reached ({reason}); start the cluster, or unset it to run here"
        ) from None


def _check_token() -> None:
    """Refuse a token file that other users can read: anyone with the token can run code on the cluster."""
    mode = os.environ.get(MODE, "").lower()
    if mode == "disabled" or os.environ.get(TOKEN):
        return
    given = os.environ.get(TOKEN_FILE)
    path = Path(given or "~/.ray/auth_token").expanduser()
    try:
        found = path.stat()
    except OSError:
        return  # Ray reports what is missing
    if (
        found.st_uid == os.getuid()
        and found.st_mode & 0o077
        and (given or mode == "token" or os.environ[ADDRESS] == "auto")
    ):
        raise SetupError(
            f"{path}: other users can read this token (mode {found.st_mode & 0o777:o}); make it yours: chmod 600 {path}"
        )
