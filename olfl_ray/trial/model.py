"""A trial's trained base learner, to take away: raw inputs in, logits or predictions in the targets' own units out."""

# B batch, C outputs

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from olfl_ray import data, models
from olfl_ray.data import InputScaler
from olfl_ray.errors import DataError
from olfl_ray.spec import TrialConfig, seed_of
from olfl_ray.tasks import Head, Task
from olfl_ray.tasks.heads import columns, packed
from olfl_ray.trial.build import batches_of, load_data
from olfl_ray.trial.environment import TrialEnvironment
from olfl_ray.trial.state import TrialState

__all__ = ["Origin", "TrainedModel", "trained_model"]

Predicted: TypeAlias = list[str] | list[tuple[str, ...]] | Tensor
"""For each example the name of a class, or names of labels; or outputs (B, C)."""
CHUNK = 1024
"""Examples of the validation split that are predicted at once."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a base learner was built from, and the form of its raw inputs.

    Args:
        name: Built-in name, or `package.module:builder`.
        options: Options of the builder.
        input_shape: Shape of one example.
        outputs: C.
        dtype: Type of raw inputs; integers of 64 bits are ids.
        pruned: Whether channels were removed from it afterwards, so that it can't be built again.
        heads: Of a task with several, each in the order of its outputs.
    """

    name: str
    options: Mapping[str, Any]
    input_shape: tuple[int, ...]
    outputs: int
    dtype: torch.dtype
    pruned: bool = False
    heads: tuple[Head, ...] = ()

    def build(self, seed: int) -> nn.Module:
        """The base learner with the initial weights of a seed.

        Raises:
            SpecError: Its builder is not there, or refuses these arguments.
        """
        return models.build(
            self.name,
            dict(self.options),
            input_shape=self.input_shape,
            outputs=self.outputs,
            ids=self.dtype == torch.int64,
            seed=seed,
            check=False,
            heads=self.heads,
        )


class TrainedModel(nn.Module):
    """A base learner with what its data were scaled by, in evaluation mode.

    Args:
        module: The base learner, at the weights of the evaluation that counts (`eval.report`).
        scaler: Applied to raw inputs.
        origin: What the base learner was built from.
        kind: Task: classification, regression, ...
        classes: Names of the classes in the order of the outputs; of classes without names their numbers. Empty: no classes.
        center: Added to the outputs after `scale`, by target; None: nothing.
        scale: Multiplies the outputs, by target; None: 1.
        thresholds: Of several labels for each the raw output above which it is predicted; empty: no labels.
        step: Base steps after which the weights were taken.
    """

    center_C: Tensor | None
    scale_C: Tensor | None

    def __init__(
        self,
        module: nn.Module,
        scaler: InputScaler,
        *,
        origin: Origin,
        kind: str,
        classes: tuple[str, ...] = (),
        center: Tensor | None = None,
        scale: Tensor | None = None,
        thresholds: tuple[float, ...] = (),
        step: int = 0,
    ) -> None:
        super().__init__()
        self.module, self.scaler = module, scaler
        self.origin, self.kind, self.classes, self.step = origin, kind, classes, step
        self.thresholds = thresholds
        self.register_buffer("center_C", center)
        self.register_buffer("scale_C", scale)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (B, C) for raw inputs (B, ...): logits, or for a regression predictions in the targets' own units.

        Heads lie side by side, in their order.
        """
        output_BC: Tensor = packed(self.origin.heads, self.module(self.scaler(x)))
        if self.scale_C is not None:
            output_BC = output_BC * self.scale_C
        return output_BC if self.center_C is None else output_BC + self.center_C

    @torch.no_grad()
    def predict(self, x: Any) -> Predicted | dict[str, Predicted]:
        """For each example the name of the likeliest class, or those of its labels; where there are neither, the outputs (B, C).

        Of heads a dict.

        Args:
            x: Raw inputs as a tensor or an array.
        """
        output_BC = self(torch.as_tensor(x))
        if self.origin.heads:
            return {head.name: _of_head(head, output_BC[:, place]) for head, place in columns(self.origin.heads)}
        if self.thresholds:
            return _above(self.classes, output_BC, self.thresholds)
        return _named(self.classes, output_BC) if self.classes else output_BC

    @torch.no_grad()
    def example(self, count: int = 1) -> Tensor:
        """Raw inputs (count, ...) such as it was trained on, but none of the data set: drawn around the scaler's mean.

        Ids are 0, and inputs that are not scaled are drawn from [0, 1).
        """
        shape, dtype, scaler = (count, *self.origin.input_shape), self.origin.dtype, self.scaler
        generator = torch.Generator().manual_seed(0)
        if dtype == torch.int64:
            x = torch.zeros(shape)
        elif scaler.mean is None or scaler.sd is None:
            x = torch.rand(shape, generator=generator)
        else:
            sd = scaler.sd.cpu().nan_to_num(posinf=0.0)  # infinite where a category was never seen
            x = scaler.mean.cpu() + sd * torch.randn(shape, generator=generator)
        if dtype == torch.uint8:
            x = x.round().clamp(0, 255)
        return x.to(next((value.device for value in self.parameters()), None), dtype)


def _named(classes: Sequence[str], output_BC: Tensor) -> list[str]:
    return [classes[index] for index in output_BC.argmax(1).tolist()]


def _above(labels: Sequence[str], output_BC: Tensor, thresholds: Sequence[float]) -> list[tuple[str, ...]]:
    above_BC = output_BC.double().cpu() > torch.tensor(thresholds, dtype=torch.float64)
    return [tuple(itertools.compress(labels, above_B)) for above_B in above_BC.tolist()]


def _of_head(head: Head, output_BC: Tensor) -> Predicted:
    """A head's classes, or its labels with a probability above 0.5, or its outputs."""
    names = head.classes or tuple(map(str, range(head.outputs)))
    if head.task.labels:
        return _above(names, output_BC, [0.0] * head.outputs)
    return _named(names, output_BC) if head.task.classes else output_BC


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
    drawn = data.episode(dataset, seed_of(seed, "task"))
    batches = batches_of(config, environment, drawn, seed, whole=family)
    origin = Origin(
        name=config.task.model.name,
        options=config.task.model.options,
        input_shape=batches.input_shape,
        outputs=dataset.outputs,
        dtype=drawn.x.dtype,
        heads=dataset.heads,
    )
    module = origin.build(seed_of(seed, "weights"))
    kept = own.learner if own.best is None else own.best
    _load(module, {**kept.theta, **kept.buffers})
    center, scale = batches.target_scaling()
    task = dataset.task
    model = TrainedModel(
        module,
        batches.scaler(),
        origin=origin,
        kind=dataset.kind,
        classes=dataset.output_names if task.classes or task.labels else (),
        center=center,
        scale=scale,
        step=state.step if own.best is None else own.best.step,
    )
    model = model.to(environment.device)
    if task.labels:
        tuned = _tuned(model, batches, task) if task.tuned else None
        model.thresholds = tuple([0.0] * dataset.outputs if tuned is None else tuned.tolist())
    return model


@torch.no_grad()
def _tuned(model: TrainedModel, batches: data.TaskData, task: Task) -> Tensor | None:
    """The task's thresholds, tuned on the validation split."""
    parts = [(model.module(x), y) for x, y in batches.chunks("selection", CHUNK)]
    outputs_NC, targets = (torch.cat(found) for found in zip(*parts, strict=True))
    return task.thresholds(outputs_NC, targets)


@torch.no_grad()
def _load(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Put trained weights into a module; parameters that were not trained are those that its seed gives."""
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if name in weights:
            tensor.copy_(weights[name])
