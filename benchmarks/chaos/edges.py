"""Run each moment: a small study is harmed there, recovered by one command, and compared with an undisturbed one."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from benchmarks.chaos.audit import Audit, audit
from benchmarks.chaos.disk import SmallDisk, small_disk
from benchmarks.chaos.driver import Driver
from benchmarks.chaos.moments import FIRST, Moment
from benchmarks.chaos.runs import fingerprints
from benchmarks.chaos.specs import failing_spec, small_spec
from benchmarks.chaos.stores import Store, StoreKind, own_store, shared_stores
from benchmarks.chaos.sweep import Sweep, Verb
from benchmarks.chaos.watch import Watch, phase
from olfl_ray.errors import SetupError
from olfl_ray.storage.protocol import TEMPORARY

__all__ = ["Played", "files_digest", "play_all"]

EXPERIMENT = "olfl"
PATIENCE = 600.0
"""Maximum time in seconds until a start reaches its moment, or until it ends."""
GLANCE = 0.005
"""Seconds between two polls of a driver."""
REFUSED = 2
"""Exit code of a start that was refused, or could not continue."""
BUGS = ("Traceback (most recent call last)", "this is a bug")
SECOND = "second"
"""Name of the other study in the same home."""


@dataclass(frozen=True, kw_only=True)
class Played:
    """The result of a moment.

    Args:
        moment: The moment.
        phase: How far the driver had got, in words.
        like: Name of an earlier moment with the same files on disk, whose recovery counts for this one too; or empty.
        found: Audit of each study.
        touched: Runs of other studies that have changed.
        problems: Unexpected output or exits.
        seconds: Wall-clock time.
    """

    moment: Moment
    phase: str
    like: str = ""
    found: Sequence[Audit] = ()
    touched: int = 0
    problems: Sequence[str] = ()
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether there is no violation."""
        return all(found.clean for found in self.found) and not self.touched and not self.problems

    def line(self) -> str:
        """One line with every figure."""
        sums = {
            name: self.total(name)
            for name in ("runs", "points", "lost", "duplicates", "running", "wrong", "difference")
        }
        figures = "  ".join(f"{name} {value}" for name, value in sums.items())
        result = f"as {self.like}" if self.like else f"{figures}  touched {self.touched}"
        said = f"  PROBLEMS: {'; '.join(self.problems)}" if self.problems else ""
        return f"{self.moment.family} | {self.moment.name} | {self.phase} | {result} ({self.seconds:.0f} s){said}"

    def total(self, name: str) -> int:
        """A number of the audits, summed over the studies."""
        return sum(getattr(found, name) for found in self.found)


def play_all(
    folder: Path,
    moments: Sequence[Moment],
    *,
    lanes: int = 2,
    say: Callable[[str], None] = lambda text: None,
    note: Callable[[Sequence[Played]], None] = lambda so_far: None,
) -> list[Played]:
    """Run moments, several in parallel.

    Args:
        folder: Folder for all files; created from scratch. The files of a moment without violations are removed.
        moments: The moments.
        lanes: Number of moments in parallel.
        say: Called with a line on each moment.
        note: Called after each moment with all results so far.

    Returns:
        One result per moment, in their order.
    """
    folder.mkdir(parents=True)
    with ExitStack() as stack, ThreadPoolExecutor(lanes) as pool:
        stage = _Stage(folder, stack, moments)

        futures = [pool.submit(stage.play, moment) for moment in moments]
        try:
            for future in as_completed(futures):
                say(future.result().line())
                note([one.result() for one in futures if one.done()])
        finally:
            pool.shutdown(cancel_futures=True)
        return [future.result() for future in futures]


@dataclass
class _Scene:
    """A moment that is being run."""

    sweep: Sweep
    disk: SmallDisk | None
    second: Sweep | None
    before: dict[str, str]
    problems: list[str] = field(default_factory=list)
    phase: str = ""

    @property
    def sweeps(self) -> list[Sweep]:
        return [self.sweep, *([self.second] if self.second is not None else [])]


