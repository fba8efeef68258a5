"""A study while it runs and after: a live table in a terminal or a notebook, else plain lines; and the final table."""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from olfl_ray.analysis import ArmResult, number, remarks, spread_of
from olfl_ray.driver import STARTED, spec_in, trials_of
from olfl_ray.ledger import Began, DriverStarted, Ended, Event, Reopened, Stopped, StudyState
from olfl_ray.spec import StudySpec, printable
from olfl_ray.terminal import Terminal

__all__ = ["LOOK", "NotebookView", "StudyView", "final_view", "status_rows", "status_view", "view_for"]

LOOK: dict[str, Any] = {
    "box": box.SIMPLE_HEAD,
    "show_edge": False,
    "pad_edge": False,
    "padding": (0, 1, 0, 0),
    "title_justify": "left",
    "caption_justify": "left",
}
"""How all tables of the command line look; eighty columns are enough for them."""
REDRAWN = 0.25
"""Least time between two drawings of a notebook's cell, in seconds."""
KEPT_LINES = 5
"""Messages that stay under a notebook's table."""
STAGES = ("running", "finished", "pruned", "diverged", "failed")


class StudyView:
    """Shows a study while it runs; its `watch` is called with each event.

    Args:
        spec: The study.
        console: Where.
        head: Lines that precede the first event.
    """

    def __init__(self, spec: StudySpec, console: Console, head: Sequence[str] = ()) -> None:
        self._spec, self._console, self._head = spec, console, head
        self._began = self._now = 0.0
        self._ended = self._ended_here = 0
        self._state: StudyState | None = None
        self._live: Live | None = None
        self._every_end = not console.is_terminal
        if console.is_terminal:  # drawn four times a second, however fast events come
            self._live = Live(console=console, get_renderable=self._table, refresh_per_second=4, transient=True)

    def __enter__(self) -> StudyView:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def watch(self, event: Event, state: StudyState) -> None:
        """Take an event."""
        self._now, self._state = event.time, state
        self._ended_here += isinstance(event, Ended)
        if self._began:
            self._ended += isinstance(event, Ended) - isinstance(event, Reopened)
        else:
            for line in self._head:
                self._say(line)
            self._began, self._ended = event.time, sum(trial.ended for trial in state.trials.values())
        if isinstance(event, DriverStarted) and not state.spec["arms"].keys() <= self._spec.arms.keys():
            self._spec = spec_in(state.spec, state.name)  # this start has added an arm
        for line in self._lines(event, state):
            self._say(line)

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _table(self) -> RenderableType:
        return "" if self._state is None else status_view(self._state, self._spec, self._progress(self._state))

    def _lines(self, event: Event, state: StudyState) -> Iterator[str]:
        """What is worth a line that stays; where nothing is live, each end is."""
        if isinstance(event, DriverStarted) and self._every_end:
            yield f"{STARTED} on {event.host} (process {event.pid}); {self._progress(state)} ended"
        elif isinstance(event, Began):
            for key in event.dropped:
                yield f"{event.trial}: a file of {key} is corrupt; its steps are recomputed"
            if event.attempt > 1:
                yield f"{event.trial}: resumes from step {state.trials[event.trial].step} (attempt {event.attempt})"
        elif isinstance(event, Stopped) and event.out_of_memory:
            yield f"{event.trial}: out of device memory; it is tried once more, alone on the device"
        elif isinstance(event, Ended):
            if self._every_end:
                value = "" if event.value is None else f" {self._spec.search.metric} {event.value:.4f}"
                yield f"{event.trial} {event.state} at step {event.step}{value} ({self._progress(state)})"
            if event.state == "failed" and event.cause:
                yield f"{event.trial}: {event.cause.splitlines()[0]}"

    def _progress(self, state: StudyState) -> str:
        ended = self._ended
        total = trials_of(state, self._spec)
        seconds = self._now - self._began
        if not self._ended_here or seconds <= 0:
            return f"{ended} of {total} trials"
        rate = self._ended_here / seconds
        left = max(0.0, (total - ended) / rate)
        return f"{ended} of {total} trials, {60 * rate:.0f} a minute, about {left:.0f} s left"


