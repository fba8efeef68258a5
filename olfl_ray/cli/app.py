"""The commands of `olfl`."""

from __future__ import annotations

import sys
import tempfile
from importlib.metadata import version
from traceback import format_exc
from typing import Annotated

import typer

from olfl_ray.cli.data import data_app
from olfl_ray.cli.doctor import doctor
from olfl_ray.cli.documents import print_json
from olfl_ray.cli.examples import examples
from olfl_ray.cli.loss import loss_app
from olfl_ray.cli.mendable import mendable
from olfl_ray.cli.options import Home, Json
from olfl_ray.cli.output import as_options, errors, out
from olfl_ray.cli.project import init
from olfl_ray.cli.sweep import sweep_app
from olfl_ray.cli.terminal import log_to_terminal
from olfl_ray.cli.trial import trial_app
from olfl_ray.errors import BUG, UserError

__all__ = ["app", "run_app"]

app = typer.Typer(
    help="Sweeps for online loss function learning.",
    no_args_is_help=True,
    epilog=examples("olfl sweep run sweeps/digits.yaml", "olfl sweep status digits", "olfl sweep --help"),
    pretty_exceptions_enable=False,
)
spec_app = typer.Typer(help="Print the schema of a spec, or a spec with every field.", no_args_is_help=True)
for name, group in (
    ("sweep", sweep_app),
    ("trial", trial_app),
    ("data", data_app),
    ("spec", spec_app),
    ("loss", loss_app),
):
    app.add_typer(group, name=name)
app.command(
    "doctor",
    epilog=examples(
        "olfl doctor", "olfl doctor study.yaml --json", "olfl doctor --chaos --storage s3://bucket/studies"
    ),
)(doctor)
app.command("init", epilog=examples("olfl init my-study", "olfl init . --name wine"))(init)


def run_app(commands: typer.Typer, name: str) -> None:
    """Run a command line: a person's mistake, and what a person can mend, is one message and exit code 2.

    Args:
        commands: The commands.
        name: What the program is called in its help.
    """
    log_to_terminal()
    try:
        commands(prog_name=name)
    except SystemExit as left:
        ended_by = left.__context__  # typer's Exit
        if ended_by is not None and isinstance(ended_by.__cause__, KeyboardInterrupt):
            _say("interrupted")
        raise
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


@spec_app.command("schema", epilog=examples("olfl spec schema > schema.json"))
def spec_schema(
    json: Annotated[bool, typer.Option("--json", help="No effect: the output is always JSON.")] = False,
) -> None:
    """Print the JSON Schema of a spec, for editors."""
    from olfl_ray.study.reference import schema

    print_json(schema())


@spec_app.command("complete", epilog=examples("olfl spec complete > study.yaml"))
def spec_complete(json: Json = False) -> None:
    """Print a spec with every field, its meaning and its default; with --json, without the meanings."""
    from olfl_ray.study.reference import complete_yaml

    if json:
        from ruamel.yaml import YAML

        print_json(YAML(typ="safe", pure=True).load(complete_yaml()))
        return
    out.print(complete_yaml(), end="", markup=False, highlight=False, soft_wrap=True)


@app.command("ui", epilog=examples("olfl ui", "olfl ui --home /shared/me/home --port 0"))
def ui(
    home: Home = None,
    port: Annotated[int, typer.Option(help="Port on loopback; 0: a free one.")] = 5000,
    json: Json = False,
) -> None:
    """Serve MLflow's UI for the home folder's runs on loopback, and print its secret URL."""
    from olfl_ray import study

    place = study.Home.find(home)
    with (errors if json else out).status("MLflow's UI starts") as status:

        def ready(url: str) -> None:
            status.stop()
            if json:
                print_json({"url": url})
            else:
                out.print(url, highlight=False, soft_wrap=True)

        raise typer.Exit(study.serve_ui(place, port, ready))
