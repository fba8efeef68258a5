"""Submit a study to a cluster: start a new attempt, or attach to the running one."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from olfl_ray.driver.check import check_failed, check_same, extended, first_difference
from olfl_ray.driver.home import Home
from olfl_ray.driver.look import STARTED, load, spec_in
from olfl_ray.errors import SetupError, SpecError, StudyError
from olfl_ray.ledger import StudyState
from olfl_ray.methods import complete
from olfl_ray.remote.clusters import RayCluster, Unseen, locate
from olfl_ray.search import check_search
from olfl_ray.spec import StorageSpec, StudySpec, parse_spec
from olfl_ray.storage import open_storage
from olfl_ray.tracking import resolved_tracking
from olfl_ray.tracking.mlflow import with_uri

if TYPE_CHECKING:
    from olfl_ray.remote.jobs import Attempt

__all__ = ["Code", "Submission", "accepted", "extend_on", "resume_on", "retry_on", "spec_on", "submit"]

LONGEST_SPEC = 100_000
"""Maximum length in characters; an environment variable holds 131,072 bytes."""
POLL_SECONDS = 0.5
SIGNALLED = 128
"""Exit codes above this are this plus a signal's number."""
# The job's own folder is deleted with the job, so the home folder must be elsewhere.
_AT_HOME = 'export OLFL_HOME="${OLFL_HOME:-$HOME/.olfl}"; '
_RUN = _AT_HOME + 'printf %s "$OLFL_SPEC" | olfl sweep run -'


@dataclass(frozen=True, kw_only=True)
class Code:
    """A user's own code, uploaded with a job.

    Args:
        working_dir: Working folder of the driver and the trials.
        py_modules: Packages that they can import.
    """

    working_dir: Path | None = None
    py_modules: tuple[Path, ...] = ()


NO_CODE = Code()


@dataclass(frozen=True)
class Submission:
    """The result of a submission.

    Args:
        attempt: The driver's job.
        attached: Whether it was running already.
        note: How the running spec differs, if it does.
    """

    attempt: Attempt
    attached: bool
    note: str = ""


def spec_on(spec: StudySpec, cluster: RayCluster) -> StudySpec:
    """The spec with the target's storage and tracking if it names none.

    Raises:
        SpecError: It names a folder or file relative to the driver's working folder.
    """
    spec = complete(spec, own=False)
    if not any(":" in part.name for part in (spec.search.sampler, spec.search.pruner)):
        check_search(spec)
    storage, tracking = spec.storage, spec.tracking
    if storage.url is None and not storage.shared:
        storage = cluster.target.storage
    if cluster.target.tracking is not None:
        tracking = with_uri(tracking, cluster.target.tracking)
    if storage.url is not None:
        open_storage(storage.url)
        if "://" not in storage.url and not storage.url.startswith(("/", "~")):
            raise SpecError("storage.url", _relative(storage.url, "a path from /, or s3://bucket/folder"))
    for given, settled in zip(tracking, resolved_tracking(tracking, own=False), strict=True):
        for option, value in given.options.items():
            if settled.options[option] != value:
                raise SpecError(f"tracking.{option}", _relative(value, "an absolute one, or a server"))
    return spec.model_copy(update={"storage": storage, "tracking": tracking})


