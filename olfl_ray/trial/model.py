"""A trial's trained base learner, to take away: raw inputs in, logits or predictions in the targets' own units out."""

# B batch, C outputs

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from olfl_ray import data, models
from olfl_ray.data import InputScaler
from olfl_ray.errors import DataError
from olfl_ray.spec import TrialConfig, seed_of
from olfl_ray.tasks import task_of
from olfl_ray.trial.build import batches_of, load_data
from olfl_ray.trial.environment import TrialEnvironment
from olfl_ray.trial.state import TrialState

__all__ = ["TrainedModel", "trained_model"]


class TrainedModel(nn.Module):
    """A base learner with what its data were scaled by, in evaluation mode.

    Args:
        module: The base learner, at the weights of the evaluation that counts (`eval.report`).
        scaler: Applied to raw inputs.
        kind: Task: classification, regression, ...
        classes: Names of the classes in the order of the outputs; of classes without names their numbers. Empty: no classes.
        center: Added to the outputs after `scale`, by target; None: nothing.
        scale: Multiplies the outputs, by target; None: 1.
        step: Base steps after which the weights were taken.
    """

    center_C: Tensor | None
    scale_C: Tensor | None

    def __init__(
        self,
        module: nn.Module,
        scaler: InputScaler,
        *,
        kind: str,
        classes: tuple[str, ...] = (),
        center: Tensor | None = None,
        scale: Tensor | None = None,
        step: int = 0,
    ) -> None:
        super().__init__()
        self.module, self.scaler = module, scaler
        self.kind, self.classes, self.step = kind, classes, step
        self.register_buffer("center_C", center)
        self.register_buffer("scale_C", scale)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (B, C) for raw inputs (B, ...): logits, or for a regression predictions in the targets' own units."""
        output_BC: Tensor = self.module(self.scaler(x))
        if self.scale_C is not None:
            output_BC = output_BC * self.scale_C
        return output_BC if self.center_C is None else output_BC + self.center_C

    @torch.no_grad()
    def predict(self, x: Any) -> list[str] | Tensor:
        """The name of the likeliest class of each example; where there are no classes, the outputs (B, C).

        Args:
            x: Raw inputs as a tensor or an array.
        """
        output_BC = self(torch.as_tensor(x))
        return [self.classes[index] for index in output_BC.argmax(1).tolist()] if self.classes else output_BC


def trained_model(
    config: TrialConfig, environment: TrialEnvironment, state: TrialState, replicate: int = 0
) -> TrainedModel:
    """The base learner that a trial trained. Its data set is read again, for the scaler and the names of the classes.

    Args:
        config: Settings of the trial.
        environment: Folders of data sets; its device is where the model is put.
        state: Of the trial's last commit.
        replicate: Which seed's.

    Raises:
        UserError: The data set or a builder is not there, or is another one than at the study's start.
    """
    if not 0 <= replicate < len(state.replicates):
        raise DataError(
            f"replicate: the trial has {len(state.replicates)} of them, counted from 0; {replicate} is not one"
        )
    own, seed = state.replicates[replicate], config.seeds[replicate]
    dataset = load_data(config, environment)
    family = dataset.episode is not None
    batches = batches_of(config, environment, data.episode(dataset, seed_of(seed, "task")), seed, whole=family)
    task = config.task
    module = models.build(
        task.model.name,
        task.model.options,
        input_shape=batches.input_shape,
        outputs=dataset.outputs,
        ids=batches.ids,
        seed=seed_of(seed, "weights"),
        check=False,
    )
    kept = own.learner if own.best is None else own.best
    _load(module, {**kept.theta, **kept.buffers})
    center, scale = batches.target_scaling()
    named = dataset.classes or tuple(map(str, range(dataset.outputs)))
    model = TrainedModel(
        module,
        batches.scaler(),
        kind=dataset.kind,
        classes=named if task_of(dataset.kind).classes else (),
        center=center,
        scale=scale,
        step=state.step if own.best is None else own.best.step,
    )
    return model.to(environment.device)


@torch.no_grad()
def _load(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Put trained weights into a module; parameters that were not trained are those that its seed gives."""
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if name in weights:
            tensor.copy_(weights[name])
