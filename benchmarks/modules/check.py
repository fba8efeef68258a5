"""Random modules, learned losses and optimizers: the engine's step compared with a plain torch loop's, thousands per command.

    make modules COUNT=5000 SEED=0

Half of the modules are ordinary, half have unusual features (gradients in forward, hooks, no_grad, state in attributes...). Each
estimator must return the plain loop's theta, buffers, optimizer state and gradient of phi, or refuse with a SpecError;
anything else is wrong, is printed with its seed, and makes the exit code 1.
"""

from __future__ import annotations

import argparse
import collections
import logging
import multiprocessing
import platform
import random
import re
import sys
import time
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from support.plain_loop import WAYS, Outcome, check, check_learner

Line = tuple[int, bool, str, list[Outcome]]


def one(seed: int, others: int) -> Line:
    """`auto` and some other estimators for one seed, and for every third seed two steps of a learner."""
    odd, rng = seed % 2 == 1, random.Random(seed)
    try:
        words, _, outcomes = check(
            seed, odd=odd, ways=["auto", *rng.sample([way for way in WAYS if way != "auto"], others)]
        )
        if rng.random() < 1 / 3:
            outcomes.append(check_learner(seed, odd=odd, way=rng.choice(list(WAYS))))
    except Exception as error:  # of the reference or the generator
        return seed, odd, "", [Outcome("reference", "wrong", f"{type(error).__name__}: {error}")]
    return seed, odd, words, outcomes


def quiet() -> None:
    """One thread per process, and no warnings of the engine about its choices."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)


def reason(why: str) -> str:
    """A refusal without its details."""
    found = re.search(r"\((.*?)\); use|: (its .*?)[;(]|Error: (.*?)[;.]", why)
    text = next((part for part in found.groups() if part), why) if found else why
    return re.sub(r"'[^']*'|[\d.]+\w*", "...", text)[:110]


def positive(text: str) -> int:
    """A number of at least 1."""
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def main() -> int:
    """Run, print, and return the exit code: 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=positive, default=5000, help="Modules.")
    parser.add_argument("--seed", type=int, default=0, help="The first module's seed.")
    parser.add_argument("--processes", type=positive, default=2, help="Number of processes, with one thread each.")
    parser.add_argument(
        "--others",
        type=int,
        choices=range(len(WAYS)),
        default=2,
        help="Number of estimators besides auto for each module, drawn by its seed.",
    )
    given = parser.parse_args()
    began = time.monotonic()
    verdicts: collections.Counter[tuple[str, bool, str]] = collections.Counter()
    reasons: collections.Counter[str] = collections.Counter()
    wrong = 0
    seeds = range(given.seed, given.seed + given.count)
    with multiprocessing.get_context("spawn").Pool(given.processes, quiet) as pool:
        for done, (seed, odd, words, outcomes) in enumerate(
            pool.imap_unordered(partial(one, others=given.others), seeds, chunksize=8), 1
        ):
            bad = [f"{outcome.way}: {outcome.why}" for outcome in outcomes if outcome.verdict == "wrong"]
            if bad:
                wrong += 1
                print(
                    f"WRONG seed {seed} ({'odd' if odd else 'ordinary'}): {words} | {'; '.join(bad)[:400]}", flush=True
                )
            unclear = [f"{outcome.way}: {outcome.why}" for outcome in outcomes if outcome.verdict == "undetermined"]
            if unclear:
                print(f"undetermined seed {seed}: {'; '.join(unclear)[:300]}", flush=True)
            for outcome in outcomes:
                verdicts[outcome.way.split(",")[0], odd, outcome.verdict] += 1
                if outcome.verdict == "refused":
                    reasons[f"{'odd' if odd else 'ordinary'}: {reason(outcome.why)}"] += 1
            if done % 500 == 0:
                print(f"{done} of {given.count} modules, {wrong} wrong, {time.monotonic() - began:.0f} s", flush=True)
    print(
        f"\n{given.count} modules from seed {given.seed}, torch {torch.__version__}, Python {platform.python_version()}"
    )
    print(f"{sum(verdicts.values())} comparisons, {wrong} modules wrong, {time.monotonic() - began:.0f} s\n")
    kinds = ("equal", "refused", "undetermined", "wrong")
    heads = " | ".join(f"{which}: {' | '.join(kinds)}" for which in ("ordinary", "odd"))
    print(f"| way | {heads} |\n|{'---|' * (1 + 2 * len(kinds))}")
    for way in (*WAYS, "learner", "reference"):
        row = [verdicts[way, odd, verdict] for odd in (False, True) for verdict in kinds]
        if any(row):
            print(f"| {way} | {' | '.join(map(str, row))} |")
    print("\n| refused because | times |\n|---|---|")
    for why, times in reasons.most_common():
        print(f"| {why} | {times} |")
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
