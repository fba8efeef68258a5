"""DOSA's margin losses against the cross-entropy, and labels that arrive in blocks."""

from experiments.dosa.blocks import block_table
from experiments.dosa.page import per_label, write_page

__all__ = ["block_table", "per_label", "write_page"]
