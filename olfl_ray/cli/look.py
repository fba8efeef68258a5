"""`olfl sweep list | status | report | compare | delete`: studies that exist, here and elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from olfl_ray.cli.documents import comparison_document, print_json, standing_document
from olfl_ray.cli.examples import examples
from olfl_ray.cli.options import Address, Home, Json, Name, Storage, out
from olfl_ray.cli.outcome import TABLE_WIDTH, print_failures, print_notes, print_running, print_standing
from olfl_ray.cli.output import option
from olfl_ray.errors import StudyError
from olfl_ray.terminal import Terminal

__all__ = ["add_looking"]


def add_looking(app: typer.Typer) -> None:
    """Add the commands to `olfl sweep`."""
    epilogs: dict[Callable[..., None], str] = {
        sweep_list: examples("olfl sweep list", "olfl sweep list --storage s3://bucket/studies --json"),
        sweep_status: examples("olfl sweep status digits", "olfl sweep status digits --address http://head:8265"),
        sweep_report: examples("olfl sweep report digits", "olfl sweep report digits --storage s3://bucket/studies"),
        sweep_compare: examples(
            "olfl sweep compare digits wide", "olfl sweep compare digits wide --arm online=wide_online"
        ),
        sweep_delete: examples("olfl sweep delete digits", "olfl sweep delete digits --yes --keep-runs"),
    }
    for command, epilog in epilogs.items():
        app.command(command.__name__.removeprefix("sweep_"), epilog=epilog)(command)


def sweep_list(address: Address = None, storage: Storage = None, json: Json = False, home: Home = None) -> None:
    """List the studies in the home folder, on a cluster, or in a storage."""
    from olfl_ray import study

    elsewhere = address is not None or storage is not None
    place = None if elsewhere else study.Home.find(home)
    found = study.list_studies(home=place, cluster=address, storage=storage)
    if json:
        print_json([standing_document(standing) for standing in found])
        return
    if place is not None and not found:
        out.print(f"no studies in {place.path}", highlight=False, soft_wrap=True, markup=False)
    for standing in found:
        print_standing(standing, elsewhere=elsewhere)


def sweep_status(
    name: Name, address: Address = None, storage: Storage = None, json: Json = False, home: Home = None
) -> None:
    """Show the state of a study: running trials with step, age and time left; failures with their causes."""
    from dataclasses import asdict

    from olfl_ray.study import Study
    from olfl_ray.study.view import status_view

    study = Study.open(name, home=home, cluster=address, storage=storage)
    overview = study.overview()
    attempt = None if study.remote is None else study.remote.newest()
    server = None if study.remote is None else study.remote.cluster.server.address
    if json:
        job = None if attempt is None else {"number": attempt.number, "job": attempt.id, "state": attempt.state}
        print_json({**asdict(overview), "address": server, "attempt": job})
        return
    spec, state, _ = study.loaded()
    out.print(status_view(state, spec))
    print_running(overview)
    for line in overview.data:
        out.print(line, highlight=False, soft_wrap=True, markup=False)
    print_notes(spec)
    if attempt is not None:
        out.print(f"attempt {attempt.number} on {server}: {attempt.state}", highlight=False, soft_wrap=True)
    where = option("--home", study.home.path) if address is None else option("--address", address)
    print_failures(state, where)
    if overview.status == "interrupted":
        out.print("the driver exited without reporting a result; committed work is kept")
        out.print(f"resume: olfl sweep resume {name} {where}", highlight=False, soft_wrap=True, markup=False)


def sweep_report(
    name: Name, address: Address = None, storage: Storage = None, json: Json = False, home: Home = None
) -> None:
    """Write a study's report now."""
    from olfl_ray.study import Study

    page = Study.open(name, home=home, cluster=address, storage=storage).report()
    if json:
        print_json({"study": name, "report": page})
    else:
        out.print(str(page), soft_wrap=True, highlight=False, markup=False)


def sweep_compare(
    a: Name,
    b: Name,
    arm: Annotated[
        list[str] | None,
        typer.Option("--arm", help="Only this arm; A_ARM=B_ARM for arms with different names. May be repeated."),
    ] = None,
    address: Address = None,
    storage: Storage = None,
    json: Json = False,
    home: Home = None,
) -> None:
    """Compare the arms of two studies, paired by seed if their data, splits and seeds agree."""
    from rich.table import Table

    from olfl_ray.analysis import number
    from olfl_ray.study import Study
    from olfl_ray.study.view import LOOK

    first, second = (Study.open(name, home=home, cluster=address, storage=storage) for name in (a, b))
    arms = None if arm is None else {one.partition("=")[0]: one.partition("=")[2] or one for one in arm}
    if json:
        print_json(comparison_document(first, second, arms))
        return
    found = first.compare(second, arms=arms)
    table = Table("arm", title=f"{found['metric'].iloc[0]}: {b} - {a}, paired by seed", **LOOK)
    for column in (a, b, "n", "difference [95 % CI]", "p"):
        table.add_column(column, justify="right")
    for name, row in found.iterrows():
        means = ["", ""]
        for place, side in enumerate("ab"):
            if row[f"{side}_n"]:
                sd = f" ± {number(row[f'{side}_sd'])}" if row[f"{side}_n"] > 1 else ""
                means[place] = number(row[f"{side}_mean"]) + sd
        interval = f"{number(row['difference'], '+')} [{number(row['low'], '+')}, {number(row['high'], '+')}]"
        compared = ("", "", "") if row["unpaired"] else (str(row["n"]), interval, f"{row['p']:.4f}")
        other = row["other_arm"]
        table.add_row(str(name) if other == name else f"{name}, {other}", *means, *compared)
    Terminal(file=out.file, width=max(out.width, TABLE_WIDTH)).print(table)
    for name, row in found[found["unpaired"].notna()].iterrows():
        out.print(f"{name}: not paired: {row['unpaired']}", highlight=False, soft_wrap=True, markup=False)
    for field, row in first.diff(second).iterrows():
        out.print(f"differs: {field}: {row['a']} and {row['b']}", highlight=False, soft_wrap=True, markup=False)


def sweep_delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    keep_runs: Annotated[bool, typer.Option("--keep-runs", help="Keep its runs in MLflow.")] = False,
    address: Address = None,
    storage: Storage = None,
    json: Json = False,
    home: Home = None,
) -> None:
    """Delete a study: its trials, results and report, and its runs in MLflow."""
    from olfl_ray.study import Study

    study = Study.open(name, home=home, cluster=address, storage=storage)
    if not yes:
        if not sys.stdin.isatty():
            raise StudyError(f"--yes: deleting {name!r} can't be undone; add it")
        typer.confirm(f"Delete {study!r} in {study.location}?", abort=True, err=True)
    location, removed = study.location, study.delete(keep_runs=keep_runs)
    if json:
        print_json({"study": name, "location": location, "runs": removed})
        return
    out.print(f"deleted {location} and {removed} runs", highlight=False, soft_wrap=True, markup=False)
