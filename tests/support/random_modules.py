"""Random small modules, learned losses and optimizers such as users write, each from a seed; independent of the engine."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from olfl_ray.losses import LearnedLoss, build_loss
from olfl_ray.spec import LearnedLossSpec

WIDTH, CLASSES = 6, 3
ACTIVATIONS = {
    "tanh": torch.tanh,
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "softplus": F.softplus,
    "elu": F.elu,
    "leaky": F.leaky_relu,
    "sigmoid": torch.sigmoid,
    "mish": F.mish,
    "sin": torch.sin,
}


class Block(nn.Module):
    """(B, WIDTH) to (B, WIDTH) by a function of the block and its input; parts by name."""

    def __init__(self, run: Callable[[Any, Tensor], Tensor], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, h: Tensor) -> Tensor:
        return self.run(self, h)


def activation(rng: random.Random) -> Callable[[Tensor], Tensor]:
    return ACTIVATIONS[rng.choice(list(ACTIVATIONS))]


def dense(rng: random.Random) -> nn.Module:
    act = activation(rng)
    return Block(lambda s, h: act(s.a(h)), a=nn.Linear(WIDTH, WIDTH, bias=rng.random() < 0.7))


def norm_of(rng: random.Random, channels: int, sides: int) -> nn.Module:
    kind = rng.choice(["batch", "batch", "group", "instance", "none"])
    if kind == "batch":
        made = (nn.BatchNorm1d, nn.BatchNorm2d)[sides - 1]
        return made(
            channels,
            affine=rng.random() < 0.8,
            track_running_stats=rng.random() < 0.8,
            momentum=rng.choice([0.1, 0.3, None]),
        )
    if kind == "group":
        return nn.GroupNorm(1, channels)
    if kind == "instance":
        return (nn.InstanceNorm1d, nn.InstanceNorm2d)[sides - 1](channels, affine=rng.random() < 0.5)
    return nn.Identity()


def conv1d(rng: random.Random) -> nn.Module:
    act, channels = activation(rng), rng.choice([2, 4])
    made = nn.Conv1d(1, channels, 3, stride=rng.choice([1, 2]), padding=rng.choice([0, 1]), bias=rng.random() < 0.7)
    size = made(torch.zeros(1, 1, WIDTH)).flatten(1).shape[1]
    second = nn.Conv1d(channels, channels, 3, padding="same", groups=rng.choice([1, 2]))
    return Block(
        lambda s, h: s.out(act(s.second(act(s.norm(s.conv(h[:, None]))))).flatten(1)),
        conv=made,
        norm=norm_of(rng, channels, 1),
        second=second,
        out=nn.Linear(size, WIDTH),
    )


def conv2d(rng: random.Random) -> nn.Module:
    act = activation(rng)
    pool = rng.choice([nn.Identity(), nn.MaxPool2d((1, 2)), nn.AvgPool2d((2, 1))])
    made = nn.Conv2d(1, 2, (2, 3), padding=(1, 1), dilation=rng.choice([1, (1, 1)]))
    size = pool(made(torch.zeros(1, 1, 2, 3))).flatten(1).shape[1]
    return Block(
        lambda s, h: s.out(s.pool(act(s.norm(s.conv(h.reshape(-1, 1, 2, 3))))).flatten(1)),
        conv=made,
        norm=norm_of(rng, 2, 2),
        pool=pool,
        out=nn.Linear(size, WIDTH),
    )


def bag(rng: random.Random) -> nn.Module:
    """torch has no second derivative for it."""
    made = nn.EmbeddingBag(2, WIDTH, mode=rng.choice(["mean", "sum"]))
    return Block(lambda s, h: h + s.e((h.detach() > 0).long()), e=made)


def transposed(rng: random.Random) -> nn.Module:
    return Block(
        lambda s, h: s.out(torch.tanh(s.conv(h[:, None])).flatten(1)),
        conv=nn.ConvTranspose1d(1, 2, 3),
        out=nn.Linear(2 * (WIDTH + 2), WIDTH),
    )


def normed(rng: random.Random) -> nn.Module:
    norm = rng.choice([nn.LayerNorm(WIDTH), nn.RMSNorm(WIDTH), nn.GroupNorm(2, WIDTH), norm_flat(rng), norm_flat(rng)])
    return Block(lambda s, h: s.norm(s.a(h)), norm=norm, a=nn.Linear(WIDTH, WIDTH))


def norm_flat(rng: random.Random) -> nn.Module:
    return nn.BatchNorm1d(WIDTH, affine=rng.random() < 0.7, momentum=rng.choice([0.1, None]))


def recurrent(rng: random.Random) -> nn.Module:
    made = rng.choice([nn.RNN, nn.GRU, nn.LSTM])(2, 4, batch_first=True, bidirectional=rng.random() < 0.3)
    size = 8 if made.bidirectional else 4
    return Block(lambda s, h: s.out(s.cells(h.reshape(-1, 3, 2))[0][:, -1]), cells=made, out=nn.Linear(size, WIDTH))


def cell(rng: random.Random) -> nn.Module:
    def run(s: Any, h: Tensor) -> Tensor:
        state = torch.zeros(len(h), 4, dtype=h.dtype)
        for part in h.split(2, 1):
            state = s.cell(part, state)
        return s.out(state)

    return Block(run, cell=nn.GRUCell(2, 4), out=nn.Linear(4, WIDTH))


def attention(rng: random.Random) -> nn.Module:
    kind = rng.choice(["mha", "sdpa", "layer"])
    if kind == "mha":

        def run(s: Any, h: Tensor) -> Tensor:
            tokens = h.reshape(-1, 3, 2)
            return s.a(tokens, tokens, tokens, need_weights=False)[0].flatten(1)

        return Block(run, a=nn.MultiheadAttention(2, 1, batch_first=True))
    if kind == "sdpa":

        def run(s: Any, h: Tensor) -> Tensor:
            q, k, v = (part.reshape(-1, 1, 3, 2) for part in s.a(h).split(WIDTH, 1))
            return F.scaled_dot_product_attention(q, k, v, is_causal=True).flatten(1)

        return Block(run, a=nn.Linear(WIDTH, 3 * WIDTH))
    layer = nn.TransformerEncoderLayer(2, 1, 4, rng.choice([0.0, 0.2]), batch_first=True)
    return Block(lambda s, h: s.a(h.reshape(-1, 3, 2)).flatten(1), a=layer)


def embedded(rng: random.Random) -> nn.Module:
    # Not scale_grad_by_freq: a scaled gradient is not a derivative, and forward mode and differences are refused.
    rng.random()
    table = nn.Embedding(WIDTH + 1, WIDTH, padding_idx=rng.choice([None, 3]))
    return Block(lambda s, h: h + s.e((h.detach() > 0).long().sum(1)), e=table)


def dropped(rng: random.Random) -> nn.Module:
    return Block(
        lambda s, h: s.d(torch.tanh(s.a(h))),
        a=nn.Linear(WIDTH, WIDTH),
        d=rng.choice([nn.Dropout(0.4), nn.AlphaDropout(0.2)]),
    )


def mixed(rng: random.Random) -> nn.Module:
    run = rng.choice(
        [
            lambda s, h: torch.softmax(s.a(h), 1) * h,
            lambda s, h: torch.logsumexp(s.a(h)[:, :, None] + h[:, None], 2),
            lambda s, h: torch.cumsum(s.a(h), 1) / (1 + h.square()),
            lambda s, h: F.glu(torch.cat([s.a(h), h], 1), 1).repeat(1, 2)[:, :WIDTH],
            lambda s, h: F.normalize(s.a(h), dim=1),
            lambda s, h: torch.einsum("bi,bj,ij->bj", h, torch.tanh(h), s.a.weight),
            lambda s, h: s.a(h).sort(1)[0],
            lambda s, h: h * torch.sqrt(1 + s.a(h).square()),
            lambda s, h: torch.cat([s.a(h)[:, ::2], h.amax(1, keepdim=True).expand(-1, 3)], 1),
            lambda s, h: torch.baddbmm(h[:, :, None], s.a(h)[:, :, None], h[:, :1, None])[..., 0],
        ]
    )
    return Block(run, a=nn.Linear(WIDTH, WIDTH))


def bilinear(rng: random.Random) -> nn.Module:
    return Block(
        lambda s, h: s.p(s.b(h, torch.tanh(h))), b=nn.Bilinear(WIDTH, WIDTH, WIDTH), p=nn.PReLU(init=rng.random())
    )


ORDINARY: dict[str, Callable[[random.Random], nn.Module]] = {
    "dense": dense,
    "conv1d": conv1d,
    "conv2d": conv2d,
    "transposed conv": transposed,
    "norm": normed,
    "recurrent": recurrent,
    "cell": cell,
    "attention": attention,
    "embedding": embedded,
    "dropout": dropped,
    "mixing": mixed,
    "bilinear": bilinear,
}


def nested_grad(rng: random.Random) -> nn.Module:
    """A gradient step on an energy, as in score models and energy-based models."""
    kind, cut = rng.choice(["linear", "conv", "norm"]), rng.random() < 0.5
    if kind == "linear":
        energy: nn.Module = nn.Linear(WIDTH, 4)
    elif kind == "conv":
        energy = nn.Sequential(nn.Unflatten(1, (1, WIDTH)), nn.Conv1d(1, 2, 3))
    else:
        energy = nn.Sequential(nn.Linear(WIDTH, 4), nn.BatchNorm1d(4))

    def run(s: Any, h: Tensor) -> Tensor:
        x = h.detach().requires_grad_() if cut else h if h.requires_grad else h.requires_grad_()
        (g,) = torch.autograd.grad(torch.tanh(s.e(x)).square().sum(), x, create_graph=True)
        return s.o(x - g)

    return Block(run, e=energy, o=nn.Linear(WIDTH, WIDTH))


def func_grad(rng: random.Random) -> nn.Module:
    return Block(
        lambda s, h: h - torch.func.grad(lambda x: torch.tanh(s.a(x)).square().sum())(h), a=nn.Linear(WIDTH, WIDTH)
    )


def without_grad(rng: random.Random) -> nn.Module:
    def scaled(s: Any, h: Tensor) -> Tensor:
        h = torch.tanh(s.a(h))
        with torch.no_grad():
            scale = 1 / (0.5 + h.abs().mean(1, keepdim=True))
        return h * scale

    def rounded(s: Any, h: Tensor) -> Tensor:
        h = s.a(h)
        return h + ((4 * h).round() / 4 - h).detach()

    def rarely(s: Any, h: Tensor) -> Tensor:
        h = torch.tanh(s.a(h))
        with torch.no_grad():
            scale = torch.where(h.norm(dim=1) > 1.2, 1 / h.norm(dim=1), 1.0)
        return h * scale[:, None]

    return Block(rng.choice([scaled, rounded, rarely]), a=nn.Linear(WIDTH, WIDTH))


class _Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * 3 * x**2


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.sin(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * torch.cos(x)


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return -0.5 * grad


def custom(rng: random.Random) -> nn.Module:
    function = rng.choice([_Cube, _Once, _Reversed])
    return Block(lambda s, h: function.apply(torch.tanh(s.a(h))), a=nn.Linear(WIDTH, WIDTH))


def parametrised(rng: random.Random) -> nn.Module:
    kind = rng.choice(["weight_norm", "spectral_norm", "orthogonal", "old weight_norm"])
    layer = nn.Linear(WIDTH, WIDTH)
    if kind == "weight_norm":
        layer = parametrizations.weight_norm(layer)
    elif kind == "spectral_norm":
        layer = parametrizations.spectral_norm(layer)
    elif kind == "orthogonal":
        layer = parametrizations.orthogonal(layer, orthogonal_map=rng.choice(["cayley", "matrix_exp", "householder"]))
    else:
        layer = Scaled(layer)
    return Block(lambda s, h: torch.tanh(s.a(h)), a=layer)


class Scaled(nn.Module):
    """A weight computed again in each forward pass."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer, self.gain = layer, nn.Parameter(torch.ones(WIDTH, 1))

    def forward(self, h: Tensor) -> Tensor:
        weight = self.gain * self.layer.weight / self.layer.weight.norm(dim=1, keepdim=True)
        return F.linear(h, weight, self.layer.bias)