def submit(spec: StudySpec, *, cluster: RayCluster, code: Code = NO_CODE) -> Submission:
    """Run or resume a study on a cluster; a running attempt continues.

    Args:
        spec: The study; only its form is checked here, the rest by the driver.
        cluster: The cluster.
        code: Code with the user's own builders.

    Raises:
        UserError: The cluster refuses it, or another study of that name is running.
    """
    spec = spec_on(spec, cluster)
    text = spec.model_dump_json(by_alias=True)
    if len(text.encode()) > LONGEST_SPEC:
        raise SpecError("", f"is {len(text.encode())} bytes long resolved; a cluster accepts at most {LONGEST_SPEC}")

    def attach(running: Attempt) -> str:
        if not running.spec:
            if running.digest == spec.digest:
                return ""
            raise StudyError(
                f"name: a study {spec.name!r} with another spec is running on the cluster; choose another name with `name=`"
            )
        before = parse_spec(running.spec.encode(), source=running.id)
        check_same(spec, before.model_dump(mode="json", by_alias=True), running.digest)
        if before == spec:
            return ""
        return first_difference(
            before.model_dump(mode="json", by_alias=True), spec.model_dump(mode="json", by_alias=True)
        )

    driver = _Driver(study=spec.name, entrypoint=_RUN, digest=spec.digest, storage=spec.storage, spec=text)
    return _submit(driver, attach, cluster, code)


def resume_on(
    name: str,
    *,
    cluster: RayCluster,
    home: Home,
    failed: bool = False,
    from_scratch: bool = False,
    storage: str | None = None,
    code: Code = NO_CODE,
) -> Submission:
    """Resume a study on a cluster by its name, with the spec in its ledger; a running attempt is attached to.

    Args:
        name: The study.
        cluster: The cluster.
        home: The home folder, which need not know the study.
        failed: Retry only the failed trials, each from its last commit.
        from_scratch: Retry them from the beginning.
        storage: As for `locate`.
        code: As for `submit`.

    Raises:
        UserError: There is no such study, it is running with another task, or the cluster refuses it.
    """
    words = ["resume", name, *(["--failed"] if failed else []), *(["--from-scratch"] if from_scratch else [])]
    return _start_command(words, lambda state: None, cluster=cluster, home=home, storage=storage, code=code)


def retry_on(
    name: str,
    trials: Sequence[str],
    *,
    cluster: RayCluster,
    home: Home,
    from_scratch: bool = False,
    storage: str | None = None,
    code: Code = NO_CODE,
) -> Submission:
    """Retry a study's failed trials on a cluster, and resume it.

    Args:
        name: The study.
        trials: `ARM/ORDINAL` of each.
        cluster: The cluster.
        home: As for `resume_on`.
        from_scratch: Retry them from the beginning, not from their last commits.
        storage: As for `locate`.
        code: As for `submit`.

    Raises:
        UserError: One of them does not exist or did not fail; or as for `resume_on`.
    """
    words = ["retry", name, *trials, *(["--from-scratch"] if from_scratch else [])]
    return _start_command(
        words, lambda state: check_failed(trials, state), cluster=cluster, home=home, storage=storage, code=code
    )


def extend_on(
    name: str,
    trials: int,
    *,
    cluster: RayCluster,
    home: Home,
    storage: str | None = None,
    code: Code = NO_CODE,
    arm: str | None = None,
) -> Submission:
    """Add trials to every arm of a study on a cluster, or to one; the search keeps its history.

    Args:
        name: The study.
        trials: Number of additional search trials for each arm.
        cluster: The cluster.
        home: As for `resume_on`.
        storage: As for `locate`.
        code: As for `submit`.
        arm: The only arm to extend; None: all.

    Raises:
        UserError: As for `resume_on`.
    """
    words = ["extend", name, "--trials", str(trials), *(() if arm is None else ("--arm", arm))]

    def check(state: StudyState) -> None:
        extended(spec_in(state.spec, name), trials, arm)

    return _start_command(words, check, cluster=cluster, home=home, storage=storage, code=code)


