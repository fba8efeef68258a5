"""A run's learned loss, read back from MLflow."""

from __future__ import annotations

import tempfile
from pathlib import Path

from olfl_ray.errors import DataError
from olfl_ray.spec import without_secrets

__all__ = ["fetch_learned_loss"]


def fetch_learned_loss(uri: str, run: str) -> tuple[bytes, bytes]:
    """Weights and settings that a run left under `learned_loss/`.

    Args:
        uri: Tracking URI.
        run: Id of the run.

    Raises:
        DataError: There is no such run, or it left none.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    with tempfile.TemporaryDirectory() as scratch:
        try:
            folder = Path(MlflowClient(uri).download_artifacts(run, "learned_loss", scratch))
            return (folder / "learned_loss.safetensors").read_bytes(), (folder / "learned_loss.json").read_bytes()
        except (MlflowException, OSError) as error:
            first = without_secrets(str(error)).splitlines()[0]
            raise DataError(
                f"run {run!r} in {without_secrets(uri)} has no learned loss ({first}); "
                "name a finished run of an online or offline arm"
            ) from None
