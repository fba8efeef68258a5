"""Does the test suite detect a changed line? Random single mutations of the core, each run against its package's fast tests.

`make mutants PACKAGE=ledger [COUNT=150] [SEED=1]`. It works on a copy of the tree, in one process: each mutant runs in a
fork that has the libraries loaded already, with only the tests that reach the mutated statement, the fastest first.
"""

from __future__ import annotations

import argparse
import builtins
import contextlib
import importlib.util
import itertools
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from mutations import Mutation, changes, mutations, watched

CORE = {
    "ledger": ["rules", "commits", "log"],
    "storage": ["lease"],
    "sweep": ["conductor"],
    "search": ["arm"],
    "worker": ["session"],
    "tracking": ["mlflow/runs", "sink"],
    "spec": ["points"],
    "data": ["batches"],
    "trial": ["run", "state"],
    "engine": ["estimators/unroll", "optimizers", "estimators/exact"],
    "losses": ["slopes"],
    "analysis": ["statistics", "tables"],
}
"""Package -> its files whose errors would lose data or give a wrong number. None of these packages' tests starts Ray."""
FAST = {
    "sweep": ["sweep/test_conductor.py", "sweep/test_pruning_and_turns.py"],
    "search": ["search", "sweep/test_pruning_and_turns.py"],
    "spec": ["spec/test_points.py", "spec/test_bad_specs.py"],
    "data": [
        "data/test_draws_and_scales.py",
        "data/test_batches.py",
        "data/test_standardize.py",
        "data/test_table_files.py",
        "data/test_families.py",
    ],
    "trial": [
        "trial/test_trial_records.py",
        "trial/test_trial_run.py",
        "trial/test_gradients.py",
        "trial/test_loss_buffers.py",
    ],
    "engine": [
        "engine/test_optimizers.py",
        "engine/test_optimizers_in_detail.py",
        "engine/test_modes_agree.py",
        "engine/test_estimators.py",
        "engine/test_learnables.py",
        "engine/test_edge_cases.py",
    ],
    "losses": ["losses/test_closed_form.py", "losses/test_activation.py"],
    "tracking": [
        "tracking/test_run_content.py",
        "tracking/test_identity.py",
        "tracking/test_sink.py",
        "tracking/test_study_run.py",
        "tracking/test_models.py",
    ],
}
"""Package -> the tests that take seconds and test its core, as paths in tests/; its own folder if it is not listed."""
SLOW = {
    "ledger": "s3",
    "storage": "s3",
    "search": "gp or cmaes",
    "engine": "three_dimensions or residual or lenet or frozen or shared or lstm",
}
"""Package -> cases that faster ones represent: other storages, samplers and networks."""
IMPORTED = "import"
"""Represents all tests of a package: the statement runs when the module is imported."""

BROKEN = 99
"""Exit code of a fork in which something other than a test failed."""
Hits = dict[tuple[str, int], set[str]]
"""(File, line of a statement) -> tests that run it; what a fixture runs counts for every test of its file."""


class Watch:
    """A pytest plugin: which test runs which statement, how long each takes, and which fail."""

    def __init__(self) -> None:
        self.hits: Hits = defaultdict(set)
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []
        self._now = IMPORTED
        builtins.mutants_hit = self.hit  # type: ignore[attr-defined]

    def hit(self, file: str, line: int) -> None:
        """Record that a statement runs."""
        self.hits[file, line].add(self._now)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Iterator[None]:
        self._now = item.nodeid.partition("::")[0]
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        self._now = item.nodeid
        return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self.failed.append(report.nodeid)


