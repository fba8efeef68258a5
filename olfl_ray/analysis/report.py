"""A study's report: tables for machines, and one self-contained page for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from olfl_ray.analysis import pictures
from olfl_ray.analysis.canvas import GRID, INK, as_svg
from olfl_ray.analysis.files import table_files
from olfl_ray.analysis.tables import ArmResult, baseline_arm, final_table
from olfl_ray.analysis.wording import cells_of, head_of, remarks
from olfl_ray.ledger import StudyState
from olfl_ray.spec import StudySpec
from olfl_ray.storage import Storage, fresh_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["write_report"]

TEMPLATES = Path(__file__).parent / "templates"


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
    files = {f"tables/{name}": content for name, content in table_files(results, state, storage).items()}
    figures = []
    for name, figure, caption in _pictures(spec, state, storage, importances):
        if figure is not None:
            files[f"pictures/{name}.svg"] = as_svg(figure).encode()
            figures.append((as_svg(figure, "none"), caption))
    files["index.html"] = _page(spec, state, results, figures, data).encode()
    with fresh_folder(out) as folder:
        folder.write_all(files)
    return out / "index.html"


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
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    templates = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template("report.html").render(
        spec=spec,
        state=state,
        ended=sum(trial.ended for trial in state.trials.values()),
        data=data,
        head=head_of(results),
        rows=[cells_of(result) for result in results],
        baseline=baseline_arm(spec, state),
        remarks=remarks(results),
        figures=[(Markup(_themed(svg)), caption) for svg, caption in figures],
        settings=json.dumps(spec.model_dump(mode="json", by_alias=True), indent=2, ensure_ascii=False),
    )


def _themed(svg: str) -> str:
    return svg.replace(INK, "var(--ink)").replace(GRID, "var(--grid)")
