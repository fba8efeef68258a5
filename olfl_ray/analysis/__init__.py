"""Tables, statistics, pictures and the report of a study; reads records only."""

from olfl_ray.analysis.report import as_markdown, write_report
from olfl_ray.analysis.statistics import Difference, detectable, holm, mean, paired, sd, sign_flips, sign_test
from olfl_ray.analysis.tables import ArmResult, confirmed, final_table, records_table, surfaces_table, values_on_test

__all__ = [
    "ArmResult",
    "Difference",
    "as_markdown",
    "confirmed",
    "detectable",
    "final_table",
    "holm",
    "mean",
    "paired",
    "records_table",
    "sd",
    "sign_flips",
    "sign_test",
    "surfaces_table",
    "values_on_test",
    "write_report",
]
