"""The same command after a kill: trials that a killed driver reopened are tried again, not refused and not left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.conducting import study

from olfl_ray.driver.check import check_failed
from olfl_ray.driver.run import tried_again
from olfl_ray.errors import StudyError
from olfl_ray.ledger import Began, Ended, Ledger, Proposed, Reopened, StopRequest
from olfl_ray.storage import LocalStorage
from olfl_ray.sweep import Conductor

NAMES = ("baseline/0", "baseline/1", "baseline/2", "online/0")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Three failed trials, of which one was reopened and one began again; and one that only waits."""
    spec = study()
    made = Ledger.create(
        LocalStorage(tmp_path), spec.model_dump(mode="json", by_alias=True), spec.digest, spec.name, {}
    )
    for name in NAMES:
        made.append(Proposed(trial=name, params={}, seeds=[1, 2]))
    for name in NAMES[:3]:
        made.append(Began(trial=name, attempt=1))
        made.append(Ended(trial=name, state="failed", step=0, value=None, metrics={}, cause="boom"))
    for name in NAMES[1:3]:
        made.append(Reopened(trial=name))
    made.append(Began(trial=NAMES[2], attempt=2))
    return made


def test_failed_trials_are_those_that_failed_and_those_that_a_killed_driver_reopened(ledger: Ledger) -> None:
    assert tried_again(ledger.state) == (["baseline/0"], ["baseline/1", "baseline/2"])


def test_the_same_retry_is_no_mistake_until_the_trial_has_ended(ledger: Ledger) -> None:
    check_failed(NAMES[:3], ledger.state)
    with pytest.raises(StudyError, match="planned"):
        check_failed(NAMES, ledger.state)
    ledger.append(Ended(trial=NAMES[2], state="finished", step=9, value=0.1, metrics={}, cause=None))
    with pytest.raises(StudyError, match="finished"):
        check_failed(NAMES[:3], ledger.state)


def test_resume_failed_runs_what_a_killed_one_had_reopened(ledger: Ledger, tmp_path: Path) -> None:
    failed, reopened = tried_again(ledger.state)
    conductor = Conductor(study(), ledger, StopRequest(LocalStorage(tmp_path), 1), (), [*failed, *reopened])
    assert not conductor.finished
    trial = conductor.next()
    assert trial is not None
    assert str(trial.id) in reopened
