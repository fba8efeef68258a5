"""A study's report: tables for machines, and one self-contained page for people."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from olfl_ray.analysis import pictures
from olfl_ray.analysis.canvas import GRID, INK, as_svg
from olfl_ray.analysis.tables import ArmResult, baseline_arm, final_table, records_table
from olfl_ray.analysis.wording import number, remarks, spread_of
from olfl_ray.ledger import StudyState
from olfl_ray.records import RECORDS, to_parquet
from olfl_ray.spec import StudySpec, printable
from olfl_ray.storage import Storage, fresh_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["as_markdown", "write_report"]

HEAD = ("arm", "trials", "best settings", "selection", "test", "n", "difference [95 % CI]", "p", "detectable")

_ARMS = pa.schema(
    [
        ("arm", pa.string()),
        ("trials", pa.string()),
        ("confirming", pa.string()),
        ("best", pa.string()),
        ("best_params", pa.string()),
        ("selection_value", pa.float64()),
        ("metric", pa.string()),
        ("goal", pa.string()),
        ("test_seeds", pa.list_(pa.int64())),
        ("test_values", pa.list_(pa.float64())),
        ("test_mean", pa.float64()),
        ("test_sd", pa.float64()),
        ("trivial", pa.float64()),
        ("no_better_than_trivial", pa.bool_()),
        ("primary", pa.string()),
        ("primary_mean", pa.float64()),
        ("primary_sd", pa.float64()),
        ("gradient_ratio", pa.float64()),
        ("gradient_cosine", pa.float64()),
        ("n", pa.int64()),
        *((f"difference_{name}", pa.float64()) for name in ("mean", "sd", "low", "high", "detectable", "p")),
        ("difference_n", pa.int64()),
        ("difference_baseline", pa.string()),
    ]
)
_TRIALS = pa.schema(
    [
        ("trial", pa.string()),
        ("arm", pa.string()),
        ("confirming", pa.bool_()),
        ("state", pa.string()),
        ("step", pa.int64()),
        ("value", pa.float64()),
        ("params", pa.string()),
        ("metrics", pa.string()),
        ("seeds", pa.list_(pa.int64())),
        ("attempt", pa.int64()),
        ("cause", pa.string()),
        ("seconds", pa.float64()),
    ]
)
_CURVES = pa.schema([("arm", pa.string()), ("trial", pa.string()), *RECORDS])

_CSS = """
:root { color-scheme: light dark; --ink: #1b1c1f; --soft: #5b6068; --grid: #c9ccd1; --page: #ffffff; --card: #f5f6f8 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --soft: #a2a8b1; --grid: #4a4f57; --page: #16181c; --card: #202329 }
}
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 66rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif }
h1 { margin: 0; font-size: 1.7rem } h2 { margin: 2.5rem 0 .5rem; font-size: 1.2rem } p { color: var(--soft) }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums }
th, td { padding: .45rem .7rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--grid);
  white-space: pre-line } th { color: var(--soft); font-weight: 600; white-space: nowrap }
