"""The sections of a trial's settings: task, learner, learned loss, meta-learning, evaluation.

Every model is frozen and strict: no unknown key, no silent conversion of text to numbers. What only a live system can
know (which data sets and models exist, shapes, devices) is checked by `olfl_ray.trial.check`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator

from olfl_ray.errors import SpecError
from olfl_ray.spec.base import (
    BUILDER,
    LONGEST,
    PART,
    PRINTABLE,
    Fraction,
    Named,
    NamedBuilder,
    NonNegative,
    Positive,
    Steps,
    Strict,
    as_name,
    as_named,
    as_tuple,
)
from olfl_ray.spec.part import OptimizerSpec, ScheduleSpec

__all__ = [
    "OPEN",
    "EvalSpec",
    "LearnedLossSpec",
    "LearnerSpec",
    "LossSection",
    "MetaSpec",
    "MetricSpec",
    "SplitSpec",
    "StandardizeSpec",
    "TaskSpec",
]


class SplitSpec(Strict):
    """Sizes of the splits; train gets what is left."""

    test: Fraction = 0.2
    """Fraction of all examples held out for the confirming trials, if the data set has no test set."""
    meta: Fraction = 0.1
    """Fraction of the other examples that phi is learned on (meta-validation)."""
    selection: Fraction = 0.1
    """Fraction of the other examples that the search is scored on (validation)."""

    @model_validator(mode="after")
    def _leave_something(self) -> SplitSpec:
        if self.meta + self.selection >= 0.9:
            raise ValueError(
                f"`meta + selection < 0.9` must hold so that a train split is left, but meta={self.meta}, "
                f"selection={self.selection}; make them smaller"
            )
        return self


class StandardizeSpec(Strict):
    """What is scaled to mean 0 and standard deviation 1, with the means and deviations of the train split."""

    x: bool = True
    """Features, each by itself, and images by channel. Integer ids never are."""
    y: bool = True
    """Targets of a regression; metrics stay in the targets' own units. Classes and labels never are."""


class MetricSpec(Strict):
    """A user's metric, measured on the full split in addition to the task's."""

    name: Annotated[str, BeforeValidator(as_name), Field(pattern=BUILDER)]
    """`package.module:function`, called with (outputs, targets); gives a float. The part after the colon is its name."""
    goal: Literal["minimize", "maximize"] = "minimize"
    """Which value is better: the lower or the higher one."""
    unit: str = ""
    """Unit of its values."""


class TaskSpec(Strict):
    """What is learned: data, base learner, task loss, metrics."""

    dataset: Named
    """Built-in data set; a file, such as `csv:FILE` with the option target; or `package.module:builder`. With options:
    `{name: ..., option: value}`."""
    model: Named = NamedBuilder(name="mlp")
    """Base learner: linear | mlp | multihead | lenet5 | allcnnc | resnet18 | squeezenet | vgg16 | wrn | dosa, or
    `package.module:builder`; options next to the name."""
    loss: Annotated[str, BeforeValidator(as_name), Field(pattern=PART)] = "auto"
    """Task loss: one of the task's (classification: cross_entropy; multilabel: binary_cross_entropy; regression: squared_error), or
    `package.module:function`; auto: the task's first."""
    options: Annotated[dict[str, Any], Field(exclude_if=lambda value: not value)] = {}
    """Settings of a task that has some of its own, such as the heads of `multitask` or the thresholds of `multilabel`."""
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 64
    """Examples of a train batch and of a meta batch."""
    augment: Literal["none", "crop_flip"] = "none"
    """Augmentation of train batches: crop_flip pads 4, crops, flips (images only)."""
    split: SplitSpec = SplitSpec()
    """Sizes of the splits."""
    standardize: StandardizeSpec = StandardizeSpec()
    """What is scaled by the train split."""
    metrics: Annotated[
        tuple[Annotated[MetricSpec, BeforeValidator(as_named, json_schema_input_type=MetricSpec | str)], ...],
        BeforeValidator(as_tuple),
    ] = ()
    """Metrics besides the task's own, each `package.module:function` or `{name: ..., goal: ..., unit: ...}`."""


