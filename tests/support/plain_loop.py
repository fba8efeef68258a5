"""The reference: a plain torch loop, differentiated twice by autograd; the engine must give the same result.

Two loops share no code with the engine: `unrolled` implements the optimizer's formulas and keeps the graph of every step;
`trained` runs `backward` and `torch.optim`. `unrolled` must agree with `trained` in theta before the engine is compared.
Where autograd can't differentiate twice, the reference is <grad L_T at theta', d theta' / d phi> along one direction, by
central differences of `trained` in phi. Where `unrolled` itself depends on the last digits of the parameters (a cold Adam),
the engine may too: see `conditioning`.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from support.random_modules import CUTTING, Made, Setting, batches, make, setting
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from olfl_ray import OnlineLossLearner, meta_gradient
from olfl_ray.engine import Adam, Sgd, StepResult
from olfl_ray.errors import SpecError

Batch = tuple[Tensor, Tensor]
Warm = tuple[dict[str, Tensor], dict[str, int]]
"""State of an optimizer, and the number of steps that each parameter has taken."""
WAYS: dict[str, tuple[str, str]] = {
    "auto": ("auto", "auto"),
    "auto low": ("auto", "low"),
    "exact fast": ("exact", "fast"),
    "exact low": ("exact", "low"),
    "reverse": ("reverse", "auto"),
    "finite difference": ("finite_difference", "auto"),
}
EXACT, ROUGH, DIFFERENCE = 1e-7, 2e-3, 5e-3
"""Tolerances: float64 throughout, partly float32, and a difference instead of a derivative."""
NOISE, ULPS, NUDGES, UNCLEAR = 100.0, 4.0, 3, 1e-3
"""A larger distance, up to `UNCLEAR`, counts as rounding if it is below this many times the change of the reference when all
parameters are moved by `ULPS` in `NUDGES` random directions."""
COLD = 1e-6
"""With an epsilon of at most this, Adam's first step is the sign of g: where an entry of g is rounding noise, so is its derivative.
A larger distance that rounding explains is then undetermined: the reference has no correct digit to compare with."""


@dataclass
class Truth:
    theta: dict[str, Tensor]
    buffers: dict[str, Tensor]
    loss_buffers: dict[str, Tensor]
    state: dict[str, Tensor]
    phi_grad: dict[str, Tensor] | None
    meta_loss: Tensor
    v: dict[str, Tensor] = field(default_factory=dict)
    """grad L_T at theta', of `trained`."""
    typical: float = 0.0
    """Size that phi's gradient would have if w, the derivative of L_T in each step's g, were random: the scale of a difference's
    error, as nothing may change along the true w (clipped steps of a loss that only scales)."""


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


@sdpa_kernel(SDPBackend.MATH)  # fused attention has only a first derivative
def unrolled(
    made: Made, how: Setting, train: Sequence[Batch], meta: Batch, seed: int, warm: Warm | None = None
) -> Truth:
    """All steps in one graph, then the gradient of phi by autograd; updates `warm`."""
    module, loss, options = made.module, made.loss, how.options
    theta: dict[str, Tensor] = {k: v.detach().clone().requires_grad_() for k, v in trainable(module).items()}
    phi = {k: v.detach().clone().requires_grad_() for k, v in trainable(loss).items()}
    buffers = {k: v.detach().clone() for k, v in module.named_buffers()}
    of_loss = {k: v.detach().clone() for k, v in loss.named_buffers()}
    state, times = warm or ({}, dict.fromkeys(theta, 0))
    slopes: list[list[Tensor]] = []
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
        check_twice(g.values())
        slopes.append([v for v in g.values() if v.requires_grad])
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
    phi_grad = torch.autograd.grad(meta_loss, list(phi.values()), retain_graph=True, materialize_grads=True)
    return Truth(
        detached(theta),
        buffers,
        of_loss,
        detached(state),
        dict(zip(phi, phi_grad, strict=True)),
        meta_loss.detach(),
        typical=sum(typical(meta_loss, g, list(phi.values())) for g in slopes if g),
    )