figure { margin: 1rem 0 2rem } figcaption { color: var(--soft); font-size: .9rem } svg { max-width: 100%; height: auto }
svg text { font-family: system-ui, sans-serif !important }
pre { padding: 1rem; overflow-x: auto; background: var(--card); border-radius: .5rem; font-size: .82rem }
"""


def write_report(
    *,
    spec: StudySpec,
    state: StudyState,
    storage: Storage,
    out: Path,
    importances: dict[str, dict[str, float]],
    data: Sequence[str] = (),
) -> Path:
    """Write a study's tables, figures and page; whatever has no data yet is left out.

    Args:
        spec: The study.
        state: Its state.
        storage: The study's storage.
        out: Folder of the report, which is replaced completely.
        importances: For each arm the importance of each searched field.
        data: One line of text per data set.

    Returns:
        The page, `out/index.html`.

    Raises:
        SetupError: The folder is a link, or can't be written.
    """
    results = final_table(spec, state, storage)
    files = {f"tables/{name}": content for name, content in _tables(results, state, storage).items()}
    figures = []
    for name, figure, caption in _pictures(spec, state, storage, importances):
        if figure is not None:
            files[f"pictures/{name}.svg"] = as_svg(figure).encode()
            figures.append((as_svg(figure, "none"), caption))
    files["index.html"] = _page(spec, state, results, figures, data).encode()
    with fresh_folder(out) as folder:
        folder.write_all(files)
    return out / "index.html"


def as_markdown(results: Sequence[ArmResult]) -> str:
    """The final table as Markdown."""
    head = _head(results)
    rows = [head, ("---",) * len(head), *(_cells(result) for result in results)]
    return "".join("| " + " | ".join(_cell(cell) for cell in row) + " |\n" for row in rows)


def _cell(text: str) -> str:
    """A Markdown cell with HTML, links and images escaped: its text may come from anyone."""
    text = escape(printable(text), quote=False).replace("|", r"\|").replace("](", r"]\(")
    return text.replace("\n", "<br>")


def _cells(result: ArmResult) -> tuple[str, ...]:
    test, difference, p, detectable = spread_of(result.test) or "–", "–", "–", "–"
    if result.test.no_better_than_trivial:
        test += "\n(no better than a constant)"
    if result.primary is not None:
        test += f"\n({result.primary.metric} {spread_of(result.primary)})"
    if (d := result.test.difference) is not None:
        difference = f"{number(d.mean, '+')} [{number(d.low, '+')}, {number(d.high, '+')}]"
        p, detectable = ("< 0.0001" if d.p < 1e-4 else f"{d.p:.4f}"), number(d.detectable)
    total = sum(result.trials.values())
    trials = f"{total}: " + ", ".join(f"{count} {name}" for name, count in result.trials.items()) if total else "0"
    settings = "\n".join(f"{name} = {_short(value)}" for name, value in result.best_params.items()) or "–"
    lost = {name: count for name, count in result.confirming.items() if name in ("diverged", "failed")}
    n = str(result.n) + "".join(f"\n({count} {name})" for name, count in lost.items())
    return (result.arm, trials, settings, number(result.selection_value), test, n, difference, p, detectable)


def _head(results: Sequence[ArmResult]) -> tuple[str, ...]:
    return tuple(f"test {results[0].test.metric}" if name == "test" and results else name for name in HEAD)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _tables(results: Sequence[ArmResult], state: StudyState, storage: Storage) -> dict[str, bytes]:
    arms = [_arm_row(result) for result in results]
    trials = [
        {
            "trial": str(trial.id),
            "arm": trial.id.arm,
            "confirming": trial.id.confirming,
            "state": trial.state,
            "step": trial.step,
            "value": trial.value,
            "params": json.dumps(dict(trial.params), default=str),
            "metrics": json.dumps(dict(trial.metrics)),
            "seeds": list(trial.seeds),
            "attempt": trial.attempt,
            "cause": trial.cause,
            "seconds": None if None in (trial.began_at, trial.ended_at) else trial.ended_at - trial.began_at,  # type: ignore[operator]
        }
        for trial in state.trials.values()
    ]
    files = {"arms.md": as_markdown(results).encode()}
    for name, rows, schema in (("arms", arms, _ARMS), ("trials", trials, _TRIALS)):
        files[f"{name}.csv"] = _csv(rows, schema.names).encode()
        files[f"{name}.parquet"] = to_parquet(pa.Table.from_pylist(rows, schema))
    curves = []
    for trial in state.trials.values():
        table = records_table(storage, trial)
        for position, value in enumerate((trial.id.arm, str(trial.id))):
            table = table.add_column(position, _CURVES[position], pa.array([value] * table.num_rows, pa.string()))
        curves.append(table)
    combined = pa.concat_tables(curves) if curves else _CURVES.empty_table()
    return {**files, "curves.parquet": to_parquet(combined)}


def _arm_row(result: ArmResult) -> dict[str, Any]:
    d, test, primary = result.test.difference, result.test, result.primary
    row: dict[str, Any] = {name: getattr(result, name, None) for name in _ARMS.names}
    row |= {name: json.dumps(dict(row[name]), default=str) for name in ("trials", "confirming", "best_params")}
    row |= {"metric": test.metric, "goal": test.goal, "test_mean": test.mean, "test_sd": test.sd}
    row |= {"test_seeds": list(test.values), "test_values": list(test.values.values())}
    row |= {"trivial": test.trivial, "no_better_than_trivial": test.no_better_than_trivial}
    if primary is not None:
        row |= {"primary": primary.metric, "primary_mean": primary.mean, "primary_sd": primary.sd}
    if result.gradient is not None:
        row |= {"gradient_ratio": result.gradient.ratio, "gradient_cosine": result.gradient.cosine}
    compared = [name for name in _ARMS.names if name.startswith("difference_")]
    return row | {name: None if d is None else getattr(d, name.removeprefix("difference_")) for name in compared}


def _csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_field(row[name]) for name in columns])
    return text.getvalue()


def _field(value: Any) -> Any:
    """A CSV field in which no text is HTML or a spreadsheet formula. The Parquet file next to it has every text unchanged."""
    if isinstance(value, list):
        return json.dumps(value)
    if not isinstance(value, str):
        return value
    text = escape(printable(value), quote=False)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t")) else text


def _pictures(
    spec: StudySpec, state: StudyState, storage: Storage, importances: Mapping[str, Mapping[str, float]]
) -> Iterable[tuple[str, Figure | None, str]]:
    yield (
        "learning_curves",
        pictures.learning_curves(spec, state, storage),
        f"{spec.search.metric} while each arm's winner trains: mean and one standard deviation over its "
        "confirming seeds (over its search replicates where there are none).",
    )
    for arm in spec.arms:
        caption = (
            f"Learned loss of {arm}'s winner during training, next to the task loss (dashed); each line is "
            "shifted to a minimum of 0, and the task loss scaled to the same height: neither changes where a "
            "gradient points."
        )
        yield f"learned_loss_{arm}", pictures.learned_loss(spec, state, storage, arm), caption
    yield (
        "search_history",
        pictures.search_history(spec, state),
        f"{spec.search.metric} of each search trial in the order of proposal; marks at the top edge have no value.",
    )
    yield (
        "importances",
        pictures.importance_bars(spec, importances),
        f"Importance of each searched field for {spec.search.metric}.",
    )
    for arm in spec.arms:
        caption = f"Search of {arm}: one line per trial, coloured by {spec.search.metric}."
        yield f"parallel_{arm}", pictures.parallel_coordinates(spec, state, arm), caption


def _page(
    spec: StudySpec,
    state: StudyState,
    results: Sequence[ArmResult],
    figures: Sequence[tuple[str, str]],
    data: Sequence[str],
) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in _head(results))
    notes = "".join(f"<p>{escape(line)}</p>\n" for line in remarks(results))
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in _cells(result)) + "</tr>\n" for result in results
    )
    shown = "".join(
        f"<figure>{_themed(svg)}<figcaption>{escape(caption)}</figcaption></figure>\n" for svg, caption in figures
    )
    baseline = baseline_arm(spec, state)
    side = "below" if spec.search.goal == "minimize" else "above"
    against = f"Differences are paired by seed with {baseline}, {side} zero the arm is better; " if baseline else ""
    ended = sum(trial.ended for trial in state.trials.values())
    settings = json.dumps(spec.model_dump(mode="json", by_alias=True), indent=2, ensure_ascii=False)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(spec.name)}</title>
<style>{_CSS}</style>
</head>
<body>
<h1>{escape(spec.name)}</h1>
<p>{ended} of {len(state.trials)} trials have ended. Digest {escape(state.digest[:12])}.</p>
{"".join(f"<p>{escape(line)}</p>" for line in data)}
<h2>Each arm's winner on the test split, with fresh seeds</h2>
<div class="wide"><table><thead><tr>{head}</tr></thead>
<tbody>{rows}</tbody></table></div>
<p>Test: mean ± standard deviation over n confirming seeds. {escape(against)}detectable: the smallest true
difference that this many seeds find with power 0.8 at level 0.05. No correction is made for several arms.</p>
{notes}{_failures(state)}<h2>Pictures</h2>
{shown or "<p>No trial has finished yet.</p>"}
<details><summary>The study's spec</summary><pre>{escape(settings)}</pre></details>
</body>
</html>
"""


def _failures(state: StudyState) -> str:
    """Which trials failed, and why."""
    if not state.failures:
        return ""
    rows = "".join(
        f"<tr><td>{escape(cause)}</td><td>{escape(', '.join(names))}</td></tr>\n"
        for cause, names in state.failures.items()
    )
    return (
        f'<h2>Failed trials</h2>\n<div class="wide"><table><thead><tr><th>cause</th><th>trials</th></tr></thead>\n'
        f"<tbody>{rows}</tbody></table></div>\n<p>Retry them with: olfl sweep resume {escape(state.name)} --failed</p>\n"
    )


def _themed(svg: str) -> str:
    return svg.replace(INK, "var(--ink)").replace(GRID, "var(--grid)")
