"""Drive a study from this machine: find it, check it, run what it lacks, report it; the `Study` handle calls it."""

from olfl_ray.driver.check import check_failed, check_same, check_study, extended, first_difference
from olfl_ray.driver.datasets import (
    check_dataset,
    data_summaries,
    dataset,
    dataset_lines,
    dataset_notes,
    describe_data,
    outputs_of,
    prepare_data,
    stored_lines,
)
from olfl_ray.driver.home import Home, data_root
from olfl_ray.driver.locations import resolved
from olfl_ray.driver.look import (
    STARTED,
    best_of,
    importances_of,
    is_driven,
    load,
    placed,
    report_of,
    sample,
    spec_in,
    status_of,
    stop_driver,
    storage_of,
    trials_of,
)
from olfl_ray.driver.model import model_of
from olfl_ray.driver.remove import remove
from olfl_ray.driver.run import StudyResult, Watcher, drive, tried_again

__all__ = [
    "STARTED",
    "Home",
    "StudyResult",
    "Watcher",
    "best_of",
    "check_dataset",
    "check_failed",
    "check_same",
    "check_study",
    "data_root",
    "data_summaries",
    "dataset",
    "dataset_lines",
    "dataset_notes",
    "describe_data",
    "drive",
    "extended",
    "first_difference",
    "importances_of",
    "is_driven",
    "load",
    "model_of",
    "outputs_of",
    "placed",
    "prepare_data",
    "remove",
    "report_of",
    "resolved",
    "sample",
    "spec_in",
    "status_of",
    "stop_driver",
    "storage_of",
    "stored_lines",
    "trials_of",
    "tried_again",
]