def typical(meta_loss: Tensor, g: list[Tensor], phi: list[Tensor]) -> float:
    """|d <g, r> / d phi| for a random r as large as w = d L_T / d g."""
    generator = torch.Generator().manual_seed(0)
    w = torch.autograd.grad(meta_loss, g, retain_graph=True, materialize_grads=True)
    r = [torch.randn(v.shape, generator=generator, dtype=v.dtype) for v in g]
    along = torch.autograd.grad(g, phi, r, retain_graph=True, materialize_grads=True)
    return (size(along) * size(w) / size(r)).item()


def size(values: Iterable[Tensor]) -> Tensor:
    return torch.stack([value.double().norm() for value in values]).norm()


def check_twice(g: Iterable[Tensor]) -> None:
    """Raise where autograd would silently leave out what passes through a `once_differentiable` function."""
    nodes, seen = [value.grad_fn for value in g], set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            nodes += [after for after, _ in node.next_functions]
            if node.name() == "torch::autograd::Error":
                raise RuntimeError("once_differentiable")


def moved(
    key: str, value: Tensor, g: Tensor, state: dict[str, Tensor], times: dict[str, int], name: str, lr: float, **o: Any
) -> Tensor:
    """One parameter's step, by the formulas in the documentation of `torch.optim`."""
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
    """`torch.func.functional_call` over several calls: the tensors stay in the module, and its assignments are kept."""

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
    """`backward` and `torch.optim`; updates `made`."""
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
    meta_loss = task_of(made)(module(meta[0]), meta[1])
    found = torch.autograd.grad(meta_loss, parameters, materialize_grads=True, allow_unused=True)
    v = dict(zip(theta, found, strict=True))
    return Truth(theta, buffers, of_loss, {}, None, meta_loss.detach(), v)


def slope(
    seed: int,
    odd: bool,
    how: Setting,
    train: Sequence[Batch],
    meta: Batch,
    along: dict[str, Tensor],
    v: dict[str, Tensor],
) -> float:
    """<v, d theta' / d phi> along a direction, by central differences of `trained`: v may detach gradients, as torch does."""
    ends = []
    for shift in (1e-5, -1e-5):
        made = make(seed, odd=odd, plain=True)
        with torch.no_grad():
            for name, value in trainable(made.loss).items():
                value.add_(shift * along[name])
        ends.append(trained(made, how, train, meta, seed).theta)
    return sum((value * (ends[0][name] - ends[1][name])).sum().item() for name, value in v.items()) / 2e-5


def nudged(made: Made, seed: int) -> Made:
    """Every parameter moved by `ULPS` units in the last place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in (*trainable(made.module).values(), *trainable(made.loss).values()):
            signs = torch.randint(2, value.shape, generator=generator) * 2 - 1
            value.mul_(1 + ULPS * torch.finfo(value.dtype).eps * signs.to(value.dtype))
    return made


def off(found: dict[str, Tensor], wanted: dict[str, Tensor], scale: float = 0.0) -> float:
    """|found - wanted| in units of |wanted|, or of `scale` if that is larger."""
    if found.keys() != wanted.keys():
        return float("inf")
    if not wanted:
        return 0.0
    far = size(found[k] - v for k, v in wanted.items()).item()
    return far / max(size(wanted.values()).item(), scale, 1e-300) if far == far else float("inf")


@dataclass
class Outcome:
    """The result of one comparison: equal, refused (why), undetermined (no digit to compare), or wrong (how far)."""

    way: str
    verdict: str
    why: str = ""


def check(seed: int, *, odd: bool, ways: Sequence[str] = tuple(WAYS)) -> tuple[str, set[str], list[Outcome]]:
    """Compare one random module with every estimator.

    Returns:
        The case in words, its unusual features, and the outcomes.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _check(seed, odd=odd, ways=ways)


