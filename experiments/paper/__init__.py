"""The paper's claim, by benchmark: online beats offline beats the task loss, or not."""

from experiments.paper.document import write_table
from experiments.paper.results import Method, Result, collect, read_results, write_result
from experiments.paper.rows import METHODS, Card, read_cards, study_of
from experiments.paper.run import run_row

__all__ = [
    "METHODS",
    "Card",
    "Method",
    "Result",
    "collect",
    "read_cards",
    "read_results",
    "run_row",
    "study_of",
    "write_result",
    "write_table",
]
