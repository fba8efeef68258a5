"""`olfl sweep ... --address`: submit to a cluster, and look at its studies from anywhere."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from olfl_ray.cli.options import Cluster, Follow, Home, PyModules, Sets, WorkingDir, out
from olfl_ray.cli.outcome import print_plan, print_result, study_view
from olfl_ray.cli.output import option
from olfl_ray.errors import INTERRUPTED, SetupError, StudyError

__all__ = ["located", "logs", "print_studies", "show", "stop_there", "submit"]


def submit(
    spec: Path,
    address: Cluster = None,
    name: Annotated[str | None, typer.Option(help="Replaces the spec's name.")] = None,
    set_: Sets = None,
    working_dir: WorkingDir = None,
    py_module: PyModules = None,
    follow: Follow = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the form and print; submit nothing.")] = False,
    home: Home = None,
) -> None:
    """Run or resume a study on a cluster, or attach to it."""
    from olfl_ray import remote, study
    from olfl_ray.spec import located, read_spec

    checked = read_spec(spec, set_ or (), name)
    cluster = remote.RayCluster.connect(address)
    if dry_run:
        with located(spec, set_ or ()):
            print_plan(remote.spec_on(checked, cluster))
        out.print(f"would be submitted to {cluster.server.address}", highlight=False, soft_wrap=True)
        return
    code = remote.Code(working_dir=working_dir, py_modules=tuple(py_module or ()))
    with located(spec, set_ or ()):
        submission = remote.submit(checked, cluster=cluster, code=code)
    show(submission, cluster, study.Home.find(home), follow)


def logs(
    name: str,
    address: Cluster = None,
    follow: Annotated[bool, typer.Option("--follow", help="Follow until the driver ends.")] = False,
    attempt: Annotated[int | None, typer.Option("--attempt", help="Number of the attempt; else the newest.")] = None,
) -> None:
    """What a study's driver printed on a cluster."""

    from olfl_ray import remote

    cluster = remote.RayCluster.connect(address)
    try:
        for piece in remote.logs(name, cluster=cluster, attempt=attempt, follow=follow):
            out.out(piece, end="", highlight=False)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def show(submission: Any, cluster: Any, place: Any, follow: bool) -> None:
    """Say what a submission came to; with `follow`, stay until its driver ends, and leave with its exit code."""

    from olfl_ray import remote

    attempt, at = submission.attempt, option("--address", cluster.name)
    how = "attached to" if submission.attached else "submitted as"
    _say(f"study {attempt.study}: {how} job {attempt.id} at {cluster.server.address}")
    if submission.note:
        _say(
            f"it runs with the spec that it was submitted with (first difference: {submission.note}); stop it to change that"
        )
    try:
        with out.status(f"{attempt.id}: its driver checks the spec on the cluster"):
            attempt = remote.accepted(attempt, cluster=cluster, patience=math.inf if follow else 90.0)
        if attempt.live:
            _say(f"status: olfl sweep status {attempt.study} {at}")
            _say(f"follow: olfl sweep logs {attempt.study} --follow {at}")
            _say(f"stop:   olfl sweep stop {attempt.study} {at}")
        if follow or not attempt.live:
            _follow(attempt, cluster, place)
    except KeyboardInterrupt:
        _say(f"detached: the study continues; stop it with: olfl sweep stop {attempt.study} {at}")
        raise typer.Exit(INTERRUPTED) from None


def _follow(attempt: Any, cluster: Any, place: Any) -> None:
    """The live view, where the study's storage is seen, else its driver's lines; then the table and the exit code."""
    from olfl_ray import remote, study

    try:
        remote.locate(attempt.study, home=place, cluster=cluster)
    except (remote.Unseen, SetupError):
        for piece in remote.logs(attempt.study, cluster=cluster, attempt=attempt.number, follow=attempt.live):
            out.out(piece, end="", highlight=False)
        attempt = cluster.server.look(attempt)
    else:
        if attempt.live:
            with study_view(study.spec_of(attempt.study, home=place)) as view:
                for event, state in remote.follow(attempt, cluster=cluster, home=place):
                    view.watch(event, state)
        attempt = cluster.server.look(attempt)
        if attempt.state == "failed" and not remote.came_to_its_end(attempt, home=place):
            raise StudyError(remote.last_words(attempt, cluster))
        print_result(remote.outcome(attempt, cluster=cluster, home=place), place, option("--address", cluster.name))
    if attempt.state == "stopped":
        raise typer.Exit(INTERRUPTED)
    raise typer.Exit(1 if attempt.exit_code is None else attempt.exit_code)


def located(name: str, place: Any, address: str | None = None, storage: str | None = None) -> Any:
    """Find a study that an address or a storage leads to; the cluster, if any."""

    from olfl_ray import remote

    if address is None and storage is None:
        return None
    cluster = remote.RayCluster.connect(address) if address is not None else None
    remote.locate(name, home=place, cluster=cluster, storage=storage)
    return cluster


def stop_there(name: str, address: str, storage: str | None, place: Any) -> None:
    """Stop a study on a cluster."""

    from olfl_ray import remote

    cluster = remote.RayCluster.connect(address)
    with out.status(f"{name}: its trials commit at their next evaluation and stop"):
        remote.stop_on(name, cluster=cluster, home=place, storage=storage)
    _say(f"stopped; resume with: olfl sweep resume {name} {option('--address', cluster.name)}")


def print_studies(address: str | None, storage: str | None) -> None:
    """One line for each study of a cluster, or of a storage."""

    from olfl_ray import remote

    cluster = remote.RayCluster.connect(address) if address is not None else None
    for standing in remote.list_on(cluster, storage):
        ended = (
            "trials not seen from here"
            if standing.ended is None
            else f"{standing.ended} of {standing.trials} trials ended"
        )
        attempts = "1 attempt" if standing.attempts == 1 else f"{standing.attempts} attempts"
        problem = f": {standing.problem}" if standing.problem else ""
        _say(f"{standing.name}  {ended}  {standing.state}  {attempts}{problem}")


def _say(line: str) -> None:
    out.print(line, highlight=False, soft_wrap=True, markup=False)
