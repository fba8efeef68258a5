"""Batches: scalers use only train examples, crops and flips change only train images, errors are in the target's units."""

# B batch, N examples

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from olfl_ray import data
from olfl_ray.errors import SpecError
from olfl_ray.spec import TrialConfig, seed_of
from olfl_ray.trial import TrialEnvironment, run

STEPS = range(4)


def split(dataset: data.Dataset) -> data.Splits:
    return data.split(dataset, study_seed=0, seed=1, test=0.2, meta=0.1, selection=0.1)


def batches(dataset: data.Dataset, splits: data.Splits, augment: str = "none", size: int = 16) -> data.TaskData:
    return data.TaskData(dataset, splits, device="cpu", augment=augment, batch_size=size, seed=5)


def images(rows: int = 100, channels: int = 3, height: int = 12, width: int = 9) -> data.Dataset:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (rows, channels, height, width), generator=generator, dtype=torch.uint8)
    return data.Dataset(
        name="own",
        kind="classification",
        x=x,
        y=torch.arange(rows) % 4,
        test=None,
        outputs=4,
        fingerprint="",
        source="",
    )


def test_missing_value_is_replaced_by_its_features_train_mean(diabetes: data.Dataset) -> None:
    """So it is 0 after scaling, whatever the examples outside train contain."""
    splits = split(diabetes)
    x = diabetes.x.clone()
    gone = (int(splits.train[0]), int(splits.test[0]))
    x[gone, 3] = torch.nan
    found = batches(replace(diabetes, x=x), splits)
    x[splits.test[1:], 3] = 1e6
    moved = batches(replace(diabetes, x=x), splits)
    for own in (found, moved):
        assert own.evaluation("train")[0][0, 3].abs() < 1e-5
        assert own.evaluation("test")[0][0, 3].abs() < 1e-5
    assert torch.equal(found.evaluation("train")[0], moved.evaluation("train")[0])
    rest = x[splits.train[1:], 3]
    sd = (rest.std(correction=0).square() * (len(rest) / (len(rest) + 1))).sqrt()
    torch.testing.assert_close(found.evaluation("train")[0][1:, 3], (rest - rest.mean()) / sd)


@pytest.mark.parametrize("name", ["digits", "diabetes", "images"])
def test_examples_outside_train_do_not_affect_train_batches(name: str, request: pytest.FixtureRequest) -> None:
    dataset = images() if name == "images" else request.getfixturevalue(name)
    splits = split(dataset)
    x, y = dataset.x.clone(), dataset.y.clone()
    for part in (splits.test, splits.meta, splits.selection):
        x[part] = 255 - x[part]
        if dataset.kind == "regression":
            y[part] *= 100
    changed = replace(dataset, x=x, y=y)
    one, other = batches(dataset, splits), batches(changed, splits)
    for step in STEPS:
        for own, moved in zip(one.batch("train", "train", step), other.batch("train", "train", step), strict=True):
            assert torch.equal(own, moved)
    assert not torch.equal(one.evaluation("test")[0], other.evaluation("test")[0]), "the change itself is visible"


@pytest.mark.parametrize("name", ["digits", "diabetes", "images"])
def test_all_splits_are_scaled_by_the_train_splits_mean_and_sd(name: str, request: pytest.FixtureRequest) -> None:
    dataset = images() if name == "images" else request.getfixturevalue(name)
    splits = split(dataset)
    axes = (0, 2, 3) if name == "images" else (0,)
    raw = dataset.x[splits.train].double()
    mean, sd = raw.mean(axes, keepdim=True), raw.std(axes, keepdim=True, correction=0)
    sd[sd == 0] = 1  # a pixel of digits that is always blank
    found = batches(dataset, splits)
    for part in ("train", "meta", "selection", "test"):
        wanted = (dataset.x[getattr(splits, part)].double() - mean) / sd
        assert torch.allclose(found.evaluation(part)[0].double(), wanted, rtol=1e-4, atol=1e-4)
    assert torch.allclose(found.evaluation("train")[0].mean(axes), torch.zeros(()), atol=1e-4)


def test_meta_batches_come_from_the_requested_split(digits: data.Dataset) -> None:
    splits = split(digits)
    found = batches(digits, splits, size=64)
    rows = {part: {tuple(row.tolist()) for row in found.evaluation(part)[0]} for part in ("train", "meta")}
    for part in ("train", "meta"):
        drawn = {tuple(row.tolist()) for step in STEPS for row in found.batch("meta", part, step)[0]}
        assert drawn <= rows[part]


def test_streams_and_seeds_are_independent(digits: data.Dataset) -> None:
    splits = split(digits)
    one = batches(digits, splits)
    other = data.TaskData(digits, splits, device="cpu", augment="none", batch_size=16, seed=6)
    first = one.batch("train", "train", 0)[0]
    assert not torch.equal(first, one.batch("meta", "train", 0)[0])
    assert not torch.equal(first, other.batch("train", "train", 0)[0])
    assert torch.equal(first, batches(digits, splits).batch("train", "train", 0)[0])


