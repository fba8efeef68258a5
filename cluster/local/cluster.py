"""A two-node Ray cluster on this machine, with MLflow on PostgreSQL and an S3 endpoint: `up`, `down`, `kill-node`, `demo`."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks, which are no part of the installed package

from page import BROWSERS, picture, runs_of
from rich.console import Console

from benchmarks.services.local_cluster import LocalCluster, kill_tree, local_cluster
from benchmarks.services.servers import postgres_programs
from olfl_ray.errors import SetupError, UserError
from olfl_ray.spec import read_spec
from olfl_ray.tracking.mlflow import experiment_of

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
out = Console(highlight=False, soft_wrap=True, markup=False)
FOLDER = Path(".olfl/cluster")
Folder = Annotated[Path, typer.Option(help="Where the running cluster notes what others need; its logs too.")]
DEMO = Path(".olfl/cluster-demo")
NOTE = "cluster.json"
TARGET = "local"
"""The cluster's name in the config file, for `--address`."""
LOSE_AT, JOIN_AT = 0.3, 0.5
"""Share of the demo's trials that have ended when a node is killed, and when another joins."""


@app.command()
def up(folder: Folder = FOLDER, nodes: Annotated[int, typer.Option(help="Worker nodes of one CPU.")] = 2) -> None:
    """Start the cluster and keep it until Ctrl-C, SIGTERM or `down`."""
    with _cluster(folder, nodes):
        out.print(f"\nIn another shell:\n  source {shlex.quote(str(folder / 'environment'))}")
        out.print(f"  olfl sweep submit sweeps/digits.yaml --address {TARGET} --follow")
        out.print("\nCtrl-C ends the cluster and all that it holds.")
        signal.pause()


@app.command()
def down(folder: Folder = FOLDER) -> None:
    """End the cluster that `up` runs."""
    os.kill(_running(folder)["pid"], signal.SIGTERM)
    while (folder / NOTE).exists():
        time.sleep(0.1)


@app.command("kill-node")
def kill_node(number: int, folder: Folder = FOLDER) -> None:
    """Kill a worker node's raylet and workers (SIGKILL), as if its machine were lost."""
    nodes = _running(folder)["nodes"]
    if str(number) not in nodes:
        raise SetupError(f"there is no node {number}; there are: {', '.join(nodes)}")
    kill_tree(nodes[str(number)])


@app.command()
def demo(
    spec: Path = Path("sweeps/digits.yaml"),
    picture_of: Annotated[Path, typer.Option("--picture", help="Where MLflow's page is written.")] = Path(
        "docs/pictures/mlflow_runs.png"
    ),
    set_: Annotated[list[str] | None, typer.Option("--set", help="Overrides a field of the spec.")] = None,
) -> None:
    """Submit a sweep to a cluster made for it, kill a node in its middle, let another join, and show what came of it."""
    checked = read_spec(spec, set_ or ())
    shutil.rmtree(DEMO, ignore_errors=True)
    with _cluster(DEMO / "cluster", 2) as cluster:
        client = {**os.environ, **cluster.environment, "OLFL_HOME": str((DEMO / "laptop").absolute())}
        overrides = [f"--set={item}" for item in set_ or ()]
        code = _submit_and_disturb(["submit", str(spec), *overrides, "--follow"], client, cluster)
        if code:
            raise typer.Exit(code)
        states = Counter(run.info.status for run in runs_of(cluster.tracking_uri, checked.name, experiment_of(checked)))
        out.print(f"\nMLflow's runs, the study's own and one a trial: {dict(states)}")
        if picture(cluster.tracking_uri, checked.name, experiment_of(checked), picture_of):
            out.print(f"MLflow's page: {picture_of}")
        else:
            out.print(f"No picture of MLflow's page: none of {', '.join(BROWSERS)} is installed")
    out.print("The cluster has ended, and MLflow and the S3 endpoint with it; the report above is kept.")


