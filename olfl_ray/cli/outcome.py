"""What `olfl sweep` prints about a study: the plan before it starts, and the result."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from olfl_ray.cli.options import out
from olfl_ray.cli.output import option
from olfl_ray.cli.terminal import Terminal
from olfl_ray.errors import INTERRUPTED

__all__ = ["noted", "print_failures", "print_notes", "print_plan", "print_result", "print_winners", "study_view"]

TABLE_WIDTH = 100
"""Least width of the final table, in characters: all columns fit. Rich takes 80 where there is no terminal."""


@contextmanager
def study_view(spec: Any, *head: str) -> Iterator[Any]:
    """The live view of a study, or plain lines; its first lines come once the study has started, and was not refused."""
    from olfl_ray.cli.view import StudyView

    with StudyView(spec, out, head) as view:
        yield view


def print_plan(spec: Any) -> None:
    """A spec as it is resolved, its digest, and the first points of each arm."""
    from olfl_ray import study
    from olfl_ray.spec import planned, spec_as_yaml

    out.print(spec_as_yaml(spec), highlight=False, soft_wrap=True, markup=False)
    out.print(f"digest {spec.digest}", highlight=False)
    for arm in spec.arms:
        out.print(
            f"arm {arm}: {planned(spec, arm)} trials over {', '.join(spec.parameters_of(arm)) or 'nothing'}",
            soft_wrap=True,
        )
        for index, params in enumerate(study.sample(spec, arm, 3)):
            out.print(f"  {arm}/{index}: {json.dumps(params)}", highlight=False, soft_wrap=True)
    print_notes(spec)


def print_notes(spec: Any) -> None:
    """What a study does other than its spec seems to ask."""
    for line in noted(spec):
        out.print(line, highlight=False, soft_wrap=True, markup=False)


def noted(spec: Any) -> list[str]:
    """The same as lines."""
    from olfl_ray.spec import notes

    return [f"note: {note}" for note in notes(spec)]


def print_result(result: Any, place: Any, where: str | None = None, *, begun: bool = False) -> None:
    """A study's table, where its report and runs are, and how to resume it.

    Args:
        result: What came of it.
        place: The home folder.
        where: Options that lead to the study; None: the home folder's.
        begun: Whether its notes were printed when it began.

    Raises:
        typer.Exit: It was interrupted; or, with code 1, trials failed or runs did not reach MLflow.
    """
    from olfl_ray.cli.view import status_view

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
    print_winners(result.table)
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
    if result.stopped:
        raise typer.Exit(INTERRUPTED)
    if result.state.failures or result.undelivered:
        raise typer.Exit(1)


def print_winners(results: Any) -> None:
    """Each arm's winner, one to a line."""
    from olfl_ray.cli.view import final_view

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
