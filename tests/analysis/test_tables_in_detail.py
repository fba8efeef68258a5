"""Edge cases of the final table: no seed, one, two; trials by state; which arm is the baseline; equal errors."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import pytest
from scipy import stats

from olfl_ray.analysis import (
    detectable,
    final_table,
    paired,
    remarks,
    sign_flips,
    sign_test,
    spread_of,
    values_on_test,
)
from olfl_ray.analysis.statistics import mean, sd
from olfl_ray.analysis.tables import baseline_arm, records_table, surfaces_table
from olfl_ray.ledger import Began, Commit, Committed, Ended, Examined, Ledger, Proposed, write_commit
from olfl_ray.records import Record, records_to_table, to_parquet
from olfl_ray.spec import StudySpec
from olfl_ray.storage import Storage, open_storage


def make_spec(arms: dict[str, str], goal: str = "minimize") -> StudySpec:
    return StudySpec.model_validate(
        {
            "name": "demo",
            "task": {"dataset": "diabetes"},
            "search": {
                "metric": "selection/error",
                "goal": goal,
                "parameters": {"learner.optimizer.lr": {"min": 0.01, "max": 0.1}},
            },
            "arms": {name: {"trials": 4, "set": {"learner.method": method}} for name, method in arms.items()},
        }
    )


SPEC = make_spec({"plain": "baseline", "online": "online"})


def examined(arm: str, primary: str = "error", *, learns: bool) -> Examined:
    goals = {"task_loss": "minimize", "error": "minimize", "accuracy": "maximize"}
    return Examined(
        arm=arm, data="d", code={}, task="classification", primary=primary, goals=goals, units={}, learns=learns
    )


class Study:
    """A ledger to which ended trials are added."""

    def __init__(self, folder: Path, primary: str = "error") -> None:
        self.storage: Storage = open_storage(folder)
        self.ledger = Ledger.create(self.storage, SPEC.model_dump(mode="json", by_alias=True), SPEC.digest, "demo", {})
        for arm in SPEC.arms:
            self.ledger.append(examined(arm, primary, learns=arm == "online"))

    def add(self, trial: str, state: str = "finished", value: float | None = 0.1, **metrics: list[float]) -> None:
        seed = 100 + int(trial.rpartition("/c")[2]) if "/c" in trial else 0
        self.ledger.append(Proposed(trial=trial, params={"learner.optimizer.lr": 0.05}, seeds=[seed]))
        if state == "planned":
            return
        self.ledger.append(Began(trial=trial, attempt=1))
        if state != "running":
            found = {f"test/{name}": one for name, one in metrics.items() if "_" not in name}
            found |= {name.replace("trivial_", "trivial/"): one for name, one in metrics.items() if "_" in name}
            cause = "boom" if state == "failed" else None
            self.ledger.append(
                Ended(trial=trial, state=state, step=1, value=value, metrics=found, cause=cause)  # type: ignore[arg-type]
            )


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)


@pytest.mark.parametrize("seeds", [0, 1, 2, 3])
def test_means_need_one_seed_and_spreads_two(study: Study, seeds: int) -> None:
    errors = [0.2, 0.4, 0.9][:seeds]
    study.add("online/0")
    for index in range(seeds):
        study.add(f"online/c{index}", error=[errors[index]])
    (_, found) = final_table(SPEC, study.ledger.state)
    assert found.n == seeds
    assert dict(found.test.values) == dict(zip((100, 101, 102), errors, strict=False))
    assert found.test.mean == (pytest.approx(statistics.mean(errors)) if seeds else None)
    assert found.test.sd == (pytest.approx(statistics.stdev(errors)) if seeds > 1 else None)
    assert spread_of(found.test).count("±") == (1 if seeds > 1 else 0)


def test_an_arm_no_better_than_a_constant_prediction_is_marked(study: Study) -> None:
    for arm, error in (("plain", 0.1), ("online", 0.2)):
        study.add(f"{arm}/0")
        study.add(f"{arm}/c0", error=[error], trivial_error=[0.2])
    plain, online = final_table(SPEC, study.ledger.state)
    assert (plain.test.trivial, plain.test.no_better_than_trivial) == (0.2, False)
    assert online.test.no_better_than_trivial
    said = " ".join(remarks([plain, online]))
    assert "0.2000" in said
    assert "online is no better" in said
    assert "plain" not in said


def test_higher_is_better_for_a_maximized_metric(tmp_path: Path) -> None:
    study, spec = Study(tmp_path), make_spec({"plain": "baseline", "online": "online"}, goal="maximize")
    for arm, value in (("plain", 0.4), ("online", 0.7)):
        study.add(f"{arm}/0", value=0.2)
        study.add(f"{arm}/1", value=0.6)
        for index in range(2):
            study.add(f"{arm}/c{index}", error=[value], trivial_error=[0.5])
    plain, online = final_table(spec, study.ledger.state)
    assert (online.best, online.selection_value) == ("online/1", 0.6)
    assert plain.test.no_better_than_trivial
    assert not online.test.no_better_than_trivial
    assert online.test.gain == pytest.approx(0.3)


def test_table_reports_a_contradicting_primary_metric(tmp_path: Path) -> None:
    study = Study(tmp_path, primary="accuracy")
    for arm, error, accuracy in (("plain", 0.2, 0.8), ("online", 0.1, 0.7)):
        study.add(f"{arm}/0")
        for index in range(2):
            study.add(f"{arm}/c{index}", error=[error], accuracy=[accuracy])
    plain, online = final_table(SPEC, study.ledger.state)
    assert (plain.contradicted, online.contradicted) == (False, True)
    assert online.primary is not None
    assert online.primary.gain == pytest.approx(-0.1)
    (line,) = remarks([plain, online])
    assert line.index("error") < line.index("worse") < line.index("accuracy")


def test_primary_metric_is_omitted_if_it_is_the_search_metric(study: Study) -> None:
    assert [result.primary for result in final_table(SPEC, study.ledger.state)] == [None, None]


def test_search_and_confirming_trials_are_counted_separately_by_state(study: Study) -> None:
    for ordinal, state in enumerate(["finished", "finished", "pruned", "failed"]):
        study.add(f"online/{ordinal}", state, 0.3 - 0.1 * ordinal)
    study.add("online/c0", "running")
    study.add("online/c1", "failed", None)
    study.add("plain/0", "planned")
    plain, online = final_table(SPEC, study.ledger.state)
    assert (plain.arm, plain.trials, plain.confirming) == ("plain", {"planned": 1}, {})
    assert (plain.best, plain.best_params, plain.selection_value) == (None, {}, None)
    assert online.trials == {"finished": 2, "pruned": 1, "failed": 1}
    assert online.confirming == {"running": 1, "failed": 1}
    assert (online.best, online.best_params) == ("online/1", {"learner.optimizer.lr": 0.05})
    assert online.selection_value == pytest.approx(0.2)


def test_a_seeds_value_is_the_finite_mean_of_its_replicates(study: Study) -> None:
    study.add("online/0")
    study.add("online/c0", error=[0.2, 0.4])
    study.add("online/c1", error=[0.2, math.inf])
    study.add("online/c2", error=[])
    study.add("online/c3")
    assert values_on_test(SPEC, study.ledger.state, "online", "test/error") == {100: pytest.approx(0.3)}


@pytest.mark.parametrize(
    ("arms", "baseline"),
    [
        ({"plain": False, "baseline": False}, "baseline"),
        ({"baseline": True, "plain": False}, "baseline"),
        ({"online": True, "plain": False, "other": False}, "plain"),
        ({"online": True}, None),
    ],
)
def test_baseline_is_the_arm_of_that_name_or_the_first_that_learns_nothing(
    arms: dict[str, bool], baseline: str | None, tmp_path: Path
) -> None:
    spec = make_spec(dict.fromkeys(arms, "online"))
    ledger = Ledger.create(open_storage(tmp_path), {}, spec.digest, "demo", {})
    for arm, learns in arms.items():
        ledger.append(examined(arm, learns=learns))
    assert baseline_arm(spec, ledger.state) == baseline


def test_an_arm_that_was_never_examined_is_no_baseline(tmp_path: Path) -> None:
    ledger = Ledger.create(open_storage(tmp_path), {}, "digest", "demo", {})
    assert baseline_arm(make_spec({"plain": "baseline"}), ledger.state) is None


def test_arms_are_compared_with_the_baseline_and_the_baseline_with_none(study: Study) -> None:
    for arm, off in (("plain", 0.0), ("online", 0.1)):
        study.add(f"{arm}/0")
        for index, error in enumerate([0.2, 0.5]):
            study.add(f"{arm}/c{index}", error=[error + off * (1 + index)])
    plain, online = final_table(SPEC, study.ledger.state)
    assert plain.test.difference is None
    assert online.test.difference is not None
    assert (online.test.difference.baseline, online.test.difference.mean) == ("plain", pytest.approx(0.15))


def test_corrupt_records_are_skipped_with_a_warning(study: Study, caplog: pytest.LogCaptureFixture) -> None:
    study.ledger.append(Proposed(trial="online/0", params={}, seeds=[0]))
    study.ledger.append(Began(trial="online/0", attempt=1))
    keys = []
    for step in (1, 2, 3):
        table = to_parquet(records_to_table([Record(step=step, time_ms=step, metrics={"m": (0.5,)})]))
        commit = Commit(trial="online/0", attempt=1, position=step, step=step, outcome=None, report={}, parent=None)
        written = write_commit(study.storage, commit, {"records.parquet": table})
        keys.append(written.key)
        study.ledger.append(
            Committed(trial="online/0", attempt=1, commit=written.key, step=step, value=None, values={})
        )
    study.storage.write(keys[1], b"corrupt")
    trial = study.ledger.state.trials["online/0"]
    assert records_table(study.storage, trial)["step"].to_pylist() == [1, 3]
    assert surfaces_table(study.storage, trial).num_rows == 0
    assert "online/0" in caplog.text
    assert keys[1] in caplog.text


def test_equal_errors_give_no_difference_and_a_constant_difference_is_certain() -> None:
    zero = paired("task", {1: 0.0, 2: 0.0}, {1: 0.0, 2: 0.0})
    assert zero is not None
    assert (zero.n, zero.mean, zero.sd, zero.low, zero.high, zero.detectable, zero.p) == (2, 0, 0, 0, 0, 0, 1.0)
    apart = paired("task", {1: 1.5, 2: 2.5, 3: 3.5}, {1: 1.0, 2: 2.0, 3: 3.0})
    assert apart is not None
    assert (apart.n, apart.sd, apart.low, apart.high, apart.detectable, apart.p) == (3, 0.0, 0.5, 0.5, 0.0, 0.0)


@pytest.mark.parametrize("size", [1e-9, 1.0, 1e9])
def test_rounding_is_relative_to_the_size_of_the_errors(size: float) -> None:
    """Rounding of large errors is not a spread; a spread of small ones is."""
    rounding = paired("task", {1: size, 2: 2 * size}, {1: size * (1 + 1e-14), 2: 2 * size})
    assert rounding is not None
    assert rounding.sd == 0.0
    real = paired("task", {1: size, 2: 2 * size}, {1: size * (1 + 1e-10), 2: 2 * size})
    assert real is not None
    assert real.sd > 0.0


def test_students_t_needs_two_seeds() -> None:
    own, other = {1: 0.2, 2: 0.5}, {1: 0.1, 2: 0.6}
    found, wanted = paired("task", own, other), stats.ttest_rel(list(own.values()), list(other.values()))
    assert found is not None
    assert (found.n, found.p) == (2, pytest.approx(wanted.pvalue))
    assert found.detectable == pytest.approx(detectable(found.sd, 2))
    assert paired("task", {1: 0.2}, other) is None
    assert paired("task", {3: 0.2}, other) is None


def test_a_stricter_level_needs_a_larger_difference() -> None:
    spread, n = 0.3, 9
    for level in (0.05, 0.01):
        wanted = (stats.t.ppf(1 - level / 2, n - 1) + stats.t.ppf(0.8, n - 1)) * spread / math.sqrt(n)
        assert detectable(spread, n, level=level) == pytest.approx(wanted)
    assert detectable(spread, n) == detectable(spread, n, level=0.05)


@pytest.mark.parametrize(("less", "more"), [(0, 5), (5, 0), (1, 4), (3, 3), (0, 1)])
def test_sign_test_matches_scipys_binomial_test(less: int, more: int) -> None:
    assert sign_test(less, more) == pytest.approx(stats.binomtest(less, less + more, 0.5).pvalue)
    assert sign_test(0, 0) == 1.0


def test_all_sign_assignments_are_enumerated_up_to_sixteen_differences() -> None:
    one_sign = [0.1 + 0.01 * index for index in range(16)]
    assert sign_flips(one_sign) == 2 / 2**16
    drawn = sign_flips([*one_sign, 0.3])
    assert 1 / 2**16 <= drawn < 10 / 2**16, "the observed signs are among those drawn"


def test_mean_and_sd_are_sample_statistics() -> None:
    values = [1e16, 1.0, -1e16, 3.0]
    assert mean(values) == 1.0, "no intermediate rounding"
    assert sd([1.0, 2.0, 4.0]) == pytest.approx(statistics.stdev([1.0, 2.0, 4.0]))


@pytest.mark.parametrize(
    ("arm", "norm", "task_norm", "cosines", "says"),
    [
        ("online", 0.003, 1.0, (0.4, 0.6), "333 times smaller"),
        ("plain", 0.0, 1.0, (0.0, 0.0), "gradient of 0"),
        ("online", 1.0, 1.0, (-0.9, 0.5), "cosine -0.2"),
        ("online", 0.02, 1.0, (-0.1, 0.5), ""),
        ("online", 5.0, 0.0, (0.0, 0.0), ""),
    ],
)
def test_ineffective_gradient_is_remarked(
    study: Study, arm: str, norm: float, task_norm: float, cosines: tuple[float, float], says: str
) -> None:
    study.add(f"{arm}/0")
    study.add(f"{arm}/c0", state="planned")
    study.ledger.append(Began(trial=f"{arm}/c0", attempt=1))
    for step, cosine in enumerate(cosines, 1):
        metrics = {"train/grad_norm": (norm,), "train/task_grad_norm": (task_norm,), "train/grad_cosine": (cosine,)}
        record = Record(step=step, time_ms=step, metrics=metrics)
        commit = write_commit(
            study.storage,
            Commit(trial=f"{arm}/c0", attempt=1, position=step, step=step, outcome=None, report={}, parent=None),
            {"records.parquet": to_parquet(records_to_table([record]))},
        )
        study.ledger.append(Committed(trial=f"{arm}/c0", attempt=1, commit=commit.key, step=step, value=0.1, values={}))
    study.ledger.append(Ended(trial=f"{arm}/c0", state="finished", step=2, value=0.1, metrics={}, cause=None))
    said = remarks(final_table(SPEC, study.ledger.state, study.storage))
    assert [says in line and line.startswith(arm) for line in said] == ([True] if says else [])
    assert remarks(final_table(SPEC, study.ledger.state)) == []
