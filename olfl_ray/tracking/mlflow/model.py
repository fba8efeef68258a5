"""A trained model as MLflow's own: torch.export's graph with signature and input example. Nothing is pickled."""

from __future__ import annotations

import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from olfl_ray.vision import torchvision

if TYPE_CHECKING:
    from olfl_ray.trial import TrainedModel

__all__ = ["FOLDER", "write_model"]

FOLDER = "model"
"""Artifact folder of a run; the model's URI is runs:/RUN/model."""
NEEDED = ("mlflow", "numpy", "torch")
"""What serves it, at this process's versions; neither olfl_ray nor a user's builder."""


def write_model(model: TrainedModel, folder: Path) -> None:
    """Write the files of an MLflow model.

    The input example is drawn around the scaler's mean: no example of the data set leaves with the model.

    Args:
        model: The model, on the CPU.
        folder: A folder that does not exist yet.

    Raises:
        DataError: torch.export can't trace it.
    """
    from olfl_ray.trial import describe, traced

    traced(model)  # compared with the model, which MLflow does not do
    torchvision()  # MLflow imports it where Lightning is installed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the libraries that this imports, and of torch.export
        import numpy as np
        from mlflow import pytorch
        from mlflow.models import ModelSignature
        from mlflow.types import Schema, TensorSpec

        example = model.example(2).numpy()
        inputs = TensorSpec(example.dtype, (-1, *example.shape[1:]))
        outputs = TensorSpec(np.dtype(np.float32), (-1, model.origin.outputs))
        pytorch.save_model(
            model,
            str(folder),
            serialization_format="pt2",
            signature=ModelSignature(inputs=Schema([inputs]), outputs=Schema([outputs])),
            input_example=example,
            pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in NEEDED],
            metadata=describe(model),
        )