class NotebookView(StudyView):
    """The same as one cell of a notebook that is drawn again; its last messages stand under the table."""

    def __init__(self, spec: StudySpec) -> None:
        super().__init__(spec, Terminal(quiet=True))
        self._every_end = False
        self._said: deque[str] = deque(maxlen=KEPT_LINES)
        self._cell: Any = None
        self._drawn = 0.0

    def __exit__(self, *error: object) -> None:
        self._draw()

    def watch(self, event: Event, state: StudyState) -> None:
        """Take an event."""
        super().watch(event, state)
        if time.monotonic() - self._drawn >= REDRAWN:
            self._draw()

    def _say(self, line: str) -> None:
        self._said.append(line)

    def _draw(self) -> None:
        from IPython.display import HTML, display

        if self._state is None:
            return
        self._drawn = time.monotonic()
        head, rows = status_rows(self._state, self._spec)
        lines = [self._progress(self._state), *self._said]
        shown = "".join(f"<div>{escape(printable(line))}</div>" for line in lines)
        html = HTML(f"<b>study {escape(self._state.name)}</b>{as_html(head, rows)}{shown}")
        if self._cell is None:
            self._cell = display(html, display_id=True)
        else:
            self._cell.update(html)


def view_for(spec: StudySpec) -> StudyView:
    """The live view where this program runs: a notebook's cell, else standard output."""
    return NotebookView(spec) if _in_notebook() else StudyView(spec, Terminal(file=sys.stdout))


def _in_notebook() -> bool:
    """Whether a kernel runs this program; IPython in a terminal is none."""
    python = sys.modules.get("IPython")
    shell = python.get_ipython() if python is not None else None
    return getattr(shell, "kernel", None) is not None


def as_html(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A small table."""
    titles = "".join(f"<th>{escape(printable(cell))}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(printable(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"


def status_rows(state: StudyState, spec: StudySpec) -> tuple[list[str], list[list[str]]]:
    """Head and rows: states by arm, and the best value so far."""
    stopped = any(trial.state == "stopped" for trial in state.trials.values())
    stages = (*STAGES, "stopped") if stopped else STAGES
    rows = []
    for arm in spec.arms:
        counts: Counter[str] = Counter(trial.state for trial in state.trials.values() if trial.id.arm == arm)
        best = state.best(arm, spec.search.goal)
        shown = "" if best is None else f"{best.value:.4f}"
        rows.append([arm, *(str(counts[stage]) for stage in stages), shown])
    return ["arm", *stages, f"best {spec.search.metric}"], rows


def status_view(state: StudyState, spec: StudySpec, caption: str = "") -> Table:
    """The same for a terminal."""
    (first, *others), rows = status_rows(state, spec)
    table = Table(title=f"study {state.name}", caption=caption, **LOOK)
    table.add_column(first)
    for column in others:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def final_view(results: list[ArmResult]) -> Group:
    """One row per arm: its winner, and the paired comparison on fresh seeds; then each winner's settings."""
    table = Table(title="Each arm's winner, on the test split with fresh seeds", **LOOK)
    table.add_column("arm", no_wrap=True)
    metric, goal = results[0].test.metric, results[0].test.goal
    primary = next((result.primary.metric for result in results if result.primary is not None), None)
    more = () if primary is None else (f"test {primary}",)
    for column in ("selection", f"test {metric}", "n", "difference [95 % CI]", "detectable", *more):
        table.add_column(column, justify="right")
    settings = Table.grid(padding=(0, 2))
    for result in results:
        table.add_row(result.arm, *_cells(result), *(() if result.primary is None else (spread_of(result.primary),)))
        found = (
            f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in result.best_params.items()
        )
        settings.add_row(result.arm, "  ".join(found) or ("those of the spec" if result.best else "no trial finished"))
    described = Table.grid(padding=(0, 2))
    for result in results:
        if result.described:
            described.add_row(result.arm, "  ".join(f"{one.metric} {spread_of(one)}" for one in result.described))
    weights = (Text("weights", style="bold"), described) if described.row_count else ()
    legend = (
        f"selection: {metric} of the best search trial; test: mean ± sd over n fresh seeds, "
        f"{'lower' if goal == 'minimize' else 'higher'} is better; difference: to the baseline, paired by seed; "
        "detectable: the smallest true difference that n seeds find with power 0.8"
    )
    chosen = Text("best settings", style="bold"), settings
    if all(result.n == 0 for result in results):
        return Group(*chosen)
    warnings = [Text(line, style="yellow") for line in remarks(results)]
    return Group(table, Text(legend + "\n", style="dim"), *warnings, *weights, *chosen)


def _cells(result: ArmResult) -> tuple[str, str, str, str, str]:
    selected = "" if result.selection_value is None else number(result.selection_value)
    found = result.test.difference
    if found is None:
        return selected, spread_of(result.test), str(result.n), "", ""
    interval = f"{number(found.mean, '+')} [{number(found.low, '+')}, {number(found.high, '+')}]"
    return selected, spread_of(result.test), str(result.n), interval, number(found.detectable)
