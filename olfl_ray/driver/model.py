"""The base learner that a finished trial trained, from its last commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from olfl_ray.driver.home import Home, data_root
from olfl_ray.spec import TrialConfig
from olfl_ray.storage import Storage

if TYPE_CHECKING:
    from olfl_ray.trial import TrainedModel

__all__ = ["model_of"]


def model_of(
    config: TrialConfig, trial: str, source: str, *, storage: Storage, home: Home, data: str, replicate: int = 0
) -> TrainedModel:
    """The model. Its builders are called, and its data set is read again, for the scaler and the names of the classes.

    Args:
        config: The trial's settings.
        trial: `ARM/ORDINAL` or `ARM/cN`.
        source: Names it in an error: STUDY/ARM/cN.
        storage: The study's storage.
        home: The home folder.
        data: Digest of its data set; empty: any.
        replicate: Which seed's.

    Raises:
        UserError: The trial has not finished, or its data are not here.
    """
    from olfl_ray.trial import TrialEnvironment, state_from_bytes, trained_model
    from olfl_ray.worker import finished_chain

    point = finished_chain(storage, trial, source)
    assert point.state is not None, "a restore point with commits has a state"
    environment = TrialEnvironment(cache=home.cache, data_root=data_root(), data=data)
    return trained_model(config, environment, state_from_bytes(point.state), replicate)
