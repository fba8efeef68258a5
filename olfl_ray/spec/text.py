"""Text that a stranger may have written, made harmless to show: no control character reaches a terminal or a table."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["printable"]

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_MARK = "\N{REPLACEMENT CHARACTER}"
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
"""Unicode's categories of characters that move, hide or turn others: controls, formats, halves of pairs, separators."""
_JOINERS = "\u200c\u200d"
"""Format characters that scripts and emoji need."""


def printable(text: str) -> str:
    """A text without colours, and with a mark in place of each character that isn't to be seen; lines and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    kept = (one if one in "\n\t" or one in _JOINERS or not _hidden(one) else _MARK for one in _COLOURS.sub("", text))
    return "".join(kept)


def _hidden(letter: str) -> bool:
    return unicodedata.category(letter) in _UNSEEN