def _check(seed: int, *, odd: bool, ways: Sequence[str]) -> tuple[str, set[str], list[Outcome]]:
    how, made = setting(seed), make(seed, odd=odd)
    if "backward hook" in made.odd or {"state in an attribute"} & made.odd:
        how = replace(how, steps=1)
    if "dtypes" in made.odd and "eps" in how.options:  # at float32 precision a cold Adam's step is a sign
        how = replace(how, options={**how.options, "eps": 1e-3})
    *train, meta = batches(seed, how.steps + 1, made.classes)
    options = " ".join(f"{k}={v}" for k, v in how.options.items() if v)
    whose = "ours" if how.ours else "torch"
    words = f"{', '.join(made.words)}; {whose} {how.name} lr={how.lr} {options} clip={how.clip}; S_inner={how.steps}"
    wanted = trained(make(seed, odd=odd, plain=True), how, train, meta, seed)
    here = seed, odd, how, train, meta
    exact = ROUGH if "dtypes" in made.odd else EXACT
    along: dict[str, Tensor] = {}
    try:
        twice = unrolled(make(seed, odd=odd, plain=True), how, train, meta, seed)
    except RuntimeError:  # autograd has no second derivative here
        generator = torch.Generator().manual_seed(seed)
        along = {k: torch.randn(v.shape, generator=generator).double() for k, v in trainable(made.loss).items()}
        slope_wanted = slope(*here, along, wanted.v)
    else:
        apart, given = distances(twice, wanted, trainable(made.module))["theta"], trainable(made.module)
        if apart > exact and apart > NOISE * conditioning(*here, twice, given)["theta"]:
            return words, made.odd, [Outcome("reference", "wrong", f"the two loops differ by {apart:.1e}")]
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
        allowed = max(exact, DIFFERENCE) if way == "finite difference" else exact
        far = distances(result, wanted, given)
        if wanted.phi_grad is None:
            found = sum((result.phi_grad[k] * v).sum().item() for k, v in along.items())
            # Relative to what random directions would give, as `typical`.
            step = size(wanted.theta[k] - v.detach() for k, v in given.items()) * size(along.values())
            usual = (
                size(wanted.v.values())
                * step
                / size(trainable(made.loss).values())
                / sum(v.numel() for v in given.values()) ** 0.5
            )
            largest = max(size(result.phi_grad.values()).item(), usual.item(), 1e-9)
            far["phi along a direction"] = abs(found - slope_wanted) / largest
        elif way == "finite difference":
            far["phi"] = off(result.phi_grad, wanted.phi_grad, max(wanted.typical, 1e-9))
        bad = {k: v for k, v in far.items() if not v <= (allowed if k.startswith("phi") else exact)}
        same = all(map(torch.equal, tensors(case), before))
        if bad and wanted.phi_grad is not None:
            noise = conditioning(*here, wanted, given)
            rounding = {k: v for k, v in bad.items() if v <= NOISE * noise[k]}
            bad = {k: v for k, v in bad.items() if not (k in rounding and v <= UNCLEAR)}
            if same and bad and bad.keys() <= rounding.keys() and how.options.get("eps", 1.0) <= COLD:
                why = ", ".join(f"{k} off by {v:.1e}, the reference by {noise[k]:.1e}" for k, v in bad.items())
                outcomes.append(Outcome(way, "undetermined", why))
                continue
        if bad:
            outcomes.append(Outcome(way, "wrong", ", ".join(f"{k} off by {v:.1e}" for k, v in bad.items())))
        elif not same:
            outcomes.append(Outcome(way, "wrong", "meta_gradient has moved the module or the loss"))
        else:
            outcomes.append(Outcome(way, "equal"))
    return words, made.odd, outcomes


