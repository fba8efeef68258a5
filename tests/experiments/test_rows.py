"""The benchmarks are complete: each in four forms, every method with the same search, short cuts that are short."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from experiments.paper import METHODS, read_cards, study_of
from olfl_ray.errors import SpecError
from olfl_ray.spec import StudySpec, seed_of

FOLDER = Path(__file__).parents[2] / "experiments" / "paper" / "rows"
ROWS = list(read_cards(FOLDER))
REGRESSION = ("communities_crime", "diabetes", "california_housing")


@functools.cache
def form(row: str, settings: str = "tuned", scale: str = "full", seeds: int = 10, *sets: str) -> StudySpec:
    return study_of(row, folder=FOLDER, settings=settings, scale=scale, seeds=seeds, overrides=sets)  # type: ignore[arg-type]


def test_every_file_is_a_row_and_every_row_a_file() -> None:
    assert sorted(ROWS) == sorted(path.stem for path in FOLDER.glob("*.yaml") if path.name != "rows.yaml")
    assert len(ROWS) == 14


@pytest.mark.parametrize("row", ROWS)
def test_forms_of_a_row(row: str) -> None:
    full, short = form(row), form(row, scale="short")
    assert full.name == f"paper-{row}-tuned"
    assert short.name == f"paper-{row}-tuned-short"
    assert short.learner.steps * 2 < full.learner.steps
    for spec in (full, short):
        assert len({arm.trials for arm in spec.arms.values()}) == 1, "an equal search budget"
        assert spec.confirm.seeds == 10
        assert all("learner.optimizer.lr" in spec.parameters_of(arm) for arm in spec.arms)
    fixed = form(row, "fixed", "full", 4)
    assert fixed.name == f"paper-{row}-fixed"
    assert {(arm.trials, len(fixed.parameters_of(name))) for name, arm in fixed.arms.items()} == {(1, 0)}
    assert fixed.confirm.seeds == 4
    assert (fixed.task, fixed.learner, fixed.loss, fixed.meta) == (full.task, full.learner, full.loss, full.meta)


@pytest.mark.parametrize("row", [row for row in ROWS if row != "mnist_transfer"])
def test_methods_of_a_row(row: str) -> None:
    fixed_losses = () if row in REGRESSION else ("label_smoothing", "focal", "poly1")
    arms = form(row).arms
    assert list(arms) == [name for name in METHODS if name in arms]
    absent = {"from_mlp", "replay_mlp"} | ({"label_smoothing", "focal", "poly1"} if row in REGRESSION else set())
    assert set(METHODS) - set(arms) == absent
    methods = {name: arm.set["learner.method"] for name, arm in arms.items()}
    assert methods == {
        **{name: name for name in ("baseline", "offline", "online", "online_lr", *fixed_losses)},
        "more_data": "experiments.paper.methods:MoreData",
        "same_compute": "baseline",
    }
    for scale in ("full", "short"):
        spec = form(row, scale=scale)
        rounds = spec.meta.init_steps * (spec.meta.inner_steps + 1) / 2  # each takes a plain step's passes and more
        given = spec.arms["same_compute"].set["learner.steps"]
        assert given >= 8 / 3 * (spec.learner.steps + rounds), "no step of Algorithm 1 or 2 is cheaper, in passes"


def test_seeds_of_the_search_are_never_those_of_the_report() -> None:
    for row in ROWS:
        spec = form(row)
        searched = {seed_of(spec.seed, "search", replicate) for replicate in range(spec.replicates)}
        assert not searched & {seed_of(spec.seed, "confirm", index) for index in range(1000)}


def test_a_field_may_be_overridden_in_any_form() -> None:
    assert form("diabetes", "fixed", "short", 2, "concurrency=1").concurrency == 1


def test_unknown_rows_and_folders_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"there is no benchmark 'mnist_lenet' \(did you mean 'mnist_lenet5'\?\)"):
        form("mnist_lenet")
    with pytest.raises(SpecError, match=r"^--folder: .*rows\.yaml can't be read"):
        read_cards(tmp_path)
    (tmp_path / "rows.yaml").write_text("rows:\n  one:\n    title: One\n    shrot: {}\n")
    with pytest.raises(SpecError, match=r"rows\.yaml:4: rows\.one\.shrot: there is no such field"):
        read_cards(tmp_path)
