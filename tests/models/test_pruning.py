"""A pruned network is smaller and gives the same outputs; forms that can't be pruned are refused by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from olfl_ray import models
from olfl_ray.errors import DataError
from olfl_ray.models.pruning import Select, pruned


def _conv() -> nn.Module:
    """Convolutions, batch norms with statistics of their own, pools, flattening, perceptron."""
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Conv2d(8, 6, 3, padding=1, padding_mode="circular"),
        nn.BatchNorm2d(6, affine=False),
        nn.Sigmoid(),
        nn.Dropout(0.5),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(6 * 4, 10),
        nn.BatchNorm1d(10),
        nn.Tanh(),
        nn.Linear(10, 4),
    )


class Heads(nn.Module):
    """A backbone and heads, which give a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.MaxPool2d(3), nn.Flatten())
        self.heads = nn.ModuleDict(
            {"one": nn.Linear(20, 3), "two": nn.Sequential(nn.Linear(20, 7), nn.ELU(), nn.Linear(7, 1))}
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.backbone(x)
        return {name: head(features) for name, head in self.heads.items()}


def _warm(module: nn.Module, x: Tensor) -> nn.Module:
    """Statistics other than a batch norm's first ones."""
    torch.manual_seed(1)
    for _ in range(3):
        module(x + torch.randn_like(x))
    return module


@torch.no_grad()
def _thin(module: nn.Module, share: float = 0.5, seed: int = 0) -> list[str]:
    """Set random input channels of each layer to 0."""
    draw = torch.Generator().manual_seed(seed)
    thinned = []
    for name, value in module.named_parameters():
        if value.dim() > 1:
            value[:, torch.rand(value.shape[1], generator=draw) < share] = 0
            thinned.append(name)
    return thinned


def _count(module: nn.Module) -> int:
    return sum(value.numel() for value in module.parameters())


IMAGES = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("build", [_conv, Heads])
def test_pruned_network_gives_the_same_outputs_and_is_smaller(build: Callable[[], nn.Module], seed: int) -> None:
    torch.manual_seed(seed)
    dense = _warm(build(), IMAGES)
    _thin(dense, 0.5, seed)
    before = {name: value.clone() for name, value in dense.state_dict().items()}
    small = pruned(dense, IMAGES)
    x = torch.rand(33, 3, 8, 8)
    wanted, found = dense.eval()(x), small(x)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    assert _count(small) < 0.7 * _count(dense)
    assert all(torch.equal(value, dense.state_dict()[name]) for name, value in before.items()), (
        "the dense network changed"
    )


def test_zero_inputs_of_a_layer_remove_the_outputs_before_it_and_so_on() -> None:
    """A unit whose only reader was removed is removed as well."""
    dense = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        dense[4].weight[:, 1] = 0
        dense[2].weight[0, 2] = dense[2].weight[2, 2] = 0  # unit 2 is read only by unit 1 of the next layer
    shapes = [tuple(part.weight.shape) for part in pruned(dense, torch.randn(3, 4)) if isinstance(part, nn.Linear)]
    assert shapes == [(2, 4), (2, 2), (2, 2)]


def test_unused_features_of_the_input_are_not_read() -> None:
    dense = models.build("mlp", {"hidden": [6]}, input_shape=(1, 4, 4), outputs=3, seed=0)
    with torch.no_grad():
        dense[1].weight[:, 3:13] = 0
    small = pruned(dense, torch.rand(2, 1, 4, 4))
    assert [type(part) for part in small][:3] == [nn.Flatten, Select, nn.Linear]
    assert small[2].weight.shape == (6, 6)
    x = torch.rand(2, 1, 4, 4)
    x.flatten(1)[:, 3:13] = torch.nan
    assert small(x).isfinite().all()


def test_network_whose_weights_are_all_zero_stays_a_network() -> None:
    dense = models.build("lenet5", {}, input_shape=(1, 28, 28), outputs=10, seed=0)
    _thin(dense, 2.0)
    x = torch.rand(4, 1, 28, 28)
    small = pruned(dense, x)
    torch.testing.assert_close(small(x), dense(x))
    assert _count(small) < 0.01 * _count(dense)


def test_dense_network_keeps_its_size() -> None:
    dense = models.build("allcnnc", {"dropout": 0.1}, input_shape=(3, 16, 16), outputs=10, seed=0)
    assert _count(pruned(dense, torch.rand(2, 3, 16, 16))) == _count(dense)


class Doubled(nn.Module):
    """Not a chain: its forward adds its input."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Hooked(nn.Sequential):
    """A Sequential with a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


@pytest.mark.parametrize(
    ("module", "shape", "word"),
    [
        (Doubled(), (4,), "Doubled"),
        (nn.Sequential(nn.Linear(4, 4), Hooked(nn.Linear(4, 2))), (4,), "1 is a Hooked"),
        (nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(16, 2)), (4, 4, 4), "groups"),
        (nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), (4,), "LayerNorm"),
        (nn.Sequential(nn.Linear(4, 4), nn.Softmax(1)), (4,), "Softmax"),
        (nn.Sequential(nn.Linear(4, 4), nn.Flatten()), (3, 4), "dimensions"),
        (nn.Sequential(nn.Linear(4, 4), nn.MaxPool1d(2), nn.Linear(2, 2)), (4,), "without a batch"),
    ],
)
def test_other_forms_are_refused_with_their_part(module: nn.Module, shape: tuple[int, ...], word: str) -> None:
    with pytest.raises(DataError, match=word):
        pruned(module, torch.rand(2, *shape))


class Skipping(nn.Module):
    """Its features are also added to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.heads = nn.ModuleDict({"one": nn.Linear(4, 2)})
        with torch.no_grad():
            self.heads["one"].weight[:, 1] = 0

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"one": self.heads["one"](self.backbone(x) + x)}


def test_forward_that_needs_the_removed_features_is_refused() -> None:
    with pytest.raises(DataError, match="other outputs"):
        pruned(Skipping(), torch.rand(2, 4))


def test_a_layer_that_is_used_twice_becomes_two() -> None:
    shared = nn.Linear(4, 4)
    module = nn.Sequential(shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        shared.weight[:, 1] = module[4].weight[:, 2] = 0
    x = torch.rand(5, 4)
    small = pruned(module, x)
    torch.testing.assert_close(small(x), module(x))
    assert [tuple(part.weight.shape) for part in small if isinstance(part, nn.Linear)] == [(3, 3), (3, 3), (2, 3)]


def test_forward_that_does_more_than_its_parts_is_refused() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    module.register_forward_hook(lambda part, x, y: y + 1)
    with pytest.raises(DataError, match="other outputs"):
        pruned(module, torch.rand(2, 4))