class _Stage:
    """What the moments share: specs, the undisturbed homes, the shared stores.

    Args:
        folder: Folder for all files.
        stack: Ends what was started.
        moments: The moments to run.
    """

    def __init__(self, folder: Path, stack: ExitStack, moments: Sequence[Moment]) -> None:
        self._folder = folder
        kinds = {moment.store for moment in moments}
        self._stores = stack.enter_context(shared_stores(folder, server="postgresql" in kinds))
        flag = folder / "failing"
        self._specs: dict[Verb, Path] = {}
        for verb, spec in (("run", small_spec()), ("retry", failing_spec(flag))):
            file = folder / f"{verb}.json"
            file.write_text(json.dumps(spec))
            self._specs[verb] = file  # type: ignore[index]
        self._specs |= {"extend": self._specs["run"], "deliver": self._specs["run"]}
        verbs = {moment.verb for moment in moments}
        self.reference: dict[Verb, Sweep] = {"run": self._undisturbed("run", "run")}
        self._before: dict[Verb, Path] = {"extend": self.reference["run"].home}
        if "extend" in verbs:
            self.reference["extend"] = self._undisturbed("extend", "extend", self.reference["run"].home, "extend")
        if "deliver" in verbs:
            self.reference["deliver"] = self.reference["run"]
            self._before["deliver"] = folder / "undelivered"
            without_store = shutil.ignore_patterns("mlflow.db*", "artifacts")
            shutil.copytree(self.reference["run"].home, self._before["deliver"], ignore=without_store)
        if "retry" in verbs:
            flag.touch()
            self._before["retry"] = self._undisturbed("failed", "retry").home
            flag.unlink()
            self.reference["retry"] = self._undisturbed("retry", "retry", self._before["retry"], "retry")
        used = sorted({moment.store for moment in moments if not moment.fresh} - {"own"})
        self._shared: dict[StoreKind, Store] = {kind: self._stores.make(kind) for kind in used}
        for kind, store in self._shared.items():
            first = self._sweep(folder / f"first-{kind}" / "home", "run", store)
            if problems := _problems(first.start("run"), f"the first home of {kind}"):
                raise SetupError(problems[0])
        self._seen: dict[str, str] = {}
        self._turn = threading.Lock()
        self._number = 0

    def play(self, moment: Moment) -> Played:
        """Run one moment; errors are part of the result."""
        began = time.monotonic()
        with ExitStack() as stack:
            store = self._stores.make(moment.store) if moment.fresh else self._shared.get(moment.store)
            if store is not None:
                stack.enter_context(store.turn)
            scene = self._set(moment, store, stack)
            try:
                found, touched, like = self._play(moment, scene)
            except Exception as error:
                scene.problems.append(f"{type(error).__name__}: {error}")
                found, touched, like = [], 0, ""
            played = Played(
                moment=moment,
                phase=scene.phase,
                like=like,
                found=found,
                touched=touched,
                problems=tuple(scene.problems),
                seconds=time.monotonic() - began,
            )
            if played.holds and store is None:
                shutil.rmtree(scene.sweep.home.parent, ignore_errors=True)
        return played

    def _set(self, moment: Moment, store: Store | None, stack: ExitStack) -> _Scene:
        """The scene before the driver starts."""
        with self._turn:
            self._number += 1
            folder = self._folder / f"{self._number:03d}"
        disk = stack.enter_context(small_disk(folder)) if moment.harm == "disk" else None
        home = folder / "home"
        sweep = self._sweep(home, moment.verb, store)
        if moment.verb != "run":
            shutil.copytree(self._before[moment.verb], home)
        second = None
        if moment.second:
            second = self._sweep(home, "run", store, name=SECOND)
        before = fingerprints(store.uri, EXPERIMENT) if store is not None and not moment.fresh else {}
        return _Scene(sweep=sweep, disk=disk, second=second, before=before)

    def _play(self, moment: Moment, scene: _Scene) -> tuple[list[Audit], int, str]:
        sweep, second = scene.sweep, scene.second
        watch = Watch(sweep.home, sweep.name, sweep.store)
        if scene.disk is not None and moment.name == "before the first start":
            scene.disk.fill(lambda: ())
        driver = sweep.start(moment.verb)
        other = second.start("run") if second is not None else None
        drivers = [driver, *([other] if other is not None else [])]
        try:
            self._harm(moment, scene, watch, drivers)
        finally:
            for one in drivers:
                one.kill(machine=True)
        if moment.family == FIRST and (like := self._like(moment, sweep.home)):
            return [], 0, like
        if moment.moved:
            home = sweep.home.rename(sweep.home.with_name("moved"))
            scene.sweep = self._sweep(home, moment.verb, None if not sweep.store.shared else sweep.store)
        others = _others(scene)
        for each in scene.sweeps if moment.harm == "disk" else [scene.sweep]:
            if moment.harm != "none":
                scene.problems += _problems(each.start_again(moment.verb), "the start after it")
        if moment.moved and sweep.home.exists():
            scene.problems.append(f"the folder {sweep.home.name} that was moved away is there again")
        found = [self._audit(moment.verb, one) for one in scene.sweeps]
        now = fingerprints(scene.sweep.store.uri, EXPERIMENT) if others else {}
        return found, sum(now.get(run) != digest for run, digest in others.items()), ""

    def _harm(self, moment: Moment, scene: _Scene, watch: Watch, drivers: list[Driver]) -> None:
        """Wait for the moment, do the harm, and wait until the surviving processes have ended."""
        first, end = drivers[0], time.monotonic() + PATIENCE
        while not moment.reached(watch) and time.monotonic() < end:
            if first.poll() is not None:
                break
            time.sleep(GLANCE)
        time.sleep(moment.later)
        if first.poll() is not None and moment.harm in ("driver", "machine"):
            scene.problems += ["the driver ended before the moment came", *_problems(first, "it", seconds=0.1)]
        if scene.disk is not None:
            scene.phase = "disk full" if scene.disk.mounted else "size of files limited"
            while any(one.poll() is None for one in drivers) and time.monotonic() < end:
                scene.disk.fill(lambda: [process for one in drivers for process in one.workers()])
                time.sleep(10 * GLANCE)
            for one in drivers:
                scene.problems += _problems(one, "the driver on a full disk", codes=(0, REFUSED), seconds=0.1)
            scene.disk.free()
        elif moment.harm == "none":
            scene.problems += _problems(first, "the driver")
        else:
            first.kill(machine=moment.harm == "machine")
            scene.phase = phase(watch)
        for one in drivers[1:] if scene.disk is None else ():
            scene.problems += _problems(one, "the second study's driver")

    def _like(self, moment: Moment, home: Path) -> str:
        """The name of an earlier moment that left the same files; or empty, and this one is recorded."""
        with self._turn:
            return self._seen.setdefault(files_digest(home), moment.name).replace(moment.name, "")

    def _audit(self, verb: Verb, sweep: Sweep) -> Audit:
        reference = self.reference["run" if sweep.name == SECOND else verb]
        return audit(reference.home, sweep.home, sweep.store.uri, sweep.name, reference_name=reference.name)

    def _sweep(self, home: Path, verb: Verb, store: Store | None, name: str | None = None) -> Sweep:
        home.parent.mkdir(parents=True, exist_ok=True)
        return Sweep(
            home=home,
            name=name or ("edge-retry" if verb == "retry" else "edge"),
            spec=self._specs[verb],
            store=store or own_store(home),
            log=home.parent.with_name(f"{home.parent.name}-{name or 'edge'}.log"),
        )

    def _undisturbed(self, name: str, verb: Verb, before: Path | None = None, begin: Verb = "run") -> Sweep:
        """An undisturbed study; the content of an earlier home is copied if given."""
        home = self._folder / name / "home"
        sweep = self._sweep(home, verb, None)
        if before is not None:
            shutil.copytree(before, home)
        problems = _problems(sweep.start(begin), f"the undisturbed study ({name})", codes=(0, 1))
        if problems:
            raise SetupError(f"{problems[0]}; {sweep.log.read_text()[-2000:]}")
        return sweep


