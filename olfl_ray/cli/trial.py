"""The commands of `olfl trial`."""

from __future__ import annotations

from contextlib import nullcontext
from json import dumps
from pathlib import Path
from traceback import format_exc, format_exception_only
from typing import TYPE_CHECKING, Annotated, Any

import typer

from olfl_ray.cli.documents import diff_document, print_json, trial_document, trial_run_document
from olfl_ray.cli.examples import examples
from olfl_ray.cli.export import export
from olfl_ray.cli.options import Address, Allow, Home, Json, Name, Sets, Storage, TrialName
from olfl_ray.cli.output import errors, out
from olfl_ray.errors import StudyError, UserError

if TYPE_CHECKING:
    from olfl_ray.study import Trial

__all__ = ["trial_app"]

trial_app = typer.Typer(
    help="Show the trials of a study; run one without Ray and MLflow; export a trained model.", no_args_is_help=True
)
trial_app.command("export", epilog=examples("olfl trial export digits/online/c0 --format pt2"))(export)


@trial_app.command(
    "run",
    epilog=examples(
        "olfl trial run sweeps/digits.yaml --arm online", "olfl trial run --from digits/online/3 --traceback"
    ),
)
def trial_run(
    spec: Annotated[Path | None, typer.Argument(help="A study's spec; the trial has the spec's own values.")] = None,
    set_: Sets = None,
    arm: Annotated[str | None, typer.Option(help="Arm of the trial; default: the first.")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="STUDY/ARM/ORDINAL of a sweep's trial.")] = None,
    allow: Allow = None,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show the traceback if the trial fails.")] = False,
    json: Json = False,
    home: Home = None,
) -> None:
    """Run one trial with the code of a sweep, without Ray and MLflow."""
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


@trial_app.command(
    "list", epilog=examples("olfl trial list digits", "olfl trial list digits --arm online --state failed --json")
)
def trial_list(
    name: Name,
    arm: Annotated[str | None, typer.Option(help="Only this arm's trials.")] = None,
    state: Annotated[
        str | None, typer.Option(help="Only trials in this state: finished, pruned, diverged, failed, running, ...")
    ] = None,
    address: Address = None,
    storage: Storage = None,
    json: Json = False,
    home: Home = None,
) -> None:
    """List the trials of a study: state, step, value, settings, cause of failure."""
    from rich.table import Table

    from olfl_ray.ledger import STAGES
    from olfl_ray.study import Study
    from olfl_ray.study.view import LOOK

    if state is not None and state not in STAGES:
        raise StudyError(f"--state: is {state!r}, but must be one of {', '.join(STAGES)}")
    study = Study.open(name, home=home, cluster=address, storage=storage)
    spec, kept, _ = study.loaded(arm)
    trials = [
        study.trial(one) for one, own in kept.trials.items() if arm in (None, own.id.arm) and state in (None, own.state)
    ]
    if json:
        print_json([trial_document(trial) for trial in trials])
        return
    table = Table("trial", "state", **LOOK)
    for column in ("step", spec.search.metric):
        table.add_column(column, justify="right")
    table.add_column("settings")
    for trial in trials:
        settings = "  ".join(f"{field}={_short(value)}" for field, value in trial.settings.items())
        cause = "" if trial.cause is None else trial.cause.partition("\n")[0]
        table.add_row(
            trial.name, trial.state, str(trial.step), _short(trial.value), "  ".join(filter(None, (settings, cause)))
        )
    out.print(table)


@trial_app.command(
    "show", epilog=examples("olfl trial show digits/online/3", "olfl trial show digits/online/c0 --json")
)
def trial_show(
    source: TrialName,
    address: Address = None,
    storage: Storage = None,
    json: Json = False,
    home: Home = None,
) -> None:
    """Show a trial: its state, settings, metrics, and why it failed, with the traceback."""
    trial = _found(source, address, storage, home)
    if json:
        print_json(trial_document(trial, config=True))
        return
    lines = [
        f"{source}: {trial.state} at step {trial.step} of {trial.config.learner.steps}, attempt {trial.record.attempt}"
    ]
    lines += [f"  {field} = {_short(value)}" for field, value in trial.settings.items()]
    lines += [f"  seeds {', '.join(map(str, trial.seeds))}"]
    lines += [f"  {metric} {_short(value)}" for metric, value in trial.metrics.items()]
    lines += [] if trial.cause is None else ["cause:", *(f"  {line}" for line in trial.cause.splitlines())]
    lines += [f"repeat: olfl trial run --from {source}"] if address is None and storage is None else []
    for line in lines:
        out.print(line, highlight=False, soft_wrap=True, markup=False)


@trial_app.command(
    "diff",
    epilog=examples(
        "olfl trial diff digits/online/3 digits/online/5", "olfl trial diff digits/online/c0 wide/online/c0"
    ),
)
def trial_diff(
    a: TrialName,
    b: TrialName,
    address: Address = None,
    storage: Storage = None,
    json: Json = False,
    home: Home = None,
) -> None:
    """Compare two trials: the settings that differ, and the results."""
    from rich.table import Table

    from olfl_ray.study.view import LOOK

    first, second = (_found(source, address, storage, home) for source in (a, b))
    if json:
        print_json(diff_document(first, second))
        return
    table = Table("", a, b, "difference", **LOOK)
    for name, row in first.diff(second).iterrows():
        table.add_row(str(name), _short(row["a"]), _short(row["b"]), _short(row["difference"]))
    out.print(table)


def _found(source: str, address: str | None, storage: str | None, home: Path | None) -> Trial:
    """The trial that `STUDY/ARM/ORDINAL` names."""
    from olfl_ray.study import Study

    study, _, trial = source.partition("/")
    if not trial:
        raise StudyError(f"trial: {source!r} names no trial; give STUDY/ARM/ORDINAL, such as digits/online/3")
    return Study.open(study, home=home, cluster=address, storage=storage).trial(trial)


def _short(value: Any) -> str:
    if value is None or value != value:  # NaN
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