class LearnerSpec(Strict):
    """How theta is learned."""

    method: Annotated[str, BeforeValidator(as_name), Field(pattern=PART)] = "online"
    """What is meta-learned, and when: a built-in method, or `package.module:Class`."""
    options: Annotated[dict[str, Any], Field(exclude_if=lambda value: not value)] = {}
    """Settings of a method that has some of its own."""
    steps: Steps = 1500
    """Base steps."""
    optimizer: Annotated[OptimizerSpec, BeforeValidator(as_named, json_schema_input_type=OptimizerSpec | str)] = Field(
        default_factory=OptimizerSpec
    )
    """Base optimizer and its settings: one of these, or `package.module:Class`, a subclass of `olfl_ray.engine.Optimizer`."""
    schedule: Annotated[ScheduleSpec, BeforeValidator(as_named, json_schema_input_type=ScheduleSpec | str)] = Field(
        default_factory=ScheduleSpec
    )
    """Schedule of the base learning rate over `steps`: one of these, or `package.module:function`, from the fraction of the steps
    that is done to a factor."""
    clip_norm: Positive | None = None
    """Largest global norm of the base gradient; null: no clipping."""
    precision: Literal["float32", "tf32", "bf16"] = "float32"
    """Of the base learner's matrix products: float32 | tf32 (on GPUs that have it; float32 elsewhere) | bf16 (autocast)."""
    deterministic: bool = False
    """On a GPU: bitwise equal results from the same seed, at some cost in time. On a CPU results are always bitwise equal."""


class LearnedLossSpec(NamedBuilder):
    """The learned loss M_phi(y, f) = reduce_i l_phi(y_i, f_i), mean over the batch. The other keys are settings of l_phi."""

    model_config = ConfigDict(populate_by_name=True, use_attribute_docstrings=True)

    name: Annotated[str, Field(pattern=PART)] = "mlp"
    """l_phi: a file of olfl_ray/losses/learned, or `package.module:builder`. The other keys are its settings; where an arm or a
    search sets another name, that one's defaults replace them."""
    reduction: Literal["mean", "sum"] = "mean"
    """Over the outputs of the base learner."""
    from_: Annotated[Annotated[str, Field(pattern=PRINTABLE)] | None, Field(alias="from")] = None
    """Start from a learned loss file, or from another trial's (`STUDY/ARM/ORDINAL`), instead of Algorithm 1."""


LossSection: TypeAlias = Annotated[LearnedLossSpec, BeforeValidator(as_named)]
"""A learned loss; a text is its name."""
OPEN: Mapping[str, type[NamedBuilder]] = {"loss": LearnedLossSpec}
"""Open sections: besides fields of their own they hold the settings of the part that their name means."""


def _an_optimizer(name: str) -> str:
    try:
        OptimizerSpec.form(name)
    except SpecError as error:
        raise ValueError(error.problem) from None
    return name


class MetaSpec(Strict):
    """How phi is learned."""

    optimizer: Annotated[str, BeforeValidator(as_name), Field(pattern=PART), AfterValidator(_an_optimizer)] = "adam"
    """Meta-optimizer, on all that is meta-learned: one that `learner.optimizer` may name, with its default settings."""
    eta_init: Positive = 1e-3
    """Meta learning rate of the initialisation (Algorithm 1)."""
    eta_online: NonNegative = 1e-5
    """Meta learning rate during training (Algorithm 2)."""
    init_steps: Annotated[int, Field(ge=0, le=LONGEST)] = 1000
    """S_init: meta-updates of the initialisation."""
    inner_steps: Annotated[int, Field(ge=1, le=1000)] = 1
    """S_inner: base steps unrolled in each meta-update of the initialisation."""
    every: Steps = 1
    """Base steps between two meta-updates (Algorithm 2)."""
    batch: Literal["meta", "train"] = "meta"
    """Where meta batches come from: the meta-validation split, or train."""
    clip_norm: Positive | None = None
    """Largest norm of the meta-gradient; null: no clipping."""
    estimator: Annotated[str, Field(pattern=PART)] = "auto"
    """How the meta-gradient is computed: a built-in estimator, or `package.module:Class`."""
    memory: Literal["auto", "low", "fast"] = "auto"
    """Memory of the exact meta-gradient: low (little more than ordinary training) | fast (about twice) | auto: fast where it fits.
    The two agree to rounding."""


class EvalSpec(Strict):
    """When a trial is evaluated, and which evaluation counts."""

    every: Steps = 100
    """Base steps between two evaluations on the validation split."""
    report: Literal["last", "best"] = "best"
    """The evaluation that counts: the last, or the best on the validation split (its weights are kept for the test)."""
