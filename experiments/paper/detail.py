"""One study's part of the document: every method compared, what training did, and the settings that made it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.paper.results import Method, Result
from experiments.paper.rows import BASELINE, METHODS, ONLINE, Card
from experiments.paper.text import count, error, interval, line, rate, reached, seconds, short, smoothing, step_time
from experiments.paper.verdicts import Comparison, Comparisons, of_the_claim, verdict
from olfl_ray.analysis import mean, paired

__all__ = ["detail"]

CAPTIONS = {
    "training": "Medians over seeds, bands between the quartiles. Left: error on the selection split. Middle: norm of the "
    "gradient that theta follows (dotted: of the task loss's at the same point). Right, with SGD: the effective learning rate.",
    "losses": "The first fresh seed's learned loss before the first step and at the end, shifted to 0 at its least and scaled "
    "to 1 at the left end (regression: at output 2); a dot marks where it is least.",
}
LEARNED = ("loss.", "meta.")
"""Settings that say something of a method only where it learns."""


def detail(result: Result, card: Card, found: Comparisons, drawn: Path, *, changed: bool) -> Iterator[str]:
    """A study's tables and pictures, line by line.

    Args:
        result: The study's.
        card: The row's.
        found: Its comparisons.
        drawn: Folder of the pictures.
        changed: Whether the row's recipe is another by now.
    """
    tuned = result.settings == "tuned"
    trials = max(method.budget for method in result.methods)
    yield (
        f"**{result.settings.capitalize()} settings, {result.scale} scale"
        + (f", {trials} search trials a method" if tuned else "")
        + f".** Claim: {verdict(result, found)}."
        + (" The recipe has changed since this run." if changed else "")
    )
    yield f"Errors in order: {_order(result) or 'no method has all seeds'}.\n"
    yield from _comparisons(result, card, found)
    yield ""
    yield from _training(result)
    yield ""
    for kind, caption in CAPTIONS.items():
        if (drawn / f"{result.study}-{kind}.svg").exists():
            yield f"![{kind.capitalize()} at {result.settings} settings](pictures/{result.study}-{kind}.svg)\n"
            yield f"*{caption}*\n"
    yield from _settings(result)
    versions = ", ".join(f"{name} {result.versions[name]}" for name in ("olfl_ray", "torch") if name in result.versions)
    yield f"Machine: {'; '.join(map(str, result.machines)) or 'not noted'}. Versions: {versions}; digest {result.digest[:12]}.\n"


def _order(result: Result) -> str:
    means = {
        method.arm: mean(list(method.errors.values()))
        for method in result.methods
        if len(method.errors) == result.seeds
    }
    return " < ".join(METHODS.get(arm, arm) for arm in sorted(means, key=lambda arm: means[arm]))


def _comparisons(result: Result, card: Card, found: Comparisons) -> Iterator[str]:
    """Online against each method; where the claim is not asked, each further method against the task loss and offline."""
    own = of_the_claim(result)
    columns = ("it − task loss", "online − it") if own else ("against", "it − that")
    yield line("method", card.error, "n", *columns, "%", "p", "p, sign flips", "p, Holm", "detectable")
    yield "|---|---|---|---|---|---|---|---|---|---|"
    baseline = result.method(BASELINE)
    for method in result.methods:
        cells = [METHODS.get(method.arm, method.arm), error(method), count(method)]
        if own:
            yield line(*cells, _gain(result, method, baseline), *_tested(found.get((ONLINE, method.arm))))
            continue
        against = [other for arm, other in found if arm == method.arm]
        for other in against:
            yield line(*cells, METHODS[other], *_tested(found[method.arm, other]))
        if not against:
            yield line(*cells, "", *_tested(None))


def _tested(one: Comparison | None) -> list[str]:
    if one is None:
        return [""] * 6
    p = [f"{p:.2g}" for p in (one.p, one.flips, one.holm)]
    return [interval(one.difference), f"{one.percent:+.1f}", *p, f"{one.detectable:.2g}"]


def _gain(result: Result, method: Method, baseline: Method | None) -> str:
    if baseline is None or method.arm == BASELINE or not (result.complete(method) and result.complete(baseline)):
        return ""
    difference = paired(BASELINE, method.errors, baseline.errors)
    return "" if difference is None else interval(difference)


def _training(result: Result) -> Iterator[str]:
    baseline = result.method(BASELINE)
    yield (
        "| method | base steps | seconds a run | ms a step | steps to the baseline's error | effective learning rate "
        "| implicit smoothing |"
    )
    yield "|---|---|---|---|---|---|---|"
    for method in result.methods:
        yield line(
            METHODS.get(method.arm, method.arm),
            f"{method.steps:,}",
            seconds(method, baseline),
            step_time(method),
            reached(method),
            rate(method),
            smoothing(method),
        )


def _settings(result: Result) -> Iterator[str]:
    """What the search chose or the recipe says: of all methods, then what is another's own."""
    methods = result.methods
    common = {
        field: value
        for field, value in methods[0].settings.items()
        if all(method.settings.get(field) == value for method in methods)
    }
    yield "<details><summary>Settings</summary>\n"
    yield f"- all methods: {_listed(common)}"
    for method in methods:
        learns = method.phi != "nothing"
        own = {
            field: value
            for field, value in method.settings.items()
            if field not in common and (learns or not field.startswith(LEARNED))
        }
        ends = ", ".join(f"{number} {state}" for state, number in sorted(method.trials.items()))
        search = ""
        if result.settings == "tuned":
            chosen = ", ".join(sorted(method.searched))
            search = f"; chosen by the search: {chosen or 'nothing, the recipe won'} (trials: {ends or 'none'})"
        yield f"- {METHODS.get(method.arm, method.arm)}: {_listed(own)}{search}"
    yield "\n</details>\n"


def _listed(settings: dict[str, Any]) -> str:
    """What is not off; the defaults of docs/complete.yaml are among them."""
    told = {field: value for field, value in settings.items() if value not in (None, False, "none", {})}
    return ", ".join(f"`{field}` {short(value)}" for field, value in told.items()) or "the same"
