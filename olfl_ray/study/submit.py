"""Submit a study to a cluster: the next attempt, or the one that is running already."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from olfl_ray.errors import SetupError, SpecError, StudyError
from olfl_ray.spec import StorageSpec, StudySpec, parse_spec
from olfl_ray.storage import open_storage
from olfl_ray.study.check import check_failed, check_more, check_same, first_difference
from olfl_ray.study.clusters import RayCluster, Unseen, locate
from olfl_ray.study.home import Home
from olfl_ray.study.look import STARTED, load, spec_in

if TYPE_CHECKING:
    from olfl_ray.sweep.jobs import Attempt

__all__ = ["Submission", "accepted", "go_on_at", "spec_on", "submit"]

LONGEST_SPEC = 100_000
"""Characters; a variable of the environment holds 131,072 bytes."""
POLL_SECONDS = 0.5
SIGNALLED = 128
"""A shell adds the signal's number to it."""
# The job's own folder goes with the job; what a home folder holds must not.
_AT_HOME = 'export OLFL_HOME="${OLFL_HOME:-$HOME/.olfl}"; '
_RUN = _AT_HOME + 'printf %s "$OLFL_SPEC" | olfl sweep run -'


@dataclass(frozen=True)
class Submission:
    """What a submission came to.

    Args:
        attempt: The driver's job.
        attached: Whether it was there already.
        note: How the running one's spec differs, where it does.
    """

    attempt: Attempt
    attached: bool
    note: str = ""


def spec_on(spec: StudySpec, cluster: RayCluster) -> StudySpec:
    """The spec with the target's storage and tracking where it names none.

    Raises:
        SpecError: It names a folder or file by a path that depends on where the driver happens to start.
    """
    storage, tracking = spec.storage, spec.tracking
    if storage.url is None and not storage.shared:
        storage = cluster.target.storage
    if tracking.uri is None and cluster.target.tracking is not None:
        tracking = tracking.model_copy(update={"uri": cluster.target.tracking})
    if storage.url is not None:
        open_storage(storage.url)
        if "://" not in storage.url and not storage.url.startswith(("/", "~")):
            raise SpecError("storage.url", _relative(storage.url, "a path from /, or s3://bucket/folder"))
    if tracking.uri is not None and tracking.uri.startswith("sqlite:///") and tracking.uri[10:11] != "/":
        raise SpecError("tracking.uri", _relative(tracking.uri, "sqlite:////FOLDER/mlflow.db, or a server"))
    return spec.model_copy(update={"storage": storage, "tracking": tracking})


def submit(
    spec: StudySpec, *, cluster: RayCluster, working_dir: Path | None = None, py_modules: Sequence[Path] = ()
) -> Submission:
    """Run a study on a cluster, or go on with it there; an attempt that is running is left to run.

    Args:
        spec: The study; only its form is checked here, the rest by the driver.
        cluster: Where.
        working_dir: Folder that driver and trials start in, for builders of the user's own.
        py_modules: Packages that they can import.

    Raises:
        UserError: The cluster refuses it, or another study of that name is running.
    """
    spec = spec_on(spec, cluster)
    text = spec.model_dump_json(by_alias=True)
    if len(text.encode()) > LONGEST_SPEC:
        raise SpecError("", f"is {len(text.encode())} bytes long resolved; at most {LONGEST_SPEC} travel to a cluster")

    def attach(running: Attempt) -> str:
        if not running.spec:
            if running.digest == spec.digest:
                return ""
            raise StudyError(
                f"name: a study {spec.name!r} with another spec is running on the cluster; choose another name with --name"
            )
        before = parse_spec(running.spec.encode(), source=running.id)
        check_same(spec, before.model_dump(mode="json", by_alias=True), running.digest)
        if before == spec:
            return ""
        return first_difference(
            before.model_dump(mode="json", by_alias=True), spec.model_dump(mode="json", by_alias=True)
        )

    return _submit(cluster, spec.name, _RUN, attach, spec.digest, spec.storage, text, working_dir, py_modules)


