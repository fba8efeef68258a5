"""`olfl sweep ...`: run studies here, and look at them."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from olfl_ray.cli.options import Home, Sets, out
from olfl_ray.errors import StudyError, UserError

__all__ = ["sweep_app"]

sweep_app = typer.Typer(help="Run and look at studies.", no_args_is_help=True)
FromScratch = Annotated[bool, typer.Option("--from-scratch", help="From the beginning, not from the last commits.")]
INTERRUPTED = 128 + signal.SIGINT


@contextmanager
def _study_view(spec: Any) -> Iterator[Any]:
    from olfl_ray.cli.view import StudyView

    with StudyView(spec, out) as view:
        yield view


@sweep_app.command("run")
def sweep_run(
    spec: Path,
    name: Annotated[str | None, typer.Option(help="Replaces the spec's name.")] = None,
    set_: Sets = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and print; start nothing.")] = False,
    home: Home = None,
) -> None:
    """Run a study here, or go on with it."""
    from olfl_ray import study
    from olfl_ray.spec import read_spec

    checked = read_spec(spec, set_ or (), name)
    place = study.Home.find(home)
    if dry_run:
        study.check_study(checked, place)
        _print_plan(checked)
        return
    out.print(f"study {checked.name} in {place.study_folder(checked.name)}", highlight=False)
    with _study_view(checked) as view:
        result = study.run(checked, home=place, watch=view.watch)
    _print_result(result, place)


@sweep_app.command("resume")
def sweep_resume(
    name: str,
    failed: Annotated[
        bool, typer.Option("--failed", help="Only the trials that failed, from their last commits.")
    ] = False,
    from_scratch: FromScratch = False,
    home: Home = None,
) -> None:
    """Go on with a study by its name."""
    from olfl_ray import study

    if from_scratch and not failed:
        raise StudyError("--from-scratch: goes with --failed; add it")
    _go_on(name, home, partial(study.resume, name, failed=failed, from_scratch=from_scratch))


@sweep_app.command("retry")
def sweep_retry(
    name: str,
    trials: Annotated[list[str], typer.Argument(help="ARM/ORDINAL of each failed trial.")],
    from_scratch: FromScratch = False,
    home: Home = None,
) -> None:
    """Try failed trials again, and go on with their study."""
    from olfl_ray import study

    _go_on(name, home, partial(study.retry, name, trials, from_scratch=from_scratch))


@sweep_app.command("extend")
def sweep_extend(
    name: str,
    trials: Annotated[int, typer.Option("--trials", help="More search trials for each arm.")],
    home: Home = None,
) -> None:
    """Search further with every arm; the search keeps what it knows."""
    from olfl_ray import study

    _go_on(name, home, partial(study.extend, name, trials))


@sweep_app.command("stop")
def sweep_stop(name: str, home: Home = None) -> None:
    """Ask a running study to commit and stop; it can be resumed."""
    from olfl_ray import study

    place = study.Home.find(home)
    with out.status(f"{name}: its trials commit at their next evaluation and stop"):
        study.stop(name, home=place)
    out.print(f"stopped; go on with: olfl sweep resume {name}", highlight=False, soft_wrap=True)


def _go_on(name: str, home: Path | None, call: Callable[..., Any]) -> None:
    """Run a study that is here, with its live view, and print what came of it."""
    from olfl_ray import study

    place = study.Home.find(home)
    with _study_view(study.spec_of(name, home=place)) as view:
        result = call(home=place, watch=view.watch)
    _print_result(result, place)


@sweep_app.command("list")
def sweep_list(home: Home = None) -> None:
    """The studies here."""
    from olfl_ray import study

    place = study.Home.find(home)
    for name in place.names():
        try:
            state = study.status(name, home=place)
        except UserError as error:
            out.print(f"{name}  {error}", highlight=False, soft_wrap=True, markup=False)
            continue
        ended = sum(trial.ended for trial in state.trials.values())
        out.print(f"{name}  {ended} of {len(state.trials)} trials ended  {state.digest[:12]}", highlight=False)


@sweep_app.command("status")
def sweep_status(name: str, home: Home = None) -> None:
    """Where a study stands."""
    from olfl_ray import study
    from olfl_ray.cli.view import status_view

    place = study.Home.find(home)
    out.print(status_view(study.status(name, home=place), study.spec_of(name, home=place)))


@sweep_app.command("report")
def sweep_report(name: str, home: Home = None) -> None:
    """Write a study's report anew."""
    from olfl_ray import study

    out.print(str(study.report(name, home=study.Home.find(home))), soft_wrap=True, highlight=False)


def _print_plan(spec: Any) -> None:
    from olfl_ray import study
    from olfl_ray.spec import spec_as_yaml

    out.print(spec_as_yaml(spec), highlight=False, soft_wrap=True, markup=False)
    out.print(f"digest {spec.digest}", highlight=False)
    for arm in spec.arms:
        out.print(f"arm {arm}: {spec.arms[arm].trials} trials over {', '.join(spec.parameters_of(arm)) or 'nothing'}")
        for index, params in enumerate(study.sample(spec, arm, 3)):
            out.print(f"  {arm}/{index}: {json.dumps(params)}", highlight=False, soft_wrap=True)


def _print_result(result: Any, place: Any) -> None:
    from olfl_ray.cli.view import final_view, status_view

    spec = result.spec
    if result.nothing_to_do:
        out.print("nothing to do: the study is finished")
    if result.stopped:
        out.print("interrupted: what was committed is kept")
    out.print(status_view(result.state, spec))
    out.print()
    out.print(final_view(result.table, spec.search.metric))
    out.print()
    if result.undelivered:
        out.print(
            f"{result.undelivered} trials are not in MLflow yet ({result.problem or 'it is slow'}); "
            f"`olfl sweep resume {spec.name}` delivers them",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )
    out.print(f"report: {result.report}", soft_wrap=True, highlight=False)
    if result.tracking_uri == place.tracking_uri:
        out.print(f"runs:   olfl ui --home {place.path}", soft_wrap=True, highlight=False)
    else:
        out.print(f"runs:   {result.tracking_uri}", soft_wrap=True, highlight=False)
    if not result.finished:
        out.print(f"go on:  olfl sweep resume {spec.name} --home {place.path}", soft_wrap=True, highlight=False)
    if result.stopped:
        raise typer.Exit(INTERRUPTED)
