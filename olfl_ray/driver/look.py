"""Read a study without driving it: its plan, its state, its report; and request its driver to stop."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from olfl_ray.analysis import write_report
from olfl_ray.driver.datasets import stored_notes
from olfl_ray.driver.home import Home
from olfl_ray.errors import SpecError, StudyError, UserError
from olfl_ray.ledger import DriverStopped, Ledger, StopRequest, StudyState, TrialState
from olfl_ray.methods import complete
from olfl_ray.search import ArmSearch
from olfl_ray.spec import StudySpec, parse_spec, planned
from olfl_ray.storage import Lease, Storage, open_storage

__all__ = [
    "RUNS",
    "STARTED",
    "another_version",
    "best_of",
    "importances_of",
    "is_driven",
    "load",
    "placed",
    "report_of",
    "report_or_warning",
    "runs_of",
    "sample",
    "spec_in",
    "status_of",
    "stop_driver",
    "storage_of",
    "trials_of",
]

_log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
RUNS = "runs.json"
"""Where each trial is tracked, and under `study` the study itself: URLs or ids, as the last driver found them."""
STARTED = "driver started"
"""Start of the line that a driver without a terminal prints once it has taken its study over."""


def storage_of(spec: StudySpec, home: Home) -> Storage:
    """Where a study is kept.

    Raises:
        SetupError: The spec names no storage of a kind that is known.
    """
    url = spec.storage.url
    if url is None:
        return open_storage(home.study_folder(spec.name))
    open_storage(url)  # refuses what names no storage before the study's name is added
    return open_storage(f"{url.rstrip('/')}/{spec.name}")


def spec_in(resolved: Mapping[str, Any], name: str) -> StudySpec:
    """The spec of a study from the plain values that its ledger keeps.

    Raises:
        StudyError: Another version, whose specs have other fields, wrote them.
    """
    try:
        return complete(parse_spec(json.dumps(dict(resolved)).encode(), source=name), own=False)
    except SpecError as error:
        raise another_version(name, error.field) from None


def another_version(name: str, field: str) -> StudyError:
    """The refusal of a study that this version can't read or resume.

    Args:
        name: The study.
        field: A field that one of the versions does not have; empty: unknown.
    """
    fields = f"other fields ({field})" if field else "other fields"
    return StudyError(
        f"study {name!r} was begun by another version of olfl_ray, whose specs have {fields}; use that version, or begin it "
        "again with `name=`"
    )


def sample(spec: StudySpec, arm: str, count: int) -> list[dict[str, Any]]:
    """The first points that the arm's search would propose, if it learned nothing from them."""
    search = ArmSearch(spec, arm, spec.concurrency)
    search.replay([], {})
    found = []
    for ordinal in range(min(count, planned(spec, arm))):
        point = search.propose(ordinal, [], {}) if search.may_propose(ordinal, []) else None
        if point is None:  # the next depend on results
            break
        found.append(point)
    return found


def load(name: str, home: Home) -> tuple[StudySpec, Ledger, Storage]:
    """A study's spec, ledger and storage.

    Raises:
        StudyError: There is no such study.
    """
    storage = home.storage(name)
    if name not in home.names():
        there = ", ".join(home.names()) or "none yet"
        raise StudyError(f"study: there is no study {name!r} in {home.path}; there are: {there}")
    ledger = Ledger.load(storage)
    if ledger.state.name != name:
        raise StudyError(f"study: the folder {name!r} holds the study {ledger.state.name!r}; rename the folder to that")
    return spec_in(ledger.state.spec, name), ledger, storage


def placed(spec: StudySpec, storage: Storage, home: Home) -> StudySpec:
    """The spec of a study that is to be driven: it names the storage in which the study was found.

    Raises:
        StudyError: Its folder has another name than the study, or only MLflow says where it is.
    """
    home.refuse_untrusted(spec.name)
    if storage.url != storage_of(spec, home).url:  # begun under another home folder, or moved
        place = spec.storage.model_copy(update={"url": storage.url.rpartition("/")[0]})
        spec = spec.model_copy(update={"storage": place})
        if storage.url != storage_of(spec, home).url:
            raise StudyError(
                f"study: {storage.url} holds the study {spec.name!r}; give that folder its name, {spec.name}"
            )
    return spec


