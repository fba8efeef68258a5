"""The proximal step of a group penalty: optimality, brute-force solutions, exact zeros, exact derivatives."""

from functools import partial

import pytest
import torch
from scipy.optimize import brentq, minimize
from sklearn.linear_model import MultiTaskLasso
from torch import Tensor

from olfl_ray.engine.groups import group_norms, group_penalty, group_weight, layers_of, sparsity
from olfl_ray.engine.proximal import shrunk, shrunk_in_metric
from olfl_ray.errors import SpecError

SHAPES = [(5, 4), (3, 4, 2, 2)]


def _drawn(shape: tuple[int, ...], spread: float = 2.0, seed: int = 0) -> tuple[Tensor, Tensor, float]:
    """Weights, a metric that spans some orders of magnitude, and a strength that about half the groups survive."""
    draw = torch.Generator().manual_seed(seed)
    u = torch.randn(shape, generator=draw, dtype=torch.float64)
    metric = 10 ** (-spread * torch.rand(shape, generator=draw, dtype=torch.float64))
    return u, metric, group_norms(metric * u).median().item() * 1.01


def _excess(u: Tensor, offset: Tensor, t: float) -> float:
    return float((u / (t + offset)).norm()) - 1


def _columns(weight: Tensor) -> Tensor:
    return weight.transpose(0, 1).flatten(1)


@pytest.mark.parametrize("shape", SHAPES)
def test_closed_form_is_the_metric_form_with_metric_one(shape: tuple[int, ...]) -> None:
    u, _, _ = _drawn(shape)
    kappa = group_norms(u).median().item() * 1.01
    found = shrunk(u, kappa)
    torch.testing.assert_close(shrunk_in_metric(u, torch.ones_like(u), kappa), found, rtol=1e-13, atol=0)
    assert 0 < int((group_norms(found) == 0).sum()) < shape[1]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spread", [0.0, 2.0, 8.0])
def test_solution_satisfies_the_optimality_conditions(shape: tuple[int, ...], spread: float) -> None:
    """D (w - u) + kappa w / |w| = 0 where w is not 0; |D u| <= kappa exactly where it is."""
    for seed in range(5):
        u, metric, kappa = _drawn(shape, spread, seed)
        w = shrunk_in_metric(u, metric, kappa)
        dead = group_norms(metric * u) <= kappa
        assert torch.equal((_columns(w) == 0).all(1), dead)
        residual = metric * (w - u) + kappa * w / group_norms(w).clamp_min(1e-300).reshape(1, -1, *[1] * (u.dim() - 2))
        assert (group_norms(residual)[~dead] <= 1e-11 * group_norms(metric * u)[~dead]).all()


def test_metric_form_equals_a_bracketed_root_of_the_norm() -> None:
    for seed in range(5):
        u, metric, kappa = _drawn((6, 5), 6.0, seed)
        found = shrunk_in_metric(u, metric, kappa)
        for index in range(5):
            own, d = u[:, index], metric[:, index]
            if (own * d).norm() <= kappa:
                continue
            root = brentq(partial(_excess, own, kappa / d), 0, 100, xtol=1e-14)
            torch.testing.assert_close(found[:, index], own * root / (root + kappa / d), rtol=1e-9, atol=1e-12)


def test_metric_form_equals_a_general_minimiser() -> None:
    u, metric, kappa = _drawn((3, 4), 1.0)

    def objective(w: object) -> float:
        column = torch.as_tensor(w)
        return float(0.5 * (d * (column - own) ** 2).sum() + kappa * column.norm())

    for index in range(4):
        own, d = u[:, index], metric[:, index]
        found = shrunk_in_metric(own[:, None], d[:, None], kappa)[:, 0]
        best = minimize(objective, own.numpy(), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13})
        assert objective(found) <= best.fun + 1e-9


def test_single_weight_is_soft_thresholded() -> None:
    u, d = torch.tensor([[3.0, -2.0, 0.5]]).double(), torch.tensor([[1.0, 0.5, 1.0]]).double()
    torch.testing.assert_close(shrunk_in_metric(u, d, 0.8), torch.tensor([[2.2, -0.4, 0.0]]).double())


@pytest.mark.parametrize("shape", SHAPES)
def test_derivatives_are_those_of_central_differences_and_zero_for_dead_groups(shape: tuple[int, ...]) -> None:
    u, metric, kappa = _drawn(shape)
    inputs = [value.requires_grad_() for value in (u, metric, torch.tensor(kappa).double())]
    assert torch.autograd.gradcheck(shrunk_in_metric, inputs)
    assert torch.autograd.gradcheck(shrunk, [u, torch.tensor(group_norms(u).median().item() * 1.01).double()])
    w = shrunk_in_metric(*inputs)
    dead = group_norms(w.detach()) == 0
    assert dead.any()
    for of, found in zip(inputs, torch.autograd.grad(w.sum(), inputs, retain_graph=True), strict=True):
        assert found.isfinite().all()
        if of.dim():
            assert (_columns(found)[dead] == 0).all()
    own = torch.autograd.grad(_columns(w)[dead].sum(), inputs)
    assert all((value == 0).all() for value in own)


def test_derivative_in_the_strength_is_the_closed_form() -> None:
    """dw_g/dkappa = -u_g / |u_g| for live groups."""
    u, _, _ = _drawn((5, 4))
    kappa = torch.tensor(group_norms(u).median().item() * 1.01).double()
    tangent = torch.autograd.functional.jvp(lambda k: shrunk(u, k), kappa, torch.ones_like(kappa))[1]
    live = (group_norms(u) > kappa)[None]
    torch.testing.assert_close(tangent, torch.where(live, -u / group_norms(u), torch.zeros_like(u)))


