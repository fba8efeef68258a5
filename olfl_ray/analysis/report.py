"""A study's report: tables for machines, and one self-contained page for people."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa

from olfl_ray.analysis.canvas import style
from olfl_ray.analysis.charts_of_search import search_charts
from olfl_ray.analysis.charts_of_training import seeds_chart, training_charts
from olfl_ray.analysis.facts import costs, data_facts, duration, filtered_rows, moment, seed_rows, trial_rows
from olfl_ray.analysis.files import table_files
from olfl_ray.analysis.idle import idle_share
from olfl_ray.analysis.tables import baseline_arm, final_table, records_table, with_gradients
from olfl_ray.analysis.wording import cells_of, head_of, number, remarks
from olfl_ray.errors import SetupError
from olfl_ray.ledger import StudyState, TrialState
from olfl_ray.spec import StudySpec, printable
from olfl_ray.storage import Storage, fresh_folder

__all__ = ["write_report"]

TEMPLATES = Path(__file__).parent / "templates"


def write_report(
    *,
    spec: StudySpec,
    state: StudyState,
    storage: Storage,
    out: Path,
    importances: Mapping[str, Mapping[str, float]],
    data: Mapping[str, Mapping[str, Any]] | None = None,
    links: Mapping[str, str] | None = None,
) -> Path:
    """Write a study's tables and page; whatever has no data yet is left out.

    Args:
        spec: The study.
        state: Its state.
        storage: The study's storage.
        out: Folder of the report, which is replaced completely.
        importances: For each arm the importance of each searched field.
        data: For each arm its data set: name, source, rows, kind, and names of its classes; None: unknown.
        links: Web address of each trial's run in a tracker, or the run's id, by the trial's id; the study's own by `study`.
            None: unknown.

    Returns:
        The page, `out/index.html`.

    Raises:
        SetupError: The folder is a link, or can't be written; or plotly is not installed.
    """
    tables: dict[str, pa.Table] = {}

    def read(trial: TrialState) -> pa.Table:
        name = str(trial.id)
        if name not in tables:
            tables[name] = records_table(storage, trial)
        return tables[name]

    results = with_gradients(final_table(spec, state), spec, state, read)
    files = {f"tables/{name}": content for name, content in table_files(results, state, read).items()}
    rows, hidden = trial_rows(state, links or {})
    ends = [trial.ended_at for trial in state.trials.values() if trial.ended_at is not None]
    files["index.html"] = _page(
        spec=spec,
        state=state,
        ended=len(ends),
        created=moment(state.created_at),
        lasted=duration(max(ends) - state.created_at) if ends else "",
        last=moment(max(ends)) if ends else "",
        results=results,
        head=head_of(results),
        rows=[cells_of(result) for result in results],
        baseline=baseline_arm(spec, state),
        remarks=remarks(results),
        seeds=seed_rows(results),
        seeds_chart=seeds_chart(spec, results),
        data=data_facts(spec, state, data or {}),
        costs=costs(spec, state, read),
        idle=idle_share(state.trials.values(), spec.concurrency) if len(state.drivers) == 1 else None,
        training=list(training_charts(spec, state, read, storage)),
        search=list(search_charts(spec, state, importances)),
        filtered=filtered_rows(spec, state),
        trials=rows,
        run=(links or {}).get("study", ""),
        hidden=hidden,
        files=sorted(files),
        settings=json.dumps(spec.model_dump(mode="json", by_alias=True), indent=2, ensure_ascii=False),
    ).encode()
    with fresh_folder(out) as folder:
        folder.write_all(files)
    return out / "index.html"


def _page(*, spec: StudySpec, **content: Any) -> str:
    templates = _templates()
    script, plotly = (TEMPLATES / "report.js").read_text(encoding="utf-8"), _plotly()
    colors = {arm: style(place)[0] for place, arm in enumerate(spec.arms)}
    # Only these two scripts run, and the page sends no request, whatever a text of the study contains.
    allowed = " ".join(f"'sha256-{_digest(text)}'" for text in (script, plotly))
    page: str = templates.get_template("report.html").render(
        spec=spec, colors=colors, script=script, plotly=plotly, allowed=allowed, **content
    )
    return page


@cache
def _templates() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def shown(value: Any) -> Any:
        return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    templates = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"moment": moment, "duration": duration, "number": number}
    return templates


def _digest(script: str) -> str:
    return b64encode(sha256(script.encode()).digest()).decode()


@cache
def _plotly() -> str:
    """Plotly's JavaScript, from its Python package, which is not imported.

    Raises:
        SetupError: It is not installed.
    """
    found = find_spec("plotly")
    for folder in (found.submodule_search_locations or []) if found is not None else []:
        file = Path(folder) / "package_data" / "plotly.min.js"
        if file.exists():
            return file.read_text(encoding="utf-8").replace("</script", "<\\/script")
    raise SetupError("plotly is not installed, so the report's page can't be written; install it: pip install plotly")