def branching(rng: random.Random) -> nn.Module:
    def one_of(s: Any, h: Tensor) -> Tensor:
        return s.a(h) if h[0, 0] > 0 else torch.tanh(s.b(h))

    def routed(s: Any, h: Tensor) -> Tensor:
        chosen = h[:, :1] > 0
        return torch.where(chosen, s.a(h), s.b(h))

    def split(s: Any, h: Tensor) -> Tensor:
        chosen = h[:, 0] > 0
        out = torch.zeros_like(h)
        out[chosen] = s.a(h[chosen])
        out[~chosen] = s.b(h[~chosen])
        return out

    return Block(rng.choice([one_of, routed, split]), a=nn.Linear(WIDTH, WIDTH), b=nn.Linear(WIDTH, WIDTH))


def dropping(rng: random.Random) -> nn.Module:
    """Layers dropped by a random generator: Python's, or one whose state is not restored."""
    if rng.random() < 0.5:
        return Block(lambda s, h: h + torch.tanh(s.a(h)) * (random.random() < 0.6), a=nn.Linear(WIDTH, WIDTH))
    made = Block(lambda s, h: h + torch.tanh(s.a(h)) * float(s.draws.random() < 0.6), a=nn.Linear(WIDTH, WIDTH))
    made.draws = np.random.default_rng(0)
    return made


