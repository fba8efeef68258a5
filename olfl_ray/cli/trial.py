"""The commands of `olfl trial`."""

from __future__ import annotations

from contextlib import nullcontext
from json import dumps
from pathlib import Path
from traceback import format_exc, format_exception_only
from typing import Annotated, Any

import typer

from olfl_ray.cli.documents import print_json, trial_run_document
from olfl_ray.cli.examples import examples
from olfl_ray.cli.options import Home, Json, Sets
from olfl_ray.cli.output import errors, out
from olfl_ray.errors import UserError

__all__ = ["trial_app"]

trial_app = typer.Typer(help="Look at the trials of a study; run one without Ray and MLflow.", no_args_is_help=True)


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
    json: Json = False,
    home: Home = None,
) -> None:
    """Run one trial: the code that a sweep's worker runs."""
    from olfl_ray import study
    from olfl_ray.spec import located

    place = study.Home.find(home)
    config, resources = study.trial_of(spec, overrides=set_ or (), arm=arm, source=from_, home=place, allow=allow or ())
    with nullcontext() if spec is None else located(spec, set_ or ()):
        progresses = study.run_trial(config, resources, home=place)
    seen: list[Any] = []
    try:
        for progress in progresses:
            if json:
                seen.append(progress)
            else:
                _print_progress(progress)
    except UserError:
        raise
    except Exception as error:
        first = "".join(format_exception_only(error)).splitlines()[0]
        if traceback:
            errors.print(format_exc(), markup=False, highlight=False)
        if json:
            print_json(trial_run_document(seen, first))
            raise typer.Exit(1) from None
        out.print(f"failed: {first}", highlight=False, soft_wrap=True, markup=False)
        if not traceback:
            out.print("where: the same command with --traceback", highlight=False)
        raise typer.Exit(1) from None
    if json:
        print_json(trial_run_document(seen, None))


def _print_progress(progress: Any) -> None:
    for record in progress.records:
        shown = "  ".join(f"{metric} {record.mean(metric):.5g}" for metric in sorted(record.metrics))
        out.print(f"step {record.step}  {shown}", highlight=False, soft_wrap=True)
    if progress.outcome is not None:
        report = {key: sum(values) / len(values) for key, values in progress.report.items()}
        out.print(f"{progress.outcome}: {dumps(report)}", highlight=False, soft_wrap=True)
