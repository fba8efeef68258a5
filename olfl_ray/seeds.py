"""A seed for each purpose, from one seed and a name."""

from __future__ import annotations

import hashlib

__all__ = ["seed_of"]


def seed_of(*parts: object) -> int:
    """A seed below 2^31 from anything with a stable text: the same parts give the same seed on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big") >> 1