def stateful(rng: random.Random) -> nn.Module:
    def run(s: Any, h: Tensor) -> Tensor:
        now = torch.tanh(s.a(h) if s.last is None else s.a(h) + s.last)
        s.last = now.detach().mean(0)
        return now

    made = Block(run, a=nn.Linear(WIDTH, WIDTH))
    made.last = None
    return made


def buffered(rng: random.Random) -> nn.Module:
    """A running mean that affects the outputs, updated in place or by assignment, and a counter."""
    inplace = rng.random() < 0.5

    def run(s: Any, h: Tensor) -> Tensor:
        h = s.a(h)
        with torch.no_grad():
            s.count += 1
            if inplace:
                s.mean.mul_(0.9).add_(h.detach().mean(0), alpha=0.1)
            else:
                s.mean = 0.9 * s.mean + 0.1 * h.detach().mean(0)
        return torch.tanh(h - s.mean.clone())

    made = Block(run, a=nn.Linear(WIDTH, WIDTH))
    made.register_buffer("mean", torch.zeros(WIDTH))
    made.register_buffer("count", torch.zeros((), dtype=torch.long))
    return made


class Narrow(nn.Module):
    """A part with another dtype than the rest."""

    def __init__(self, body: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.body, self.dtype = body, dtype

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        for value in self.parameters():
            value.data = value.data.to(self.dtype)
        return self

    def forward(self, h: Tensor) -> Tensor:
        return self.body(h.to(self.dtype)).to(h.dtype)


def narrow(rng: random.Random) -> nn.Module:
    return Narrow(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh()), torch.float32)


