"""An invalid model: one message that names the field and the value, and suggests a near name."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from olfl_ray import models
from olfl_ray.errors import SpecError

IMAGE = (3, 32, 32)


def well(input_shape: tuple[int, ...], outputs: int, width: int = 4) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, width), nn.BatchNorm1d(width), nn.Linear(width, outputs))


def raises(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    raise ZeroDivisionError("out of ideas")


def gives_nothing(input_shape: tuple[int, ...], outputs: int) -> None:
    return None


def one_too_many(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, outputs + 1))


def forgets_the_batch(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(0), nn.Linear(2 * 3072, outputs))


def other_input(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(100, outputs))


class Two(nn.Module):
    """Returns a pair."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, x


def gives_a_pair(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    return Two()


def asks_for_more(input_shape: tuple[int, ...], outputs: int, depth: int) -> nn.Module:
    return nn.Identity()


def no_shape(outputs: int) -> nn.Module:
    return nn.LazyLinear(outputs)


def lazy(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    layers = nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Dropout(0.5), nn.Flatten(), nn.LazyLinear(outputs)
    return nn.Sequential(*layers)


def lazy_and_unused(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    module = nn.Sequential(nn.Flatten(), nn.Linear(3072, outputs))
    module[0].spare = nn.LazyLinear(3)  # type: ignore[assignment]
    return module


def lazy_and_wrong(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    return nn.Sequential(nn.LazyConv1d(4, 3), nn.LazyLinear(outputs))


def looks_up(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    return nn.Sequential(nn.Embedding(50, 4), nn.Flatten(), nn.Linear(4 * input_shape[0], outputs))


not_a_function = 3


def build(name: str, options: dict[str, Any], shape: tuple[int, ...] = IMAGE) -> nn.Module:
    return models.build(name, options, input_shape=shape, outputs=10, seed=0)


@pytest.mark.parametrize(
    ("name", "options", "shape", "field", "says"),
    [
        (
            "lenet",
            {},
            IMAGE,
            "task.model.name",
            r"there is no model 'lenet' \(did you mean 'lenet5'\?\); use one of allcnnc",
        ),
        (
            "zzz",
            {},
            IMAGE,
            "task.model.name",
            "there is no model 'zzz'; use one of allcnnc, dosa, lenet5, linear, mlp, multihead, resnet18, "
            "squeezenet, vgg16, wrn",
        ),
        ("", {}, IMAGE, "task.model.name", "there is no model ''"),
        (
            "mlp",
            {"hiden": [3]},
            IMAGE,
            "task.model.hiden",
            r"no option 'hiden' \(did you mean 'hidden'\?\); it has hidden, act",
        ),
        ("linear", {"hidden": [3]}, IMAGE, "task.model.hidden", "linear has no option 'hidden'; it has none"),
        ("mlp", {"outputs": 3}, IMAGE, "task.model.outputs", "mlp has no option 'outputs'"),
        ("mlp", {"hidden": 128}, IMAGE, "task.model.hidden", "positive integers, but it is 128"),
        ("mlp", {"hidden": "128"}, IMAGE, "task.model.hidden", "but it is '128'"),
        ("mlp", {"hidden": [0]}, IMAGE, "task.model.hidden", r"but it is \[0\]"),
        ("mlp", {"hidden": [1.5]}, IMAGE, "task.model.hidden", r"but it is \[1.5\]"),
        ("mlp", {"hidden": [True]}, IMAGE, "task.model.hidden", r"but it is \[True\]"),
        (
            "mlp",
            {"activation": "rellu"},
            IMAGE,
            "task.model.activation",
            r"'rellu' \(did you mean 'relu'\?\); use one of relu",
        ),
        ("mlp", {"activation": ["relu"]}, IMAGE, "task.model.activation", "there is no activation"),
        ("allcnnc", {"dropout": 1.0}, IMAGE, "task.model.dropout", "`0 <= dropout < 1` must hold, but it is 1.0"),
        ("allcnnc", {"dropout": float("nan")}, IMAGE, "task.model.dropout", "must hold, but it is nan"),
        ("allcnnc", {"dropout": "half"}, IMAGE, "task.model.dropout", "must hold, but it is 'half'"),
        ("allcnnc", {"dropout": False}, IMAGE, "task.model.dropout", "must hold, but it is False"),
        ("lenet5", {}, (64,), "task.model.name", r"at least 28x28, not examples of shape \(64,\)"),
        ("lenet5", {}, (1, 8, 8), "task.model.name", "at least 28x28"),
        ("resnet18", {}, (10,), "task.model.name", "at least 16x16"),
        ("allcnnc", {}, (3, 15, 32), "task.model.name", "at least 16x16"),
        ("vgg16", {}, (1, 28, 28), "task.model.name", "vgg16 takes images of at least 32x32"),
        ("squeezenet", {}, (3, 8, 8), "task.model.name", "at least 16x16"),
        ("squeezenet", {"dropout": 1}, IMAGE, "task.model.dropout", "must hold, but it is 1"),
        ("wrn", {}, (64,), "task.model.name", "at least 16x16"),
        ("wrn", {"depth": 18}, IMAGE, "task.model.depth", r"must be 6 n \+ 4 \(10, 16, 22, 28, ...\), but it is 18"),
        ("wrn", {"depth": 4}, IMAGE, "task.model.depth", "but it is 4"),
        ("wrn", {"depth": "28"}, IMAGE, "task.model.depth", "must be a positive integer, but it is '28'"),
        ("wrn", {"width": 0}, IMAGE, "task.model.width", "must be a positive integer, but it is 0"),
        ("wrn", {"width": 2.5}, IMAGE, "task.model.width", "but it is 2.5"),
        ("wrn", {"dropout": -0.1}, IMAGE, "task.model.dropout", "must hold, but it is -0.1"),
        ("raises", {}, IMAGE, "task.model", "raised ZeroDivisionError: out of ideas"),
        ("asks_for_more", {}, IMAGE, "task.model", "its form is .* missing a required argument: 'depth'; give it"),
        ("well", {"widht": 3}, IMAGE, "task.model", "its form is .* unexpected keyword argument 'widht'; give it"),
        (
            "no_shape",
            {},
            IMAGE,
            "task.model",
            "is called with input_shape, outputs .*unexpected keyword argument 'input_shape'",
        ),
        ("lazy_and_unused", {}, IMAGE, "task.model.name", "never uses its lazy layer of '0.spare.weight'"),
        ("lazy_and_wrong", {}, IMAGE, "task.model.name", r"can't take a batch of shape \(2, 3, 32, 32\)"),
        ("gives_nothing", {}, IMAGE, "task.model.name", "returns a NoneType; it must return a Module"),
        (
            "one_too_many",
            {},
            IMAGE,
            "task.model.name",
            r"must return outputs of shape \(2, 10\), but returned \(2, 11\)",
        ),
        (
            "forgets_the_batch",
            {},
            IMAGE,
            "task.model.name",
            r"must return outputs of shape \(2, 10\), but returned \(10,\)",
        ),
        ("gives_a_pair", {}, IMAGE, "task.model.name", r"must return outputs of shape \(2, 10\), but returned tuple"),
        (
            "other_input",
            {},
            IMAGE,
            "task.model.name",
            r"can't take a batch of shape \(2, 3, 32, 32\) of floats: RuntimeError",
        ),
        ("not_a_function", {}, IMAGE, "task.model.name", "is a int, not a function; name a builder"),
        ("wel", {}, IMAGE, "task.model.name", r"has no 'wel' \(did you mean 'well'\?\)"),
    ],
)
def test_invalid_model_is_one_message_that_names_the_field(
    name: str, options: dict[str, Any], shape: tuple[int, ...], field: str, says: str
) -> None:
    own = name in globals() or name == "wel"
    with pytest.raises(SpecError) as caught:
        build(f"{__name__}:{name}" if own else name, options, shape)
    assert caught.value.field == field
    assert re.search(says, str(caught.value)), str(caught.value)


def test_users_model_takes_its_options_and_its_seed() -> None:
    name = f"{__name__}:well"
    one, same, other = (
        models.build(name, {"width": 6}, input_shape=IMAGE, outputs=10, seed=seed) for seed in (1, 1, 2)
    )
    assert sum(value.numel() for value in one.parameters()) == 3073 * 6 + 12 + 70
    for left, right in zip(one.state_dict().values(), same.state_dict().values(), strict=True):
        assert torch.equal(left, right)
    assert not torch.equal(one.state_dict()["1.weight"], other.state_dict()["1.weight"])
    assert one.state_dict()["2.num_batches_tracked"] == 0


def test_lazy_layers_get_their_shapes_and_seeded_weights_before_the_first_step() -> None:
    one, same, rebuilt = (
        models.build(f"{__name__}:lazy", {}, input_shape=IMAGE, outputs=10, seed=1, check=check)
        for check in (True, True, False)
    )
    assert one.training
    state = one.state_dict()
    assert state["4.weight"].shape == (10, 4 * 30 * 30)
    assert state["1.num_batches_tracked"] == 0
    for other in (same, rebuilt):
        assert all(torch.equal(value, other.state_dict()[key]) for key, value in state.items())


def test_embedding_that_is_too_small_for_the_largest_id_is_refused() -> None:
    with pytest.raises(SpecError, match="needs at least 100001 entries"):
        models.build(f"{__name__}:looks_up", {}, input_shape=(7,), outputs=10, seed=0, ids=True, largest_id=100_000)


def test_ids_are_only_accepted_by_models_that_look_them_up() -> None:
    models.build(f"{__name__}:looks_up", {}, input_shape=(7,), outputs=10, seed=0, ids=True)
    with pytest.raises(SpecError, match=r"mlp takes floats, .* kept as ids; for features give x.astype\(float\)"):
        models.build("mlp", {}, input_shape=(7,), outputs=10, seed=0, ids=True)
    with pytest.raises(SpecError, match="of ids, the largest of them 0"):
        models.build(f"{__name__}:well", {}, input_shape=IMAGE, outputs=10, seed=0, ids=True)
