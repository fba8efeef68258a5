"""`olfl sweep ... --address`: submit to a cluster, and show its studies from any machine."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from olfl_ray.cli.documents import plan_document, print_json, result_document, submission_document
from olfl_ray.cli.options import Cluster, Follow, Home, Json, Name, NewName, PyModules, Sets, SpecFile, WorkingDir, out
from olfl_ray.cli.outcome import leave, print_result
from olfl_ray.cli.output import errors, option
from olfl_ray.errors import INTERRUPTED

if TYPE_CHECKING:
    from olfl_ray.driver import StudyResult
    from olfl_ray.remote import Submission
    from olfl_ray.remote.jobs import Attempt
    from olfl_ray.study import Study
    from olfl_ray.study.remote_study import RemoteStudy

__all__ = ["logs", "show", "submit"]


def submit(
    spec: SpecFile,
    address: Cluster = None,
    name: NewName = None,
    set_: Sets = None,
    working_dir: WorkingDir = None,
    py_module: PyModules = None,
    follow: Follow = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the spec and print it; submit nothing.")] = False,
    json: Json = False,
    home: Home = None,
) -> None:
    """Run or resume a study on a cluster, or attach to it."""
    from olfl_ray import remote
    from olfl_ray.study import Study

    code = remote.Code(working_dir=working_dir, py_modules=tuple(py_module or ()))
    study = Study.from_yaml(spec, set_ or (), name=name, home=home, cluster=address or True, code=code)
    assert study.remote is not None
    if dry_run and json:
        print_json({**plan_document(study.plan()), "address": study.remote.cluster.server.address})
        return
    if dry_run:
        out.print(str(study.plan()), highlight=False, soft_wrap=True, markup=False)
        _say(f"would be submitted to {study.remote.cluster.server.address}")
        return
    show(study, study.submit(), follow, json=json)


def logs(
    name: Name,
    address: Cluster = None,
    follow: Annotated[bool, typer.Option("--follow", help="Follow until the driver ends.")] = False,
    attempt: Annotated[
        int | None, typer.Option("--attempt", help="Number of the attempt; default: the newest.")
    ] = None,
    json: Json = False,
) -> None:
    """Show the output of a study's driver on a cluster."""

    from olfl_ray import remote

    cluster = remote.RayCluster.connect(address)
    try:
        pieces = remote.logs(name, cluster=cluster, attempt=attempt, follow=follow)
        if json:
            print_json({"study": name, "attempt": attempt, "lines": "".join(pieces).splitlines()})
            return
        for piece in pieces:
            out.out(piece, end="", highlight=False)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def show(study: Study, submission: Submission, follow: bool, *, json: bool = False) -> None:
    """Say what a submission came to; with `follow`, stay until its driver ends, and leave with its exit code."""
    there = study.remote
    assert there is not None
    if json:
        _print_document(study, there, submission, follow)
        return
    attempt, at = submission.attempt, option("--address", there.cluster.name)
    how = "attached to" if submission.attached else "submitted as"
    _say(f"study {attempt.study}: {how} job {attempt.id} at {there.cluster.server.address}")
    if submission.note:
        _say(
            f"it runs with the spec that it was submitted with (first difference: {submission.note}); stop it to change that"
        )
    try:
        with out.status(f"{attempt.id}: its driver checks the spec on the cluster"):
            attempt = there.accepted(attempt, patience=math.inf if follow else 90.0)
        if attempt.live:
            _say(f"status: olfl sweep status {attempt.study} {at}")
            _say(f"follow: olfl sweep logs {attempt.study} --follow {at}")
            _say(f"stop:   olfl sweep stop {attempt.study} {at}")
        if follow or not attempt.live:
            _follow(study, there, attempt)
    except KeyboardInterrupt:
        _say(f"detached: the study continues; stop it with: olfl sweep stop {attempt.study} {at}")
        raise typer.Exit(INTERRUPTED) from None


def _print_document(study: Study, there: RemoteStudy, submission: Submission, follow: bool) -> None:
    """The same as one JSON document; what is followed goes to standard error."""
    from olfl_ray.study.view import StudyView

    address, result = there.cluster.server.address, None
    try:
        attempt = there.accepted(submission.attempt, patience=math.inf if follow else 90.0)
        ends = follow or not attempt.live
        if ends:
            seen = there.seen(attempt)
            view = StudyView(study.spec, errors) if seen and attempt.live else True
            attempt = there.follow(attempt, view, lambda piece: errors.out(piece, end="", highlight=False))
            result = there.result(attempt) if seen else None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    document = submission_document(replace(submission, attempt=attempt), address)
    print_json({**document, "result": None if result is None else result_document(result)})
    if ends:
        _leave(attempt, result)


def _follow(study: Study, there: RemoteStudy, attempt: Attempt) -> None:
    """The live view, where the study's storage is seen, else its driver's lines; then the table and the exit code."""
    from olfl_ray.study.view import StudyView

    seen = there.seen(attempt)
    view = StudyView(study.spec, out) if seen and attempt.live else True
    attempt = there.follow(attempt, view, lambda piece: out.out(piece, end="", highlight=False))
    if seen:
        print_result(there.result(attempt), study.home, option("--address", there.cluster.name))
    _leave(attempt, None)


def _leave(attempt: Attempt, result: StudyResult | None) -> None:
    """End the command as the driver ended."""
    if result is not None:
        leave(result)
    if attempt.state == "stopped":
        raise typer.Exit(INTERRUPTED)
    raise typer.Exit(1 if attempt.exit_code is None else attempt.exit_code)


def _say(line: str) -> None:
    out.print(line, highlight=False, soft_wrap=True, markup=False)
