"""Find the part that does not match the others: module, learned loss and task loss are called in turn on a few examples."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from olfl_ray.engine.batches import Batch, tensors
from olfl_ray.engine.calling import Stateless
from olfl_ray.engine.problem import Problem, leaves
from olfl_ray.errors import SpecError, UserError

__all__ = ["probe"]


def probe(problem: Problem, train: Batch, meta: Batch) -> None:
    """Call each part once on a few examples of each batch; nothing is changed.

    Raises:
        SpecError: A part raises, returns something else than one tensor (a loss: than one number), or detaches the gradient.
    """
    with problem.unchanged():
        _probe(problem, problem.few(train), learns=True)
        _probe(problem, problem.few(meta), learns=False)


def _probe(problem: Problem, batch: Batch, *, learns: bool) -> None:
    x, y = batch
    with contextlib.ExitStack() as inside:
        with _blamed("module", x):
            passed = problem.train_pass(leaves(problem.theta()), problem.buffers(), x)
            outputs, _ = inside.enter_context(passed)
        if problem.hooks.loss and learns:
            learned = Stateless(problem.learned)
            own = {name: value.clone() for name, value in learned.buffers().items()}
            with _blamed("learned_loss", outputs, y), learned.placed(own):
                loss = problem.learned(outputs, y)
            _check_loss("learned_loss", loss, outputs)
        with _blamed("task_loss", outputs, y):
            loss = problem.task_loss(outputs, y)
        _check_loss("task_loss", loss, outputs)


def _check_loss(field: str, loss: Any, outputs: Tensor) -> None:
    if not isinstance(loss, Tensor):
        raise SpecError(
            field, f"returns a {type(loss).__name__}, but must return a tensor with one number; leave out item()"
        )
    if loss.numel() != 1:
        raise SpecError(
            field, f"returns a tensor of shape {tuple(loss.shape)}, but must return one number; take the mean of it"
        )
    if not loss.dtype.is_floating_point:
        raise SpecError(field, f"returns a number of {loss.dtype}, which has no gradient; give a real one")
    if loss.requires_grad:
        return
    if not outputs.requires_grad:
        raise SpecError(
            "module", "gives outputs without a gradient; check for no_grad, detach() and rounding in its forward"
        )
    raise SpecError(field, "gives a loss without a gradient; check for no_grad, detach(), rounding and argmax in it")


@contextlib.contextmanager
def _blamed(field: str, *given: Any) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a user's code may raise anything
        said = (str(error) or "no message").splitlines()[0]
        called = ", ".join(map(_form, given))
        raise SpecError(
            field,
            f"raises {type(error).__name__} when called with {called}: {said}; check that outputs, targets and losses have "
            "matching shapes and types",
        ) from error


def _form(tree: Any) -> str:
    """Shapes and dtypes, such as `(8, 3) float32`."""
    if isinstance(tree, Tensor):
        return f"{tuple(tree.shape)} {str(tree.dtype).removeprefix('torch.')}"
    inside = ", ".join(_form(value) for value in tensors(tree))
    return f"{type(tree).__name__} of {inside}" if inside else type(tree).__name__
