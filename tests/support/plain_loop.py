"""The reference: a plain torch loop, differentiated twice by autograd; then the engine must give the same.

Two loops share nothing with the engine: `unrolled` writes the optimizer's formulas out and keeps the graph of every step;
`trained` runs `backward` and `torch.optim`. `unrolled` must agree with `trained` in theta before the engine is compared.
Where autograd can't differentiate twice, the gradient of phi is a central difference of `trained` along one direction.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from support.random_modules import CUTTING, Made, Setting, batches, make, setting
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from olfl_ray import OnlineLossLearner, meta_gradient
from olfl_ray.engine import Adam, Sgd
from olfl_ray.errors import SpecError

Batch = tuple[Tensor, Tensor]
Warm = tuple[dict[str, Tensor], dict[str, int]]
"""State of an optimizer, and how many steps each parameter has taken."""
WAYS: dict[str, tuple[str, str]] = {
    "auto": ("auto", "auto"),
    "auto low": ("auto", "low"),
    "exact fast": ("exact", "fast"),
    "exact low": ("exact", "low"),
    "reverse": ("reverse", "auto"),
    "finite difference": ("finite_difference", "auto"),
}
EXACT, ROUGH, DIFFERENCE = 1e-7, 2e-3, 5e-3
"""Allowed distances: float64 throughout, a part in float32, and a difference in place of a derivative."""


@dataclass
class Truth:
    theta: dict[str, Tensor]
    buffers: dict[str, Tensor]
    loss_buffers: dict[str, Tensor]
    state: dict[str, Tensor]
    phi_grad: dict[str, Tensor] | None
    meta_loss: Tensor


def seeded(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def task_of(made: Made) -> Callable[[Tensor, Tensor], Tensor]:
    return F.cross_entropy if made.classes else F.mse_loss


def trainable(module: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in module.named_parameters() if value.requires_grad}


def root(squares: Tensor) -> Tensor:
    """Adam's root, with derivative 0 at 0."""
    positive = squares > 0
    return torch.where(positive, torch.where(positive, squares, 1.0).sqrt(), 0.0)


@sdpa_kernel(SDPBackend.MATH)  # fused attention has one derivative alone
def unrolled(
    made: Made, how: Setting, train: Sequence[Batch], meta: Batch, seed: int, warm: Warm | None = None
) -> Truth:
    """All steps in one graph, then the gradient of phi by autograd; `warm` is moved."""
    module, loss, options = made.module, made.loss, how.options
    theta: dict[str, Tensor] = {k: v.detach().clone().requires_grad_() for k, v in trainable(module).items()}
    phi = {k: v.detach().clone().requires_grad_() for k, v in trainable(loss).items()}
    buffers = {k: v.detach().clone() for k, v in module.named_buffers()}
    of_loss = {k: v.detach().clone() for k, v in loss.named_buffers()}
    state, times = warm or ({}, dict.fromkeys(theta, 0))
    seeded(seed)
    for x, y in train:
        before = {k: v.clone() for k, v in buffers.items()}
        with placed(module, {**theta, **before}) as live:
            outputs = module(x)
            own = {**phi, **{k: v.clone() for k, v in of_loss.items()}}
            with placed(loss, own) as live_loss:
                value = loss(outputs, y)
            found = torch.autograd.grad(value, list(theta.values()), create_graph=True, allow_unused=True)
        buffers = {k: live[k].detach() for k in buffers}
        of_loss = {k: live_loss[k].detach() for k in of_loss}
        g = {k: v for k, v in zip(theta, found, strict=True) if v is not None}
        g = {k: made.gradient_hooks[k](v) if k in made.gradient_hooks else v for k, v in g.items()}
        if how.clip is not None:
            norm = root(sum((v**2).sum() for v in g.values()))
            g = {k: v * (how.clip / (norm + 1e-6)).clamp(max=1.0) for k, v in g.items()}
        theta = {
            k: v if k not in g else moved(k, v, g[k], state, times, how.name, how.lr, **options)
            for k, v in theta.items()
        }
    with placed(module, {**theta, **{k: v.clone() for k, v in buffers.items()}}):
        meta_loss = task_of(made)(module(meta[0]), meta[1])
    phi_grad = torch.autograd.grad(meta_loss, list(phi.values()), materialize_grads=True)
    return Truth(
        detached(theta), buffers, of_loss, detached(state), dict(zip(phi, phi_grad, strict=True)), meta_loss.detach()
    )


