"""The final table compared with scipy and by hand, and the report of real, empty and half-failed studies."""

from __future__ import annotations

import math
import random
import re
import statistics
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from scipy import stats

from olfl_ray.analysis import as_markdown, final_table, records_table, surfaces_table, write_report
from olfl_ray.ledger import Began, Commit, Committed, Ended, Examined, Ledger, Proposed, write_commit
from olfl_ray.records import Record, Surface, records_to_table, surfaces_to_table, to_parquet
from olfl_ray.spec import StudySpec
from olfl_ray.storage import Storage, open_storage

BASE = [0.10, 0.12, 0.11, 0.13, 0.09]
ONLINE = [0.08, 0.11, 0.10, 0.10, 0.09]


def make_spec(arms: dict[str, str] | None = None) -> StudySpec:
    arms = arms or {"baseline": "baseline", "online": "online", "offline": "offline"}
    return StudySpec.model_validate(
        {
            "name": "demo",
            "task": {"dataset": "digits"},
            "learner": {"steps": 300},
            "search": {
                "metric": "selection/error",
                "parameters": {
                    "learner.optimizer.lr": {"min": 0.003, "max": 0.3, "log": True},
                    "meta.init_steps": {"values": [250, 500]},
                },
            },
            "arms": {name: {"trials": 4, "set": {"learner.method": method}} for name, method in arms.items()},
            "replicates": 2,
        }
    )


def make_ledger(storage: Storage, spec: StudySpec) -> Ledger:
    return Ledger.create(storage, spec.model_dump(mode="json", by_alias=True), spec.digest, spec.name, {})


def surface(step: int) -> Surface:
    grid = [(target, (k + 0.5) / 20) for target in (0.0, 1.0) for k in range(20)]
    return Surface(
        step=step,
        replicate=0,
        target=tuple(t for t, _ in grid),
        output=tuple(o for _, o in grid),
        learned=tuple((t - o) ** 2 * (1 + step / 100) for t, o in grid),
        task=tuple(-t * math.log(o) for t, o in grid),
    )


def add(
    ledger: Ledger,
    storage: Storage,
    trial: str,
    *,
    lr: float = 0.05,
    state: str = "finished",
    value: float | None = 0.1,
    test: list[float] | None = None,
    curve: bool = False,
) -> None:
    seeds = [100 + int(trial.rpartition("/c")[2])] if "/c" in trial else [0, 1]
    params = {"learner.optimizer.lr": lr, "meta.init_steps": 250 if lr < 0.05 else 500}
    ledger.append(Proposed(trial=trial, params=params, seeds=seeds))
    ledger.append(Began(trial=trial, attempt=1))
    noise = random.Random(trial)
    for step in (100, 200, 300) if curve else ():
        metrics = {"selection/error": tuple(10 / step + 0.02 * noise.random() for _ in seeds)}
        commit = write_commit(
            storage,
            Commit(trial=trial, attempt=1, position=step, step=step, outcome=None, report={}, parent=None),
            {
                "records.parquet": to_parquet(records_to_table([Record(step=step, time_ms=step, metrics=metrics)])),
                "surfaces.parquet": to_parquet(surfaces_to_table([surface(step)])),
            },
        )
        ledger.append(Committed(trial=trial, attempt=1, commit=commit.key, step=step, value=value, values={}))
    metrics_out = {"test/error": test} if test is not None else {}
    cause = "it broke" if state == "failed" else None
    ledger.append(Ended(trial=trial, state=state, step=300, value=value, metrics=metrics_out, cause=cause))  # type: ignore[arg-type]


def add_confirmed(ledger: Ledger, storage: Storage, arm: str, errors: list[float], *, curve: bool = False) -> None:
    add(ledger, storage, f"{arm}/0", value=0.1)
    for index, error in reversed(list(enumerate(errors))):
        add(ledger, storage, f"{arm}/c{index}", test=[error], curve=curve)


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
    assert records_table(storage, trial)["step"].to_pylist() == [100, 100, 200, 200, 300, 300]
    assert surfaces_table(storage, trial).num_rows == 3 * 40


def test_report_is_complete_and_self_contained(storage: Storage, tmp_path: Path) -> None:
    spec = make_spec()
    ledger = make_ledger(storage, spec)
    add_confirmed(ledger, storage, "baseline", BASE, curve=True)
    add_confirmed(ledger, storage, "online", ONLINE, curve=True)
    add(ledger, storage, "online/1", lr=0.01, value=0.07, state="pruned")
    add(ledger, storage, "online/2", lr=0.2, value=None, state="diverged")
    add(ledger, storage, "online/3", lr=0.1, value=0.13)
    add(ledger, storage, "offline/0", state="failed", value=None)
    importances = {"online": {"learner.optimizer.lr": 0.7, "meta.<init>$": 0.3}}
    page = write_report(spec=spec, state=ledger.state, storage=storage, out=tmp_path / "out", importances=importances)
    text = page.read_text(encoding="utf-8")
    for arm in spec.arms:
        assert f"<td>{arm}</td>" in text
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert "<init>" not in text
    pictures = {path.stem for path in (tmp_path / "out" / "pictures").iterdir()}
    assert pictures == {
        "importances", "learned_loss_baseline", "learned_loss_online", "learning_curves", "parallel_online",
        "search_history",
    }  # fmt: skip
    tables = tmp_path / "out" / "tables"
    assert {path.name for path in tables.iterdir()} == {
        "arms.csv", "arms.md", "arms.parquet", "curves.parquet", "trials.csv", "trials.parquet",
    }  # fmt: skip
    assert pq.read_table(tables / "curves.parquet").num_rows == 10 * 3
    assert pq.read_table(tables / "trials.parquet").num_rows == len(ledger.state.trials)
    assert (tables / "arms.md").read_text(encoding="utf-8") == as_markdown(final_table(spec, ledger.state))


def test_study_without_trials_has_a_report(storage: Storage, tmp_path: Path) -> None:
    spec = make_spec()
    ledger = make_ledger(storage, spec)
    ledger.append(Proposed(trial="online/0", params={}, seeds=[0]))
    page = write_report(
        spec=spec, state=ledger.state, storage=storage, out=tmp_path / "out", importances={}, data=["classes: <cat>"]
    )
    assert "No trial has finished yet" in page.read_text(encoding="utf-8")
    assert "<p>classes: &lt;cat&gt;</p>" in page.read_text(encoding="utf-8")
    assert not list((tmp_path / "out").glob("pictures/*"))