def run_tests(
    tree: Path, tests: list[str], options: list[str], seconds: float, *, whole: bool = False
) -> tuple[int | None, Any]:
    """Run tests in a fork: all of them (`whole`), or up to the first failure.

    Args:
        tree: The copy.
        tests: Files or names of tests.
        options: Options of pytest that select among them.
        seconds: Limit of processor time, as wall-clock time means little on a busy machine; of wall-clock time ten times that.
        whole: Whether to continue after a failure.

    Returns:
        pytest's exit code, None after a timeout; and what the plugin recorded.
    """
    log = tree / "pytest.out"
    seen = tree / "seen.pickle"
    seen.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 9))
        code = BROKEN
        try:
            with log.open("wb") as output:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
            os.chdir(tree)
            os.environ["PYTHONPATH"] = str(tree)
            sys.path[:] = [str(tree), *(path for path in sys.path if not (Path(path) / "olfl_ray").is_dir())]
            sys.dont_write_bytecode = not whole
            from hypothesis import Phase, settings

            plain = settings(
                derandomize=True,
                database=None,
                deadline=None,
                phases=[Phase.explicit, Phase.generate],
                print_blob=False,
            )
            settings.register_profile("mutants", plain)
            settings.load_profile("mutants")
            watch = Watch()
            plain_run = ["-q", "--assert=plain", "-p", "no:cacheprovider", *([] if whole else ["-x"])]
            code = int(pytest.main([*plain_run, *options, *tests], plugins=[watch]))
            found = [name for name, module in list(sys.modules.items()) if "site-packages" in _origin(module)]
            seen.write_bytes(pickle.dumps((dict(watch.hits), watch.seconds, watch.failed, found)))
        finally:
            os._exit(code)
    end = time.monotonic() + 10 * seconds
    status: int | None = None
    while status is None and time.monotonic() < end:
        done, raw = os.waitpid(child, os.WNOHANG)
        if done:
            status = os.waitstatus_to_exitcode(raw)
        else:
            time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # processes that the tests left, or the fork itself: all of one session
    if status is None:
        os.waitpid(child, 0)
    if status == BROKEN:
        raise SystemExit(log.read_text(errors="replace"))
    status = None if status == -signal.SIGXCPU else status
    return status, pickle.loads(seen.read_bytes()) if seen.exists() else None


def _origin(module: Any) -> str:
    return str(getattr(module, "__file__", None) or "")


def copy_tree(root: Path, tree: Path) -> None:
    """Copy every file of the working tree that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        check=True,
        capture_output=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (root / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, tree / name)


def preload(names: list[str]) -> None:
    """Import the tests' libraries here, once for all forks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            try:
                importlib.import_module(name)
            except Exception:  # a module that can't be imported by its name is imported by each fork
                continue


def selected(mutation: Mutation, file: str, hits: Hits, seconds: dict[str, float]) -> list[str] | None:
    """The tests that run the mutated statement, the fastest first; None: all, as it runs when the module is imported."""
    names = hits.get((file, mutation.line), set()) if mutation.inside else {IMPORTED}
    if IMPORTED in names:
        return None
    tests = [test for test in seconds if test in names or test.partition("::")[0] in names]
    return sorted(tests, key=lambda test: seconds[test])


class Package:
    """The core files of a package, in the copy, with its tests."""

    def __init__(self, tree: Path, name: str) -> None:
        self.tree, self.tests = tree, [f"tests/{path}" for path in FAST.get(name, [name])]
        self.files = [tree / "olfl_ray" / name / f"{stem}.py" for stem in CORE[name]]
        self.options = ["-k", f"not ({SLOW[name]})"] if name in SLOW else []
        self.hits: Hits = {}
        self.seconds: dict[str, float] = {}

    def baseline(self) -> None:
        """Find out which test runs which line. Tests that fail on the unchanged code, being slowed down, are left out."""
        sources = {file: file.read_bytes() for file in self.files}
        for file, source in sources.items():
            file.write_text(watched(source, str(file)), encoding="utf-8")
        status, seen = run_tests(self.tree, self.tests, self.options, 1800, whole=True)
        for file, source in sources.items():
            file.write_bytes(source)
        if status not in (0, 1) or seen is None:
            tail = (self.tree / "pytest.out").read_text(errors="replace")[-3000:]
            raise SystemExit(f"{self.tests} does not run:\n{tail}")
        self.hits, seconds, failed, libraries = seen
        self.seconds = {test: spent for test, spent in seconds.items() if test not in failed}
        for test in failed:
            print(f"left out, as it fails unchanged: {test}", file=sys.stderr, flush=True)
            self.options += ["--deselect", test]
        preload(libraries)

    def found(self, file: Path, mutation: Mutation) -> str:
        """The test that fails on a mutation; empty if none does."""
        tests = selected(mutation, str(file), self.hits, self.seconds)
        if tests == []:
            return ""
        limit = 60 + 5 * sum(self.seconds[test] for test in (self.seconds if tests is None else tests))
        source = file.read_bytes()
        Path(importlib.util.cache_from_source(str(file))).unlink(missing_ok=True)
        file.write_bytes(mutation.applied(source))
        try:
            # All by their files: a constant that is part of a test's name changes the name.
            status, seen = run_tests(self.tree, self.tests if tests is None else tests, self.options, limit)
        finally:
            file.write_bytes(source)
        if status is None:
            return "no end in time"
        return "" if status == 0 else (seen and "".join(seen[2][:1])) or f"pytest ended with {status}"


