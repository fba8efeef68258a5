"""`olfl sweep ...`: run studies here, and look at them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from olfl_ray.cli.cluster import located, logs, print_studies, show, stop_there, submit
from olfl_ray.cli.options import Address, Follow, Home, PyModules, Sets, Storage, WorkingDir, out
from olfl_ray.cli.outcome import noted, print_failures, print_notes, print_plan, print_result, study_view
from olfl_ray.cli.output import option, outliving
from olfl_ray.errors import StudyError, UserError

__all__ = ["sweep_app"]

sweep_app = typer.Typer(help="Run and look at studies.", no_args_is_help=True)
FromScratch = Annotated[bool, typer.Option("--from-scratch", help="Start from step 0, not from the last commits.")]
sweep_app.command("submit")(submit)
sweep_app.command("logs")(logs)


@sweep_app.command("run")
def sweep_run(
    spec: Path,
    name: Annotated[str | None, typer.Option(help="Replaces the spec's name.")] = None,
    set_: Sets = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and print; start nothing.")] = False,
    home: Home = None,
) -> None:
    """Run a study, or resume it."""
    from olfl_ray import study
    from olfl_ray.spec import located, read_spec

    checked = read_spec(spec, set_ or (), name)
    place = study.Home.find(home)
    if dry_run:
        with located(spec, set_ or ()):
            study.check_study(checked, place)
        print_plan(checked)
        for line in study.dataset_lines(study.dataset_notes(checked, place)):
            out.print(line, highlight=False, soft_wrap=True, markup=False)
        return
    kept = f"{checked.storage.url}/{checked.name}" if checked.storage.url else place.study_folder(checked.name)
    with outliving(checked.name, option("--home", place.path)):
        view_of = study_view(checked, f"study {checked.name} in {kept}", *noted(checked))
        with located(spec, set_ or ()), view_of as view:
            result = study.run(checked, home=place, watch=view.watch)
        print_result(result, place, begun=True)


@sweep_app.command("resume")
def sweep_resume(
    name: str,
    failed: Annotated[
        bool, typer.Option("--failed", help="Only the trials that failed, from their last commits.")
    ] = False,
    from_scratch: FromScratch = False,
    address: Address = None,
    storage: Storage = None,
    working_dir: WorkingDir = None,
    py_module: PyModules = None,
    follow: Follow = False,
    home: Home = None,
) -> None:
    """Resume a study by its name."""
    from olfl_ray import remote, study

    if from_scratch and not failed:
        raise StudyError("--from-scratch: goes with --failed; add it")
    code = remote.Code(working_dir=working_dir, py_modules=tuple(py_module or ()))
    at = _At(address=address, storage=storage, code=code, follow=follow, home=home)
    here = partial(study.resume, name, failed=failed, from_scratch=from_scratch)
    _go_on(name, at, here, partial(remote.resume_on, name, failed=failed, from_scratch=from_scratch))


@sweep_app.command("retry")
def sweep_retry(
    name: str,
    trials: Annotated[list[str], typer.Argument(help="ARM/ORDINAL of each failed trial.")],
    from_scratch: FromScratch = False,
    address: Address = None,
    storage: Storage = None,
    working_dir: WorkingDir = None,
    py_module: PyModules = None,
    follow: Follow = False,
    home: Home = None,
) -> None:
    """Retry failed trials, and resume their study."""
    from olfl_ray import remote, study

    code = remote.Code(working_dir=working_dir, py_modules=tuple(py_module or ()))
    at = _At(address=address, storage=storage, code=code, follow=follow, home=home)
    here = partial(study.retry, name, trials, from_scratch=from_scratch)
    _go_on(name, at, here, partial(remote.retry_on, name, trials, from_scratch=from_scratch))


@sweep_app.command("extend")
def sweep_extend(
    name: str,
    trials: Annotated[int, typer.Option("--trials", help="More search trials for each arm.")],
    arm: Annotated[str | None, typer.Option("--arm", help="The arm that gets them; default: all arms.")] = None,
    address: Address = None,
    storage: Storage = None,
    working_dir: WorkingDir = None,
    py_module: PyModules = None,
    follow: Follow = False,
    home: Home = None,
) -> None:
    """Add trials to every arm, or to one; the search keeps its history."""
    from olfl_ray import remote, study

    code = remote.Code(working_dir=working_dir, py_modules=tuple(py_module or ()))
    at = _At(address=address, storage=storage, code=code, follow=follow, home=home)
    _go_on(name, at, partial(study.extend, name, trials, arm=arm), partial(remote.extend_on, name, trials, arm=arm))


@sweep_app.command("stop")
def sweep_stop(name: str, address: Address = None, storage: Storage = None, home: Home = None) -> None:
    """Ask a running study to commit and stop; it can be resumed."""
    from olfl_ray import study

    place = study.Home.find(home)
    if address is not None:
        stop_there(name, address, storage, place)
        return
    located(name, place, storage=storage)
    with out.status(f"{name}: its trials commit at their next evaluation and stop"):
        study.stop(name, home=place)
    where = option("--home", place.path)
    out.print(f"stopped; resume with: olfl sweep resume {name} {where}", highlight=False, soft_wrap=True, markup=False)


@dataclass(frozen=True, kw_only=True)
class _At:
    """Where a study resumes, by its options: here, or on a cluster, with the user's code.

    Args:
        address: The cluster's; None: here.
        storage: Where the study is kept.
        code: Goes with the cluster's job.
        follow: Show the cluster's job live.
        home: The home folder.
    """

    address: str | None
    storage: str | None
    code: Any
    follow: bool
    home: Path | None


def _go_on(name: str, at: _At, here: Callable[..., Any], there: Callable[..., Any]) -> None:
    """Go on with a study: here, with its live view, or there, on a cluster."""
    from olfl_ray import remote, study

    place = study.Home.find(at.home)
    if at.address is not None:
        cluster = remote.RayCluster.connect(at.address)
        show(there(cluster=cluster, home=place, storage=at.storage, code=at.code), cluster, place, at.follow)
        return
    if at.code != remote.Code() or at.follow:
        raise StudyError("--working-dir, --py-module, --follow: go with --address; add it, or leave them out")
    located(name, place, storage=at.storage)
    with outliving(name, option("--home", place.path)):
        with study_view(study.spec_of(name, home=place)) as view:
            result = here(home=place, watch=view.watch)
        print_result(result, place)


@sweep_app.command("list")
def sweep_list(address: Address = None, storage: Storage = None, home: Home = None) -> None:
    """List the studies here, on a cluster, or in a storage."""
    from olfl_ray import study

    if address is not None or storage is not None:
        print_studies(address, storage)
        return
    place = study.Home.find(home)
    if not place.names():
        out.print(f"no studies in {place.path}", highlight=False, soft_wrap=True, markup=False)
    for name in place.names():
        try:
            state = study.status(name, home=place)
            total = study.trials_of(state, study.spec_of(name, home=place))
        except UserError as error:
            out.print(f"{name}  {error}", highlight=False, soft_wrap=True, markup=False)
            continue
        ended = sum(trial.ended for trial in state.trials.values())
        out.print(f"{name}  {ended} of {total} trials ended  {state.digest[:12]}", highlight=False)


@sweep_app.command("status")
def sweep_status(name: str, address: Address = None, storage: Storage = None, home: Home = None) -> None:
    """Show the state of a study."""
    from olfl_ray import study
    from olfl_ray.cli.view import status_view

    place = study.Home.find(home)
    cluster = located(name, place, address, storage)
    state, spec = study.status(name, home=place), study.spec_of(name, home=place)
    out.print(status_view(state, spec))
    for line in study.data_of(name, home=place):
        out.print(line, highlight=False, soft_wrap=True, markup=False)
    print_notes(spec)
    if cluster is not None and (attempt := cluster.server.newest(name)) is not None:
        out.print(
            f"attempt {attempt.number} on {cluster.server.address}: {attempt.state}", highlight=False, soft_wrap=True
        )
    where = option("--home", place.path) if address is None else option("--address", address)
    print_failures(state, where)
    if state.driving and not study.is_driven(name, home=place):
        out.print("the driver exited without reporting a result; committed work is kept")
        out.print(f"resume: olfl sweep resume {name} {where}", highlight=False, soft_wrap=True, markup=False)


@sweep_app.command("report")
def sweep_report(name: str, address: Address = None, storage: Storage = None, home: Home = None) -> None:
    """Write a study's report again."""
    from olfl_ray import study

    place = study.Home.find(home)
    located(name, place, address, storage)
    out.print(str(study.report(name, home=place)), soft_wrap=True, highlight=False, markup=False)