def algebra(rng: random.Random) -> nn.Module:
    def matrix(s: Any, h: Tensor) -> Tensor:
        return s.a(h).unflatten(1, (2, 3))[:, :, :2] + 3 * torch.eye(2, dtype=h.dtype)

    run = rng.choice(
        [
            lambda s, h: h * torch.linalg.solve(matrix(s, h), torch.ones(2, 1, dtype=h.dtype)).sum((1, 2))[:, None],
            lambda s, h: h * torch.linalg.det(matrix(s, h))[:, None],
            lambda s, h: h + torch.linalg.slogdet(matrix(s, h))[1][:, None],
            lambda s, h: h + torch.fft.rfft(s.a(h)).abs().sum(1, keepdim=True),
            lambda s, h: h * torch.linalg.norm(matrix(s, h), dim=(1, 2))[:, None],
            lambda s, h: torch.sparse.mm(torch.eye(len(h), dtype=h.dtype).to_sparse(), s.a(h)),
            lambda s, h: torch.func.vmap(s.a)(h),
        ]
    )
    return Block(run, a=nn.Linear(WIDTH, WIDTH))


def quiet_state(rng: random.Random) -> nn.Module:
    """Keeps an activation that only a learned loss reads."""

    def run(s: Any, h: Tensor) -> Tensor:
        s.kept = torch.tanh(s.a(h))
        return s.kept

    return Block(run, a=nn.Linear(WIDTH, WIDTH))


