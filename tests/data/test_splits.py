"""Four splits: disjoint, stratified, seeded; the test split is the same for all replicates of a study."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from olfl_ray import data
from olfl_ray.errors import DataError

PARTS = ("train", "meta", "selection", "test")


def dataset(y: torch.Tensor, kind: str = "classification", test: torch.Tensor | None = None) -> data.Dataset:
    return data.Dataset(
        name="own",
        kind=kind,
        x=torch.zeros(len(y), 2),
        y=y,
        test=test,
        outputs=int(y.max()) + 1 if kind == "classification" else 1,
        fingerprint="",
        source="",
    )


def take(found: data.Dataset, study_seed: int = 0, seed: int = 0, **fractions: float) -> data.Splits:
    sizes = {"test": 0.2, "meta": 0.1, "selection": 0.1, **fractions}
    return data.split(found, study_seed=study_seed, seed=seed, **sizes)


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(20, 80), min_size=2, max_size=6),
    seeds=st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1)),
    test=st.floats(0.05, 0.4),
    meta=st.floats(0.05, 0.4),
    selection=st.floats(0.05, 0.4),
)
def test_every_example_is_in_one_split_and_every_class_in_proportion(
    sizes: list[int], seeds: tuple[int, int], test: float, meta: float, selection: float
) -> None:
    y = torch.cat([torch.full((size,), label) for label, size in enumerate(sizes)])
    y = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(0))]
    found = take(dataset(y), *seeds, test=test, meta=meta, selection=selection)
    rows = torch.cat([getattr(found, part) for part in PARTS])
    assert rows.sort().values.tolist() == list(range(len(y)))
    for label, size in enumerate(sizes):
        held = int((y[found.test] == label).sum())
        assert held == round(test * size)
        assert int((y[found.meta] == label).sum()) == round(meta * (size - held))
        assert int((y[found.selection] == label).sum()) == round(selection * (size - held))


@pytest.mark.parametrize("name", ["digits", "diabetes"])
def test_study_seed_determines_the_test_split_and_the_replicates_seed_the_others(
    name: str, request: pytest.FixtureRequest
) -> None:
    found = request.getfixturevalue(name)
    one, same, replicate, study = take(found, 1, 2), take(found, 1, 2), take(found, 1, 3), take(found, 4, 2)
    for part in PARTS:
        assert torch.equal(getattr(one, part), getattr(same, part))
    assert torch.equal(one.test, replicate.test)
    for part in ("train", "meta", "selection"):
        assert not torch.equal(getattr(one, part), getattr(replicate, part))
    assert not torch.equal(one.test, study.test)


def test_original_test_set_is_kept_for_all_seeds() -> None:
    y = torch.arange(100) % 5
    held = torch.tensor([90, 3, 57, 11])
    for seed in range(3):
        found = take(dataset(y, test=held), study_seed=seed, seed=seed)
        assert found.test.tolist() == [3, 11, 57, 90]
        assert not set(held.tolist()) & {row for part in PARTS[:3] for row in getattr(found, part).tolist()}


@pytest.mark.parametrize(
    ("y", "kind", "says"),
    [
        (torch.arange(6) % 2, "classification", "too few for a meta split; enlarge task.split.meta"),
        (torch.zeros(4, 1), "regression", "too few for a meta split; enlarge task.split.meta"),
        (torch.tensor([0] * 99 + [1]), "classification", None),
    ],
)
def test_message_names_the_split_that_cannot_be_made(y: torch.Tensor, kind: str, says: str | None) -> None:
    if says is None:
        assert int((y[take(dataset(y, kind)).train] == 1).sum()) == 1, "a class of one example stays in train"
        return
    with pytest.raises(DataError, match=says):
        take(dataset(y, kind), test=0.3)


def test_class_missing_from_the_train_split_is_refused() -> None:
    y = torch.tensor([0] * 98 + [1] * 2)
    with pytest.raises(DataError, match="train split lacks a class"):
        take(dataset(y, test=torch.tensor([98, 99])))
