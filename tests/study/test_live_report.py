"""A report that is written while the study runs: now and then, in a thread, and without any effect on the study."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from support.recorded import add, make_ledger, make_spec

from olfl_ray.driver.live import LiveReport
from olfl_ray.ledger import Began, Ended, StudyState
from olfl_ray.storage import open_storage


def ended(trial: str) -> Ended:
    return Ended(trial=trial, state="finished", step=1, value=0.1, metrics={}, cause=None)


def states(tmp_path: Path) -> Any:
    storage = open_storage(tmp_path / "study")
    ledger = make_ledger(storage, make_spec())
    add(ledger, storage, "online/0")
    return lambda: ledger.state


def test_a_report_is_written_when_a_trial_has_ended_with_the_state_of_that_moment(tmp_path: Path) -> None:
    written: list[StudyState] = []
    live, state = LiveReport(written.append, pause=0.0), states(tmp_path)
    live.observe(Began(trial="online/1", attempt=1), state)
    live.close()
    assert written == []
    live.observe(ended("online/0"), state)
    live.close()
    assert [list(one.trials) for one in written] == [["online/0"]]


def test_reports_are_never_written_at_once_and_pause_in_between(tmp_path: Path) -> None:
    go, written = threading.Event(), []

    def write(state: StudyState) -> None:
        go.wait(60)
        written.append(state)

    live, state = LiveReport(write, pause=0.0), states(tmp_path)
    for _ in range(3):  # the first one is still being written
        live.observe(ended("online/0"), state)
    go.set()
    live.close()
    assert len(written) == 1
    patient = LiveReport(write, pause=3600.0)
    patient.observe(ended("online/0"), state)
    patient.close()
    assert len(written) == 1


def test_a_report_that_fails_is_tried_again_and_fails_nothing(tmp_path: Path) -> None:
    tried: list[StudyState] = []

    def write(state: StudyState) -> None:
        tried.append(state)
        raise OSError("disk full")

    live, state = LiveReport(write, pause=0.0), states(tmp_path)
    live.observe(ended("online/0"), state)
    live.close()
    live._next = 0.0
    live.observe(ended("online/0"), state)
    live.close()
    assert len(tried) == 2