ODD: dict[str, Callable[[random.Random], nn.Module]] = {
    "autograd.grad in forward": nested_grad,
    "func.grad in forward": func_grad,
    "no_grad": without_grad,
    "custom function": custom,
    "parametrisation": parametrised,
    "branch": branching,
    "dropped layer": dropping,
    "state in an attribute": stateful,
    "buffers": buffered,
    "dtypes": narrow,
    "algebra": algebra,
    "kept activation": quiet_state,
    "embedding bag": bag,
}
CUTTING = {
    "no_grad",
    "custom function",
    "parametrisation",
    "autograd.grad in forward",
    "state in an attribute",
    "buffers",
}
"""Cases where g is not the gradient of a function of theta: a difference of gradients includes what autograd does not."""


class Wrapped(nn.Module):
    """A block wrapped in another operation."""

    def __init__(self, block: nn.Module, how: str) -> None:
        super().__init__()
        self.block, self.how = block, how

    def forward(self, h: Tensor) -> Tensor:
        if self.how == "residual":
            return h + 0.5 * self.block(h)
        if self.how == "twice":
            return self.block(self.block(h))
        if self.how == "gated":
            return torch.sigmoid(h) * self.block(h)
        if self.how == "recomputed":
            return checkpoint(self.block, h, use_reentrant=False)
        return self.block(h)


