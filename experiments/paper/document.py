"""RESULTS.md: the findings by benchmark, with scale, machine and n; and what was not run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import get_args

from experiments.paper import phenomena, pictures
from experiments.paper.detail import detail
from experiments.paper.results import Result, collect, dataset_of, learns, read_results, write_result
from experiments.paper.rows import (
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
from experiments.paper.text import count, error, line, rate, reached, seconds, smoothing
from experiments.paper.verdicts import CLAIM, JUDGES, Comparison, Comparisons, compare, of_the_claim, verdict
from olfl_ray import study
from olfl_ray.analysis import confirmed
from olfl_ray.analysis.canvas import as_svg
from olfl_ray.errors import SetupError
from olfl_ray.storage import LocalStorage
from olfl_ray.tasks import task_of
from olfl_ray.worker import find_sequence

__all__ = ["write_table"]

Found = Mapping[str, Comparisons]

HEAD = """# The paper's claim, by benchmark

The claim: online loss function learning (AdaLFL) consistently outperforms the task loss and offline loss learning (ML3), on
a diverse range of architectures and data sets. `make paper ROW=...` runs or resumes one benchmark;
`python -m experiments.paper table` writes this page from the results. It quotes no figures of the paper, since only comparisons
within one study are valid.

## Findings
"""

METHOD = """## How it is measured

- **Each benchmark is a study.** All methods of a benchmark share the same seeds, and for each seed the same split, initial
  weights and batches (batches of *train + meta examples* are drawn from more examples). Each method runs on n fresh seeds
  that no search used. The test split is the same for all seeds: intervals cover the other splits, the weights and the
  batches, not the test examples. Only these runs use it, once each, with the weights of the best evaluation on the
  validation split.
- **Fixed** settings are the recipe in `experiments/paper/rows`; a recipe that was not searched has no verdict. **Tuned**
  settings come from a search on the validation split that starts from the recipe, with the same number of trials and the
  same pruner for each method. Methods have different numbers of settings: the task loss has its learning rate, offline two
  more, online three more, so the same number of trials covers less of online's space.