def moved(
    key: str, value: Tensor, g: Tensor, state: dict[str, Tensor], times: dict[str, int], name: str, lr: float, **o: Any
) -> Tensor:
    """One parameter's step, from the pages of `torch.optim`."""
    if o["weight_decay"] and name != "adamw":
        g = g + o["weight_decay"] * value
    if name == "sgd":
        if not o["momentum"]:
            return value - lr * g
        v = g if key not in state else o["momentum"] * state[key] + g
        state[key] = v
        return value - lr * (g + o["momentum"] * v if o["nesterov"] else v)
    (one, two), zero = o["betas"], torch.zeros_like(value)
    times[key] += 1
    m = one * state.get(f"m.{key}", zero) + (1 - one) * g
    v = two * state.get(f"v.{key}", zero) + (1 - two) * g * g
    state[f"m.{key}"], state[f"v.{key}"] = m, v
    if name == "adamw":
        value = value * (1 - lr * o["weight_decay"])
    m, v = m / (1 - one ** times[key]), v / (1 - two ** times[key])
    return value - lr * m / (root(v) + o["eps"])


class placed:
    """`torch.func.functional_call` over several calls: tensors stand in a module, and what it assigns is seen."""

    def __init__(self, module: nn.Module, tensors: dict[str, Tensor]) -> None:
        self.slots = [
            (held, key, names[0]) for names, holders in _places(module) for held, key in holders if names[0] in tensors
        ]
        self.tensors = tensors

    def __enter__(self) -> dict[str, Tensor]:
        self.own = [held[key] for held, key, _ in self.slots]
        for held, key, name in self.slots:
            held[key] = self.tensors[name]
        self.live: dict[str, Tensor] = {}
        return self.live

    def __exit__(self, *_: object) -> None:
        self.live.update({name: held[key] for held, key, name in self.slots})
        for (held, key, _), own in zip(self.slots, self.own, strict=True):
            held[key] = own


def _places(module: nn.Module) -> list[tuple[list[str], list[tuple[dict[str, Any], str]]]]:
    found: dict[int, tuple[list[str], list[tuple[dict[str, Any], str]]]] = {}
    for prefix, part in module.named_modules():
        for held in (part._parameters, part._buffers):
            for key, value in held.items():
                if value is not None:
                    names, holders = found.setdefault(id(value), ([], []))
                    names.append(f"{prefix}.{key}" if prefix else key)
                    holders.append((held, key))
    return list(found.values())


def detached(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.detach() for k, v in tensors.items()}


def torch_optimizer(how: Setting, parameters: list[Tensor]) -> torch.optim.Optimizer:
    kinds: dict[str, Any] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    made: torch.optim.Optimizer = kinds[how.name](parameters, how.lr, **how.options)
    return made


@sdpa_kernel(SDPBackend.MATH)
def trained(made: Made, how: Setting, train: Sequence[Batch], meta: Batch, seed: int) -> Truth:
    """`backward` and `torch.optim`; moves `made`."""
    module, loss = made.module, made.loss
    parameters = list(trainable(module).values())
    optimizer = torch_optimizer(how, parameters)
    seeded(seed)
    for x, y in train:
        optimizer.zero_grad()
        loss(module(x), y).backward()
        if how.clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters, how.clip)
        optimizer.step()
    theta = {k: v.detach().clone() for k, v in trainable(module).items()}
    buffers = {k: v.detach().clone() for k, v in module.named_buffers()}
    of_loss = {k: v.detach().clone() for k, v in loss.named_buffers()}
    meta_loss = task_of(made)(module(meta[0]), meta[1]).detach()
    return Truth(theta, buffers, of_loss, {}, None, meta_loss)


def slope(seed: int, odd: bool, how: Setting, train: Sequence[Batch], meta: Batch, along: dict[str, Tensor]) -> float:
    """d meta loss / d phi along a direction, by central differences of `trained`."""
    losses = []
    for shift in (1e-5, -1e-5):
        made = make(seed, odd=odd, plain=True)
        with torch.no_grad():
            for name, value in trainable(made.loss).items():
                value.add_(shift * along[name])
        losses.append(trained(made, how, train, meta, seed).meta_loss.item())
    return (losses[0] - losses[1]) / 2e-5


