"""A method: a name for what is meta-learned, and when."""

from __future__ import annotations

from typing import ClassVar, Literal

__all__ = ["Method"]


class Method:
    """A preset. A subclass is one file that says what the method learns, when, and which settings it reads.

    Attributes:
        learns: What phi is: nothing, the parameters of a learned loss, or the base learning rate.
        before: Whether phi is learned before training (Algorithm 1).
        during: Whether phi is learned during training (Algorithm 2).
        uses: Settings that it reads, of those that not every method does: dotted names of fields or sections.
    """

    learns: ClassVar[Literal["nothing", "loss", "learning_rate"]]
    before: ClassVar[bool]
    during: ClassVar[bool]
    uses: ClassVar[tuple[str, ...]]
