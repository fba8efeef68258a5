"""Tables, statistics, figures and the report of a study; reads only records."""

from olfl_ray.analysis.files import as_markdown
from olfl_ray.analysis.idle import idle_share
from olfl_ray.analysis.outcome import Outcome
from olfl_ray.analysis.report import write_report
from olfl_ray.analysis.statistics import Difference, detectable, holm, mean, paired, sd, sign_flips, sign_test
from olfl_ray.analysis.tables import (
    ArmResult,
    confirmed,
    final_table,
    outcomes,
    records_table,
    surfaces_table,
    values_on_test,
)
from olfl_ray.analysis.wording import number, remarks, spread_of

__all__ = [
    "ArmResult",
    "Difference",
    "Outcome",
    "as_markdown",
    "confirmed",
    "detectable",
    "final_table",
    "holm",
    "idle_share",
    "mean",
    "number",
    "outcomes",
    "paired",
    "records_table",
    "remarks",
    "sd",
    "sign_flips",
    "sign_test",
    "spread_of",
    "surfaces_table",
    "values_on_test",
    "write_report",
]
