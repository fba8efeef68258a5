"""The final table compared with scipy and by hand, and the records of trials."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import pytest
from scipy import stats
from support.recorded import BASE, ONLINE, add, add_confirmed, make_ledger, make_spec

from olfl_ray.analysis import final_table, records_table, surfaces_table
from olfl_ray.ledger import Examined
from olfl_ray.storage import Storage, open_storage


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(tmp_path / "study")


def test_paired_statistics_match_scipy_and_a_hand_calculation(storage: Storage) -> None:
    spec = make_spec()
    ledger = make_ledger(storage, spec)
    add_confirmed(ledger, storage, "baseline", BASE)
    add_confirmed(ledger, storage, "online", ONLINE)
    baseline, online, offline = final_table(spec, ledger.state)
    assert baseline.test.difference is None
    assert tuple(online.test.values.values()) == tuple(ONLINE)
    assert online.test.mean == pytest.approx(0.096)
    assert online.test.sd == pytest.approx(statistics.stdev(ONLINE))
    found = online.test.difference
    assert found is not None
    expected = stats.ttest_rel(ONLINE, BASE)
    interval = expected.confidence_interval(0.95)
    assert (found.low, found.high, found.p) == pytest.approx((interval.low, interval.high, expected.pvalue))
    # Differences -0.02, -0.01, -0.01, -0.03, 0: mean -0.014, sd 0.0114018; t(4) at 0.975 is 2.7764, at 0.8 0.9410.
    assert found.mean == pytest.approx(-0.014)
    assert found.sd == pytest.approx(0.0114018, rel=1e-5)
    assert found.detectable == pytest.approx((2.7764 + 0.9410) * 0.0114018 / math.sqrt(5), rel=1e-4)
    assert (offline.best, offline.n, offline.test.mean, offline.test.difference) == (None, 0, None, None)


def test_pairs_are_formed_by_seed_and_other_settings_do_not_matter(storage: Storage) -> None:
    spec = make_spec()
    ledger = make_ledger(storage, spec)
    add_confirmed(ledger, storage, "baseline", BASE)
    add(ledger, storage, "online/0")
    add(ledger, storage, "online/c0", state="failed", value=None)
    add(ledger, storage, "online/c1", test=[0.2])
    add(ledger, storage, "online/c2", test=[math.nan])
    add(ledger, storage, "online/c3", test=[0.3])
    add(ledger, storage, "online/c4", lr=0.2, test=[0.9])
    online = final_table(spec, ledger.state)[1]
    assert tuple(online.test.values) == (101, 103)
    assert online.confirming == {"failed": 1, "finished": 4}
    assert online.test.difference is not None
    assert online.test.difference.mean == pytest.approx(((0.2 - 0.12) + (0.3 - 0.13)) / 2)


def test_one_seed_gives_no_interval_and_zero_variance_a_point(storage: Storage) -> None:
    spec = make_spec()
    ledger = make_ledger(storage, spec)
    add_confirmed(ledger, storage, "baseline", [0.1, 0.2, 0.3])
    add_confirmed(ledger, storage, "online", [0.05, 0.15, 0.25])
    add_confirmed(ledger, storage, "offline", [0.1])
    _, online, offline = final_table(spec, ledger.state)
    assert (offline.n, offline.test.sd, offline.test.difference) == (1, None, None)
    assert online.test.difference is not None
    assert online.test.difference.low == online.test.difference.high == pytest.approx(-0.05)
    assert (online.test.difference.detectable, online.test.difference.p) == (0.0, 0.0)


def test_baseline_is_the_arm_that_learns_nothing_and_may_be_absent(storage: Storage) -> None:
    spec = make_spec({"learned": "online", "plain": "baseline"})
    ledger = make_ledger(storage, spec)
    for arm, learns in (("learned", True), ("plain", False)):
        ledger.append(Examined(arm=arm, data="", code={}, task="", primary="error", goals={}, units={}, learns=learns))
    add_confirmed(ledger, storage, "plain", BASE)
    add_confirmed(ledger, storage, "learned", ONLINE)
    assert [result.test.difference is None for result in final_table(spec, ledger.state)] == [False, True]
    alone = make_spec({"learned": "online"})
    assert final_table(alone, ledger.state)[0].test.difference is None


def test_records_and_surfaces_follow_the_commits(storage: Storage) -> None:
    ledger = make_ledger(storage, make_spec())
    add(ledger, storage, "online/0", curve=True)
    trial = ledger.state.trials["online/0"]
    assert records_table(storage, trial)["step"].to_pylist() == [step for step in (100, 200, 300) for _ in range(9)]
    assert surfaces_table(storage, trial).num_rows == 3 * 40