def off(found: dict[str, Tensor], wanted: dict[str, Tensor], scale: float = 0.0) -> float:
    """|found - wanted| in units of |wanted|, or of `scale` where that is larger."""
    if found.keys() != wanted.keys():
        return float("inf")
    if not wanted:
        return 0.0
    far = torch.stack([(found[k] - v).double().norm() for k, v in wanted.items()]).norm().item()
    size = torch.stack([v.double().norm() for v in wanted.values()]).norm().item()
    return far / max(size, scale, 1e-300) if far == far else float("inf")


@dataclass
class Outcome:
    """What came of one comparison: equal, refused (why), or wrong (how far)."""

    way: str
    verdict: str
    why: str = ""


def check(seed: int, *, odd: bool, ways: Sequence[str] = tuple(WAYS)) -> tuple[str, set[str], list[Outcome]]:
    """One random module in every way.

    Returns:
        The case in words, its odd features, and the outcomes.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _check(seed, odd=odd, ways=ways)


def _check(seed: int, *, odd: bool, ways: Sequence[str]) -> tuple[str, set[str], list[Outcome]]:
    how, made = setting(seed), make(seed, odd=odd)
    if "backward hook" in made.odd or {"state in an attribute"} & made.odd:
        how = replace(how, steps=1)
    if "dtypes" in made.odd and "eps" in how.options:  # at float32's rounding a cold Adam's step is a sign
        how = replace(how, options={**how.options, "eps": 1e-3})
    *train, meta = batches(seed, how.steps + 1, made.classes)
    options = " ".join(f"{k}={v}" for k, v in how.options.items() if v)
    whose = "ours" if how.ours else "torch"
    words = f"{', '.join(made.words)}; {whose} {how.name} lr={how.lr} {options} clip={how.clip}; S_inner={how.steps}"
    wanted = trained(make(seed, odd=odd, plain=True), how, train, meta, seed)
    along: dict[str, Tensor] = {}
    try:
        twice = unrolled(make(seed, odd=odd, plain=True), how, train, meta, seed)
    except RuntimeError:  # autograd has no second derivative here
        generator = torch.Generator().manual_seed(seed)
        along = {k: torch.randn(v.shape, generator=generator).double() for k, v in trainable(made.loss).items()}
        slope_wanted = slope(seed, odd, how, train, meta, along)
    else:
        if off(twice.theta, wanted.theta, 1e-3) > (1e-9 if "dtypes" not in made.odd else 1e-4):
            return (
                words,
                made.odd,
                [Outcome("reference", "wrong", f"the two loops differ by {off(twice.theta, wanted.theta)}")],
            )
        wanted = twice
    if not all(v.isfinite().all() for v in (*wanted.theta.values(), *(wanted.phi_grad or {}).values())):
        return words, made.odd, []
    outcomes = []
    for way in ways:
        if way == "finite difference" and not differs_smoothly(how, made):
            continue
        case = make(seed, odd=odd)
        given, before = trainable(case.module), [value.clone() for value in tensors(case)]
        try:
            seeded(seed)
            result = meta_gradient(
                case.module,
                pure(how) if how.ours else torch_optimizer(how, list(given.values())),
                case.loss,
                task_of(case),
                list(train),
                meta,
                lr=how.lr if how.ours else None,
                estimator=WAYS[way][0],  # type: ignore[arg-type]
                memory=WAYS[way][1],  # type: ignore[arg-type]
            )
        except SpecError as error:
            outcomes.append(Outcome(way, "refused", str(error)))
            continue
        except Exception as error:
            outcomes.append(
                Outcome(way, "wrong", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
            )
            continue
        exact = ROUGH if "dtypes" in made.odd else EXACT
        allowed = max(exact, DIFFERENCE) if way == "finite difference" else exact
        far = {
            "buffers": off(result.buffers, wanted.buffers, 1e-3),
            "meta loss": abs((result.meta_loss - wanted.meta_loss).item()) / (1 + abs(wanted.meta_loss.item())),
        }
        moved_by = {k: result.theta[k] - v.detach() for k, v in given.items()}
        far["theta"] = off(moved_by, {k: wanted.theta[k] - v.detach() for k, v in given.items()}, 1e-6)
        if hasattr(result, "loss_buffers"):
            far["buffers of the loss"] = off(result.loss_buffers, wanted.loss_buffers, 1e-3)
        if wanted.phi_grad is not None:
            far["state"] = off(
                {k: v for k, v in result.opt_state.items() if k != "t" and (k in wanted.state or v.any())},
                wanted.state,
                1e-6,
            )
            far["phi"] = off(result.phi_grad, wanted.phi_grad, 1e-9)
        else:
            found = sum((result.phi_grad[k] * v).sum().item() for k, v in along.items())
            far["phi along a direction"] = abs(found - slope_wanted) / max(abs(slope_wanted), 1e-6) / 1e3
        bad = {k: v for k, v in far.items() if not v <= (allowed if k.startswith("phi") else exact)}
        same = all(map(torch.equal, tensors(case), before))
        if bad:
            outcomes.append(Outcome(way, "wrong", ", ".join(f"{k} off by {v:.1e}" for k, v in bad.items())))
        elif not same:
            outcomes.append(Outcome(way, "wrong", "meta_gradient has moved the module or the loss"))
        else:
            outcomes.append(Outcome(way, "equal"))
    return words, made.odd, outcomes


def differs_smoothly(how: Setting, made: Made) -> bool:
    """Whether a difference can stand for a derivative: g is a gradient, and Adam's first step is no sign of it."""
    return not (how.steps > 1 and made.odd & CUTTING) and how.options.get("eps", 1.0) > 1e-6


