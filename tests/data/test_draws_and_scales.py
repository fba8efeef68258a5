"""Which examples a step draws, and their scale: compared with the formulas, across chunks and blocks."""

from __future__ import annotations

import hashlib

import pytest
import torch
from torch import Tensor

from olfl_ray.data import Dataset, Splits, TaskData
from olfl_ray.data.batches import BLOCK, CHUNK
from olfl_ray.errors import SpecError


def dataset(x: Tensor, y: Tensor | None = None) -> Dataset:
    kind = "classification" if y is None else "regression"
    labels = torch.arange(len(x)) % 4 if y is None else y
    return Dataset(name="own", kind=kind, x=x, y=labels, test=None, outputs=4, fingerprint="", source="")


def in_order(rows: int, train: int) -> Splits:
    """The first examples are train; the other splits have ten each."""
    cuts = [train, train + 10, train + 20, rows]
    parts = torch.arange(rows).tensor_split(cuts[:-1])
    return Splits(**dict(zip(("train", "meta", "selection", "test"), parts, strict=True)))


def task(x: Tensor, y: Tensor | None = None, train: int | None = None, **given: object) -> TaskData:
    settings = {"device": "cpu", "augment": "none", "batch_size": 6, "seed": 5} | given
    return TaskData(dataset(x, y), in_order(len(x), len(x) - 30 if train is None else train), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("part", ["train", "meta"])
def test_a_steps_examples_depend_on_seed_stream_split_and_block(part: str) -> None:
    x = torch.arange(70.0)[:, None].repeat(1, 2)
    found = task(x, seed=9)
    rows = in_order(70, 40)
    for step in (0, 1, BLOCK - 1, BLOCK, 3 * BLOCK + 7):
        text = f"9/other/{part}/{step // BLOCK}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
        own = getattr(rows, part)
        drawn = torch.randint(len(own), (BLOCK, 6), generator=torch.Generator().manual_seed(seed))[step % BLOCK]
        _, y = found.batch("other", part, step)  # type: ignore[arg-type]
        assert torch.equal(y, own[drawn] % 4)


def test_alternating_streams_keep_their_blocks() -> None:
    x = torch.randn(70, 2)
    one, other = task(x), task(x)
    for step in (0, 5, BLOCK):
        for stream, part in (("train", "train"), ("meta", "train"), ("meta", "meta")):
            first = one.batch(stream, part, step)  # type: ignore[arg-type]
            for before in (BLOCK + 3, 0):
                other.batch(stream, part, before)  # type: ignore[arg-type]
            assert torch.equal(first[0], other.batch(stream, part, step)[0])  # type: ignore[arg-type]


@pytest.mark.parametrize("train", [CHUNK - 1, CHUNK, 2 * CHUNK + 5])
def test_moments_are_independent_of_the_number_of_chunks(train: int) -> None:
    x = torch.randn(train + 30, 3) * torch.tensor([1.0, 5.0, 0.1]) + torch.tensor([0.0, 100.0, -3.0])
    own = x[:train].double()
    wanted = ((x.double() - own.mean(0)) / own.std(0, correction=0)).float()
    torch.testing.assert_close(task(x, train=train).evaluation("train")[0], wanted[:train])


def test_images_are_scaled_per_channel() -> None:
    x = torch.randint(0, 256, (CHUNK + 40, 2, 3, 5), dtype=torch.uint8)
    found, own = task(x).evaluation("test")[0], x[:-30].double()
    wanted = (x[-10:].double() - own.mean((0, 2, 3), keepdim=True)) / own.std((0, 2, 3), keepdim=True, correction=0)
    torch.testing.assert_close(found, wanted.float())


def test_constant_feature_becomes_zero_and_ids_are_unchanged() -> None:
    x = torch.randn(70, 2)
    x[:, 1] = 7.3
    assert task(x).evaluation("train")[0][:, 1].abs().max() == 0.0
    ids = torch.randint(0, 50, (70, 4))
    found = task(ids)
    assert found.ids
    assert torch.equal(found.evaluation("meta")[0], ids[40:50])
    assert not task(x).ids
    assert task(x).input_shape == (2,)


def test_missing_values_are_replaced_by_the_train_mean() -> None:
    x = torch.arange(140.0).reshape(70, 2)
    x[3, 0] = x[65, 1] = torch.nan
    found = task(x)
    assert found.evaluation("train")[0][3, 0].abs() < 1e-6
    assert found.evaluation("test")[0][5, 1].abs() < 1e-6
    assert not found.evaluation("train")[0].isnan().any()


def test_targets_are_scaled_by_the_train_split_and_constant_ones_only_centered() -> None:
    y = torch.stack([torch.arange(70.0) * 3 + 1, torch.full((70,), 4.5)], 1)
    found = task(torch.randn(70, 2), y)
    own = y[:40]
    assert found.target_scale is not None
    torch.testing.assert_close(found.target_scale, torch.stack([own[:, 0].std(correction=0), torch.tensor(1.0)]))
    scaled = found.evaluation("test")[1]
    torch.testing.assert_close(scaled[:, 0], (y[60:, 0] - own[:, 0].mean()) / own[:, 0].std(correction=0))
    assert scaled[:, 1].abs().max() == 0.0
    assert task(torch.randn(70, 2)).target_scale is None


def test_only_train_batches_of_images_are_augmented_differently_at_each_step() -> None:
    x = torch.randint(0, 256, (70, 1, 9, 9), dtype=torch.uint8)
    plain, found = task(x), task(x, augment="crop_flip")
    for step in (0, 1):
        assert torch.equal(plain.batch("train", "meta", step)[0], found.batch("train", "meta", step)[0])
        assert not torch.equal(plain.batch("train", "train", step)[0], found.batch("train", "train", step)[0])
        assert torch.equal(plain.batch("train", "train", step)[1], found.batch("train", "train", step)[1])
    assert torch.equal(plain.evaluation("train")[0], found.evaluation("train")[0])
    with pytest.raises(SpecError, match=r"^task\.augment"):
        task(torch.randn(70, 2), augment="crop_flip")


def test_half_of_the_crops_are_flipped_and_padding_is_four_black_pixels() -> None:
    """Images whose pixels number their columns: the columns increase in a crop and decrease in a flipped one."""
    x = torch.arange(1, 21, dtype=torch.uint8).repeat(70, 1, 20, 1)
    found = task(x, augment="crop_flip", batch_size=64)
    black = found._scaled(torch.zeros(1, 1, 1, 1)).item()
    flips, offsets = [], set()
    for step in range(8):
        for image in found.batch("train", "train", step)[0][:, 0]:
            middle = image[10]
            inside = middle[middle > black + 1e-6]
            flips.append(bool(inside[0] > inside[1]))
            offsets.add((20 - len(inside), int((image[:, 10] <= black + 1e-6).sum())))
    assert 0.4 < sum(flips) / len(flips) < 0.6
    assert {across for across, _ in offsets} == {down for _, down in offsets} == {0, 1, 2, 3, 4}


def test_crops_and_flips_depend_on_seed_stream_split_and_block() -> None:
    x = torch.randint(0, 256, (70, 2, 6, 7), dtype=torch.uint8)
    found = task(x, augment="crop_flip", seed=9)
    plain = task(x)._scaled
    for step in (0, BLOCK + 3):
        text = f"9/inner/train/{step // BLOCK}"
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randint(40, (BLOCK, 6), generator=generator)[step % BLOCK]
        top, left, flip = torch.rand((BLOCK, 3, 6), generator=generator)[step % BLOCK]
        padded = torch.zeros(70, 2, 14, 15, dtype=torch.uint8)
        padded[:, :, 4:-4, 4:-4] = x
        for index, image in enumerate(found.batch("inner", "train", step)[0]):
            down, across = int(9 * top[index]), int(9 * left[index])
            crop = padded[rows[index], :, down : down + 6, across : across + 7]
            assert torch.equal(image, plain((crop.flip(-1) if flip[index] < 0.5 else crop)[None])[0])
