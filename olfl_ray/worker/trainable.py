"""The Ray trainable: a thin adapter around a session; actors are reused from trial to trial."""

from __future__ import annotations

from typing import Any

import torch.fx.experimental.symbolic_shapes  # noqa: F401  (torch imports it at the first gradient, which takes a second)
from ray import tune

from olfl_ray.worker.assignment import Assignment
from olfl_ray.worker.session import Session

__all__ = ["LossLearning"]


class LossLearning(tune.Trainable):  # type: ignore[misc]
    """One worker; each step ends with a message."""

    def setup(self, config: dict[str, Any]) -> None:
        """Start an attempt at the assigned trial."""
        self._messages = Session(Assignment.from_dict(config)).messages()

    def step(self) -> dict[str, Any]:
        """Run until the next message."""
        return next(self._messages).to_result()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Start another trial in the same process."""
        self.setup(new_config)
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Do nothing: commits are the only checkpoints."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Do nothing: a session restores itself from the trial's last commit."""
