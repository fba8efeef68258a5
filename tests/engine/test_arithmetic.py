"""Precision and determinism are settings that have an effect, and only where they are set."""

import contextlib
import os
import statistics
from dataclasses import replace
from functools import partial

import pytest
import torch
from support.problems import LEARNERS, case, distance

from olfl_ray.engine import arithmetic, choose_estimator, exact, reverse
from olfl_ray.errors import SpecError

ESTIMATORS = {"reverse": reverse, "low": partial(exact, memory="low"), "fast": partial(exact, memory="fast")}


@pytest.mark.parametrize("learner", LEARNERS)
def test_bf16_changes_the_meta_gradient_slightly_and_keeps_dtypes(learner: str) -> None:
    """bfloat16 has 8 bits of precision: products have errors up to 1 in 256, which add up over layers.

    On some batches the examples' contributions nearly cancel, and the sum has a larger error: hence the median of several.
    """
    problem = case(learner, "nesterov", dtype=torch.float32)
    rounded = replace(problem, problem=replace(problem.problem, precision="bf16"))
    off: dict[str, list[float]] = {name: [] for name in ESTIMATORS}
    for seed in range(5):
        torch.manual_seed(seed)
        batches = {
            "train": [(torch.randn_like(x), y) for x, y in problem.train],
            "meta": (torch.randn_like(problem.meta[0]), problem.meta[1]),
        }
        wanted = replace(problem, **batches).step(reverse)
        for name, estimator in ESTIMATORS.items():
            found = replace(rounded, **batches).step(estimator)
            off[name].append(distance(found.phi_grad, wanted.phi_grad))
            for part in ("theta", "opt_state", "phi_grad"):
                assert all(value.dtype == torch.float32 for value in getattr(found, part).values())
            assert found.meta_loss.dtype == torch.float32
    for name, distances in off.items():
        assert 1e-5 < statistics.median(distances) < 0.1, name


def test_finite_differences_in_bf16_are_refused() -> None:
    problem = case("lenet", dtype=torch.float32)
    rounded = replace(problem.problem, precision="bf16")
    with pytest.raises(SpecError, match=r"^meta\.estimator: finite_difference .*precision=bf16"):
        choose_estimator("finite_difference", "auto", 1, rounded, problem.train[0])


def flags() -> list[object]:
    return [
        torch.backends.cuda.matmul.fp32_precision,
        torch.backends.cudnn.conv.fp32_precision,
        torch.backends.cudnn.rnn.fp32_precision,
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.benchmark,
    ]


@pytest.mark.parametrize(("precision", "wanted"), [("float32", "ieee"), ("tf32", "tf32"), ("bf16", "ieee")])
def test_tf32_is_allowed_only_inside(precision, wanted: str) -> None:
    before = flags()
    with contextlib.suppress(KeyError), arithmetic(precision, deterministic=True):
        assert flags()[:3] == [wanted] * 3
        assert torch.are_deterministic_algorithms_enabled() == torch.cuda.is_available()
        raise KeyError
    assert flags() == before


def test_cublas_is_set_deterministic_before_its_first_product() -> None:
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] in (":4096:8", ":16:8")
