"""docs/paper.md: every row that was run, at which scale, on what machine, with n; and those that were not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import get_args

from olfl_ray import study
from olfl_ray.analysis import Difference, confirmed, mean, paired, sd
from olfl_ray.analysis.canvas import as_svg
from olfl_ray.ledger import StudyState
from olfl_ray.paper import phenomena, pictures
from olfl_ray.paper.results import Method, Result, classes_of, collect, learns, read_results, write_result
from olfl_ray.paper.rows import (
    BASELINE,
    METHODS,
    OFFLINE,
    ONLINE,
    Card,
    Scale,
    Settings,
    read_cards,
    study_name,
    study_of,
)
from olfl_ray.paper.verdicts import CLAIM, Comparison, Comparisons, compare, verdict
from olfl_ray.spec import StudySpec
from olfl_ray.trial import find_sequence

__all__ = ["write_table"]

Found = Mapping[str, Comparisons]

HEAD = """# The paper's claim, row by row

The claim: online loss function learning (AdaLFL) consistently outperforms the task loss and offline loss learning (ML3), on
a diverse range of architectures and data sets. Written by `olfl paper table` from what was run; a row is run again by
`olfl paper run ROW`. No figure of the paper stands here: only comparisons within one study count.
"""

METHOD = """## How it is measured

- **A row is a study.** All methods of a row have the same seeds, and of each seed the same split, initial weights and
  batches (of *train + meta rows* the batches come from more rows). Each is run on n fresh seeds that no search saw. The test
  split is the same rows for all seeds: intervals are over splits of the other rows, weights and batches, not over test rows.
  It is touched by these runs alone, once each, with the weights of the best evaluation on the selection split.
- **Fixed** settings are the recipe of `sweeps/paper`; **tuned** ones come from a search on the selection split, with the
  same number of trials and the same pruner for each method. Methods have more settings than one another: the task loss has
  its learning rate, offline two more, online three more.
- **Offline (ML3)** is ML3's algorithm with AdaLFL's loss network: the initial loss of online, frozen.
- **Further judges.** *Task loss, train + meta rows*: trained on the meta rows, too, which learned losses see (where a row's
  `meta.batch` is train, they do not, and it has more rows than they). *Task loss, same compute*: as many more steps as
  online takes longer, initialisation included; how many is in the table, and what a step took beside it. *Online learning
  rate*: a scalar in the learned loss's place, from the recipe's learning rate on.
- **Statistics.** Mean ± standard deviation; a method minus another, paired by seed, with Student's 95 % interval and t-test;
  the exact test by sign flips, which supposes no distribution, stands beside it. Holm's correction runs over all rows at the
  same kind of settings: one family for the claim (online − task loss, online − offline, offline − task loss), one for online
  against the further methods. Intervals are not corrected, so one may leave out 0 where p does not pass; nor is *detectable*,
  the smallest true difference that n seeds find with power 0.8 at level 0.05.
- **The claim** holds in a row where online is better than the task loss and than offline at level 0.05 after the correction,
  is contradicted where it is worse than one of them, else it is not shown. Seeds that diverged or failed have no error and
  are counted; where online lost one, the claim is not shown. A row whose seeds have not all been run is incomplete.
- **Errors** are error rates; of regressions, root mean squared errors in the target's own units.
- **Steps to the baseline's error**: median over seeds of the first evaluation whose selection error is at most the task
  loss's least one with that seed; in brackets, how many seeds got there.
- **Effective learning rate**: the learning rate times the norm of the gradient that theta follows over that of the task
  loss's, at the first and the last record: with SGD, the rate at which the task loss would step as far. With Adam, which
  scales gradients itself, it says nothing, and is left out.
- **Implicit smoothing**: label smoothing whose loss is least at the same probability of the true class, median over seeds;
  0: least at 1, as cross-entropy.
- **Times** are those of each method's fastest record, evaluations included, initialisation not: other work on the machine
  only slows.
