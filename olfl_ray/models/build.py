"""Base learners by name; each takes the input's shape and the number of outputs, and returns raw outputs (logits)."""

from __future__ import annotations

import inspect
import itertools
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from olfl_ray.errors import SpecError
from olfl_ray.models.dosa import dosa
from olfl_ray.models.multihead import multihead
from olfl_ray.models.shapes import Shape, image, rate
from olfl_ray.models.squeezenet import squeezenet
from olfl_ray.models.vgg16 import vgg16
from olfl_ray.models.wrn import wrn
from olfl_ray.plugins import load_builder, nearest
from olfl_ray.tasks import Head
from olfl_ray.tasks.heads import packed
from olfl_ray.vision import torchvision

__all__ = ["build", "bytes_of", "names"]

OVERFLOW = (RuntimeError, OverflowError)
"""What torch raises if a tensor would have more bytes than an integer holds."""
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "elu": nn.ELU}


def linear(input_shape: Shape, outputs: int) -> nn.Module:
    """Linear or logistic regression."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), outputs))


def mlp(input_shape: Shape, outputs: int, hidden: Sequence[int] = (128,), activation: str = "relu") -> nn.Module:
    """Multilayer perceptron."""
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        close = nearest(str(activation), list(ACTIVATIONS))
        raise SpecError(
            "task.model.activation",
            f"there is no activation {activation!r}{close}; use one of {', '.join(ACTIVATIONS)}",
        )
    if not isinstance(hidden, list | tuple) or not all(type(units) is int and units > 0 for units in hidden):
        raise SpecError("task.model.hidden", f"must be a list of positive integers, but it is {hidden!r}")
    sizes = [math.prod(input_shape), *hidden]
    layers: list[nn.Module] = [nn.Flatten()] if len(input_shape) > 1 else []
    for inputs, units in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, units), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], outputs))


def lenet5(input_shape: Shape, outputs: int) -> nn.Module:
    """LeNet-5 (LeCun et al. 1998) with ReLU and max pooling."""
    channels, height, width = image(input_shape, "lenet5", 28)
    pad = 2 if height == 28 else 0

    def side(size: int) -> int:
        return ((size + 2 * pad - 4) // 2 - 4) // 2

    return nn.Sequential(
        nn.Conv2d(channels, 6, 5, padding=pad),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * side(height) * side(width), 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, outputs),
    )


def allcnnc(input_shape: Shape, outputs: int, dropout: float = 0.0) -> nn.Module:
    """All-CNN-C (Springenberg et al. 2015): only convolutions; dropout on the input is 0.4 of that after blocks."""
    channels, _, _ = image(input_shape, "allcnnc", 16)
    rate(dropout, "dropout")
    plan = [(96, 3, 1, 1), (96, 3, 1, 1), (96, 3, 2, 1), (192, 3, 1, 1), (192, 3, 1, 1), (192, 3, 2, 1)]
    plan += [(192, 3, 1, 0), (192, 1, 1, 0), (outputs, 1, 1, 0)]
    layers: list[nn.Module] = [nn.Dropout(0.4 * dropout)] if dropout else []
    for units, kernel, stride, padding in plan:
        layers += [nn.Conv2d(channels, units, kernel, stride, padding), nn.ReLU()]
        if stride == 2 and dropout:
            layers.append(nn.Dropout(dropout))
        channels = units
    return nn.Sequential(*layers[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten())


def resnet18(input_shape: Shape, outputs: int) -> nn.Module:
    """torchvision's ResNet-18 with the stem for 32x32 images: 3x3, stride 1, no max pooling."""
    channels, _, _ = image(input_shape, "resnet18", 16)
    torchvision()
    from torchvision import models

    net: Any = models.resnet18(num_classes=outputs)
    net.conv1 = nn.Conv2d(channels, 64, 3, 1, 1, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's own
    net.maxpool = nn.Identity()
    assert isinstance(net, nn.Module)
    return net


SHAPES = ("input_shape", "outputs", "heads")
"""Parameters of a builder that are no options."""
BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "allcnnc": allcnnc,
    "dosa": dosa,
    "lenet5": lenet5,
    "linear": linear,
    "mlp": mlp,
    "multihead": multihead,
    "resnet18": resnet18,
    "squeezenet": squeezenet,
    "vgg16": vgg16,
    "wrn": wrn,
}


def names() -> list[str]:
    """Names of the built-in base learners."""
    return sorted(BUILDERS)


