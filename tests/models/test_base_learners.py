"""Base learners have the sizes given in their papers, and their weights depend only on the seed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from olfl_ray import models
from olfl_ray.models.multihead import multihead

GREY28, GREY32, COLOUR32 = (1, 28, 28), (1, 32, 32), (3, 32, 32)
SIZES: list[tuple[str, dict[str, Any], tuple[int, ...], int, int]] = [
    ("linear", {}, (64,), 10, 64 * 10 + 10),
    ("linear", {}, GREY28, 10, 784 * 10 + 10),
    ("mlp", {}, (8,), 1, (8 * 128 + 128) + (128 + 1)),
    ("mlp", {"hidden": []}, (8,), 1, 8 + 1),
    ("mlp", {"hidden": [1000], "activation": "tanh"}, GREY28, 10, (784 * 1000 + 1000) + (1000 * 10 + 10)),
    ("mlp", {"hidden": [5, 7]}, (3,), 2, (3 * 5 + 5) + (5 * 7 + 7) + (7 * 2 + 2)),
    ("multihead", {}, (8,), 3, (8 * 64 + 64) + (64 * 3 + 3)),
    (
        "multihead",
        {"channels": [4, 5], "hidden": [], "head_hidden": [6]},
        (1, 8, 8),
        1,
        40 + 185 + (20 * 6 + 6) + (6 + 1),
    ),
    # a time constant a layer, two outputs a label
    ("dosa", {}, (64,), 10, (64 * 128 + 128) + 1 + 2 * (128 * 10 + 10)),
    ("dosa", {"hidden": [5, 7], "steps": 3}, (3,), 2, (3 * 5 + 5) + (5 * 7 + 7) + 2 + 2 * (7 * 2 + 2)),
    # LeCun et al. 1998: 5x5 convolutions to 6 and 16 maps, then 400-120-84-10
    ("lenet5", {}, GREY28, 10, 156 + 2_416 + 48_120 + 10_164 + 850),
    ("lenet5", {}, GREY32, 10, 61_706),
    ("lenet5", {}, COLOUR32, 10, 61_706 + 2 * 6 * 25),
    # Springenberg et al. 2015, table 1: about 1.4 million
    ("allcnnc", {}, COLOUR32, 10, 1_369_738),
    ("allcnnc", {"dropout": 0.5}, COLOUR32, 10, 1_369_738),
    ("allcnnc", {}, COLOUR32, 100, 1_369_738 + 90 * 193),
    # He et al. 2016 with a 3x3 stem: 11.17 million
    ("resnet18", {}, COLOUR32, 10, 11_173_962),
    ("resnet18", {}, COLOUR32, 100, 11_173_962 + 90 * 513),
    # Iandola et al. 2016: 1.24 million with 1,000 classes, here 727,626 + 990 * 513
    ("squeezenet", {}, COLOUR32, 10, 727_626),
    ("squeezenet", {"dropout": 0.0}, GREY28, 1000, 727_626 - 2 * 64 * 9 + 990 * 513),
    # Simonyan & Zisserman 2015, configuration D: 14.71 million in the convolutions, 2 * 4,224 in the batch norms
    ("vgg16", {}, COLOUR32, 10, 14_714_688 + 2 * 4_224 + 513 * 10),
    # Zagoruyko & Komodakis 2016, table 4: 11.0 million in WRN-16-8, 36.5 million in WRN-28-10
    ("wrn", {}, COLOUR32, 10, 10_961_370),
    ("wrn", {"depth": 28, "width": 10, "dropout": 0.3}, COLOUR32, 10, 36_479_194),
]


def build(name: str, options: dict[str, Any], shape: tuple[int, ...], outputs: int, seed: int = 0) -> nn.Module:
    return models.build(name, options, input_shape=shape, outputs=outputs, seed=seed)


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([value.detach().flatten() for value in module.parameters()])


@pytest.mark.parametrize(("name", "options", "shape", "outputs", "size"), SIZES)
def test_size_and_outputs(name: str, options: dict[str, Any], shape: tuple[int, ...], outputs: int, size: int) -> None:
    """As many parameters as in the paper or counted by hand, each with a gradient; a batch gives logits of both signs."""
    module = build(name, options, shape, outputs)
    assert len(weights(module)) == size
    value = module(torch.randn(4, *shape, generator=torch.Generator().manual_seed(1)))
    assert tuple(value.shape) == (4, outputs)
    assert outputs == 1 or value.min() < 0 < value.max()
    value.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in module.parameters())


@pytest.mark.parametrize("name", models.names())
def test_weights_depend_only_on_the_seed(name: str) -> None:
    one = weights(build(name, {}, COLOUR32, 10, seed=1))
    torch.rand(7)
    assert torch.equal(one, weights(build(name, {}, COLOUR32, 10, seed=1)))
    assert not torch.equal(one, weights(build(name, {}, COLOUR32, 10, seed=2)))


@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in models.names()), ("allcnnc", {"dropout": 0.5})])
def test_global_random_state_is_unchanged(name: str, options: dict[str, Any]) -> None:
    """Dropout draws while the shape is checked; that must not show outside either."""
    before = torch.get_rng_state()
    build(name, options, COLOUR32, 10)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("model", ["resnet18", "vgg16", "wrn"])
def test_building_leaves_running_statistics_initial(model: str) -> None:
    """The check of the shape is a forward pass in train mode."""
    for name, value in build(model, {}, COLOUR32, 10).named_buffers():
        fresh = torch.ones_like(value) if name.endswith("running_var") else torch.zeros_like(value)
        assert torch.equal(value, fresh)


def test_resnet18_keeps_the_size_of_small_images() -> None:
    """The stem neither strides nor pools: four stages, three halvings of the size."""
    sizes: list[tuple[int, ...]] = []
    module: Any = build("resnet18", {}, COLOUR32, 10)
    for stage in (module.layer1, module.layer4):
        stage.register_forward_hook(lambda _module, _inputs, value: sizes.append(tuple(value.shape[1:])))
    module(torch.zeros(2, *COLOUR32))
    assert sizes == [(64, 32, 32), (512, 4, 4)]


def test_resnet18s_stem_is_initialized_like_the_other_layers() -> None:
    """Kaiming by fan-out: sd = sqrt(2 / (64 * 3 * 3))."""
    module: Any = build("resnet18", {}, COLOUR32, 10)
    assert module.conv1.weight.std().item() == pytest.approx((2 / 576) ** 0.5, rel=0.1)


def test_wide_residual_network_halves_the_image_twice_and_drops_inside_its_blocks() -> None:
    sizes: list[tuple[int, ...]] = []
    module = build("wrn", {"depth": 22, "width": 1, "dropout": 0.3}, COLOUR32, 10)
    blocks = [part for part in module if hasattr(part, "conv2")]
    for block in blocks:
        block.register_forward_hook(lambda _module, _inputs, value: sizes.append(tuple(value.shape[1:])))
    module(torch.zeros(2, *COLOUR32))
    assert sizes == [(16, 32, 32)] * 3 + [(32, 16, 16)] * 3 + [(64, 8, 8)] * 3
    assert [block.dropout.p for block in blocks] == [0.3] * 9


def test_squeezenets_stem_keeps_the_size_and_its_outputs_are_not_clipped_at_0() -> None:
    sizes: list[tuple[int, ...]] = []
    module: Any = build("squeezenet", {}, COLOUR32, 10)
    module[0][0].register_forward_hook(lambda _module, _inputs, value: sizes.append(tuple(value.shape[1:])))
    module[2].register_forward_hook(lambda _module, _inputs, value: sizes.append(tuple(value.shape[1:])))
    module(torch.zeros(2, *COLOUR32))
    assert sizes == [(64, 32, 32), (10, 4, 4)]
    assert not isinstance(module[3], nn.ReLU)


def test_allcnncs_input_dropout_is_0_4_of_its_rate() -> None:
    """As in the paper: 0.2 on the input where it is 0.5 after the two strided layers."""
    rates = [
        part.p for part in build("allcnnc", {"dropout": 0.5}, COLOUR32, 10).modules() if isinstance(part, nn.Dropout)
    ]
    assert rates == [pytest.approx(0.2), 0.5, 0.5]
    assert not [part for part in build("allcnnc", {}, COLOUR32, 10).modules() if isinstance(part, nn.Dropout)]


def test_heads_may_be_called_like_attributes_of_a_module() -> None:
    sizes = {"type": 3, "type_": 2, "training": 1}
    found = multihead((4,), 6, heads=sizes)(torch.rand(5, 4))
    assert {name: outputs.shape[1] for name, outputs in found.items()} == sizes
