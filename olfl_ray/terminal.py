"""The only way to the terminal: no escape sequence or markup of a spec, a ledger, a host or a library has an effect there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.segment import Segment

from olfl_ray.spec import printable

__all__ = ["Terminal"]


class Terminal(Console):
    """A console whose own colours and cursor movements are the only ones. `[red]` and `:smile:` in a text are that text."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, **options})

    def render(self, *args: Any, **kwargs: Any) -> Iterable[Segment]:
        """What is printed, piece by piece; `control` marks the console's own sequences."""
        for text, style, control in super().render(*args, **kwargs):
            yield Segment(text if control else printable(text), style, control)
