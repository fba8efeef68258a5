"""The share of slot time without a trial."""

from dataclasses import replace

import pytest

from olfl_ray.analysis import idle_share
from olfl_ray.ledger import TrialId, TrialState


def trial(began: float | None, ended: float | None) -> TrialState:
    blank = TrialState(id=TrialId("a", "0"), params={}, seeds=(0,), proposed_at=0.0)
    return replace(blank, began_at=began, ended_at=ended)


def test_slot_time_without_a_trial() -> None:
    assert idle_share([trial(10, 20), trial(10, 20)], 2) == 0
    assert idle_share([trial(10, 20), trial(20, 30)], 2) == 0.5
    late = [trial(0, 10), trial(0, 4), trial(5, 10)]
    assert idle_share(late, 2) == pytest.approx(1 / 20), "one second between two trials of a slot"
    assert idle_share([*late, trial(9, None), trial(None, None)], 2) == pytest.approx(1 / 20)


def test_no_trial_that_has_ended_has_no_share() -> None:
    assert idle_share([], 2) is None
    assert idle_share([trial(5, None)], 2) is None
