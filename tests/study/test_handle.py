"""The handle of a finished study: each result is what the ledger and the commits hold."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import olfl_ray as ol
from olfl_ray import data
from olfl_ray.driver import check_same
from olfl_ray.errors import DataError, StudyError
from olfl_ray.ledger import Ledger
from olfl_ray.losses.seen import ranges_of
from olfl_ray.methods import complete
from olfl_ray.records import names
from olfl_ray.spec import Parameter, TaskSpec, read_spec, seed_of
from olfl_ray.study import Study, explain_loss

STEPS, EVERY = 60, 20


def fields() -> dict:
    """Half of it as settings, half as mappings."""
    return {
        "name": "small",
        "task": TaskSpec(dataset="digits", model="linear"),  # type: ignore[arg-type]
        "learner": {"steps": STEPS},
        "meta": {"init_steps": 10, "eta_online": 1e-3},
        "eval": {"every": EVERY},
        "checkpoint": {"every_steps": EVERY},
        "replicates": 1,
        "search": {
            "metric": "selection/error",
            "pruner": "none",
            "parameters": {"learner.optimizer.lr": Parameter(min=0.01, max=1.0, log=True)},
        },
        "arms": {"baseline": {"set": {"learner.method": "baseline"}, "trials": 4}, "online": {"trials": 2}},
        "confirm": {"seeds": 2},
    }


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def study(home: Path) -> Iterator[Study]:
    import matplotlib

    matplotlib.use("agg")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        study = ol.Study(**fields(), home=home)
        assert repr(study) == "Study('small', not begun)"
        assert study.status == "new"
        result = study.run(progress=False)
    assert (result.finished, result.undelivered, result.state.failures) == (True, 0, {})
    assert repr(result).startswith("StudyResult('small', finished, 10 trials ended, 0 failed")
    return study


def test_it_is_one_line_and_in_a_notebook_its_tables(study: Study) -> None:
    assert repr(study) == "Study('small', 10 of 10 trials ended)"
    assert study.status == "finished"
    html = study._repr_html_()
    assert "<td>baseline</td>" in html
    assert f"{study.table.loc['online', 'mean']:.4g}" in html
    assert study.data[0].startswith("data digits: 1797 examples")


def test_opening_it_by_its_name_gives_the_same(study: Study, home: Path) -> None:
    again = ol.Study.open("small", home=home)
    assert again.table.equals(study.table)
    assert again.spec == study.spec
    assert [(found.name, found.ended, found.trials) for found in ol.list_studies(home=home)] == [("small", 10, 10)]


def test_the_ledger_is_replayed_once(study: Study, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []
    whole = Ledger.load.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(Ledger, "load", classmethod(lambda *found, **given: loads.append(1) or whole(*found, **given)))
    opened = ol.Study.open("small", home=home)
    assert (opened.status, opened.total, len(opened.trials()), len(opened.table)) == ("finished", 10, 10, 2)
    assert opened.run(progress=False).nothing_to_do
    assert len(loads) == 1


def test_the_table_is_each_arms_winner_on_fresh_seeds(study: Study) -> None:
    table, trials = study.table, study.trials()
    for arm in ("baseline", "online"):
        own = trials[(trials["arm"] == arm) & trials["confirming"]]["test/error"]
        assert table.loc[arm, "mean"] == pytest.approx(own.mean())
        assert table.loc[arm, "sd"] == pytest.approx(own.std())
        assert table.loc[arm, "best"] == study.best(arm).name
    assert list(table["n"]) == [2, 2]
    assert table.loc["online", "difference"] == pytest.approx(
        table.loc["online", "mean"] - table.loc["baseline", "mean"]
    )
    assert math.isnan(table.loc["baseline", "p"])


def test_trials_are_those_of_the_ledger(study: Study) -> None:
    frame = study.trials()
    assert list(frame.index) == list(study.state.trials)
    for name, record in study.state.trials.items():
        assert frame.loc[name, "value"] == record.value
        assert frame.loc[name, "learner.optimizer.lr"] == record.params["learner.optimizer.lr"]
    assert set(study.trials("online")["arm"]) == {"online"}
    assert frame["cause"].isna().all()


def test_curves_and_surfaces_are_what_trials_recorded(study: Study) -> None:
    curves = study.curves("online/c0", metric="selection/error")
    assert list(curves["step"]) == [20, 40, 60]
    assert curves["value"].min() == study.trial("online/c0").value
    everything = study.curves.to_arrow()
    assert everything.num_rows == len(study.curves()) > len(curves)
    assert set(study.curves(arm="baseline")["arm"]) == {"baseline"}
    assert str(curves["time"].dtype) == "datetime64[ms, UTC]"
    surfaces = study.surfaces()
    assert set(surfaces["step"]) == {0, 20, 40, 60}
    assert set(surfaces["arm"]) == {"online"}
    assert list(study.surfaces("baseline/0").columns) == list(surfaces.columns)


def test_a_trial_says_what_it_set_and_found(study: Study) -> None:
    best = study.best("online")
    assert best.value == study.trials("online")["value"][lambda found: ~found.index.str.contains("c")].min()
    assert set(best.settings) == {"learner.optimizer.lr"}
    assert best.config.learner.optimizer.lr == best.settings["learner.optimizer.lr"]
    assert best.config.learner.steps == STEPS
    assert repr(best).startswith(f"Trial('{best.name}', finished at step 60")
    assert study.best().value == min(study.best("online").value, study.best("baseline").value)
    assert study.trial("online/c1").metrics["test/error"] == study.trials().loc["online/c1", "test/error"]
    assert study.trial("online/0").cause is None
    assert "learner.optimizer.lr" in best._repr_html_()


def test_the_learned_loss_of_a_moment_is_the_last_recorded_until_then(study: Study, home: Path) -> None:
    outputs, targets = torch.randn(4, 10), torch.tensor([0, 1, 2, 3])
    values = {step: study.learned("online/c0", at=step)(outputs, targets).item() for step in (0, 20, 40, 60)}
    assert len(set(values.values())) == 4
    for at, step in ((0.0, 0), (1.0, 60), (0.5, 20), (39, 20), (59, 40), (2 / 3, 40)):
        assert study.learned("online/c0", at=at)(outputs, targets).item() == values[step]
    whole = ol.load_loss("small/online/c0", home=home)
    assert study.trial("online/c0").learned()(outputs, targets).item() == whole(outputs, targets).item()


def test_a_trials_learned_loss_is_explained_and_its_formula_may_join_the_study(
    study: Study, home: Path, tmp_path: Path
) -> None:
    found = study.explain("online/c0")
    assert repr(found).startswith("Explanation('small/online/c0': nearest ")
    assert found.reference.outputs == 10
    assert list(found.training["step"].unique()) == [0, 20, 40, 60]
    assert [one.step for one in study.explain("online/c0", at=0.7).moments] == [0, 20, 40]
    loss = study.learned("online/c0")
    assert found.reference.seen == ranges_of(loss.seen)
    assert len(found.plot()) == 3 * 4
    both = complete(read_spec(found.as_arm(tmp_path / "formula.yaml")))
    check_same(both, study.spec.model_dump(mode="json", by_alias=True), study.spec.digest)
    assert list(both.arms) == ["baseline", "online", "online_formula"]
    assert explain_loss("small/online/c0", at=20, home=home).step == 20


def test_the_model_makes_the_errors_that_its_trial_recorded(study: Study, home: Path) -> None:
    for name in ("online/c0", "baseline/c1"):
        trial, model = study.trial(name), study.model(name)
        digits = data.load("digits", {}, cache=study.home.cache, root=None)
        split = trial.config.task.split
        held = data.split(
            digits,
            study_seed=trial.config.study_seed,
            seed=seed_of(trial.seeds[0], "split"),
            test=split.test,
            meta=split.meta,
            selection=split.selection,
        ).test
        wrong = model(digits.x[held]).argmax(1) != digits.y[held]
        assert wrong.double().mean().item() == pytest.approx(trial.metrics[names.on_test("error")], abs=1e-12)
        assert model.classes == tuple("0123456789")
        assert model.predict(digits.x[held][:3].numpy()) == [
            str(k) for k in model(digits.x[held][:3]).argmax(1).tolist()
        ]
        assert (model.kind, model.training, model.step in (20, 40, 60)) == ("classification", False, True)
        assert sum(p.numel() for p in model.module.parameters()) == 650


def test_pictures_are_axes_with_the_same_numbers(study: Study) -> None:
    import matplotlib.pyplot as plt

    before = len(plt.get_fignums())
    axes = study.plot.learning_curves()
    curves = study.curves(metric="selection/error")
    online = curves[(curves["arm"] == "online") & curves["confirming"]].groupby("step")["value"].mean()
    drawn = {line.get_label(): line.get_ydata() for line in axes.get_lines()}
    assert np.allclose(drawn["online (n=2)"], online)
    assert [panel.get_title() for panel in study.plot.learned_loss("online")] == ["target 0", "target 1"]
    assert [panel.get_title(loc="left") for panel in study.plot.importance()] == ["baseline"]
    assert study.plot.search_history().get_xlabel() == "search trial"
    assert study.plot.parallel_coordinates("baseline").get_title(loc="left") == "baseline"
    assert len(plt.get_fignums()) == before + 5  # a notebook shows them
    plt.close("all")


def test_its_report_is_written_again(study: Study) -> None:
    page = study.report()
    page.unlink()
    assert study.report() == page
    assert "small" in page.read_text()


def test_its_plan_is_a_dry_run(study: Study) -> None:
    plan = study.plan()
    assert plan.trials == {"baseline": 4, "online": 2}
    assert plan.points["online"][0] == {"learner.optimizer.lr": 0.01}
    assert f"digest {study.state.digest}" in str(plan)
    assert "data digits: 1,797 examples" in str(plan)
    assert "\n" not in repr(plan)


@pytest.mark.parametrize(
    ("use", "kind", "words"),
    [
        (lambda study: study.trial("online/7"), StudyError, "no trial 'online/7'"),
        (lambda study: study.best("onlin"), StudyError, "no arm 'onlin'"),
        (lambda study: study.trials("onlin"), StudyError, "no arm 'onlin'"),
        (lambda study: study.curves("online/7"), StudyError, "no trial 'online/7'"),
        (lambda study: study.surfaces(arm="onlin"), StudyError, "no arm 'onlin'"),
        (lambda study: study.learned("baseline/c0"), DataError, "saved no learned loss"),
        (lambda study: study.learned("online/c0", at=61), DataError, "from 0 to 60"),
        (lambda study: study.learned("online/c0", at=1.5), DataError, "0.0 to 1.0"),
        (lambda study: study.explain("baseline/c0"), DataError, "saved no learned loss"),
        (lambda study: study.explain("online/c0", at=61), DataError, "from 0 to 60"),
        (lambda study: study.model("online/c0", replicate=1), DataError, "replicate"),
        (lambda study: study.plot.learned_loss("baseline"), StudyError, "nothing to draw"),
        (lambda study: study.stop(), StudyError, "is not running"),
        (lambda study: study.retry("online/0", progress=False), StudyError, "only a failed one"),
        (lambda study: study.submit(), StudyError, "cluster"),
        (lambda study: study.extend(0, progress=False), StudyError, "at least 1"),
    ],
)
def test_what_can_not_be_had_is_one_sentence(study: Study, use, kind: type, words: str) -> None:
    with pytest.raises(kind, match=words):
        use(study)


def test_a_handle_of_another_spec_shows_no_results_of_this_one(study: Study, home: Path) -> None:
    other = ol.Study(**{**fields(), "learner": {"steps": STEPS + 1}}, home=home)
    with pytest.raises(StudyError, match="another spec exists already"):
        _ = other.table
    assert repr(other) == "Study('small')"


def test_a_study_that_is_not_there_is_refused(home: Path) -> None:
    with pytest.raises(StudyError, match="there is no study 'smal'"):
        ol.Study.open("smal", home=home)
    with pytest.raises(StudyError, match="has not begun"):
        _ = ol.Study(**{**fields(), "name": "new"}, home=home).table
