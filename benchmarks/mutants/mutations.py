"""All single mutations of a source file: each is one edit of its text, found by its syntax tree."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Mutation", "changes", "mutations", "watched"]

SWAPS: dict[type[ast.AST], tuple[str, ...]] = {
    ast.Lt: ("<", "<=", ">"),
    ast.LtE: ("<=", "<", ">"),
    ast.Gt: (">", ">=", "<"),
    ast.GtE: (">=", ">", "<"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
    ast.And: ("and", "or"),
    ast.Or: ("or", "and"),
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "/"),
    ast.Mod: ("%", "*"),
    ast.Pow: ("**", "*"),
}
"""Operator -> its text, and its replacements."""
ORDERED = (ast.Sub, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.MatMult)
"""Operators whose operands can't be swapped freely."""


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """One edit.

    Args:
        start: First byte of the replaced text.
        end: The byte after the last one.
        new: The replacement.
        line: Line of the enclosing statement: a test that does not run it can't fail.
        inside: Whether that statement is inside a function; otherwise it runs when the module is imported.
        before: The edited lines without line breaks, for people and for the list of equivalent mutations.
        after: The same after the edit.
    """

    start: int
    end: int
    new: bytes
    line: int
    inside: bool
    before: str
    after: str

    def applied(self, source: bytes) -> bytes:
        """The mutated source."""
        return source[: self.start] + self.new + source[self.end :]


def mutations(source: bytes) -> list[Mutation]:
    """Every mutation of a file, in the order of the text; a few are invalid, or the same program, as `changes` tells."""
    found = {(one.start, one.end, one.new): one for one in _Finder(source).found}
    return [found[key] for key in sorted(found)]


def changes(source: bytes, mutation: Mutation) -> bool:
    """Whether the mutated source is valid Python, and another program."""
    try:
        return ast.dump(ast.parse(mutation.applied(source))) != ast.dump(ast.parse(source))
    except SyntaxError:
        return False


def watched(source: bytes, file: str) -> str:
    """The source with a call of `mutants_hit(file, line)` before each statement of its functions."""

    def filled(body: list[ast.stmt]) -> list[ast.stmt]:
        found: list[ast.stmt] = []
        for statement in body:
            found += [ast.parse(f"mutants_hit({file!r}, {statement.lineno})").body[0], statement]
        return found

    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    inner = {id(node): node for function in functions for node in ast.walk(function)}
    for node in inner.values():
        for name in ("body", "orelse", "finalbody"):
            if isinstance(body := getattr(node, name, None), list) and not isinstance(node, ast.ClassDef):
                setattr(node, name, filled(body))
    # In processes that a test starts, nothing counts.
    counter = "import builtins; mutants_hit = getattr(builtins, 'mutants_hit', lambda *_: None)"
    after = [index for index, node in enumerate(tree.body) if isinstance(node, ast.ImportFrom)][:1]
    position = after[0] + 1 if after else 0
    tree.body[position:position] = ast.parse(counter).body
    return ast.unparse(tree)