def go_on_at(
    name: str,
    command: Sequence[str],
    *,
    cluster: RayCluster,
    home: Home,
    storage: str | None = None,
    working_dir: Path | None = None,
    py_modules: Sequence[Path] = (),
) -> Submission:
    """Go on with a study on a cluster by its name, with the spec that its ledger holds.

    Args:
        name: The study.
        command: What the driver is to do, in the words of `olfl sweep`, without the name: `("resume",)`, which a running
            attempt does already; `("resume", "--failed")`, `("retry", "ARM/ORDINAL")`, `("extend", "--trials", "8")`.
        cluster: Where.
        home: The home folder, which may know nothing of it.
        storage: As for `locate`.
        working_dir: As for `submit`.
        py_modules: As for `submit`.

    Raises:
        UserError: There is no such study or trial, it is running and would have to do something else, or the cluster refuses it.
    """
    verb, *rest = command
    if verb == "extend":
        check_more(int(rest[-1]))
    try:
        root = locate(name, home=home, cluster=cluster, storage=storage).url.rpartition("/")[0]
        ledger = load(name, home)[1]
        if verb == "retry":
            check_failed([word for word in rest if not word.startswith("--")], ledger.state)
        digest, shared = ledger.state.digest, spec_in(ledger.state.spec, f"study {name}").storage.shared
    except (Unseen, SetupError):
        last = cluster.server.newest(name)
        if last is None:
            raise
        root, digest, shared = storage or last.storage, last.digest, last.shared

    def attach(running: Attempt) -> str:
        if (verb, rest) != ("resume", []):
            raise StudyError(
                f"study {name!r}: is running on the cluster (job {running.id}), so `{shlex.join(command)}` must wait; stop it "
                f"first: olfl sweep stop {name} --address {cluster.name}"
            )
        return ""

    there = ["--storage", root] if root else []
    entrypoint = _AT_HOME + shlex.join(["olfl", "sweep", verb, name, *rest, *there])
    place = StorageSpec(url=root or None, shared=shared)
    return _submit(cluster, name, entrypoint, attach, digest, place, "", working_dir, py_modules)


def accepted(attempt: Attempt, *, cluster: RayCluster, patience: float = 90.0) -> Attempt:
    """Wait until a driver has taken its study over, or found nothing to do; the attempt as it is then.

    Args:
        attempt: The attempt.
        cluster: Where.
        patience: Seconds after which it is left alone: it may still be waiting for room on the cluster.

    Raises:
        StudyError: It refused; with its own words.
    """
    end = time.monotonic() + patience
    while time.monotonic() < end:
        attempt = cluster.server.look(attempt)
        if not attempt.live or STARTED in cluster.server.logs(attempt):
            break
        time.sleep(POLL_SECONDS)
    if attempt.state == "failed" and STARTED not in cluster.server.logs(attempt):
        raise StudyError(last_words(attempt, cluster))
    return attempt


def last_words(attempt: Attempt, cluster: RayCluster) -> str:
    """Why an attempt failed: its driver's last line, or what the job server says of it."""
    from olfl_ray.sweep.jobs import NOT_FOUND

    if attempt.exit_code == NOT_FOUND:
        return f"the cluster has no command olfl (job {attempt.id}); install olfl_ray there, where `ray start` finds it on PATH"
    if attempt.exit_code is not None and not 0 <= attempt.exit_code <= SIGNALLED:
        return f"its driver was killed (exit code {attempt.exit_code})"
    lines = [line for line in cluster.server.logs(attempt).splitlines() if line.strip()]
    said = [line.removeprefix("olfl: ") for line in lines if line.startswith("olfl: ")]
    if said:
        return said[-1]
    told = [line.strip() for line in attempt.message.splitlines() if line.strip()]
    return f"job {attempt.id} failed: {(told or lines or ['nobody knows why'])[-1][:300]}"


def _submit(
    cluster: RayCluster,
    name: str,
    entrypoint: str,
    attach: Callable[[Attempt], str],
    digest: str,
    storage: StorageSpec,
    text: str,
    working_dir: Path | None,
    py_modules: Sequence[Path],
) -> Submission:
    """Start the attempt after the newest, unless one is running; of two that do so at once one starts, the other attaches."""
    for folder in (*([working_dir] if working_dir is not None else []), *py_modules):
        if not folder.is_dir():
            raise SetupError(f"{folder}: is no folder; --working-dir and --py-module name folders of code")
    while True:
        newest = cluster.server.newest(name)
        if newest is not None and newest.live:
            return Submission(newest, True, attach(newest))
        started = cluster.server.start(
            name,
            1 if newest is None else newest.number + 1,
            entrypoint,
            digest=digest,
            storage=storage.url or "",
            shared=storage.shared,
            spec=text,
            working_dir=working_dir,
            py_modules=py_modules,
        )
        if started is not None:
            return Submission(started, False)


def _relative(value: str, move: str) -> str:
    return f"{value!r} is looked up from where the driver starts, a folder that goes with its job; give {move}"