def _start_command(
    words: list[str],
    check: Callable[[StudyState], None],
    *,
    cluster: RayCluster,
    home: Home,
    storage: str | None,
    code: Code,
) -> Submission:
    """Start a driver with a command on an existing study.

    Args:
        words: The command as given to `olfl sweep`: a verb, the study's name, and the rest.
        check: Refuses the command, if this machine can access the study.
        cluster: The cluster.
        home: The home folder.
        storage: As for `locate`.
        code: As for `submit`.
    """
    verb, name, *rest = words
    try:
        root = locate(name, home=home, cluster=cluster, storage=storage).url.rpartition("/")[0]
        home.refuse_untrusted(name)
        state = load(name, home)[1].state
        check(state)
        digest, shared = state.digest, spec_in(state.spec, name).storage.shared
    except (Unseen, SetupError):
        last = cluster.server.newest(name)
        if last is None:
            raise
        root, digest, shared = storage or last.storage, last.digest, last.shared

    def attach(running: Attempt) -> str:
        if (verb, rest) != ("resume", []):
            raise StudyError(
                f"study {name!r}: is running on the cluster (job {running.id}), so `{shlex.join([verb, *rest])}` must wait; "
                f"stop it first: olfl sweep stop {name} --address {shlex.quote(cluster.name)}"
            )
        return ""

    there = ["--storage", root] if root else []
    entrypoint = _AT_HOME + shlex.join(["olfl", "sweep", *words, *there])
    place = StorageSpec(url=root or None, shared=shared)
    return _submit(_Driver(study=name, entrypoint=entrypoint, digest=digest, storage=place), attach, cluster, code)


def accepted(attempt: Attempt, *, cluster: RayCluster, patience: float = 90.0) -> Attempt:
    """Wait until a driver has taken over its study, or found nothing to do; returns the attempt's state then.

    Args:
        attempt: The attempt.
        cluster: The cluster.
        patience: Seconds after which this stops waiting; the driver may still wait for resources of the cluster.

    Raises:
        StudyError: It refused; with its own message.
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
    """Why an attempt failed: its driver's last line, or the job server's message."""
    from olfl_ray.remote.jobs import NOT_FOUND

    if attempt.exit_code == NOT_FOUND:
        return f"the cluster has no command olfl (job {attempt.id}); install olfl_ray there, where `ray start` finds it on PATH"
    if attempt.exit_code is not None and not 0 <= attempt.exit_code <= SIGNALLED:
        return f"its driver was killed (exit code {attempt.exit_code})"
    lines = [line for line in cluster.server.logs(attempt).splitlines() if line.strip()]
    printed = [line.removeprefix("olfl: ") for line in lines if line.startswith("olfl: ")]
    if printed:
        return printed[-1]
    reported = [line.strip() for line in attempt.message.splitlines() if line.strip()]
    return f"job {attempt.id} failed: {(reported or lines or ['unknown cause'])[-1][:300]}"


@dataclass(frozen=True, kw_only=True)
class _Driver:
    """A driver to start.

    Args:
        study: The study.
        entrypoint: The driver's command.
        digest: The study's digest.
        storage: Its storage.
        spec: The spec as JSON, which the command reads from its environment; or empty.
    """

    study: str
    entrypoint: str
    digest: str
    storage: StorageSpec
    spec: str = ""


def _submit(driver: _Driver, attach: Callable[[Attempt], str], cluster: RayCluster, code: Code) -> Submission:
    """Start the attempt after the newest, unless one is running; of two concurrent calls one starts it, the other attaches."""
    for folder in (*([code.working_dir] if code.working_dir is not None else []), *code.py_modules):
        if not folder.is_dir():
            raise SetupError(f"{folder}: is not a folder; `working_dir=` and `py_modules=` name folders of code")
    while True:
        newest = cluster.server.newest(driver.study)
        if newest is not None and newest.live:
            return Submission(newest, True, attach(newest))
        started = cluster.server.start(
            driver.study,
            1 if newest is None else newest.number + 1,
            driver.entrypoint,
            digest=driver.digest,
            storage=driver.storage.url or "",
            shared=driver.storage.shared,
            spec=driver.spec,
            working_dir=code.working_dir,
            py_modules=code.py_modules,
        )
        if started is not None:
            return Submission(started, False)


def _relative(value: str, move: str) -> str:
    return f"{value!r} is relative to the driver's working folder, which is deleted with its job; give {move}"
