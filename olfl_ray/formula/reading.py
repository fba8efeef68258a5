"""A formula from text, in infix or prefix form: Python's own grammar of expressions, of which a few nodes are allowed."""

from __future__ import annotations

import ast
import math
import re
import warnings

from olfl_ray.formula.tree import OPERATORS, Formula, number_text
from olfl_ray.plugins import nearest

__all__ = ["HIGHEST", "LONGEST", "read_formula"]

LONGEST = 10_000
"""Characters of a formula."""
HIGHEST = 50
"""Height of its tree."""
FOREIGN = re.compile(r"[^\sA-Za-z0-9_+\-*/(),.]")
BINARY: dict[type[ast.operator], str] = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "aq"}
WORDS = ["y", "f", *OPERATORS]
PARTS = f"y, f, numbers, + - * / and the functions {', '.join(OPERATORS)}"


def read_formula(text: str) -> Formula:
    """Read a formula in infix form, `square(y - f)`, prefix form, `square(sub(y, f))`, or a mixture.

    `a / b` is the analytic quotient; f may be written f(x), -a stands for -1 * a, and a**2 for square(a).

    Args:
        text: The formula.

    Raises:
        ValueError: It can't be read; names the character, counted from 1, what was expected, and a near word.
    """
    if len(text) > LONGEST:
        raise ValueError(f"has {len(text)} characters, but at most {LONGEST} are read; shorten it")
    if found := FOREIGN.search(text):
        raise ValueError(f"has {found[0]!r} at character {found.start() + 1}; a formula consists of {PARTS}")
    bare = re.sub(r"\s", " ", text).rstrip()
    start = len(bare) - len(bare.lstrip())
    if not bare:
        raise ValueError("is empty; write a formula such as square(y - f)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's own, of numbers next to words
            tree = ast.parse(bare.lstrip(), mode="eval").body
    except SyntaxError as error:
        at = start + error.offset if error.offset else len(bare) + 1  # 0 at the end of the text
        reason = f" ({error.msg})" if re.search(r"[()]|parenthes", error.msg) else ""
        what = f"{bare[at - 1]!r}" if at <= len(bare) else "the end"
        raise ValueError(
            f"can't be read at character {at}, at {what}{reason}; a formula consists of {PARTS}, as in square(y - f)"
        ) from None
    except (ValueError, RecursionError, MemoryError):
        raise _too_high() from None
    return _Reader(bare, start).read(tree, 0)


class _Reader:
    def __init__(self, text: str, start: int) -> None:
        self.text, self.start = text, start

    def read(self, node: ast.expr, depth: int) -> Formula:
        if depth > HIGHEST:
            raise _too_high()
        if isinstance(node, ast.Name):
            return self._name(node)
        if isinstance(node, ast.Constant):
            return self._number(node)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            return self._signed(node, depth)
        if isinstance(node, ast.BinOp):
            return self._binary(node, depth)
        if isinstance(node, ast.Call):
            return self._call(node, depth)
        raise self._refused(node, f"is no part of a formula, which consists of {PARTS}")

    def _number(self, node: ast.Constant) -> Formula:
        if type(node.value) in (int, float):
            try:
                value = float(node.value)  # type: ignore[arg-type]
            except OverflowError:
                value = math.inf
            if math.isfinite(value):
                return Formula(number_text(value))
        raise self._refused(node, "is no finite number; write one such as 2 or 0.5")

    def _name(self, node: ast.Name) -> Formula:
        if node.id in ("y", "f"):
            return Formula(node.id)
        if node.id in OPERATORS:
            operands = "(a)" if OPERATORS[node.id].arity == 1 else "(a, b)"
            raise self._refused(node, f"is a function without its operands; write {node.id}{operands}")
        if node.id == "x":
            raise self._refused(node, "is no operand: the loss sees the prediction f(x); write f")
        raise self._refused(node, f"is no operand{nearest(node.id, WORDS)}; operands are y, f and numbers")

    def _signed(self, node: ast.UnaryOp, depth: int) -> Formula:
        inner = self.read(node.operand, depth + 1)
        if isinstance(node.op, ast.UAdd):
            return inner
        if inner.operands or inner.name in ("y", "f"):
            return Formula("mul", (Formula("-1"), inner))
        return Formula(number_text(0.0 - float(inner.name)))

    def _binary(self, node: ast.BinOp, depth: int) -> Formula:
        if isinstance(node.op, ast.Pow):
            if not (isinstance(node.right, ast.Constant) and type(node.right.value) is int and node.right.value == 2):
                raise self._refused(node.right, "is not a power that is known; only squares are, a**2 or square(a)")
            return Formula("square", (self.read(node.left, depth + 1),))
        name = BINARY.get(type(node.op))
        if name is None:
            raise self._refused(node, "has an operator other than + - * /; use one of these")
        return Formula(name, (self.read(node.left, depth + 1), self.read(node.right, depth + 1)))

    def _call(self, node: ast.Call, depth: int) -> Formula:
        if not isinstance(node.func, ast.Name):
            raise self._refused(node.func, "is called as a function, but is none; write * between two factors")
        name, operands = node.func.id, node.args
        if name == "f" and len(operands) == 1 and isinstance(operands[0], ast.Name) and operands[0].id == "x":
            return Formula("f")
        if name in ("f", "y"):
            raise self._refused(node, f"is no formula; write {name}, and * between two factors")
        if name not in OPERATORS:
            raise self._refused(
                node.func, f"is not a function{nearest(name, list(OPERATORS))}; there are {', '.join(OPERATORS)}"
            )
        arity = OPERATORS[name].arity
        if len(operands) != arity or node.keywords or any(isinstance(one, ast.Starred) for one in operands):
            given = len(operands) + len(node.keywords)
            wanted = "1 operand" if arity == 1 else f"{arity} operands"
            raise self._refused(node.func, f"takes {wanted}, but has {given}; write {name}({'a, b'[: 3 * arity - 2]})")
        return Formula(name, tuple(self.read(operand, depth + 1) for operand in operands))

    def _refused(self, node: ast.expr, problem: str) -> ValueError:
        at, end = self.start + node.col_offset, self.start + (node.end_col_offset or node.col_offset + 1)
        what = self.text[at:end]
        return ValueError(f"{what if len(what) <= 40 else what[:37] + '...'!r} at character {at + 1} {problem}")


def _too_high() -> ValueError:
    return ValueError(f"is nested more than {HIGHEST} deep; write a smaller formula")