Drawn = tuple[int, str, str, Mutation]
"""Seed, package, file and mutation."""


def draw(root: Path, packages: list[str], count: int, seed: int, only: str) -> list[Drawn]:
    """Draw `count` mutations at random, all equally likely."""
    files = [(package, f"{package}/{stem}.py") for package in packages for stem in CORE[package]]
    sources = {file: (root / "olfl_ray" / file).read_bytes() for _, file in files}
    everything = [
        (seed, package, file, mutation)
        for package, file in files
        for mutation in mutations(sources[file])
        if only in mutation.before
    ]
    random.Random(seed).shuffle(everything)
    valid = (drawn for drawn in everything if changes(sources[drawn[2]], drawn[3]))
    return list(itertools.islice(valid, count))


def measure(root: Path, name: str, drawn: list[Drawn]) -> list[tuple[Drawn, str]]:
    """What fails on each mutation of a package, in a copy of the tree."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        tree = Path(scratch).resolve()
        shutil.copytree(root, tree, dirs_exist_ok=True)
        package, results = Package(tree, name), []
        package.baseline()
        for one in drawn:
            seed, _, file, mutation = one
            by = package.found(tree / "olfl_ray" / file, mutation)
            results.append((one, by))
            line = f"{seed} | {file}:{mutation.line} | {mutation.after} | {by or 'NOT FOUND'}"
            print(line, file=sys.stderr, flush=True)
        return results


def report(seed: int, listed: int, results: list[tuple[Drawn, str]]) -> None:
    """Print the results by file, and a table of the mutations that were not detected."""
    tried = Counter(file for (_, _, file, _), _ in results)
    seen = Counter(file for (_, _, file, _), by in results if by)
    print(f"\nseed {seed}: {sum(seen.values())} of {len(results)} found; {listed} more are listed as equivalent")
    print("\n| file | found | tried |\n|---|---|---|")
    for file in sorted(tried):
        print(f"| {file} | {seen[file]} | {tried[file]} |")
    survivors = [(file, mutation) for (_, _, file, mutation), by in results if not by]
    if survivors:
        print("\n| not found | from | to |\n|---|---|---|")
    for file, mutation in survivors:
        print(f"| {file}:{mutation.line} | `{mutation.before}` | `{mutation.after}` |")


def main() -> None:
    """Measure, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", nargs="+", choices=["all", *CORE])
    parser.add_argument("--count", type=int, default=150, help="mutations a seed")
    parser.add_argument(
        "--seed", type=int, nargs="+", default=[1], help="several share the runs of the unchanged tests"
    )
    parser.add_argument("--only", default="", help="mutate only lines that contain this text")
    parser.add_argument("--jobs", type=int, default=1, help="number of packages measured in parallel")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # the tests' arrays are small: threads would wait for each other
    known = tomllib.loads((Path(__file__).parent / "equivalents.toml").read_text(encoding="utf-8"))["equivalent"]
    equivalents = {(one["file"], one["from"], one["to"]) for one in known}
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        root = Path(scratch)
        copy_tree(Path(__file__).parents[2], root)  # as the tree may change in the meantime
        names = list(CORE) if "all" in given.package else given.package
        drawn = [one for seed in given.seed for one in draw(root, names, given.count, seed, given.only)]
        tried = [one for one in drawn if (one[2], one[3].before, one[3].after) not in equivalents]
        shares = {name: [one for one in tried if one[1] == name] for name in names}
        shares = {name: share for name, share in shares.items() if share}
        with ProcessPoolExecutor(given.jobs, get_context("fork")) as pool:
            parts = pool.map(measure, itertools.repeat(root), shares, shares.values())
            results = [one for part in parts for one in part]
    for seed in given.seed:
        mine = [one for one in results if one[0][0] == seed]
        report(seed, sum(one[0] == seed for one in drawn) - len(mine), mine)


if __name__ == "__main__":
    main()
