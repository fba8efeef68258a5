"""The commands of `olfl`."""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from traceback import format_exc, format_exception_only
from typing import Annotated, Any

import typer

from olfl_ray.cli.examples import examples
from olfl_ray.cli.loss import loss_app
from olfl_ray.cli.mendable import mendable
from olfl_ray.cli.options import Home, Sets
from olfl_ray.cli.output import as_options, errors, out
from olfl_ray.cli.project import init
from olfl_ray.cli.sweep import sweep_app
from olfl_ray.cli.terminal import log_to_terminal
from olfl_ray.errors import BUG, UserError

__all__ = ["app", "main", "run_app"]

app = typer.Typer(
    help="Sweeps for online loss function learning.",
    no_args_is_help=True,
    epilog=examples("olfl sweep run sweeps/digits.yaml", "olfl sweep status digits", "olfl sweep --help"),
    pretty_exceptions_enable=False,
)
trial_app = typer.Typer(help="Run one trial, without Ray and MLflow.", no_args_is_help=True)
data_app = typer.Typer(help="Data sets.", no_args_is_help=True)
spec_app = typer.Typer(help="The form of a spec.", no_args_is_help=True)
for name, group in (
    ("sweep", sweep_app),
    ("trial", trial_app),
    ("data", data_app),
    ("spec", spec_app),
    ("loss", loss_app),
):
    app.add_typer(group, name=name)
app.command("init", epilog=examples("olfl init my-study", "olfl init . --name wine"))(init)


def main() -> None:
    """Entry point of `olfl`."""
    run_app(app, "olfl")


def run_app(commands: typer.Typer, name: str) -> None:
    """Run a command line: a person's mistake, and what a person can mend, is one message and exit code 2.

    Args:
        commands: The commands.
        name: What the program is called in its help.
    """
    log_to_terminal()
    try:
        commands(prog_name=name)
    except UserError as error:
        _say(as_options(str(error)))
        sys.exit(2)
    except Exception as error:
        from olfl_ray.spec import without_secrets

        cause = mendable(error)
        if cause is not None:
            _say(without_secrets(cause))
            sys.exit(2)
        shown = without_secrets(str(error))
        _say(f"this is a bug: {type(error).__name__}: {shown}; please report it with {_noted(format_exc())}")
        sys.exit(BUG)


def _noted(trace: str) -> str:
    """Where a traceback was written without passwords; itself, where nothing can be."""
    from olfl_ray.spec import without_secrets

    shown = without_secrets(trace)
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="olfl-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(shown)
    except OSError:
        return shown
    return file.name


def _say(message: str) -> None:
    """One line on standard error, whatever a message quotes."""
    line = " ".join(message.split())
    errors.print(f"olfl: {line}", markup=False, highlight=False)


@app.callback(invoke_without_command=True)
def _root(show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if show_version:
        out.print(f"olfl {version('olfl_ray')}", highlight=False)
        raise typer.Exit


@trial_app.command(
    "run",
    epilog=examples(
        "olfl trial run sweeps/digits.yaml --arm online", "olfl trial run --from digits/online/3 --traceback"
    ),
)
def trial_run(
    spec: Annotated[Path | None, typer.Argument(help="A study's spec; its own values are the trial.")] = None,
    set_: Sets = None,
    arm: Annotated[str | None, typer.Option(help="Arm whose settings apply; else the first.")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="STUDY/ARM/ORDINAL of a sweep's trial.")] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option("--allow", help="A builder, module or package that the trial of --from may run. May be repeated."),
    ] = None,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where a failing trial raised.")] = False,
    home: Home = None,
) -> None:
    """Run one trial: the code that a sweep's worker runs."""
    from olfl_ray import study
    from olfl_ray.spec import located

    place = study.Home.find(home)
    config, resources = study.trial_of(spec, overrides=set_ or (), arm=arm, source=from_, home=place, allow=allow or ())
    with nullcontext() if spec is None else located(spec, set_ or ()):
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
            errors.print(format_exc(), markup=False, highlight=False)
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


@data_app.command("list", epilog=examples("olfl data list"))
def data_list() -> None:
    """List the built-in data sets."""
    from rich.table import Table

    from olfl_ray import study
    from olfl_ray.study.view import LOOK

    table = Table("name", "kind", "rows", "shape", "where", **LOOK)
    for row in study.describe_data():
        table.add_row(*(str(cell) for cell in row))
    out.print(table)


@data_app.command("prepare", epilog=examples("olfl data prepare mnist"))
def data_prepare(name: Annotated[str, typer.Argument(help="Name of the data set.")], home: Home = None) -> None:
    """Find, check and prepare a data set."""
    from olfl_ray import study

    out.print(study.prepare_data(name, home=study.Home.find(home)), highlight=False, soft_wrap=True)


@spec_app.command("schema", epilog=examples("olfl spec schema > schema.json"))
def spec_schema() -> None:
    """Print the JSON Schema of a spec, for editors."""
    from olfl_ray.study.reference import schema

    out.print(json.dumps(schema(), indent=2), markup=False, highlight=False, soft_wrap=True)


@spec_app.command("complete", epilog=examples("olfl spec complete > study.yaml"))
def spec_complete() -> None:
    """Print a spec with every field, its meaning and its default."""
    from olfl_ray.study.reference import complete_yaml

    out.print(complete_yaml(), end="", markup=False, highlight=False, soft_wrap=True)


@app.command("ui", epilog=examples("olfl ui", "olfl ui --home /shared/me/home --port 0"))
def ui(home: Home = None, port: Annotated[int, typer.Option(help="Port on loopback; 0: a free one.")] = 5000) -> None:
    """Show the home folder's runs in MLflow's UI, on loopback, with a secret URL that this prints."""
    from olfl_ray import study

    place = study.Home.find(home)
    with out.status("MLflow's UI starts") as status:

        def ready(url: str) -> None:
            status.stop()
            out.print(url, highlight=False, soft_wrap=True)

        raise typer.Exit(study.serve_ui(place, port, ready))