@dataclass
class Made:
    """One random case: each call of `make` returns new, equal `module` and `loss`."""

    module: nn.Module
    loss: nn.Module
    words: list[str] = field(default_factory=list)
    odd: set[str] = field(default_factory=set)
    gradient_hooks: dict[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    classes: bool = True


def make(seed: int, *, odd: bool, plain: bool = False) -> Made:
    """The module and the learned loss of a seed.

    Args:
        seed: Determines everything.
        odd: Whether features that not every training loop has may occur.
        plain: Whether no activation may be recomputed in a backward pass: a recomputed one must equal the original.
    """
    rng = random.Random(seed)
    torch.manual_seed(seed)
    words: list[str] = []
    features: set[str] = set()
    blocks: list[nn.Module] = []
    for _ in range(rng.randint(1, 3)):
        strange = odd and rng.random() < 0.5
        name = rng.choice(list(ODD if strange else ORDINARY))
        block = (ODD if strange else ORDINARY)[name](rng)
        if strange:
            features.add(name)
        how = rng.choice(["", "", "residual", "gated", "twice", "recomputed" if not strange else ""])
        words.append(f"{how} {name}".strip())
        if plain and how == "recomputed":
            how = "as it is"
        blocks.append(Wrapped(block, how) if how else block)
    net = nn.Sequential(nn.Linear(WIDTH, WIDTH), *blocks, nn.Linear(WIDTH, CLASSES)).double()
    hooks = _changed(net, rng, words, features, odd=odd)
    classes = rng.random() < 0.75
    loss = _loss(net, rng, words, features, classes=classes, odd=odd)
    return Made(net, loss, words, features, hooks, classes)


def _square(layer: nn.Linear) -> bool:
    return layer.weight.shape == (WIDTH, WIDTH) and layer.weight.dtype == torch.float64


def _changed(
    net: nn.Sequential, rng: random.Random, words: list[str], features: set[str], *, odd: bool
) -> dict[str, Callable[[Tensor], Tensor]]:
    """Tying, freezing, eval mode, an unused parameter; and hooks."""
    squares = [part for part in net.modules() if type(part) is nn.Linear and _square(part)]
    if len(squares) > 1 and rng.random() < 0.15:
        squares[-1].weight = squares[0].weight
        words.append("tied")
    named = [(name, value) for name, value in net.named_parameters() if value.requires_grad]
    if rng.random() < 0.2:
        for name, value in rng.sample(named[:-1], rng.randint(1, max(1, len(named) // 2))):
            value.requires_grad_(False)
            words.append(f"frozen {name}")
    if rng.random() < 0.15:
        for part in net.modules():
            if isinstance(part, (nn.modules.batchnorm._BatchNorm, nn.Dropout)) and not isinstance(
                part, nn.modules.instancenorm._InstanceNorm
            ):
                part.eval()
                words.append("eval part")
    if rng.random() < 0.15:
        net[0].register_parameter("idle", nn.Parameter(torch.ones(2).double()))
        words.append("unused parameter")
    hooks: dict[str, Callable[[Tensor], Tensor]] = {}
    if not odd:
        return hooks
    which = rng.randrange(len(net))
    kind = rng.choice(["", "", "", "forward hook", "forward pre-hook", "backward hook", "parameter hook"])
    if kind == "forward hook":
        net[which].register_forward_hook(lambda module, inputs, output: 1.5 * output)
    elif kind == "forward pre-hook":
        net[which].register_forward_pre_hook(lambda module, inputs: (inputs[0] * 0.5,))
    elif kind == "backward hook":
        net[max(which, 1)].register_full_backward_hook(
            lambda module, inputs, outputs: None if inputs[0] is None else (2 * inputs[0],)
        )
    elif kind == "parameter hook":
        name, value = rng.choice([(n, v) for n, v in net.named_parameters() if v.requires_grad])
        hooks[name] = lambda grad: 0.5 * grad
        value.register_hook(hooks[name])
    if kind:
        features.add(kind)
        words.append(kind)
    return hooks


class Weighted(nn.Module):
    """A cross-entropy or a squared error with one learned weight per class."""

    def __init__(self, classes: bool) -> None:
        super().__init__()
        self.p, self.classes = nn.Parameter(torch.tensor([0.7, 1.2, -0.4])), classes

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if self.classes:
            return F.cross_entropy(outputs * self.p, targets)
        return F.mse_loss(outputs * self.p, targets)


class Own(nn.Module):
    """A network on outputs and targets together, with an inner module."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.a, self.inner, self.b = nn.Linear(2 * CLASSES, WIDTH), inner, nn.Linear(WIDTH, 1)

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if targets.dim() == 1:
            targets = F.one_hot(targets, CLASSES).to(outputs)
        hidden = F.softplus(self.a(torch.cat([outputs, targets], 1)))
        return self.b(self.inner(hidden)).square().mean()


class Centred(Weighted):
    """A running mean of the outputs in a buffer."""

    def __init__(self, classes: bool) -> None:
        super().__init__(classes)
        self.register_buffer("mean", torch.zeros(CLASSES))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.count += 1
        self.mean = 0.9 * self.mean + 0.1 * outputs.detach().mean(0)
        return super().forward(outputs - self.mean, targets)


class Decaying(Weighted):
    """Learned weight decay: reads the module's own parameters."""

    def __init__(self, classes: bool, net: nn.Module) -> None:
        super().__init__(classes)
        self.q, self.net = nn.Parameter(torch.tensor(-2.0)), [net]

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        decay = sum((value**2).sum() for value in self.net[0].parameters())
        return super().forward(outputs, targets) + self.q.exp() * decay


class Feeling(Weighted):
    """Reads an activation that the module stores."""

    def __init__(self, classes: bool, kept: nn.Module) -> None:
        super().__init__(classes)
        self.q, self.kept = nn.Parameter(torch.tensor(-1.0)), [kept]

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return super().forward(outputs, targets) + self.q.exp() * self.kept[0].kept.square().mean()


class Sub(LearnedLoss):
    def forward(self, outputs_BC: Tensor, targets: Tensor) -> Tensor:
        return 2 * super().forward(outputs_BC, targets) + outputs_BC.square().mean()


def _learned(rng: random.Random, classes: bool) -> LearnedLoss:
    spec = LearnedLossSpec.model_validate(
        {
            "hidden": rng.choice([(5,), (4, 4)]),
            "activation": {"name": rng.choice(["smooth_leaky_relu", "relu", "softplus", "tanh"])},
            "output": rng.choice(["none", "softplus"]),
            "bias": rng.random() < 0.5,
            "reduction": rng.choice(["mean", "sum"]),
        }
    )
    return build_loss(spec, "classification" if classes else "regression", seed=rng.randrange(1000))


def _loss(
    net: nn.Module, rng: random.Random, words: list[str], features: set[str], *, classes: bool, odd: bool
) -> nn.Module:
    kind = rng.choice(["learned", "learned", "learned", "weighted", "own"])
    if odd and rng.random() < 0.4:
        kind = rng.choice(
            [
                "dropout",
                "norm",
                "attention",
                "centred",
                "decaying",
                "feeling",
                "hooked",
                "inserted",
                "subclass",
                "frozen",
            ]
        )
        features.add(f"{kind} loss")
    kept = [
        part for part in net.modules() if hasattr(part, "run") and "kept activation" in words and hasattr(part, "a")
    ]
    if kind == "feeling":
        kept = [part for part in kept if part.run.__qualname__.startswith("quiet_state")]
        kind = kind if kept else "weighted"
    words.append(f"{kind} loss")
    if kind in ("learned", "hooked", "inserted", "subclass", "frozen"):
        loss: Any = _learned(rng, classes)
        if kind == "hooked":
            rng.choice([loss, loss.network.layers[0]]).register_forward_hook(lambda module, inputs, output: 2 * output)
        elif kind == "inserted":
            loss.network.layers.insert(2, nn.Dropout(0.3))
        elif kind == "frozen":
            loss.network.layers[0].weight.requires_grad_(False)
        elif kind == "subclass":
            loss = Sub(loss.network, loss.kind)
    elif kind == "own":
        loss = Own(nn.Tanh())
    elif kind == "dropout":
        loss = Own(nn.Dropout(0.4))
    elif kind == "norm":
        loss = Own(nn.BatchNorm1d(WIDTH))
    elif kind == "attention":
        loss = Own(Block(lambda s, h: s.a(h, h, h, need_weights=False)[0], a=nn.MultiheadAttention(WIDTH, 2)))
    elif kind == "centred":
        loss = Centred(classes)
    elif kind == "decaying":
        loss = Decaying(classes, net)
    elif kind == "feeling":
        loss = Feeling(classes, kept[0])
    else:
        loss = Weighted(classes)
    made: nn.Module = loss.double()
    return made


@dataclass(frozen=True)
class Setting:
    """An optimizer by the names of its settings, and the number of base steps."""

    name: str
    lr: float
    options: dict[str, Any]
    clip: float | None
    ours: bool
    steps: int


def setting(seed: int) -> Setting:
    rng = random.Random(seed + 10**9)
    name = rng.choice(["sgd", "sgd", "adam", "adamw"])
    options: dict[str, Any] = {"weight_decay": rng.choice([0.0, 0.0, 0.05])}
    if name == "sgd":
        options["momentum"] = rng.choice([0.0, 0.9])
        options["nesterov"] = options["momentum"] > 0 and rng.random() < 0.5
    else:
        options["betas"] = rng.choice([(0.9, 0.999), (0.5, 0.9)])
        options["eps"] = rng.choice([1e-8, 1e-3])
    ours = rng.random() < 0.5
    clip = rng.choice([None, 0.05]) if ours else None
    lr = rng.choice([0.3, 0.05]) if name == "sgd" else 0.01
    return Setting(name, lr, options, clip, ours, rng.choice([1, 1, 2, 3]))


def batches(seed: int, count: int, classes: bool) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    rows = 4 + seed % 3
    return [
        (
            torch.randn(rows, WIDTH, generator=generator, dtype=torch.float64),
            torch.randint(CLASSES, (rows,), generator=generator)
            if classes
            else torch.randn(rows, CLASSES, generator=generator, dtype=torch.float64),
        )
        for _ in range(count)
    ]
