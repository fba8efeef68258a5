"""What `olfl data check` and the dry run say of the data, against counts by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from olfl_ray import data
from olfl_ray.driver import Home, check_dataset
from olfl_ray.errors import UserError
from olfl_ray.trial import DataSummary

ROWS = [
    [f"{index}.5", "" if index % 10 == 3 else str(index % 3), "rare" if index % 20 == 0 else "often"]
    for index in range(200)
]
SETTINGS = ("task.dataset.target=label", "task.dataset.missing=mean")


@pytest.fixture
def summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """The summary of a table of a, b and label."""
    monkeypatch.chdir(tmp_path)
    home = Home.find(tmp_path / "home")

    def go(rows: Sequence[Sequence[str]], *overrides: str) -> DataSummary:
        Path("t.csv").write_text("\n".join(["a,b,label", *map(",".join, rows)]) + "\n")
        (found,) = check_dataset("csv:t.csv", overrides=[*SETTINGS, *overrides], home=home)
        return found

    return go


def test_counts_are_those_of_the_file(summary) -> None:  # type: ignore[no-untyped-def]
    found = summary(ROWS)
    assert (found.examples, found.kind, found.shape, found.columns) == (200, "classification", (2,), ("a", "b"))
    assert found.classes == {"often": 190, "rare": 10}
    assert (found.missing, found.dropped) == ({"b": 20}, 0)
    assert sum(found.splits.values()) == 200
    assert found.rarest == "rare"
    assert sum(found.rarest_splits.values()) == 10
    share = found.rarest_splits["selection"] / found.splits["selection"]
    assert found.trivial["error"] == pytest.approx(share), "the larger class is predicted"
    assert set(found.duplicates.values()) == {0}
    lines = str(found)
    assert "often 190 (95.0%), rare 10 (5.0%)" in lines
    assert "missing values: b 20 (10.0%)" in lines
    dropped = summary(ROWS, "task.dataset.missing=drop")
    assert (dropped.examples, dropped.dropped, dropped.missing) == (180, 20, {})


def test_duplicates_between_splits_and_contradictions_are_counted(summary) -> None:  # type: ignore[no-untyped-def]
    same = [["1.0", "2", row[2]] for row in ROWS]
    found = summary(same)
    assert found.duplicates == {part: found.splits[part] for part in ("meta", "selection", "test")}
    assert set(found.contradictions.values()) == {0}, "train has these inputs with both labels"
    pairs = [[f"{index // 2}.5", "1", ("often", "rare")[index % 2]] for index in range(200)]
    found = summary(pairs)
    assert found.duplicates == found.contradictions
    assert 0 < found.duplicates["test"] < found.splits["test"]
    assert "with another target" in str(found)


def test_minus_zero_is_zero(summary) -> None:  # type: ignore[no-untyped-def]
    found = [
        summary(
            [
                [f"{index // 2}.5", zero if index % 2 else "0.0", "often" if index % 4 < 2 else "rare"]
                for index in range(200)
            ]
        )
        for zero in ("0.0", "-0.0")
    ]
    assert found[0].duplicates == found[1].duplicates
    assert found[0].duplicates["test"] > 0


def test_search_metric_is_among_the_constant_predictions(summary) -> None:  # type: ignore[no-untyped-def]
    found = summary(ROWS, "search.metric=selection/balanced_error")
    assert found.trivial["balanced_error"] == 0.5
    units = summary(ROWS, "task.dataset.target=a", "task.dataset.drop=[label]", "search.metric=selection/mae")
    assert units.classes == {}
    assert units.targets == ((0.5, 100.0, 199.5),)
    assert 40 < units.trivial["mae"] < 60
    plain = summary(
        ROWS,
        "task.dataset.target=a",
        "task.dataset.drop=[label]",
        "search.metric=selection/mae",
        "task.standardize.y=false",
    )
    assert units.trivial["mae"] == pytest.approx(plain.trivial["mae"], rel=1e-5)


def test_arms_with_other_data_have_a_summary_each(tmp_path: Path) -> None:
    spec = tmp_path / "two.yaml"
    spec.write_text(
        "name: two\ntask: {dataset: digits}\nsearch: {parameters: {}}\n"
        "arms: {a: {trials: 1}, b: {trials: 1, set: {task.dataset: diabetes}}, c: {trials: 1}}\n"
    )
    data.forget()
    found = check_dataset(str(spec), home=Home.find(tmp_path / "home"))
    assert [(one.name, one.examples) for one in found] == [("digits", 1797), ("diabetes", 442)]
    spec.write_text(spec.read_text().replace("digits", "digit"))
    with pytest.raises(UserError, match=r"two.yaml:2: task.dataset: .*did you mean 'digits'"):
        check_dataset(str(spec), home=Home.find(tmp_path / "home"))