def slow_crop_flip(image: Tensor, black: Tensor, top: int, left: int, flip: bool) -> Tensor:
    """One image, pixel by pixel."""
    channels, height, width = image.shape
    result = torch.empty_like(image)
    for channel in range(channels):
        for row in range(height):
            for column in range(width):
                down, across = row + top - 4, (width - 1 - column if flip else column) + left - 4
                inside = 0 <= down < height and 0 <= across < width
                result[channel, row, column] = image[channel, down, across] if inside else black[channel]
    return result


def test_crop_flip_is_a_crop_and_a_flip_of_each_image() -> None:
    """Each augmented image is one of the 162 that a slow loop makes from its original."""
    dataset = images(height=6, width=5)
    splits = split(dataset)
    plain, augmented = batches(dataset, splits), batches(dataset, splits, "crop_flip")
    raw = dataset.x[splits.train].float()
    mean, sd = raw.mean((0, 2, 3)), raw.std((0, 2, 3), correction=0)
    black = (0 - mean) / sd
    seen: set[tuple[int, int, bool]] = set()
    for step in range(2):
        x, y = plain.batch("train", "train", step)
        changed, labels = augmented.batch("train", "train", step)
        assert torch.equal(y, labels)
        for original, one in zip(x, changed, strict=True):
            fits = [
                (top, left, flip)
                for top in range(9)
                for left in range(9)
                for flip in (False, True)
                if torch.allclose(slow_crop_flip(original, black, top, left, flip), one, atol=1e-5)
            ]
            assert fits
            seen.update(fits[:1])
    assert {flip for _, _, flip in seen} == {False, True}
    assert len(seen) > 20


def test_crops_are_uniform_over_positions() -> None:
    """One white pixel in the middle shows where a crop was taken: 81 positions, each flipped half the time."""
    dataset = images(rows=40, channels=1, height=17, width=17)
    x = torch.zeros_like(dataset.x)
    x[:, :, 8, 8] = 255
    splits = split(replace(dataset, x=x))
    found = batches(replace(dataset, x=x), splits, "crop_flip", size=3000)
    places = found.batch("train", "train", 0)[0].flatten(1).argmax(1)
    rows, columns = places // 17, places % 17
    for where in (rows, columns):
        count = torch.bincount(where, minlength=17)
        assert count[4:13].sum() == 3000
        assert ((count[4:13] - 3000 / 9).abs() < 5 * (3000 * (1 / 9) * (8 / 9)) ** 0.5).all()


def test_only_train_batches_are_augmented() -> None:
    dataset = images()
    splits = split(dataset)
    plain, augmented = batches(dataset, splits), batches(dataset, splits, "crop_flip")
    for part in ("train", "meta", "selection", "test"):
        assert torch.equal(plain.evaluation(part)[0], augmented.evaluation(part)[0])
    assert torch.equal(plain.batch("meta", "meta", 0)[0], augmented.batch("meta", "meta", 0)[0])
    assert not torch.equal(plain.batch("train", "train", 0)[0], augmented.batch("train", "train", 0)[0])


def test_augmented_batches_depend_only_on_the_step() -> None:
    dataset = images()
    splits = split(dataset)
    one, other = (batches(dataset, splits, "crop_flip") for _ in range(2))
    forward = {step: one.batch("train", "train", step)[0] for step in (0, 1, 255, 256, 700)}
    for step in reversed(forward):
        assert torch.equal(other.batch("train", "train", step)[0], forward[step])


def test_augmenting_feature_vectors_is_refused(digits: data.Dataset) -> None:
    with pytest.raises(
        SpecError, match=r"task\.augment: crop_flip needs images, but digits has feature vectors; use none"
    ):
        batches(digits, split(digits), "crop_flip")