def build(
    name: str,
    options: dict[str, Any],
    *,
    input_shape: Shape,
    outputs: int,
    seed: int,
    check: bool = True,
    ids: bool = False,
    largest_id: int = 0,
    heads: Sequence[Head] = (),
) -> nn.Module:
    """Build a base learner with initial weights drawn from `seed`; the global random state is not changed.

    Args:
        name: Built-in name, or `package.module:builder`, called with input_shape, outputs and the options; where it has a parameter
            `heads` and the data set has heads, also with their outputs by name.
        options: The builder's keyword arguments.
        input_shape: Shape of one example.
        outputs: Classes or regression targets.
        seed: Seed of the initial weights.
        check: Whether to try it on a batch; once is enough.
        ids: Whether inputs are integers that are looked up (token ids, for example).
        largest_id: The largest that occurs; the model is tried on it.
        heads: Of a data set with several tasks. The base learner returns their outputs as a dict, or side by side in one tensor.

    Raises:
        SpecError: The name, an option, or the shape of the output is invalid.
    """
    builder = load_builder(name, "task.model.name", (nn.Module,)) if ":" in name else BUILDERS.get(name)
    if builder is None:
        raise SpecError(
            "task.model.name", f"there is no model {name!r}{nearest(name, names())}; use one of {', '.join(names())}"
        )
    if ":" not in name:
        known = [key for key in inspect.signature(builder).parameters if key not in SHAPES]
        for option in options:
            if option not in known:
                raise SpecError(
                    f"task.model.{option}",
                    f"{name} has no option {option!r}{nearest(option, known)}; it has {', '.join(known) or 'none'}",
                )
        if ids:
            raise SpecError(
                "task.model.name",
                f"{name} takes floats, but the data set's x are integers, which are kept as ids; for features give "
                "x.astype(float) (of a file, leave out ids: true); or name a model of your own that looks ids up",
            )
    called = _arguments(builder, input_shape, outputs, heads) | options
    _check_call(name, builder, called)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed the GPUs
        try:
            module = builder(**called)
        except SpecError:
            raise
        except (Exception, SystemExit) as error:
            raise SpecError(
                "task.model", f"{name!r} raised {type(error).__name__}: {error}; correct the builder or its options"
            ) from error
        if not isinstance(module, nn.Module):
            raise SpecError(
                "task.model.name", f"{name!r} returned a {type(module).__name__}; it must return an nn.Module"
            )
        example = torch.zeros(2, *input_shape)
        if ids:
            example = torch.full((2, *input_shape), largest_id)
        _materialise(name, module, example)
        if check:
            _check_shape(name, module, example, outputs, heads)
    return module


def bytes_of(
    name: str, options: dict[str, Any], *, input_shape: Shape, outputs: int, heads: Sequence[Head] = ()
) -> int:
    """Bytes of a built-in base learner's parameters, counted without allocating them; 0 for a user's own, or invalid options."""
    builder = BUILDERS.get(name)
    if builder is None:
        return 0
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            module = builder(**_arguments(builder, input_shape, outputs, heads), **options)
    except OVERFLOW as error:
        return sys.maxsize if "overflow" in str(error).lower() else 0
    except Exception:
        return 0  # `build` reports the error
    return sum(value.numel() * value.element_size() for value in module.parameters())


def _arguments(builder: Callable[..., Any], input_shape: Shape, outputs: int, heads: Sequence[Head]) -> dict[str, Any]:
    """What a builder is called with besides its options."""
    called: dict[str, Any] = {"input_shape": input_shape, "outputs": outputs}
    try:
        takes = "heads" in inspect.signature(builder).parameters
    except (TypeError, ValueError):
        takes = False
    return called | ({"heads": {head.name: head.outputs for head in heads}} if takes and heads else {})


def _check_call(name: str, builder: Callable[..., Any], called: dict[str, Any]) -> None:
    """Refuse a builder that does not accept its arguments; if its signature is unknown, the call itself reports this."""
    try:
        form = inspect.signature(builder)
    except (TypeError, ValueError):
        return
    try:
        form.bind(**called)
    except TypeError as error:
        raise SpecError(
            "task.model",
            f"{name!r} is called with input_shape, outputs and its options as keyword arguments ({', '.join(called)}), but "
            f"its form is {form}: {error}; give it these parameters, or correct the options",
        ) from None


def _materialise(name: str, module: nn.Module, example: torch.Tensor) -> None:
    """Give lazy layers (`nn.LazyLinear`) their shapes and initial weights in a first forward pass.

    In evaluation mode, so that running statistics are not updated and dropout is off.
    """

    def lazy() -> list[str]:
        tensors = itertools.chain(module.named_parameters(), module.named_buffers())
        return [key for key, value in tensors if nn.parameter.is_lazy(value)]

    if not lazy():
        return
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        with torch.no_grad():
            module(example)
    except Exception as error:
        raise _no_batch(name, example, error) from error
    for part in training:
        part.training = True
    if left := lazy():
        raise SpecError(
            "task.model.name",
            f"{name!r} never uses its lazy layer of {left[0]!r}, so its shape is not known; remove it",
        )


def _no_batch(name: str, example: torch.Tensor, error: Exception) -> SpecError:
    kind = "floats"
    if not example.is_floating_point():
        kind = f"ids, the largest of them {int(example.max())}"
    hint = ""
    if isinstance(error, IndexError) and not example.is_floating_point():
        hint = f"; an embedding needs at least {int(example.max()) + 1} entries"
    return SpecError(
        "task.model.name",
        f"{name!r} can't take a batch of shape {tuple(example.shape)} of {kind}: {type(error).__name__}: {error}{hint}",
    )


def _check_shape(name: str, module: nn.Module, example: torch.Tensor, outputs: int, heads: Sequence[Head]) -> None:
    buffers = {key: value.clone() for key, value in module.named_buffers()}
    try:
        with torch.no_grad():
            value = torch.func.functional_call(module, buffers, (example,))
    except Exception as error:
        raise _no_batch(name, example, error) from error
    if heads:
        try:
            value = packed(heads, value)
        except ValueError as error:
            raise SpecError("task.model.name", f"{name!r} {error}") from None
    shape = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
    if shape != (2, outputs):
        raise SpecError(
            "task.model.name", f"{name!r} must return outputs of shape {(2, outputs)}, but returned {shape}"
        )