def best_of(spec: StudySpec, state: StudyState) -> TrialState | None:
    """The best finished search trial of all arms, by the study's metric; ties go to the earlier arm."""
    sign = 1 if spec.search.goal == "minimize" else -1
    found = [state.best(arm, spec.search.goal) for arm in spec.arms]
    return min((one for one in found if one is not None), key=lambda one: sign * (one.value or 0.0), default=None)


def trials_of(state: StudyState, spec: StudySpec) -> int:
    """How many trials a study has once nothing is left to do: of each arm's search, and of its confirmation.

    Args:
        state: Its state.
        spec: What it was begun with.
    """
    arms = state.spec["arms"].items()
    wanted = sum(planned(spec, name, arm["trials"]) + int(state.spec["confirm"]["seeds"]) for name, arm in arms)
    return max(len(state.trials), wanted)


def importances_of(storage: Storage) -> dict[str, dict[str, float]]:
    """For each arm the importance of each searched field, as its last driver recorded them; empty where none has."""
    try:
        found = json.loads(storage.read("importances.json"))
        return {str(arm): {str(k): float(v) for k, v in fields.items()} for arm, fields in found.items()}
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return {}


def runs_of(storage: Storage) -> dict[str, str]:
    """Where each trial is tracked, as its last driver recorded it; empty where none has."""
    try:
        return {str(name): str(link) for name, link in json.loads(storage.read(RUNS)).items()}
    except (FileNotFoundError, ValueError, AttributeError):
        return {}


def report_of(spec: StudySpec, state: StudyState, storage: Storage, home: Home) -> Path:
    """Write the report of a study's current state and return its page."""
    importances = importances_of(storage)
    out = home.report_folder(spec.name)
    notes = stored_notes(storage)
    return write_report(
        spec=spec, state=state, storage=storage, out=out, importances=importances, data=notes, links=runs_of(storage)
    )


def report_or_warning(spec: StudySpec, state: StudyState, storage: Storage, home: Home) -> Path:
    """Write the report and return its page. If that fails, a warning says why: a study does not fail with its report."""
    try:
        return report_of(spec, state, storage, home)
    except Exception as error:
        why = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        _log.warning(
            "study %s: its report was not written (%s); olfl sweep report %s writes it", spec.name, why, spec.name
        )
        return home.report_folder(spec.name) / "index.html"


def stop_driver(ledger: Ledger, storage: Storage, *, patience: float = 600.0) -> None:
    """Ask a study's driver to stop, and wait until it has: trials commit at their next evaluation.

    Args:
        ledger: The study's.
        storage: Its storage.
        patience: Seconds to wait.

    Raises:
        StudyError: No driver runs it, or it did not stop in time.
    """
    ledger.catch_up()
    name, epoch = ledger.live.name, ledger.live.epoch
    if not is_driven(ledger, storage):
        raise StudyError(f"study {name!r} is not running; `olfl sweep resume {name}` resumes it")
    StopRequest(storage, epoch).make()
    end = time.monotonic() + patience
    while time.monotonic() < end:
        ledger.catch_up()
        if ledger.live.epoch != epoch or not is_driven(ledger, storage):
            return
        time.sleep(POLL_SECONDS)
    raise StudyError(
        f"study {name!r} was asked to stop, but its driver still runs after {patience:g} s; keep waiting, or end its process"
    )


def is_driven(ledger: Ledger, storage: Storage) -> bool:
    """Whether a driver holds a study's lease; watches one on another machine for some seconds."""
    return ledger.live.driving and Lease.is_held(storage)


def status_of(ledger: Ledger, storage: Storage) -> str:
    """running, finished, stopped, or interrupted: the driver exited without reporting a result."""
    if ledger.live.driving:
        return "running" if is_driven(ledger, storage) else "interrupted"
    last = next((event for event in reversed(ledger.events) if isinstance(event, DriverStopped)), None)
    return "stopped" if last is None else last.reason
