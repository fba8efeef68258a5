"""A study's learned losses on other tasks: the studies that are made, the table of cells, and one that is really run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.commands import Run, in_process
from support.conducting import study as spec_of
from support.json_documents import check

from olfl_ray.analysis import holm, paired
from olfl_ray.errors import StudyError
from olfl_ray.ledger import Began, DriverStarted, DriverStopped, Ended, Ledger, Proposed
from olfl_ray.methods import base_passes
from olfl_ray.spec import StudySpec, read_spec, seed_of, trial_config
from olfl_ray.study import Home, Study
from olfl_ray.study.transfer import transfer_spec

SWEEPS = Path(__file__).parents[2] / "sweeps"
VALUES = {
    "baseline": [0.20, 0.21, 0.25, 0.22],
    "same_compute": [0.18, 0.19, 0.21, 0.20],
    "online": [0.15, 0.17, 0.2, 0.18],
}


@pytest.fixture
def olfl(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return in_process(monkeypatch, capfd, tmp_path)


def record(home: Home, spec: StudySpec, values: Mapping[str, list[float]], metric: str = "error") -> None:
    """A finished study with these values on fresh seeds."""
    ledger = Ledger.create(
        home.storage(spec.name), spec.model_dump(mode="json", by_alias=True), spec.digest, spec.name, {}
    )
    ledger.append(DriverStarted(epoch=1, host="here", pid=7))
    for arm, own in values.items():
        for trial, seed, value in [
            (f"{arm}/0", 1, own[0]),
            *((f"{arm}/c{k}", seed_of(spec.seed, "confirm", k), value) for k, value in enumerate(own)),
        ]:
            ledger.append(Proposed(trial=trial, params={}, seeds=[seed]))
            ledger.append(Began(trial=trial, attempt=1))
            metrics = {f"test/{metric}": [value]}
            ledger.append(Ended(trial=trial, state="finished", step=9, value=value, metrics=metrics, cause=None))
    ledger.append(DriverStopped(epoch=1, reason="finished"))


def small(name: str, metric: str = "error", **changes: Any) -> StudySpec:
    search = {"metric": f"selection/{metric}", "parameters": {}, "pruner": "none"}
    arms = {"baseline": {"set": {"learner.method": "baseline"}, "trials": 1}, "online": {"trials": 1}}
    return spec_of(**{"name": name, "tracking": [], "search": search, "arms": arms, "confirm": {"seeds": 4}, **changes})


def test_every_arm_of_a_task_has_the_settings_and_the_search_of_its_baseline() -> None:
    target = read_spec(SWEEPS / "digits.yaml")
    found = transfer_spec(target, "s-to-digits", {"evomal": ("s/evomal/3", "expression")}, passes=400)
    assert list(found.arms) == ["baseline", "same_compute", "evomal"]
    assert found.arms["evomal"].set == {"learner.method": "offline", "loss.from": "s/evomal/3"}
    assert found.arms["same_compute"].set["learner.steps"] == target.learner.steps + 400
    assert {(own.trials, *own.parameters) for own in found.arms.values()} == {(target.arms["baseline"].trials,)}
    assert found.search.parameters.keys() == {"learner.optimizer.lr"}, "meta.* is searched only where a loss is learned"
    assert (found.task, found.eval, found.seed) == (target.task, target.eval, target.seed)


def test_a_task_may_have_a_loss_and_a_search_of_its_own(tmp_path: Path) -> None:
    target = read_spec(SWEEPS / "evomal_diabetes.yaml")
    found = transfer_spec(target, "x", {"mine": ("s/mine/0", "olfl_ray.losses.learned.taylor:Taylor")}, passes=1)
    assert found.arms["mine"].set["loss.name"] == "olfl_ray.losses.learned.taylor:Taylor", (
        "so that its code may be called"
    )
    assert not any(found.parameters_of(arm) for arm in found.arms)
    with pytest.raises(StudyError, match="64 characters"):
        transfer_spec(target, "x" * 65, {}, passes=1)


def test_passes_of_the_base_learner_are_counted_by_the_algorithm() -> None:
    spec = read_spec(SWEEPS / "evomal_digits.yaml")
    cost = {arm: base_passes(trial_config(spec, arm, {}, seeds=(0,))) for arm in spec.arms}
    assert cost == {"baseline": 200, "gp_lfl": 200, "evomal": 200 + 100 * 2}
    online = small("s", meta={"init_steps": 10, "inner_steps": 3, "every": 2})
    assert base_passes(trial_config(online, "online", {}, seeds=(0,))) == 900 + 450 + 10 * 4
    given = trial_config(online, "online", {"loss.from": "s/online/0"}, seeds=(0,))
    assert base_passes(given) == 900 + 450, "a loss that is given is not initialised"


def test_each_cell_is_paired_with_both_controls_and_corrected_over_the_cells(tmp_path: Path, olfl: Run) -> None:
    home = Home(tmp_path / "home")
    record(home, small("s"), {arm: VALUES[arm] for arm in ("baseline", "online")})
    targets = {"a": small("a"), "b": small("b", "accuracy")}
    for name, spec in targets.items():
        (tmp_path / f"{name}.yaml").write_text(spec.model_dump_json(by_alias=True))
    transfer = Study.open("s", home=home).transfer(list(targets.values()))
    assert transfer.losses == {"online": "online/0"}
    assert transfer.table.empty
    assert not transfer.studies["a"].begun
    for name, metric in (("a", "error"), ("b", "accuracy")):
        record(home, transfer.studies[name].spec, VALUES, metric)
    first, second = Study.open("s", home=home).transfer(list(targets.values())).cells
    wanted = paired("baseline", dict(enumerate(VALUES["online"])), dict(enumerate(VALUES["baseline"])))
    assert wanted is not None
    assert first.against["baseline"].mean == pytest.approx(wanted.mean)
    assert [first.holm["baseline"], second.holm["baseline"]] == pytest.approx(holm([wanted.p] * 2))
    assert first.holm["baseline"] == pytest.approx(2 * wanted.p)
    assert first.gain("baseline") == pytest.approx(-100 * wanted.mean / 0.22)
    assert second.gain("baseline") == pytest.approx(100 * wanted.mean / 0.22), "a higher accuracy is better"
    assert first.differs("baseline")
    assert set(first.against) == {"baseline", "same_compute"}

    command = ("sweep", "transfer", "s", "--to", "a.yaml", "--to", "b.yaml", "--home", home.path)
    code, out, err = olfl(*command, "--json", "--out", tmp_path / "map.html")
    assert code == 0, err
    check("olfl sweep transfer", json.loads(out))
    assert "<svg" in (tmp_path / "map.html").read_text()
    code, out, err = olfl(*command, "--out", "map.png")
    assert (code, (tmp_path / "map.png").read_bytes()[:4]) == (0, b"\x89PNG"), err
    assert "b: test/accuracy, losses of s" in out
    assert olfl(*command, "--out", "map.gif")[0] == 2


def test_a_study_without_a_learned_loss_and_two_tasks_of_one_name_are_refused(tmp_path: Path) -> None:
    home = Home(tmp_path)
    record(home, small("s"), {"baseline": VALUES["baseline"]})
    with pytest.raises(StudyError, match="no arm with a learned loss"):
        Study.open("s", home=home).transfer([small("a")])
    record(home, small("t"), {arm: VALUES[arm] for arm in ("baseline", "online")})
    with pytest.raises(StudyError, match="two specs have the name 'a'"):
        Study.open("t", home=home).transfer([small("a"), small("a")])
    with pytest.raises(StudyError, match="no trial 'online/9'"):
        Study.open("t", home=home).transfer([small("a")], trials=["online/9"])


def test_a_symbolic_loss_with_its_weights_trains_another_learner(tmp_path: Path) -> None:
    """The weights that one task learned are the other's, and stay; running it again finds nothing to do."""
    short = {
        "learner": {"steps": 20, "optimizer": {"name": "sgd", "lr": 0.1}},
        "eval": {"every": 20},
        "replicates": 1,
        "confirm": {"seeds": 2},
    }
    own = {
        "learner.method": "offline",
        "meta.init_steps": 5,
        "loss.name": "expression",
        "loss.formula": "square(y - f)",
    }
    learned = small("s", **short, arms={"symbolic": {"set": own, "trials": 1}})
    source = Study.from_spec(learned, home=tmp_path)
    source.run(progress=False)
    target = small("t", **short, task={"dataset": "digits", "model": "linear"})
    transfer = source.transfer([target])
    results = transfer.run(progress=False)
    assert (results["t"].finished, results["t"].state.failures) == (True, {})
    frame = transfer.table.loc["symbolic", "t"]
    assert (frame["n"], frame["metric"]) == (2, "test/error")
    assert frame["baseline_difference"] == pytest.approx(frame["mean"] - frame["baseline_mean"])
    before, after = source.learned("symbolic/0"), transfer.studies["t"].learned("symbolic/c1")
    assert {name: value.tolist() for name, value in before.named_parameters()} == {
        name: value.tolist() for name, value in after.named_parameters()
    }
    assert transfer.run(progress=False)["t"].nothing_to_do
