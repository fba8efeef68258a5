"""The page of a benchmark of the family: test errors, paired comparisons, cost, and what the filters saved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from experiments.family.rows import BASELINE, Family, Plan
from olfl_ray.analysis import (
    Difference,
    detectable,
    holm,
    mean,
    number,
    paired,
    sd,
    sign_flips,
    values_on_test,
)
from olfl_ray.ledger import StudyState, TrialState
from olfl_ray.machine import processor
from olfl_ray.records import names
from olfl_ray.storage import LocalStorage
from olfl_ray.study import Home, Study

__all__ = ["comparison_rows", "generations", "write_page"]

FILTERS = ("symbolic", "rejection", "gradient")
NOTES = """A *pass* is a forward pass of the base learner in training mode with gradients. They are counted in one search trial of
each method; the number of trials follows from it, so that each search has the same number of passes. Evaluations are not
counted, and neither is what a pass costs besides (the backward pass, the loss network). Each method's winner runs on the same
fresh seeds, with the same splits and initial weights: EvoMAL's with the weights that the winner learned, ML3's and AdaLFL's
with weights learned again. Differences are to the task loss, paired by seed, with Student's 95 % interval; p is Holm's over
the methods, of the paired t-test and of the exact sign-flip test. *Detectable*: the smallest true difference that a test finds
with power 0.8 at level 0.05 divided by the number of methods. Wall clock: from the first proposal of a search to its last
end, with other load on the machine. A candidate that a filter dropped cost no trial (docs/symbolic.md)."""


def write_page(row: str, family: Family, plans: Sequence[Plan], home: Home, folder: Path) -> Path:
    """Write `ROW.md` from the studies as far as they were run.

    Args:
        row: Name of the benchmark.
        family: The benchmark.
        plans: Its studies.
        home: The home folder with the studies.
        folder: Folder of the page.
    """
    found = {plan.method: Study.open(plan.spec.name, home=home).loaded()[:2] for plan in plans}
    metric = names.on_test(plans[0].spec.search.metric)
    values = {method: values_on_test(spec, state, method, metric) for method, (spec, state) in found.items()}
    lines = [
        f"# {family.title}",
        "",
        f"`python -m experiments.family run {row}` ran this: {family.passes:,} base-learner passes for the search of each method, "
        f"on {processor()}, {plans[0].spec.concurrency} trials at a time.",
        "",
        *comparison_rows({plan.method: plan.title for plan in plans}, values, metric),
        "",
        "## Cost",
        "",
        "| method | passes of a trial | search trials | passes of the search | diverged or failed | wall clock of the search |",
        "|---|---|---|---|---|---|",
    ]
    for plan in plans:
        state = found[plan.method][1]
        trials = state.search_trials(plan.method)
        lost = sum(trial.state in ("diverged", "failed") for trial in trials)
        cells = [plan.title, f"{plan.passes:,}", str(len(trials)), f"{plan.passes * len(trials):,}", str(lost)]
        lines.append(f"| {' | '.join([*cells, f'{_elapsed(trials):.0f} s'])} |")
    for plan in plans:
        if rows := generations(found[plan.method][1], plan.method, _population(plan)):
            head = "| generation | candidates | trials | " + " | ".join(FILTERS) + " |"
            lines += [
                "",
                f"## {plan.title}: candidates that cost no trial",
                "",
                head,
                "|---" * (3 + len(FILTERS)) + "|",
            ]
            lines += [f"| {' | '.join(map(str, cells))} |" for cells in rows]
    lines += ["", "## Winners", ""]
    for plan in plans:
        best = found[plan.method][1].best(plan.method, plan.spec.search.goal)
        settings = (
            "none" if best is None else ", ".join(f"{key} = {_short(value)}" for key, value in best.params.items())
        )
        lines.append(f"- **{plan.title}**: {settings}")
    lines += ["", "## How it is measured", "", NOTES, ""]
    LocalStorage(folder).write(f"{row}.md", "\n".join(lines).encode())
    return folder / f"{row}.md"


def comparison_rows(titles: dict[str, str], values: dict[str, dict[int, float]], metric: str) -> list[str]:
    """The table of test errors: methods by their mean, each compared with the task loss.

    Args:
        titles: Name of each method.
        values: By method the metric by fresh seed.
        metric: The metric.
    """
    against: dict[str, Difference] = {}
    for method, own in values.items():
        if method != BASELINE and (one := paired(BASELINE, own, values[BASELINE])) is not None:
            against[method] = one
    corrected = dict(zip(against, holm([one.p for one in against.values()]), strict=True))
    flips = {
        method: sign_flips(
            [values[method][seed] - values[BASELINE][seed] for seed in values[method] if seed in values[BASELINE]]
        )
        for method in against
    }
    corrected_flips = dict(zip(flips, holm(list(flips.values())), strict=True))
    lines = [
        f"| method | {metric}, mean ± sd | n | difference to the task loss [95 % CI] | p (t) | p (sign flips) | detectable |",
        "|---|---|---|---|---|---|---|",
    ]
    for method, title in titles.items():
        own_values = list(values[method].values())
        spread = "–" if len(own_values) < 2 else f"{number(mean(own_values))} ± {number(sd(own_values))}"
        cells = [title, spread, str(len(own_values))]
        if (one_ := against.get(method)) is None:
            cells += [""] * 4
        else:
            least = detectable(one_.sd, one_.n, level=0.05 / len(against))
            interval = f"{number(one_.mean, '+')} [{number(one_.low, '+')}, {number(one_.high, '+')}]"
            cells += [interval, f"{corrected[method]:.3f}", f"{corrected_flips[method]:.3f}", number(least)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def generations(state: StudyState, arm: str, population: int) -> list[list[int]]:
    """For each generation of an evolution its number, its candidates, its trials, and what each filter dropped.

    Each individual of a generation is either a trial or dropped, so a generation ends after `population` of them.
    """
    counts: list[Counter[str]] = []
    seen = 0
    for trial in state.search_trials(arm) if population else []:
        for name in (*(str(one["filter"]) for one in trial.filtered), "trial"):
            if seen % population == 0:
                counts.append(Counter())
            counts[-1][name] += 1
            seen += 1
    return [
        [index, found.total(), found["trial"], *(found[name] for name in FILTERS)] for index, found in enumerate(counts)
    ]


def _population(plan: Plan) -> int:
    sampler = plan.spec.search.sampler
    return int((sampler.model_extra or {})["population"]) if sampler.name == "evolution" else 0


def _elapsed(trials: Sequence[TrialState]) -> float:
    ends = [trial.ended_at for trial in trials if trial.ended_at is not None]
    return max(ends) - min(trial.proposed_at for trial in trials) if ends else 0.0


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else f"`{value}`" if isinstance(value, str) else str(value)
