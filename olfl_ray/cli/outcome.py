"""What `olfl sweep` prints about a study: its notes, its result, its failures."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import typer

from olfl_ray.cli.options import out
from olfl_ray.cli.output import option
from olfl_ray.errors import INTERRUPTED
from olfl_ray.terminal import Terminal

__all__ = [
    "duration",
    "leave",
    "notes_on",
    "print_failures",
    "print_notes",
    "print_result",
    "print_running",
    "print_standing",
    "print_winners",
]

TABLE_WIDTH = 100
"""Least width of the final table, in characters: all columns fit. Rich takes 80 where there is no terminal."""


def print_notes(spec: Any) -> None:
    """What a study does other than its spec seems to ask."""
    for line in notes_on(spec):
        out.print(line, highlight=False, soft_wrap=True, markup=False)


def notes_on(spec: Any) -> list[str]:
    """The same as lines."""
    from olfl_ray.search import notes

    return [f"note: {note}" for note in notes(spec)]


def print_result(result: Any, place: Any, where: str | None = None, *, begun: bool = False) -> None:
    """A study's table, where its report and runs are, and how to resume it.

    Args:
        result: Its result.
        place: The home folder.
        where: Options that lead to the study; None: the home folder's.
        begun: Whether its notes were printed when it began.

    Raises:
        typer.Exit: As `leave`.
    """
    from olfl_ray.study.view import status_view

    spec, here = result.spec, option("--home", place.path)
    where = where or here
    if result.nothing_to_do:
        out.print("nothing to do: the study is finished")
    if result.stopped:
        out.print("interrupted: committed work is kept")
    out.print(status_view(result.state, spec))
    if not begun or result.nothing_to_do:
        print_notes(spec)
    out.print()
    print_winners(result.arms)
    out.print()
    if result.nothing_to_do and result.problem:
        out.print(
            f"unknown whether all runs are tracked: {result.problem}", soft_wrap=True, highlight=False, markup=False
        )
    elif result.undelivered:
        runs = "1 run is" if result.undelivered == 1 else f"{result.undelivered} runs are"
        out.print(
            f"{runs} not tracked yet ({result.problem or 'it is slow'}); `olfl sweep resume {spec.name} {where}` tries again",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )
    out.print(f"report: {result.report}", soft_wrap=True, highlight=False, markup=False)
    for location in result.tracking:
        shown = f"olfl ui {here}" if location == place.tracking_uri else location
        out.print(f"runs:   {shown}", soft_wrap=True, highlight=False, markup=False)
    if not result.finished:
        out.print(f"resume: olfl sweep resume {spec.name} {where}", soft_wrap=True, highlight=False, markup=False)
    print_failures(result.state, where)
    leave(result)


def leave(result: Any) -> None:
    """End the command with the exit code that a study's result asks for; return where that is 0.

    Raises:
        typer.Exit: It was interrupted; or, with code 1, trials failed or runs did not reach MLflow.
    """
    if result.stopped:
        raise typer.Exit(INTERRUPTED)
    if result.state.failures or result.undelivered:
        raise typer.Exit(1)


def print_winners(results: Any) -> None:
    """Each arm's winner, one to a line."""
    from olfl_ray.study.view import final_view

    Terminal(file=out.file, width=max(out.width, TABLE_WIDTH)).print(final_view(results))


def print_failures(state: Any, where: str) -> None:
    """The failed trials with their causes, and how to try them again.

    Args:
        state: The study.
        where: Options that lead to it.
    """
    if not state.failures:
        return
    count = sum(map(len, state.failures.values()))
    lines = [f"failed: {count} of {len(state.trials)} trials"]
    for cause, names in state.failures.items():
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        lines.append(f"  {', '.join(names[:4])}{more}: {cause}")
    lines.append(f"retry:  olfl sweep resume {state.name} --failed {where}")
    for line in lines:
        out.print(line, soft_wrap=True, highlight=False, markup=False)


def print_standing(standing: Any, *, elsewhere: bool) -> None:
    """One line about a study of a list: its trials, its best value, the time of its last event, its status.

    Args:
        standing: From `list_studies`.
        elsewhere: Whether it is of a cluster or a storage, and not of the home folder.
    """
    parts = [standing.name]
    if standing.ended is not None:
        parts.append(f"{standing.ended} of {standing.trials} trials ended")
    elif elsewhere:
        parts.append("trials not seen from here")
    if standing.value is not None:
        parts.append(f"best {standing.metric} {standing.value:.4g} ({standing.best})")
    if standing.changed is not None:
        parts.append(f"{datetime.fromtimestamp(standing.changed):%Y-%m-%d %H:%M}")
    if standing.ended is not None or elsewhere:
        parts.append(standing.state)
    if elsewhere:
        attempts = "1 attempt" if standing.attempts == 1 else f"{standing.attempts} attempts"
        parts.append(f"{attempts}: {standing.problem}" if standing.problem else attempts)
    else:
        parts.append(standing.problem or standing.digest[:12])
    out.print("  ".join(parts), highlight=False, soft_wrap=True, markup=False)


def print_running(overview: Any) -> None:
    """The trials that run or are suspended, with step, age and time left; and when the last event was."""
    from rich.table import Table

    from olfl_ray.study.view import LOOK

    if overview.running:
        table = Table("trial", "state", **LOOK)
        for column in ("step", "of", "value", "age", "last commit", "left"):
            table.add_column(column, justify="right")
        for trial in overview.running:
            value = "" if trial.value is None else f"{trial.value:.4g}"
            ages = [duration(seconds) for seconds in (trial.age, trial.commit_age, trial.left)]
            table.add_row(trial.trial, trial.state, str(trial.step), str(trial.steps), value, *ages)
        out.print(table)
    left = "" if overview.left is None else f"; about {duration(overview.left)} left"
    line = f"{overview.status}: {overview.ended} of {overview.trials} trials ended{left}; last event {duration(overview.age)} ago"
    if overview.driver is not None and overview.status == "running":
        line += f"; driver on {overview.driver.host} (process {overview.driver.pid})"
    out.print(line, highlight=False, soft_wrap=True, markup=False)


def duration(seconds: float | None) -> str:
    """A time span for people: 5 s, 12 min, 3 h 20 min, 2 d 4 h; empty for None."""
    if seconds is None:
        return ""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"