def _submit_and_disturb(arguments: list[str], client: dict[str, str], cluster: LocalCluster) -> int:
    """Run `olfl sweep ... --address local` and pass its lines on; its exit code."""
    command = [sys.executable, "-m", "olfl_ray.cli", "sweep", *arguments, "--address", TARGET]
    out.print(f"\n$ olfl {' '.join(command[3:])}")
    events = iter(((LOSE_AT, _lose), (JOIN_AT, _join)))
    share, act = next(events)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=client) as process:
        assert process.stdout is not None
        for line in process.stdout:
            out.print(line, end="")
            progress = re.search(r"(\d+) of (\d+) trials", line)
            if progress and int(progress[1]) >= share * int(progress[2]):
                act(cluster)
                share, act = next(events, (2.0, act))
    return process.returncode


def _lose(cluster: LocalCluster) -> None:
    node = max(cluster.nodes)
    cluster.nodes[node].lose()
    out.print(f">>> node {node} ({cluster.nodes[node].address}) is lost: its raylet and workers were killed")


def _join(cluster: LocalCluster) -> None:
    node = cluster.add_node()
    out.print(f">>> another node ({node.address}) has joined")


@contextmanager
def _cluster(folder: Path, nodes: int) -> Iterator[LocalCluster]:
    """The running cluster, with what others need noted in its folder; SIGTERM ends it as Ctrl-C does."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    if _note(folder):
        raise SetupError(f"{folder}: a cluster runs already; end it with `down`, or give another --folder")
    if postgres_programs() is None:
        out.print("PostgreSQL is not installed (Debian: apt install postgresql): MLflow keeps its runs in SQLite here")
    out.print("starting PostgreSQL, MLflow, an S3 endpoint, a Ray head and its nodes on loopback ...")
    began = time.monotonic()
    try:
        with local_cluster(folder, nodes) as cluster:
            cluster.environment = _write_notes(folder, cluster)
            out.print(f"up after {time.monotonic() - began:.0f} s:")
            out.print(f"  Ray      {cluster.address}, a head without CPUs and {nodes} nodes of one")
            out.print(f"  MLflow   {cluster.tracking_uri}")
            out.print(f"  studies  {cluster.storage} at {cluster.environment['AWS_ENDPOINT_URL']}")
            yield cluster
    finally:
        (folder / NOTE).unlink(missing_ok=True)


def _write_notes(folder: Path, cluster: LocalCluster) -> dict[str, str]:
    """Write the settings file that names the cluster, a shell's environment, and the process ids; the environment."""
    target = {
        "address": cluster.address,
        "storage": cluster.storage,
        "tracking": cluster.tracking_uri,
        "token_file": cluster.environment["RAY_AUTH_TOKEN_PATH"],
    }
    settings, environment = folder / "config.yaml", folder / "environment"
    settings.write_text(json.dumps({"default": TARGET, "targets": {TARGET: target}}))
    client = {**cluster.environment, "OLFL_CONFIG": str(settings.absolute())}
    environment.touch(mode=0o600)
    environment.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in client.items()))
    pids = {number: node.pid for number, node in cluster.nodes.items()}
    (folder / NOTE).write_text(json.dumps({"pid": os.getpid(), "nodes": pids}))
    return client


def _note(folder: Path) -> dict[str, Any]:
    """What the running cluster notes of its processes; empty where none runs."""
    try:
        note: dict[str, Any] = json.loads((folder / NOTE).read_text())
    except FileNotFoundError:
        return {}
    return note if psutil.pid_exists(note["pid"]) else {}


def _running(folder: Path) -> dict[str, Any]:
    if not (note := _note(folder)):
        raise SetupError(f"{folder}: no cluster runs here; start one with `up`")
    return note


if __name__ == "__main__":
    try:
        app()
    except UserError as error:
        print(f"cluster: {error}", file=sys.stderr)
        sys.exit(2)