def _others(scene: _Scene) -> dict[str, str]:
    """Digests of other studies' runs, which must not change from now on (in a shared store: from before)."""
    if scene.before or scene.second is None or scene.disk is not None:
        return scene.before  # on a full disk there may be no store, and a query would create one
    first = scene.sweep
    known = (first.home / "studies" / first.name / "ledger" / "000000001.json").exists()
    return fingerprints(first.store.uri, EXPERIMENT, without=first.state if known else None)


def _problems(driver: Driver, who: str, *, codes: Sequence[int] = (0,), seconds: float = PATIENCE) -> list[str]:
    """Wait for a driver; returns its unexpected behavior."""
    try:
        code = driver.wait(seconds)
    except subprocess.TimeoutExpired:
        driver.kill(machine=True)
        return [f"{who} still ran"]
    printed = driver.output()
    last = (printed.strip().splitlines() or [""])[-1]
    found = [f"{who} ended with {code}: {last}"] if code not in codes else []
    return [*found, *(f"{who} printed: {words}" for words in BUGS if words in printed)]


def files_digest(home: Path) -> str:
    """A digest of all files under a home; temporary ones have random names."""
    found = []
    for file in sorted(home.rglob("*")):
        name = str(file.relative_to(home))
        name = name.partition(TEMPORARY)[0] + (TEMPORARY if TEMPORARY in name else "")
        found.append((name, sha256(file.read_bytes()).hexdigest() if file.is_file() else ""))
    return sha256(json.dumps(sorted(found)).encode()).hexdigest()
