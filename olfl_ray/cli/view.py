"""A study in a terminal: a live view, plain lines if it is not interactive, and the final table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from olfl_ray.analysis import ArmResult, number, remarks, spread_of
from olfl_ray.ledger import Began, DriverStarted, Ended, Event, Reopened, Stopped, StudyState
from olfl_ray.spec import StudySpec
from olfl_ray.study import STARTED, trials_of

__all__ = ["LOOK", "StudyView", "final_view", "status_view"]

LOOK: dict[str, Any] = {
    "box": box.SIMPLE_HEAD,
    "show_edge": False,
    "pad_edge": False,
    "padding": (0, 1, 0, 0),
    "title_justify": "left",
    "caption_justify": "left",
}
"""How all tables of the command line look; eighty columns are enough for them."""
STAGES = ("running", "finished", "pruned", "diverged", "failed")


class StudyView:
    """Shows a study while it runs; give its `watch` to `study.run`.

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
        self._live = None
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
                self._console.print(line, highlight=False, markup=False, soft_wrap=True)
            self._began, self._ended = event.time, sum(trial.ended for trial in state.trials.values())
        for line in self._lines(event, state):
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _table(self) -> RenderableType:
        return "" if self._state is None else status_view(self._state, self._spec, self._progress(self._state))

    def _lines(self, event: Event, state: StudyState) -> Iterator[str]:
        """What is worth a line that stays; where nothing is live, each end is."""
        if isinstance(event, DriverStarted) and self._live is None:
            yield f"{STARTED} on {event.host} (process {event.pid}); {self._progress(state)} ended"
        elif isinstance(event, Began):
            for key in event.dropped:
                yield f"{event.trial}: a file of {key} is corrupt; its steps are recomputed"
            if event.attempt > 1:
                yield f"{event.trial}: resumes from step {state.trials[event.trial].step} (attempt {event.attempt})"
        elif isinstance(event, Stopped) and event.out_of_memory:
            yield f"{event.trial}: out of device memory; it is tried once more, alone on the device"
        elif isinstance(event, Ended):
            if self._live is None:
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


def status_view(state: StudyState, spec: StudySpec, caption: str = "") -> Table:
    """States by arm, and the best value so far."""
    table = Table(title=f"study {state.name}", caption=caption, **LOOK)
    table.add_column("arm")
    stopped = any(trial.state == "stopped" for trial in state.trials.values())
    stages = (*STAGES, "stopped") if stopped else STAGES
    for stage in stages:
        table.add_column(stage, justify="right")
    table.add_column(f"best {spec.search.metric}", justify="right")
    for arm in spec.arms:
        trials = [trial for trial in state.trials.values() if trial.id.arm == arm]
        counts: Counter[str] = Counter(trial.state for trial in trials)
        values = [
            trial.value
            for trial in trials
            if trial.state == "finished" and trial.value is not None and not trial.id.confirming
        ]
        best = (min if spec.search.goal == "minimize" else max)(values) if values else None
        shown = "" if best is None else f"{best:.4f}"
        table.add_row(arm, *(str(counts[stage]) for stage in stages), shown)
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
    legend = (
        f"selection: {metric} of the best search trial; test: mean ± sd over n fresh seeds, "
        f"{'lower' if goal == 'minimize' else 'higher'} is better; difference: to the baseline, paired by seed; "
        "detectable: the smallest true difference that n seeds find with power 0.8"
    )
    chosen = Text("best settings", style="bold"), settings
    if all(result.n == 0 for result in results):
        return Group(*chosen)
    warnings = [Text(line, style="yellow") for line in remarks(results)]
    return Group(table, Text(legend + "\n", style="dim"), *warnings, *chosen)


def _cells(result: ArmResult) -> tuple[str, str, str, str, str]:
    selected = "" if result.selection_value is None else number(result.selection_value)
    found = result.test.difference
    if found is None:
        return selected, spread_of(result.test), str(result.n), "", ""
    interval = f"{number(found.mean, '+')} [{number(found.low, '+')}, {number(found.high, '+')}]"
    return selected, spread_of(result.test), str(result.n), interval, number(found.detectable)