def test_rmse_in_original_units_equals_that_of_rescaled_predictions(diabetes: data.Dataset, prepared: Path) -> None:
    """By hand: the trained weights, the raw examples, scalers of the train split, and the root of the mean squared error."""
    settings = {
        "task": {"dataset": "diabetes", "model": "linear", "batch_size": 32},
        "learner": {"method": "baseline", "steps": 100, "optimizer": {"name": "sgd", "lr": 0.05}},
        "eval": {"every": 100, "report": "last"},
        "seeds": [0],
        "confirming": True,
    }
    config = TrialConfig.model_validate(settings)
    (last,) = run(config, TrialEnvironment(cache=prepared))
    theta = {name: value.double() for name, value in last.state.replicates[0].learner.theta.items()}
    weight, bias = theta["1.weight"], theta["1.bias"]
    x, y = diabetes.x.double(), diabetes.y.double()
    splits = data.split(diabetes, study_seed=0, seed=seed_of(0, "split"), test=0.2, meta=0.1, selection=0.1)
    train, held = splits.train, splits.test
    mean, sd = x[train].mean(0), x[train].std(0, correction=0)
    center, scale = y[train].mean(), y[train].std(correction=0)
    predicted = ((x[held] - mean) / sd @ weight.T + bias) * scale + center
    rmse = (predicted - y[held]).square().mean().sqrt().item()
    assert last.report["test/rmse"] == (pytest.approx(rmse, rel=1e-5),)
    assert last.report["test/task_loss"] == (pytest.approx((rmse / scale.item()) ** 2, rel=1e-5),)
    constant = (center - y[held]).square().mean().sqrt().item()
    assert last.report["trivial/rmse"] == (pytest.approx(constant, rel=1e-5),)
    assert 40 < rmse < 70, "the range that the literature reports for a linear model"


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_features_and_targets_are_scaled_in_their_own_precision(kind: str) -> None:
    """Seconds since 1970 with noise, a spread of 1e-9, a constant, and a spread near the smallest float."""
    noise = torch.randn(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    constant = torch.full((200, 1), 0.1, dtype=torch.float64)
    x = torch.cat([1.7e9 + noise[:, :1], 1e-9 * noise[:, 1:2], constant, 1e12 + 1e-3 * noise[:, 2:].round()], 1)
    y = 1.7e9 + noise[:, :1] if kind == "regression" else torch.arange(200) % 2
    dataset = data.Dataset(name="own", kind=kind, x=x, y=y, outputs=1 if kind == "regression" else 2)  # type: ignore[arg-type]
    splits = split(dataset)
    found, targets = batches(dataset, splits).evaluation("train")
    assert found.dtype == targets.dtype or kind == "classification"
    assert found.dtype == torch.float32
    wanted = noise[splits.train]
    wanted = (wanted - wanted.mean(0)) / wanted.std(0, correction=0)
    torch.testing.assert_close(found[:, :2].double(), wanted[:, :2], rtol=1e-4, atol=1e-4)
    assert found[:, 2].abs().max() < 1e-9
    assert found[:, 3].unique().numel() > 2
    assert abs(found[:, 3].std(correction=0) - 1) < 1e-3
    if kind == "regression":
        torch.testing.assert_close(targets.double(), wanted[:, :1], rtol=1e-4, atol=1e-4)


def test_a_constant_target_stays_near_0() -> None:
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    dataset = data.Dataset(name="own", kind="regression", x=x, y=torch.full((50, 1), 0.1), outputs=1)
    assert batches(dataset, split(dataset)).evaluation("train")[1].abs().max() < 1e-6


def test_ids_are_neither_scaled_nor_cast() -> None:
    ids = torch.arange(400).reshape(100, 4)
    dataset = data.Dataset(name="own", kind="classification", x=ids, y=torch.arange(100) % 2, outputs=2)
    found = batches(dataset, split(dataset))
    assert found.ids
    assert torch.equal(found.evaluation("train")[0], ids[split(dataset).train])
    assert found.batch("train", "train", 0)[0].dtype == torch.int64


def test_the_scalers_turn_raw_values_into_those_of_a_split_and_back(diabetes: data.Dataset) -> None:
    x = diabetes.x.clone()
    x[::7, 3] = torch.nan
    own = batches(replace(diabetes, x=x), splits := split(diabetes))
    torch.testing.assert_close(own.scaler()(x[splits.test]), own.evaluation("test")[0])
    center, scale = own.target_scaling()
    assert center is not None
    assert scale is not None
    torch.testing.assert_close(own.evaluation("test")[1] * scale + center, diabetes.y[splits.test].float())


def test_targets_that_are_not_scaled_need_no_scaling_back(digits: data.Dataset) -> None:
    assert batches(digits, split(digits)).target_scaling() == (None, None)


@pytest.mark.parametrize(
    ("targets", "kept"), [(torch.arange(40) % 2, torch.int64), (torch.rand(40, 1).double(), torch.float32)]
)
def test_what_is_not_scaled_keeps_classes_and_gives_float32_targets(targets: Tensor, kept: torch.dtype) -> None:
    kind = "regression" if targets.is_floating_point() else "classification"
    dataset = data.Dataset(name="own", kind=kind, x=torch.rand(40, 3), y=targets, outputs=2, scaled=False)  # type: ignore[arg-type]
    _, found = batches(dataset, split(dataset)).evaluation("train")
    assert found.dtype == kept


def test_draws_of_a_seed_are_the_same_in_every_version(digits: data.Dataset) -> None:
    """A study that is resumed relies on them."""
    own = batches(digits, split(digits), size=4)
    assert [own._draws("train", "train", step)[0].tolist() for step in (0, 255, 256)] == [
        [340, 712, 942, 654],
        [876, 1107, 59, 658],
        [68, 742, 599, 102],
    ]


def test_scaler_of_ids_and_of_unscaled_features(diabetes: data.Dataset) -> None:
    ids = data.Dataset(
        name="own", kind="classification", x=torch.randint(0, 9, (40, 3)), y=torch.arange(40) % 2, outputs=2
    )
    own = batches(ids, split(ids))
    assert own.scaler()(ids.x).dtype == torch.int64
    assert own.largest_id == int(ids.x.max())
    x = diabetes.x.clone().double()
    x[::7, 3] = torch.nan
    plain = replace(diabetes, x=x, scaled=False)
    own = batches(plain, splits := split(plain))
    assert torch.equal(own.scaler()(x[splits.test]), own.evaluation("test")[0])
    assert own.largest_id == 0
