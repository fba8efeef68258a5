"""Read back from MLflow: a run's learned loss, and where a study is stored."""

from __future__ import annotations

import tempfile
from pathlib import Path

from olfl_ray.errors import DataError
from olfl_ray.spec import without_secrets
from olfl_ray.tracking.mlflow.existing import PARENT, STORAGE_TAG, STUDY_TAG, TRIAL_TAG
from olfl_ray.tracking.mlflow.store import asking, is_absent

__all__ = ["fetch_learned_loss", "storage_in_runs"]


def fetch_learned_loss(uri: str, run: str) -> tuple[bytes, bytes]:
    """Weights and settings in a run's artifact folder `learned_loss/`.

    Args:
        uri: Tracking URI.
        run: Id of the run.

    Raises:
        DataError: There is no such run, or it has none.
        SetupError: The store does not respond.
    """
    from mlflow.exceptions import MlflowException

    if is_absent(uri):
        raise DataError(f"run {run!r}: there is no tracking store {without_secrets(uri)} yet; run a sweep first")
    with asking(uri) as client:
        pass
    with tempfile.TemporaryDirectory() as scratch:
        try:
            folder = Path(client.download_artifacts(run, "learned_loss", scratch))
            return (folder / "learned_loss.safetensors").read_bytes(), (folder / "learned_loss.json").read_bytes()
        except (MlflowException, OSError) as error:
            first = without_secrets(str(error)).splitlines()[0]
            raise DataError(
                f"run {run!r} in {without_secrets(uri)} has no learned loss ({first}); "
                "name a finished run of an online or offline arm"
            ) from None


def storage_in_runs(uri: str, study: str) -> list[str]:
    """The object stores named by a study's parent runs, newest first; local folders are meaningless on another machine.

    Args:
        uri: Tracking URI.
        study: Name of the study.

    Raises:
        SetupError: The store does not respond.
    """
    if uri.startswith("sqlite"):
        return []  # a local file, which no cluster writes to
    with asking(uri) as client:
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        wanted = f"tags.`{STUDY_TAG}` = '{study}' and tags.`{TRIAL_TAG}` = '{PARENT}'"
        runs = client.search_runs(experiments, wanted, order_by=["attributes.start_time DESC"])
    found = [run.data.tags.get(STORAGE_TAG, "") for run in runs]
    return [root for root in dict.fromkeys(found) if root and not root.startswith("file:")]
