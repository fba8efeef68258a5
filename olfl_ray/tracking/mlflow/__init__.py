"""MLflow: a study's runs, and what is read back from them. No other package imports mlflow."""

from olfl_ray.tracking.mlflow.existing import undelivered
from olfl_ray.tracking.mlflow.fetch import fetch_learned_loss, storage_in_runs
from olfl_ray.tracking.mlflow.runs import Runs
from olfl_ray.tracking.mlflow.sqlite_file import absolute_uri, file_of, sqlite_uri
from olfl_ray.tracking.mlflow.store import (
    FROM_ENVIRONMENT,
    artifacts_in,
    check_store,
    embedded_uri,
    make_store,
    open_store,
    store_uri,
)
from olfl_ray.tracking.mlflow.tracker import Mlflow, experiment_of, with_uri

__all__ = [
    "FROM_ENVIRONMENT",
    "Mlflow",
    "Runs",
    "absolute_uri",
    "artifacts_in",
    "check_store",
    "embedded_uri",
    "experiment_of",
    "fetch_learned_loss",
    "file_of",
    "make_store",
    "open_store",
    "sqlite_uri",
    "storage_in_runs",
    "store_uri",
    "undelivered",
    "with_uri",
]