- **Offline (ML3)** is ML3's algorithm with AdaLFL's loss network: the initial loss of online, frozen.
- **Further controls.** *Task loss, train + meta examples*: also trains on the meta examples, which learned losses use (if a
  benchmark's `meta.batch` is train, learned losses do not use them, and this control has more examples). *Task loss, same
  compute*: more steps, so that a run takes about as long as online's with its initialisation. *Online learning rate*: a
  scalar replaces the learned loss, starting from the recipe's learning rate.
- **Statistics.** Mean ± standard deviation; the difference of two methods, paired by seed, with Student's 95 % interval and
  t-test; next to it the exact sign-flip test, which assumes no distribution. A seed is lost if its run diverged or failed,
  or ended no better than a constant prediction. If a method lost seeds, p is that of the sign test, in which such a seed
  counts for the other method; means and differences are of the remaining seeds. Holm's correction covers all benchmarks at
  the same kind of settings: one family for the claim (online − task loss, online − offline, offline − task loss), one for
  online against the further methods, one for transferred losses. Intervals are not corrected, so an interval may exclude 0
  although p is not significant. *Detectable* is the smallest true difference that n seeds detect with power 0.8 at level
  0.05 divided by the family's number of tests.
- **The claim** holds on a benchmark if online is better than the task loss and than offline at level 0.05 after the
  correction. It is contradicted if online is worse than one of them; otherwise, or if online lost a seed, it is not shown. A
  benchmark whose seeds have not all been run is incomplete, and incomplete methods are not compared.
- **Errors** are error rates; for regression, root mean squared errors in the unit that the benchmark names.
- **Steps to the baseline's error**: median over seeds of the first evaluation whose validation error is at most the task
  loss's last one with that seed; in brackets, how many seeds reached it.
- **Effective learning rate**: the learning rate times the norm of the gradient that theta follows, divided by the norm of
  the task loss's gradient, at the first and the last record. With SGD, it is the rate at which the task loss would step as
  far. It is omitted for Adam, which scales gradients itself.
- **Implicit smoothing**: the label smoothing whose loss has its minimum at the same probability of the true class, median
  over seeds and range; 0 means a minimum at 1, as for cross-entropy.
- **Seconds** are those of a full trial, milliseconds those of a base step, both with evaluations. They include the
  initialisation if the trial ran it: online reuses offline's initialisation for the same seed and settings, if there is one,
  so offline's seconds may include it and online's not. All are medians, and include the effect of other load on the machine.
- **Another machine**: a benchmark runs anywhere with the same command. Data sets come from the folder that OLFL_DATA names,
  or are downloaded. A killed run resumes from its home folder (or its `storage`). This document needs only the small files
  in `experiments/paper/results`.
"""


def write_table(out: Path, summary: Path, *, folder: Path, home: study.Home) -> Path:
    """Write `RESULTS.md`, its pictures, one file of results a study, and the summary.

    Stored results stay if their study is not here, and complete ones until the study is complete here.

    Args:
        out: Folder of the document.
        summary: File of the summary.
        folder: Folder of the benchmarks.
        home: The home folder.

    Raises:
        UserError: The benchmarks can't be read, a study or a result is corrupt, or the folder can't be written.
    """
    cards = read_cards(folder)
    try:
        return _write(out, summary, cards, folder, home)
    except OSError as problem:
        raise SetupError(f"--out: {out} can't be written ({problem}); name a folder that can") from None


def _write(out: Path, summary: Path, cards: Mapping[str, Card], folder: Path, home: study.Home) -> Path:
    drawn, kept = LocalStorage(out / "pictures"), out / "results"
    here, older, collected = home.names(), _by_study(kept), set()
    names = {
        study_name(row, settings, scale): (row, settings, scale)
        for row in cards
        for settings in get_args(Settings)
        for scale in get_args(Scale)
    }
    for name, (row, settings, scale) in names.items():
        if name in here:
            result = collect(row, cards[row], settings, scale, name, home)
            begun = any(method.errors for method in result.methods)
            if begun and (result.whole or name not in older or not older[name].whole):
                write_result(result, kept)
                collected.add(name)  # and drawn below; else what was kept stays, with its pictures
    found = _by_study(kept)
    whole = {(result.row, result.settings) for result in found.values() if result.scale == "full"}
    results = [  # a short run stands in until its row is run at full scale
        found[name]
        for name in names
        if name in found and (found[name].scale == "full" or (found[name].row, found[name].settings) not in whole)
    ]
    for result in results:
        if result.study in collected:
            for kind, svg in _pictures(result.study, home):
                drawn.write(f"{result.study}-{kind}.svg", svg.encode())
    recipes = {
        one.study: study_of(one.row, folder=folder, settings=one.settings, scale=one.scale).digest for one in results
    }
    LocalStorage(out).write("RESULTS.md", "\n".join(_page(cards, results, recipes, drawn)).encode())
    LocalStorage(summary.parent).write(summary.name, "\n".join(_summarised(cards, results)).encode())
    return out / "RESULTS.md"


def _by_study(kept: Path) -> dict[str, Result]:
    return {result.study: result for result in read_results(kept)}


def _pictures(name: str, home: study.Home) -> Iterator[tuple[str, str]]:
    spec, state, _ = study.Study.open(name, home=home).loaded()
    storage, dataset = home.storage(spec.name), dataset_of(spec, home)
    classes = dataset.outputs if task_of(dataset.kind).classes else None
    finished = {arm: confirmed(spec, state, arm) for arm in spec.arms}
    curves = {arm: [phenomena.curves_of(storage, trial) for trial in trials] for arm, trials in finished.items()}
    sgd = spec.learner.optimizer.name == "sgd"
    yield "training", as_svg(pictures.training(list(spec.arms), curves, regression=classes is None, sgd=sgd))
    firsts = {arm: trials[0].id for arm, trials in finished.items() if trials and learns(spec, arm)}
    sequences = {arm: find_sequence(f"{spec.name}/{trial}", home.studies) for arm, trial in firsts.items()}
    if sequences:
        yield "losses", as_svg(pictures.learned_losses(sequences, classes))


def _page(
    cards: Mapping[str, Card], results: Sequence[Result], recipes: Mapping[str, str], drawn: LocalStorage
) -> Iterator[str]:
    found = compare(results)
    yield HEAD
    yield from _answer(cards, results, found)
    yield from _summary(cards, results, found)
    yield from _forest(cards, results, found, drawn)
    yield from _online(cards, results)
    yield from _transfer(cards, results, found)
    yield METHOD
    yield "## Benchmarks\n"
    for row, card in cards.items():
        own = [result for result in results if result.row == row]
        if own:
            yield f"### {card.title} (`{row}`)\n"
            yield from (f"- {note}" for note in card.notes)
            if card.notes:
                yield ""
        for result in own:
            yield from detail(
                result, card, found[result.study], drawn.root, changed=recipes[result.study] != result.digest
            )


def _summarised(cards: Mapping[str, Card], results: Sequence[Result]) -> Iterator[str]:
    """What was found, on one screen."""
    yield HEAD
    yield from _answer(cards, results, compare(results))
    yield (
        "Tables, pictures, settings and how it is measured: "
        "[experiments/paper/RESULTS.md](../experiments/paper/RESULTS.md).\n"
    )


def _name(card: Card, result: Result) -> str:
    return card.title + (", short" if result.scale == "short" else "")


def _answer(cards: Mapping[str, Card], results: Sequence[Result], found: Found) -> Iterator[str]:
    """For each pair of methods, on which benchmarks the first has less error, and on which more."""
    for settings in get_args(Settings):
        own = [one for one in results if one.settings == settings and of_the_claim(one)]
        own = [one for one in own if not verdict(one, found[one.study]).startswith(("incomplete", "no verdict"))]
        if not own:
            continue
        yield f"At {settings} settings, on {len(own)} benchmark{'s' if len(own) > 1 else ''}:\n"
        for arm, other in (*CLAIM, *((ONLINE, judge) for judge in JUDGES)):
            told: dict[str, list[str]] = {"better": [], "no difference": [], "worse": []}
            for result in own:
                one = found[result.study].get((arm, other))
                if one is not None:
                    told[one.found].append(f"{_name(cards[result.row], result)} ({one.percent:+.1f} %)")
            said = "; ".join(f"{word} in {', '.join(rows)}" for word, rows in told.items() if rows)
            if said:
                yield f"- **{METHODS[arm]} against {METHODS[other]}**: {said}."
        yield ""


def _summary(cards: Mapping[str, Card], results: Sequence[Result], found: Found) -> Iterator[str]:
    differences = " | ".join(f"{METHODS[arm]} − {METHODS[other]}" for arm, other in CLAIM)
    yield f"| benchmark | settings | scale, steps | n | task loss | offline | online | {differences} | claim |"
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for row, card in cards.items():
        for result in (one for one in results if one.row == row and of_the_claim(one)):
            arms = [result.method(arm) for arm in (BASELINE, OFFLINE, ONLINE)]
            steps = next((method.steps for method in result.methods if method.arm == ONLINE), 0)
            counts = [count(method) for method in arms]
            yield line(
                card.title,
                result.settings,
                f"{result.scale}, {steps:,}",
                counts[0] if len(set(counts)) == 1 else " / ".join(counts),
                *map(error, arms),
                *(_difference(found[result.study].get(pair)) for pair in CLAIM),
                verdict(result, found[result.study]),
            )
    waiting = {
        settings: [
            card.title
            for row, card in cards.items()
            if not any((one.row, one.settings) == (row, settings) for one in results)
        ]
        for settings in get_args(Settings)
    }
    yield "\nDifferences in percent of the second method's error, with Student's 95 % interval; p is Holm's; bold: p < 0.05.\n"
    for settings, rows in waiting.items():
        if rows:
            yield f"Not run at {settings} settings: {'; '.join(rows)}.\n"


def _difference(one: Comparison | None) -> str:
    if one is None:
        return "–"
    low, high = (100 * end / one.level for end in (one.difference.low, one.difference.high))
    mark = "" if one.found == "no difference" else "**"
    return f"{mark}{one.percent:+.1f} %{mark} [{low:+.1f}, {high:+.1f}], p {one.holm:.2g}"


def _forest(cards: Mapping[str, Card], results: Sequence[Result], found: Found, drawn: LocalStorage) -> Iterator[str]:
    for settings in get_args(Settings):
        shown = [
            (_name(cards[result.row], result), pair, found[result.study][pair])
            for result in results
            if result.settings == settings and of_the_claim(result)
            for pair in CLAIM
            if pair in found[result.study]
        ]
        if shown:
            name = f"paper-forest-{settings}.svg"
            drawn.write(name, as_svg(pictures.forest(shown)).encode())
            yield f"![Paired differences at {settings} settings](pictures/{name})\n"
            yield (
                f"*{settings.capitalize()} settings: mean paired difference and Student's 95 % interval; filled: p < 0.05 "
                "after Holm's correction; beyond ±10 % the axis is logarithmic.*\n"
            )


def _online(cards: Mapping[str, Card], results: Sequence[Result]) -> Iterator[str]:
    """What the learned loss does to training, by benchmark."""
    yield "## What online learning does\n"
    yield (
        "| benchmark | settings | effective learning rate, first → last record | implicit smoothing at the end "
        "| steps to the task loss's error | seconds a run, × task loss |"
    )
    yield "|---|---|---|---|---|---|"
    for result in results:
        online, baseline = result.method(ONLINE), result.method(BASELINE)
        if online is not None and online.errors:
            cells = rate(online), smoothing(online), reached(online), seconds(online, baseline)
            yield line(_name(cards[result.row], result), result.settings, *cells)
    yield ""


def _transfer(cards: Mapping[str, Card], results: Sequence[Result], found: Found) -> Iterator[str]:
    """Rows that are not of the claim: whether a loss that was learned elsewhere is worth its use."""
    rows = [result for result in results if not of_the_claim(result)]
    if not rows:
        return
    yield "## Loss transfer\n"
    yield "| benchmark | settings | scale, steps | method | n | error | it − task loss | it − offline (ML3) |"
    yield "|---|---|---|---|---|---|---|---|"
    for result in rows:
        own = found[result.study]
        for method in result.methods:
            yield line(
                cards[result.row].title,
                result.settings,
                f"{result.scale}, {method.steps:,}",
                METHODS.get(method.arm, method.arm),
                count(method),
                error(method),
                *(_difference(own.get((method.arm, other))) for other in (BASELINE, OFFLINE)),
            )
    yield "\nDifferences as above; Holm's correction runs over these tests alone.\n"
