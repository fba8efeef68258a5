"""Agreement of forward mode with a retained backward pass: compared relative to the size of the outputs."""

from __future__ import annotations

import gc

import pytest
import torch
from support.problems import LOSSES
from torch import Tensor, nn
from torch.nn import functional as F

from olfl_ray.engine import Sgd, choose_estimator
from olfl_ray.engine.estimators.agreement import Moment, disagreement
from olfl_ray.engine.problem import Problem
from olfl_ray.errors import SpecError


class Scaled(nn.Module):
    """A small network with outputs of a given size; a cut one lets half of its gradient through."""

    def __init__(self, size: float, cut: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(0.2), nn.Linear(6, 3))
        self.size, self.cut = size, cut

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.layers(x)
        if self.cut:
            with torch.no_grad():
                kept = outputs * 0.5
            outputs = 0.5 * outputs + kept
        return self.size * outputs


def problem(size: float, cut: bool) -> tuple[Problem, tuple[Tensor, Tensor]]:
    torch.manual_seed(2)
    batch = torch.randn(5, 4), torch.arange(5) % 3
    own = Problem(
        module=Scaled(size, cut).train(),
        learned=LOSSES["mlp"](),
        task_loss=F.cross_entropy,
        base_loss=F.cross_entropy,
        optimizer=Sgd(),
        draws_random=True,
    )
    return own, batch


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_valid_module_agrees_at_any_scale_and_one_that_cuts_gradients_does_not(size: float) -> None:
    for cut in (False, True):
        own, batch = problem(size, cut)
        phi = {name: value.detach() for name, value in own.learned.named_parameters()}
        moment = Moment(theta=own.theta(), buffers={}, phi=phi, loss_buffers={}, batch=batch)
        assert (disagreement(own, "low", moment, unrolled=False) is None) == (not cut)


def test_choosing_an_estimator_keeps_no_tensor_alive() -> None:
    """ReLU saves its own result for its backward pass: a hook that returned it unchanged would create a reference cycle."""
    own, batch = problem(1.0, cut=False)
    own.module.layers[1] = nn.ReLU()
    for memory in ("low", "fast"):
        choose_estimator("auto", memory, 1, own, batch)
    gc.collect()
    before = tensors()
    choose_estimator("auto", "auto", 1, own, batch)
    gc.collect()
    assert tensors() <= before


def tensors() -> int:
    """Number of tensors in this process that Python's garbage collector knows."""
    return sum(issubclass(type(found), Tensor) for found in gc.get_objects())


@pytest.mark.parametrize("size", [1e-4, 1e4])
def test_low_memory_is_refused_exactly_if_gradients_are_cut(size: float) -> None:
    own, batch = problem(size, cut=True)
    with pytest.raises(SpecError, match=r"meta.estimator: exact .*no_grad"):
        choose_estimator("exact", "low", 1, own, batch)
    own, batch = problem(size, cut=False)
    assert choose_estimator("exact", "low", 1, own, batch).way == "low"  # type: ignore[attr-defined]
