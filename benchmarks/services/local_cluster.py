"""A real Ray cluster on loopback: a head with a job server, nodes that can be lost, MLflow on PostgreSQL, an S3 endpoint."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

from benchmarks.services.servers import MlflowServer, free_port, postgres, postgres_programs, s3_server, wait_for
from olfl_ray.storage import writable_folder

__all__ = ["BUCKET", "LocalCluster", "Node", "kill_tree", "local_cluster"]

BUCKET = "studies"
"""Bucket of the S3 endpoint: studies, and under `mlflow/` the MLflow server's artifacts."""
HEAD_PROGRAM = ("--head", "--num-cpus=0", "--include-dashboard=true", "--dashboard-host=127.0.0.1")
WORKER_PROGRAM = ("--num-cpus=1",)


class Node:
    """One Ray node: `ray start` as on a separate machine, with its own address and temporary folder.

    Args:
        number: 0 for the head; the node's address is 127.0.0.(2 + number), since Ray takes 127.0.0.1 for the machine's
            own address and would then use the network.
        options: Options of `ray start`, besides those that every node has.
        environment: Environment of its processes, and of the jobs and trials that run there.
        folder: Folder of its log, its home folder and its cache.
        scratch: Ray's temporary folder; its path must be short, as it contains sockets.
    """

    def __init__(
        self, number: int, options: tuple[str, ...], environment: Mapping[str, str], folder: Path, scratch: Path
    ) -> None:
        self.address = f"127.0.0.{2 + number}"
        self._log = folder / "ray.log"
        folder.mkdir(exist_ok=True)
        own = {"OLFL_HOME": str(folder / "home"), "OLFL_CACHE": str(folder / "cache")}
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", f"--node-ip-address={self.address}"),
            *(f"--temp-dir={scratch}", f"--object-store-memory={100 * 2**20}", "--include-log-monitor=false"),
            *("--dashboard-agent-listen-port=0", "--min-worker-port=0", "--max-worker-port=0", *options),
        ]
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=output, env={**environment, **own}, start_new_session=True
            )

    @property
    def pid(self) -> int:
        """Id of the process that all others of the node descend from."""
        return self._process.pid

    def wait(self) -> None:
        """Wait until it has joined the cluster.

        Raises:
            SetupError: It did not; with the end of its log.
        """
        said = "Ray runtime started"
        wait_for(lambda: said in self._log.read_text(), f"the Ray node {self.address}", self._log, self._process)

    def lose(self) -> None:
        """Kill its raylet, workers and everything else that runs there, as if the machine failed; a second call does nothing."""
        kill_tree(self.pid)
        self._process.wait()


class LocalCluster:
    """A running cluster.

    Args:
        head: Its head node.
        join: Starts another node with a number.
        address: URL of the job server.
        tracking_uri: URI of the MLflow server.
        storage: URL for studies.
        environment: What a client needs besides an address: the token's file, the S3 endpoint and its credentials.

    Attributes:
        nodes: Its worker nodes by number, including those that were lost.
    """

    def __init__(
        self,
        *,
        head: Node,
        join: Callable[[int], Node],
        address: str,
        tracking_uri: str,
        storage: str,
        environment: Mapping[str, str],
    ) -> None:
        self.head, self.address, self.tracking_uri = head, address, tracking_uri
        self.storage, self.environment = storage, environment
        self.nodes: dict[int, Node] = {}
        self._join = join

    def add_node(self, *, wait: bool = True) -> Node:
        """Start a node of one CPU that joins; with `wait`, return when it has joined."""
        number = len(self.nodes) + 1
        self.nodes[number] = node = self._join(number)
        if wait:
            node.wait()
        return node

    def close(self) -> None:
        """Stop every node."""
        for node in (*self.nodes.values(), self.head):
            node.lose()


@contextmanager
def local_cluster(folder: Path, nodes: int = 2) -> Iterator[LocalCluster]:
    """Start everything on free loopback ports; all processes end with the context.

    Ray's own daemons can't be restricted to one interface, but they require the token, which is new for each cluster.

    Args:
        folder: Folder of logs, the token (mode 600), and the nodes' home folders; created if it does not exist.
        nodes: Number of worker nodes of one CPU; the head has none.

    Raises:
        SetupError: A part did not start; with the end of its log.
    """
    folder = folder.absolute()
    writable_folder(folder, "the cluster's folder", private=True)
    token = folder / "token"
    token.unlink(missing_ok=True)
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="olfl-", ignore_cleanup_errors=True)))
        keys = "local", secrets.token_hex(16)
        endpoint = stack.enter_context(s3_server(BUCKET, keys))
        store = f"sqlite:///{folder / 'mlflow.db'}"
        if postgres_programs() is not None:
            store = stack.enter_context(postgres())
        client = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": keys[0],
            "AWS_SECRET_ACCESS_KEY": keys[1],
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        mlflow = MlflowServer(store, folder / "mlflow", f"s3://{BUCKET}/mlflow", client)
        mlflow.start(wait=False)
        stack.callback(mlflow.kill)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))},
            **client,
            "MLFLOW_TRACKING_URI": mlflow.uri,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        gcs, jobs, rest = free_port(), free_port(), free_port()
        ports = (f"--port={gcs}", f"--dashboard-port={jobs}", f"--ray-client-server-port={rest}")
        head = Node(0, (*HEAD_PROGRAM, *ports), environment, folder / "head", scratch / "0")
        stack.callback(head.lose)

        def join(number: int) -> Node:
            options = (*WORKER_PROGRAM, f"--address={head.address}:{gcs}")
            return Node(number, options, environment, folder / f"node-{number}", scratch / str(number))

        cluster = LocalCluster(
            head=head,
            join=join,
            address=f"http://127.0.0.1:{jobs}",
            tracking_uri=mlflow.uri,
            storage=f"s3://{BUCKET}",
            environment=client,
        )
        stack.callback(cluster.close)
        head.wait()
        for _ in range(nodes):
            cluster.add_node(wait=False)
        for node in cluster.nodes.values():
            node.wait()
        mlflow.wait()
        yield cluster


def kill_tree(pid: int) -> None:
    """Kill a process and all its descendants; they are stopped first, so that none starts another one meanwhile."""
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        root.suspend()
        tree: set[psutil.Process] = set()
        while new := set(root.children(recursive=True)) - tree:
            tree |= new
            for process in new:
                with suppress(psutil.NoSuchProcess):
                    process.suspend()
        for process in (*tree, root):
            with suppress(psutil.NoSuchProcess):
                process.kill()
