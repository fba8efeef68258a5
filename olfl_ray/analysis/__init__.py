"""Tables, pictures and the report of a study; reads records only."""

from olfl_ray.analysis.report import as_markdown, write_report
from olfl_ray.analysis.tables import ArmResult, Difference, final_table, records_table, surfaces_table

__all__ = [
    "ArmResult",
    "Difference",
    "as_markdown",
    "final_table",
    "records_table",
    "surfaces_table",
    "write_report",
]
