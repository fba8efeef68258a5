"""The commands of `olfl`."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from traceback import format_exc, format_exception_only
from typing import Annotated, Any

import typer
from rich.console import Console

from olfl_ray.cli.bench import bench_app
from olfl_ray.errors import StudyError, UserError

__all__ = ["app", "main"]

app = typer.Typer(
    help="Sweeps for online loss function learning.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
sweep_app = typer.Typer(help="Run and look at studies.", no_args_is_help=True)
trial_app = typer.Typer(help="Run one trial, without Ray and MLflow.", no_args_is_help=True)
data_app = typer.Typer(help="Data sets.", no_args_is_help=True)
spec_app = typer.Typer(help="The form of a spec.", no_args_is_help=True)
for name, group in (
    ("sweep", sweep_app),
    ("trial", trial_app),
    ("data", data_app),
    ("spec", spec_app),
    ("bench", bench_app),
):
    app.add_typer(group, name=name)

Home = Annotated[Path | None, typer.Option("--home", help="Home folder; else OLFL_HOME, else ./.olfl.")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="Override a field: a.b=c. May be repeated.")]
FromScratch = Annotated[bool, typer.Option("--from-scratch", help="From the beginning, not from the last commits.")]
out = Console()
INTERRUPTED = 128 + signal.SIGINT


def main() -> None:
    """Entry point: a person's mistake is one message and exit code 2."""
    try:
        app(prog_name="olfl")
    except UserError as error:
        _say(str(error))
        sys.exit(2)
    except Exception as error:
        with tempfile.NamedTemporaryFile("w", prefix="olfl-", suffix=".txt", delete=False) as file:
            file.write(format_exc())
        _say(f"this is a bug: {type(error).__name__}: {error}; please report it with {file.name}")
        sys.exit(1)


def _say(message: str) -> None:
    """One line on standard error, whatever a message quotes."""
    line = "".join(letter if letter.isprintable() else " " for letter in " ".join(message.split()))
    Console(stderr=True, soft_wrap=True).print(f"olfl: {line}", markup=False, highlight=False)


@app.callback(invoke_without_command=True)
def _root(show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if show_version:
        out.print(f"olfl {version('olfl_ray')}", highlight=False)
        raise typer.Exit


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


@trial_app.command("run")
def trial_run(
    spec: Annotated[Path | None, typer.Argument(help="A study's spec; its own values are the trial.")] = None,
    set_: Sets = None,
    arm: Annotated[str | None, typer.Option(help="Arm whose settings apply; else the first.")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="STUDY/ARM/ORDINAL of a sweep's trial.")] = None,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where a failing trial raised.")] = False,
    home: Home = None,
) -> None:
    """Run one trial: the code that a sweep's worker runs."""
    from olfl_ray import study

    place = study.Home.find(home)
    config, resources = study.trial_of(spec, overrides=set_ or (), arm=arm, source=from_, home=place)
    progresses = study.run_trial(config, resources, home=place)
    try:
        for progress in progresses:
            _print_progress(progress)
    except UserError:
        raise
    except Exception as error:
        first = "".join(format_exception_only(error)).splitlines()[0]
        out.print(f"failed: {first}", highlight=False, soft_wrap=True, markup=False)
        if traceback:
            print(format_exc(), file=sys.stderr)
        else:
            out.print("where: the same command with --traceback", highlight=False)
        raise typer.Exit(1) from None


def _print_progress(progress: Any) -> None:
    for record in progress.records:
        shown = "  ".join(f"{metric} {record.mean(metric):.5g}" for metric in sorted(record.metrics))
        out.print(f"step {record.step}  {shown}", highlight=False, soft_wrap=True)
    if progress.outcome is not None:
        report = {key: sum(values) / len(values) for key, values in progress.report.items()}
        out.print(f"{progress.outcome}: {json.dumps(report)}", highlight=False, soft_wrap=True)


@data_app.command("list")
def data_list() -> None:
    """Built-in data sets."""
    from rich.table import Table

    from olfl_ray import study
    from olfl_ray.cli.view import LOOK

    table = Table("name", "kind", "rows", "shape", "where", **LOOK)
    for row in study.describe_data():
        table.add_row(*(str(cell) for cell in row))
    out.print(table)


@data_app.command("prepare")
def data_prepare(name: str, home: Home = None) -> None:
    """Find, check and prepare a data set."""
    from olfl_ray import study

    out.print(study.prepare_data(name, home=study.Home.find(home)), highlight=False, soft_wrap=True)


@spec_app.command("schema")
def spec_schema() -> None:
    """JSON Schema of a spec, for editors."""
    from olfl_ray.spec import StudySpec

    print(json.dumps(StudySpec.model_json_schema(), indent=2))


@app.command("ui")
def ui(home: Home = None, port: Annotated[int, typer.Option(help="Port on loopback.")] = 5000) -> None:
    """MLflow's page on the home folder's runs, on loopback."""
    from olfl_ray import study

    place = study.Home.find(home)
    out.print(f"http://127.0.0.1:{port}", highlight=False)
    raise typer.Exit(study.serve_ui(place, port))


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
    if spec.tracking.uri is None:
        out.print(f"runs:   olfl ui --home {place.path}", soft_wrap=True, highlight=False)
    else:
        out.print(f"runs:   {spec.tracking.uri}", soft_wrap=True, highlight=False)
    if not result.finished:
        out.print(f"go on:  olfl sweep resume {spec.name} --home {place.path}", soft_wrap=True, highlight=False)
    if result.stopped:
        raise typer.Exit(INTERRUPTED)