"""


def write_table(docs: Path, *, folder: Path, home: study.Home) -> Path:
    """Write `paper.md`, its pictures, and one file of results a study; results of studies that are not here are kept.

    Args:
        docs: Folder of the document.
        folder: Folder of the rows.
        home: The home folder.

    Raises:
        UserError: The rows can't be read, or a study here is damaged.
    """
    cards = read_cards(folder)
    drawn, kept = docs / "pictures", docs / "paper"
    for place in (drawn, kept):
        place.mkdir(parents=True, exist_ok=True)
    here = home.names()
    order: list[str] = []
    for row, card in cards.items():
        for settings in get_args(Settings):
            for scale in get_args(Scale):
                name = study_name(row, settings, scale)
                order.append(name)
                if name in here:
                    _gather(row, card, settings, scale, name, home, drawn, kept)
    found = {result.study: result for result in read_results(kept)}
    whole = {(result.row, result.settings) for result in found.values() if result.scale == "full"}
    results = [  # a short run stands in until its row is run at full scale
        found[name]
        for name in order
        if name in found and (found[name].scale == "full" or (found[name].row, found[name].settings) not in whole)
    ]
    recipes = {
        one.study: study_of(one.row, folder=folder, settings=one.settings, scale=one.scale).digest for one in results
    }
    page = docs / "paper.md"
    page.write_text("\n".join(_page(cards, results, recipes, drawn)), encoding="utf-8")
    return page


def _gather(
    row: str, card: Card, settings: Settings, scale: Scale, name: str, home: study.Home, drawn: Path, kept: Path
) -> None:
    """Keep the results of a study here and draw its pictures, if a method has results."""
    spec, state = study.spec_of(name, home=home), study.status(name, home=home)
    result = collect(row, settings, scale, spec, state, home, claim=card.claim)
    if not any(method.errors for method in result.methods):
        return
    write_result(result, kept)
    for kind, svg in _pictures(spec, state, home):
        (drawn / f"{name}-{kind}.svg").write_text(svg, encoding="utf-8")


def _pictures(spec: StudySpec, state: StudyState, home: study.Home) -> Iterator[tuple[str, str]]:
    storage = home.storage(spec.name)
    finished = {arm: confirmed(spec, state, arm) for arm in spec.arms}
    curves = {arm: [phenomena.curves_of(storage, trial) for trial in trials] for arm, trials in finished.items()}
    yield "training", as_svg(pictures.training(list(spec.arms), curves))
    firsts = {arm: trials[0].id for arm, trials in finished.items() if trials and learns(spec, arm)}
    sequences = {arm: find_sequence(f"{spec.name}/{trial}", home.studies) for arm, trial in firsts.items()}
    if sequences:
        yield "losses", as_svg(pictures.learned_losses(sequences, classes_of(spec, home)))


def _page(
    cards: Mapping[str, Card], results: Sequence[Result], recipes: Mapping[str, str], drawn: Path
) -> Iterator[str]:
    found = compare(results)
    yield HEAD
    for settings in get_args(Settings):
        own = [result for result in results if result.settings == settings]
        yield from _summary(settings, cards, own, found, drawn)
    yield METHOD
    yield "## Rows\n"
    for row, card in cards.items():
        yield f"### {card.title} (`{row}`)\n"
        yield from (f"- {note}" for note in card.notes)
        if card.notes:
            yield ""
        own = [result for result in results if result.row == row]
        for result in own:
            yield from _detail(result, found[result.study], recipes, drawn)
        if not own:
            yield "Not run.\n"


def _summary(
    settings: str, cards: Mapping[str, Card], results: Sequence[Result], found: Found, drawn: Path
) -> Iterator[str]:
    yield f"## {settings.capitalize()} settings\n"
    verdicts = {result.study: verdict(result, found[result.study]) for result in results}
    for scale in get_args(Scale):
        told = [verdicts[result.study] for result in results if result.scale == scale and result.claim]
        counts = {
            word: sum(one.startswith(word) for one in told)
            for word in ("holds", "contradicted", "not shown", "incomplete")
        }
        said = ", ".join(f"{word} in {count}" for word, count in counts.items())
        yield f"Rows run at {scale} scale: {len(told)}. The claim: {said}.\n"
    differences = " | ".join(f"{METHODS[arm]} − {METHODS[other]}" for arm, other in CLAIM)
    yield f"| row | scale, steps | n | task loss | offline | online | {differences} | claim |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for row, card in cards.items():
        own = [result for result in results if result.row == row]
        for result in own:
            errors = [_error(result.method(arm)) for arm in (BASELINE, OFFLINE, ONLINE)]
            compared = [_difference(found[result.study].get(pair)) for pair in CLAIM]
            steps = next((method.steps for method in result.methods if method.arm == ONLINE), 0)
            size = f"{result.scale}, {steps:,}"
            yield _line(card.title, size, _count(result.method(ONLINE)), *errors, *compared, verdicts[result.study])
        if not own:
            yield _line(card.title, "not run", *[""] * 8)
    yield "\nDifferences with 95 % intervals; p is Holm's.\n"
    shown = [
        (f"{cards[result.row].title}{', short' if result.scale == 'short' else ''}", pair, found[result.study][pair])
        for result in results
        for pair in CLAIM
        if pair in found[result.study]
    ]
    if shown:
        name = f"paper-forest-{settings}.svg"
        (drawn / name).write_text(as_svg(pictures.forest(shown)), encoding="utf-8")
        yield f"![Paired differences at {settings} settings](pictures/{name})\n"


def _detail(result: Result, found: Comparisons, recipes: Mapping[str, str], drawn: Path) -> Iterator[str]:
    errors = {
        method.arm: mean(list(method.errors.values()))
        for method in result.methods
        if len(method.errors) == result.seeds
    }
    ranking = " < ".join(METHODS.get(arm, arm) for arm in sorted(errors, key=lambda arm: errors[arm]))
    trials = max(sum(method.trials.values()) for method in result.methods)
    search = f"{trials} search trials a method" if result.settings == "tuned" else "nothing searched"
    yield f"**{result.settings.capitalize()} settings, {result.scale} scale** ({search}; digest {result.digest[:12]}). "
    if recipes[result.study] != result.digest:
        yield "The recipe has changed since this run. "
    yield f"Claim: {verdict(result, found)}. Errors in order, of methods with all seeds: {ranking or 'none'}.\n"
    yield from _comparisons(result, found)
    yield ""
    yield from _phenomena(result)
    yield ""
    yield f"{'Found by the search' if result.settings == 'tuned' else 'The recipe'}:\n"
    for method in result.methods:
        told = ", ".join(f"`{field}` {_short(value)}" for field, value in sorted(method.settings.items()))
        ends = ", ".join(f"{count} {state}" for state, count in sorted(method.trials.items()))
        yield f"- {METHODS.get(method.arm, method.arm)}: {told} (search trials: {ends or 'none'})"
    yield ""
    yield f"Machine: {'; '.join(map(str, result.machines)) or 'not noted'}.\n"
    for kind, text in (("training", "Training"), ("losses", "Learned losses, early and late")):
        if (drawn / f"{result.study}-{kind}.svg").exists():
            yield f"![{text}](pictures/{result.study}-{kind}.svg)\n"


def _comparisons(result: Result, found: Comparisons) -> Iterator[str]:
    yield "| method | test error | n | it − task loss | online − it | % | p | p, sign flips | p, Holm | detectable |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    baseline = result.method(BASELINE)
    for method in result.methods:
        name = METHODS.get(method.arm, method.arm)
        one = found.get((ONLINE, method.arm))
        gain = paired(BASELINE, method.errors, baseline.errors) if baseline not in (None, method) else None
        first = name, _error(method), _count(method), _interval(gain) if gain is not None else ""
        if one is None:
            yield _line(*first, *[""] * 6)
            continue
        yield _line(
            *first,
            _interval(one.difference),
            f"{100 * one.difference.mean / one.level:+.1f}",
            *(f"{p:.2g}" for p in (one.difference.p, one.flips, one.holm)),
            f"{one.difference.detectable:.2g}",
        )


def _phenomena(result: Result) -> Iterator[str]:
    baseline = result.method(BASELINE)
    yield "| method | base steps | steps to the baseline's error | ms a step | effective learning rate | implicit smoothing |"
    yield "|---|---|---|---|---|---|"
    for method in result.methods:
        yield _line(
            METHODS.get(method.arm, method.arm),
            f"{method.steps:,}",
            _reached(method),
            _time(method, baseline),
            "" if method.rate is None else f"{method.rate[0]:.2g} → {method.rate[1]:.2g}",
            f"{median(method.smoothing):.2g}" if method.smoothing else "",
        )


def _line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _error(method: Method | None) -> str:
    if method is None or not method.errors:
        return "–"
    values = list(method.errors.values())
    return f"{mean(values):.4g}" + (f" ± {sd(values):.2g}" if len(values) > 1 else "")


def _count(method: Method | None) -> str:
    if method is None:
        return "–"
    if method.unrunnable:
        return f"0 (search trials: {', '.join(method.trials)})"
    lost = ", ".join(f"{count} {state}" for state, count in sorted(method.lost.items()))
    return f"{len(method.errors)}" + (f" ({lost})" if lost else "")


def _difference(one: Comparison | None) -> str:
    if one is None:
        return "–"
    return f"{_interval(one.difference)}, p {one.holm:.2g}"


def _interval(one: Difference) -> str:
    return f"{one.mean:+.3g} [{one.low:+.3g}, {one.high:+.3g}]"


def _reached(method: Method) -> str:
    """The median over all seeds; those that never got there count as later than any that did."""
    steps = sorted(math.inf if step is None else step for step in method.reached.values())
    there = sum(map(math.isfinite, steps))
    if not there:
        return f"never ({there} of {len(steps)})" if steps else ""
    middle = median(steps)
    return (f"{middle:,.0f}" if math.isfinite(middle) else "not by half") + f" ({there} of {len(steps)})"


def _time(method: Method, baseline: Method | None) -> str:
    if method.step_ms is None:
        return ""
    ratio = f" ({method.step_ms / baseline.step_ms:.2g} ×)" if baseline is not None and baseline.step_ms else ""
    return f"{method.step_ms:.3g}{ratio}"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