def tensors(made: Made) -> list[Tensor]:
    return [v.detach() for part in (made.module, made.loss) for v in (*part.parameters(), *part.buffers())]


def pure(how: Setting) -> Sgd | Adam:
    """The same optimizer of the package."""
    o = how.options
    if how.name == "sgd":
        return Sgd(momentum=o["momentum"], nesterov=o["nesterov"], weight_decay=o["weight_decay"], clip_norm=how.clip)
    return Adam(
        beta1=o["betas"][0],
        beta2=o["betas"][1],
        eps=o["eps"],
        weight_decay=o["weight_decay"],
        decoupled=how.name == "adamw",
        clip_norm=how.clip,
    )


def check_learner(seed: int, *, odd: bool, way: str, steps: int = 2) -> Outcome:
    """Steps of Algorithm 2 in a learner, with plain SGD on phi, and the same by hand."""
    how = replace(setting(seed), steps=1)
    made, hand = make(seed, odd=odd), make(seed, odd=odd, plain=True)
    if way == "finite difference" and not differs_smoothly(how, made):
        way = "reverse"
    pairs = batches(seed, 2 * steps, made.classes)
    eta, warm = 0.05, ({}, dict.fromkeys(trainable(hand.module), 0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            learner = OnlineLossLearner(
                made.module,
                pure(how) if how.ours else torch_optimizer(how, list(trainable(made.module).values())),
                made.loss,
                task_of(made),
                lr=how.lr if how.ours else None,
                eta=eta,
                meta="sgd",
                estimator=WAYS[way][0],  # type: ignore[arg-type]
                memory=WAYS[way][1],  # type: ignore[arg-type]
            )
            for index in range(steps):
                seeded(seed + index)
                learner.step(pairs[2 * index], pairs[2 * index + 1])
        except SpecError as error:
            return Outcome(f"learner, {way}", "refused", str(error))
        except Exception as error:
            return Outcome(f"learner, {way}", "wrong", f"{type(error).__name__}: {error}")
        try:
            for index in range(steps):
                truth = unrolled(hand, how, [pairs[2 * index]], pairs[2 * index + 1], seed + index, warm)
                warm = (truth.state, warm[1])
                assert truth.phi_grad is not None
                with torch.no_grad():
                    own = {**dict(hand.module.named_parameters()), **dict(hand.module.named_buffers())}
                    for name, value in {**truth.theta, **truth.buffers}.items():
                        own[name].copy_(value)
                    own = {**dict(hand.loss.named_parameters()), **dict(hand.loss.named_buffers())}
                    for name, value in truth.loss_buffers.items():
                        own[name].copy_(value)
                    for name, value in truth.phi_grad.items():
                        own[name].sub_(value, alpha=eta)
        except RuntimeError:
            return Outcome(f"learner, {way}", "refused", "no reference: autograd has no second derivative here")
    allowed = 1e-4 if "dtypes" in made.odd or way == "finite difference" else 1e-8
    wanted, found = tensors(hand), tensors(made)
    if not all(v.isfinite().all() for v in wanted):
        return Outcome(f"learner, {way}", "equal", "")
    far = max(((a - b).double().norm() / (1e-2 + b.double().norm())).item() for a, b in zip(found, wanted, strict=True))
    verdict = "equal" if far <= allowed else "wrong"
    return Outcome(f"learner, {way}", verdict, f"off by {far:.1e}")
