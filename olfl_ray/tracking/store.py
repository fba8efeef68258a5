"""The tracking store: opened once before a study's first trial, and again by whoever delivers to it."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import Any

from olfl_ray.errors import SetupError

__all__ = ["open_store"]


def open_store(uri: str, experiment: str, artifacts: Path | None) -> Any:
    """The MLflow client of a tracking store, with the experiment made where it is not there.

    Args:
        uri: MLflow tracking URI.
        experiment: Name of the experiment.
        artifacts: Folder of artifacts for a store without a server, else None.

    Raises:
        SetupError: The store can't be reached.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.getLogger("alembic").setLevel(logging.WARNING)
            from mlflow.tracking import MlflowClient

            logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # the sink says what goes wrong
            client = MlflowClient(tracking_uri=uri)
            if client.get_experiment_by_name(experiment) is None:
                client.create_experiment(experiment, None if artifacts is None else artifacts.resolve().as_uri())
            return client
    except Exception as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise SetupError(
            f"tracking.uri: {uri} can't be reached ({reason}); start the server or correct the URI"
        ) from None