def distances(found: Truth | StepResult, wanted: Truth, given: dict[str, Tensor]) -> dict[str, float]:
    """Distances of a step from the reference, part by part; theta in units of its step."""
    assert found.meta_loss is not None
    assert found.phi_grad is not None
    moves = ({k: truth.theta[k] - v.detach() for k, v in given.items()} for truth in (found, wanted))
    far = {
        "buffers": off(found.buffers, wanted.buffers, 1e-3),
        "buffers of the loss": off(found.loss_buffers, wanted.loss_buffers, 1e-3),
        "meta loss": abs((found.meta_loss - wanted.meta_loss).item()) / (1 + abs(wanted.meta_loss.item())),
        "theta": off(*moves, 1e-6),
    }
    if wanted.phi_grad is not None:
        state = found.opt_state if isinstance(found, StepResult) else found.state
        state = {k: v for k, v in state.items() if k != "t" and (k in wanted.state or v.any())}
        far |= {"state": off(state, wanted.state, 1e-6), "phi": off(found.phi_grad, wanted.phi_grad, 1e-9)}
    return far


def conditioning(
    seed: int,
    odd: bool,
    how: Setting,
    train: Sequence[Batch],
    meta: Batch,
    wanted: Truth,
    given: dict[str, Tensor],
) -> dict[str, float]:
    """The largest distances between the reference and itself with parameters moved by some `ULPS`."""
    cases = [nudged(make(seed, odd=odd, plain=True), index) for index in range(NUDGES)]
    found = [distances(unrolled(case, how, train, meta, seed), wanted, given) for case in cases]
    return {name: max(one[name] for one in found) for name in found[0]}


def differs_smoothly(how: Setting, made: Made) -> bool:
    """Whether a difference can replace a derivative: g is a gradient, and Adam's first step is not its sign."""
    return not (how.steps > 1 and made.odd & CUTTING) and how.options.get("eps", 1.0) > COLD


def tensors(made: Made) -> list[Tensor]:
    return [v.detach() for part in (made.module, made.loss) for v in (*part.parameters(), *part.buffers())]


def pure(how: Setting) -> Sgd | Adam:
    """The corresponding optimizer of the package."""
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
    """Steps of Algorithm 2 in a learner, with plain SGD on phi, compared with the same by hand."""
    how = replace(setting(seed), steps=1)
    made, hand = make(seed, odd=odd), make(seed, odd=odd, plain=True)
    if way == "finite difference" and not differs_smoothly(how, made):
        way = "reverse"
    pairs = batches(seed, 2 * steps, made.classes)
    eta = 0.05
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
            wanted = by_hand(hand, how, pairs, seed, eta)
            found, allowed = tensors(made), 1e-4 if "dtypes" in made.odd or way == "finite difference" else 1e-8
            far = farthest(found, wanted)
            rounding = allowed
            if far > allowed:
                cases = [nudged(make(seed, odd=odd, plain=True), index) for index in range(NUDGES)]
                noise = max(farthest(by_hand(case, how, pairs, seed, eta), wanted) for case in cases)
                rounding = NOISE * noise
                allowed = max(allowed, min(rounding, UNCLEAR))
        except RuntimeError:
            return Outcome(f"learner, {way}", "refused", "no reference: autograd has no second derivative here")
    if not all(v.isfinite().all() for v in wanted):
        return Outcome(f"learner, {way}", "equal", "")
    if allowed < far <= rounding and how.options.get("eps", 1.0) <= COLD:
        return Outcome(f"learner, {way}", "undetermined", f"off by {far:.1e}, the reference by {rounding / NOISE:.1e}")
    return Outcome(f"learner, {way}", "equal" if far <= allowed else "wrong", f"off by {far:.1e}")


def by_hand(hand: Made, how: Setting, pairs: Sequence[Batch], seed: int, eta: float) -> list[Tensor]:
    """Steps of Algorithm 2, each `unrolled`; updates `hand`."""
    warm: Warm = ({}, dict.fromkeys(trainable(hand.module), 0))
    for index in range(len(pairs) // 2):
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
    return tensors(hand)


def farthest(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """The largest distance between two lists of tensors."""
    return max(
        ((a - b).double().norm() / (1e-2 + b.double().norm())).item() for a, b in zip(found, wanted, strict=True)
    )