@pytest.mark.parametrize("strength", [0.0, torch.tensor(0.0)])
def test_without_strength_weights_are_kept_bit_for_bit(strength: float | Tensor) -> None:
    u, metric, _ = _drawn((5, 4))
    u[:, 1] = 0
    u, metric = u.float(), metric.float()
    assert torch.equal(shrunk(u, strength), u)
    assert torch.equal(shrunk_in_metric(u, metric, strength), u)


def test_a_tiny_group_at_strength_0_is_kept() -> None:
    u, metric = torch.full((3, 2), 1e-25), torch.full((3, 2), 0.5)  # squares are 0 in float32
    assert torch.equal(shrunk_in_metric(u, metric, torch.tensor(0.0)), u)


def test_weights_that_diverged_stay_visible() -> None:
    u, metric, kappa = _drawn((5, 4))
    u[0, 0] = torch.nan
    assert shrunk(u, kappa)[:, 0].isnan().all()
    assert shrunk_in_metric(u, metric, kappa)[:, 0].isnan().all()


def test_values_do_not_depend_on_the_graph() -> None:
    u, metric, kappa = _drawn((5, 4))
    u, metric = u.float(), metric.float()
    with torch.no_grad():
        plain = shrunk_in_metric(u, metric, kappa)
    assert torch.equal(plain, shrunk_in_metric(u.requires_grad_(), metric.requires_grad_(), kappa).detach())


def test_proximal_gradient_descent_solves_the_multi_task_lasso() -> None:
    """Features are groups with c_g = 1: the strength is alpha over the root of the number of outputs."""
    draw = torch.Generator().manual_seed(1)
    x, true = (torch.randn(shape, generator=draw, dtype=torch.float64) for shape in ((60, 12), (3, 12)))
    true[:, 4:] = 0
    y = x @ true.T + 0.3 * torch.randn(60, 3, generator=draw, dtype=torch.float64)
    alpha = 0.15
    wanted = MultiTaskLasso(alpha=alpha, fit_intercept=False, tol=1e-12, max_iter=100_000).fit(x.numpy(), y.numpy())
    step = 1 / torch.linalg.eigvalsh(x.T @ x / 60).max().item()
    w = torch.zeros(3, 12, dtype=torch.float64)
    strength = alpha / group_weight(w)
    for _ in range(3000):
        w = shrunk(w - step * (w @ x.T - y.T) @ x / 60, step * strength * group_weight(w))
    torch.testing.assert_close(w, torch.as_tensor(wanted.coef_), rtol=1e-7, atol=1e-9)
    assert torch.equal(w == 0, torch.as_tensor(wanted.coef_) == 0)
    assert sparsity({"w": w}, ["w"]).zero_groups == 8


def test_groups_are_input_channels_and_one_weight_serves_penalty_and_step() -> None:
    conv = torch.randn(6, 4, 3, 3).double()
    assert group_weight(conv) == pytest.approx((6 * 9) ** 0.5)
    torch.testing.assert_close(group_norms(conv)[2], conv[:, 2].norm())
    theta = {"conv": conv.requires_grad_(), "linear": torch.randn(7, 5).double().requires_grad_()}
    omega = group_penalty(theta, ["conv", "linear"])
    wanted = 54**0.5 * group_norms(conv).sum() + 7**0.5 * group_norms(theta["linear"]).sum()
    torch.testing.assert_close(omega, wanted)
    kappa = 1e-6 * group_weight(conv)
    (slope,) = torch.autograd.grad(omega, [conv])
    torch.testing.assert_close(shrunk(conv.detach(), kappa), conv.detach() - 1e-6 * slope, rtol=0, atol=1e-12)


def test_penalty_of_a_zero_group_has_no_infinite_slope() -> None:
    weight = torch.zeros(3, 2, requires_grad=True)
    (slope,) = torch.autograd.grad(group_penalty({"w": weight}, ["w"]), [weight])
    assert torch.equal(slope, torch.zeros(3, 2))


def test_layers_are_the_backbones_or_those_of_the_patterns() -> None:
    theta = {name: torch.zeros(shape) for name, shape in (("backbone.0.weight", (3, 2)), ("backbone.0.bias", (3,)))}
    theta |= {"heads.a.weight": torch.zeros(2, 3)}
    assert layers_of(theta) == ("backbone.0.weight",)
    assert layers_of(theta, ["heads.*", "backbone.*"]) == ("backbone.0.weight", "heads.a.weight")
    plain = {"0.weight": torch.zeros(3, 2), "0.bias": torch.zeros(3), "2.weight": torch.zeros(2, 3)}
    assert layers_of(plain) == ("0.weight", "2.weight")
    assert layers_of(plain | {"1.bias": torch.zeros(3, 2)}) == ("0.weight", "2.weight"), "a layer norm of images"
    with pytest.raises(SpecError, match=r"layers.*heads"):
        layers_of(theta, ["features.*"])
    with pytest.raises(SpecError, match="no weight"):
        layers_of({"bias": torch.zeros(3)})


def test_sparsity_counts_groups_and_their_weights() -> None:
    wide, narrow = torch.ones(10, 4), torch.ones(2, 4)
    wide[:, 0], narrow[:, :3] = 0, 0
    found = sparsity({"wide": wide, "narrow": narrow}, ["wide", "narrow"])
    assert (found.of_groups, found.of_weights) == (4 / 8, (10 + 6) / 48)
