"""A study's conductor on a real ledger."""

from support.conducting import conduct

__all__ = ["conduct"]