class _Finder(ast.NodeVisitor):
    """Collects mutations; annotations, assertions (a zip's `strict` is one) and the like are not mutated."""

    def __init__(self, source: bytes) -> None:
        self.source, self.found = source, list[Mutation]()
        self._starts = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._line, self._depth = 1, 0
        self.visit(ast.parse(source))

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.stmt):
            self._line = node.lineno
            self._statement(node)
        if isinstance(node, ast.Assert | ast.JoinedStr | ast.Raise | ast.Import | ast.ImportFrom):
            return
        if isinstance(node, ast.keyword) and node.arg == "strict":
            return
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return
        if isinstance(node, ast.AnnAssign):
            return self.visit(node.value) if node.value is not None else None
        if isinstance(node, ast.FunctionDef):
            for default in [*node.args.defaults, *node.args.kw_defaults]:
                if default is not None:
                    self.visit(default)
            self._depth += 1
            for child in node.body:
                self.visit(child)
            self._depth -= 1
            return None
        if isinstance(node, ast.ClassDef):
            for child in node.body:
                self.visit(child)
            return None
        if isinstance(node, ast.expr | ast.comprehension):
            self._expression(node)
        line = self._line
        self.generic_visit(node)
        self._line = line
        return None

    def _statement(self, node: ast.stmt) -> None:
        deletable = ast.AugAssign | ast.Raise | ast.Delete | ast.Continue | ast.Break
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        stored = isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute | ast.Subscript)
        bare = isinstance(node, ast.Return) and node.value is None
        if stored or bare or isinstance(node, deletable) or (isinstance(node, ast.Expr) and not text):
            self._replace(node, "pass")
        if isinstance(node, ast.If):
            self._replace(node.test, "True")
        if isinstance(node, ast.If | ast.While):
            self._replace(node.test, "False")

    def _expression(self, node: ast.expr | ast.comprehension) -> None:
        if isinstance(node, ast.comprehension):
            for test in node.ifs:
                self._replace(test, "True")
        elif isinstance(node, ast.IfExp):
            self._replace(node.test, "True")
            self._replace(node.test, "False")
        elif isinstance(node, ast.Compare):
            for left, operator, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
                self._between(left, operator, right)
        elif isinstance(node, ast.BoolOp):
            for left, right in zip(node.values, node.values[1:], strict=False):
                self._between(left, node.op, right)
        elif isinstance(node, ast.BinOp):
            self._between(node.left, node.op, node.right)
            if isinstance(node.op, ORDERED):
                self._swap(node.left, node.right)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
            self._replace(node, f"({self._text(node.operand)})")
        elif isinstance(node, ast.Constant):
            for value in _others(node.value):
                self._replace(node, repr(value))
        elif isinstance(node, ast.Call):
            self._call(node)

    def _call(self, node: ast.Call) -> None:
        for keyword in node.keywords:
            if keyword.arg in (None, "strict"):
                continue
            start, end = self._span(keyword)
            comma = re.compile(rb"\s*,\s*").match(self.source, end)
            before = re.search(rb",\s*$", self.source[:start])
            if comma is not None:
                end = comma.end()
            elif before is not None:
                start = before.start()
            self._edit(start, end, "")

    def _between(self, left: ast.expr, operator: ast.AST, right: ast.expr) -> None:
        """Replace the operator in the gap of two operands."""
        start, end = self._span(left)[1], self._span(right)[0]
        old, *others = SWAPS.get(type(operator), ("",))
        for new in others:
            gap = self.source[start:end].decode()
            self._edit(start, end, re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", new, gap, count=1))

    def _swap(self, first: ast.expr, second: ast.expr) -> None:
        gap = self.source[self._span(first)[1] : self._span(second)[0]].decode()
        new = f"({self._text(second)}){gap}({self._text(first)})"
        self._edit(self._span(first)[0], self._span(second)[1], new)

    def _replace(self, node: ast.AST, new: str) -> None:
        self._edit(*self._span(node), new)

    def _span(self, node: ast.AST) -> tuple[int, int]:
        start = self._starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
        return start, self._starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]

    def _text(self, node: ast.AST) -> str:
        return self.source[slice(*self._span(node))].decode()

    def _edit(self, start: int, end: int, new: str) -> None:
        first = self.source.rfind(b"\n", 0, start) + 1
        last = self.source.find(b"\n", end)
        before = self.source[first:last]
        after = self.source[first:start] + new.encode() + self.source[end:last]
        shown = [" ".join(text.decode().split()) for text in (before, after)]
        self.found.append(
            Mutation(
                start=start,
                end=end,
                new=new.encode(),
                line=self._line,
                inside=self._depth > 0,
                before=shown[0],
                after=shown[1],
            )
        )


def _others(value: object) -> Iterator[object]:
    """The replacements of a constant."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield value + 1
        if value > 0:
            yield value - 1
    elif isinstance(value, float):
        yield 2 * value if value else 1.0
