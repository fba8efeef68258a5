"""The sections of a trial's settings: task, learner, learned loss, meta-learning, evaluation.

Every model is frozen and strict: no unknown key, no silent conversion of text to numbers. What only a live system can
know (which data sets and models exist, shapes, devices) is checked by `olfl_ray.trial.check`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from olfl_ray.plugins import name_of_builder

__all__ = [
    "OPEN",
    "AdamSpec",
    "AdamWSpec",
    "EvalSpec",
    "LearnedLossSpec",
    "LearnerSpec",
    "LossSection",
    "MetaSpec",
    "MetricSpec",
    "NamedBuilder",
    "OptimizerSpec",
    "ScheduleSpec",
    "SgdSpec",
    "SplitSpec",
    "StandardizeSpec",
    "Strict",
    "TaskSpec",
    "as_named",
    "as_tuple",
]


class Strict(BaseModel):
    """Base of every section: frozen, no unknown keys, no coercion, no NaN or infinity."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )


def as_tuple(value: Any) -> Any:
    """A list, as YAML gives it, as a tuple."""
    return tuple(value) if isinstance(value, list) else value


def as_name(value: Any) -> Any:
    """A function or class as its dotted name."""
    return name_of_builder(value) if callable(value) else value


def as_named(value: Any) -> Any:
    """A plain name, or a builder itself, as a section with that name."""
    return {"name": as_name(value)} if isinstance(value, str) or callable(value) else value


def with_name(default: str, form: Any) -> BeforeValidator:
    """A plain name, or a class itself, as a section with that name; a section that has none gets the default.

    Args:
        default: The name.
        form: Type of the sections, for the JSON Schema.
    """

    def complete(value: Any) -> Any:
        value = as_named(value)
        if isinstance(value, dict):
            return {"name": default, **value, **({"name": as_name(value["name"])} if "name" in value else {})}
        return value

    return BeforeValidator(complete, json_schema_input_type=form | str)


OWN = "package.module:Class"
"""Stands for a user's own implementation among the names of a section's kinds."""


def kind_of(section: Any) -> str | None:
    """The name of a section's kind; None if it is no section."""
    name = section.get("name") if isinstance(section, dict) else getattr(section, "name", None)
    return OWN if isinstance(name, str) and ":" in name else None if name is None else str(name)


PRINTABLE = r"^[^\x00-\x1f]+$"
"""Text of at least one character, none of them a control character."""

BUILDER = r"^[\w.]+:\w+$"
PART = r"^(\w+|[\w.]+:\w+)$"
"""A built-in name, or a user's own `package.module:Class`; the part's registry knows which there are."""
METRIC = r"^selection/\w+$"
"""A metric of the validation split."""

LONGEST = 10**9
"""The most steps of anything: more than any trial makes."""
Steps: TypeAlias = Annotated[int, Field(ge=1, le=LONGEST)]
Positive: TypeAlias = Annotated[float, Field(gt=0)]
NonNegative: TypeAlias = Annotated[float, Field(ge=0)]
Fraction: TypeAlias = Annotated[float, Field(gt=0, lt=1)]


class NamedBuilder(BaseModel):
    """A built-in thing or a user's `package.module:builder`, with the builder's options next to the name."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)

    name: Annotated[str, BeforeValidator(as_name), Field(min_length=1)]
    """Built-in name, or `package.module:builder`."""

    @property
    def options(self) -> dict[str, Any]:
        """Everything but the name: the builder's keyword arguments."""
        return dict(self.model_extra or {})


Named: TypeAlias = Annotated[NamedBuilder, BeforeValidator(as_named, json_schema_input_type=NamedBuilder | str)]


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
    """Targets of a regression; metrics stay in the targets' own units. Classes never are."""


class MetricSpec(Strict):
    """A user's metric, measured on the full split in addition to the task's."""

    name: Annotated[str, BeforeValidator(as_name), Field(pattern=r"^[\w.]+:\w+$")]
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
    """Base learner: linear | mlp | lenet5 | allcnnc | resnet18 | squeezenet | vgg16 | wrn | dosa, or `package.module:builder`;
    options next to the name."""
    loss: Annotated[str, BeforeValidator(as_name), Field(pattern=PART)] = "auto"
    """Task loss: one of the task's (classification: cross_entropy; regression: squared_error), or
    `package.module:function`; auto: the task's first."""
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


class SgdSpec(Strict):
    """Stochastic gradient descent, as `torch.optim.SGD`."""

    name: Literal["sgd"] = "sgd"
    """sgd"""
    lr: NonNegative = 0.01
    """Learning rate alpha."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Momentum."""
    nesterov: bool = False
    """Nesterov momentum."""
    weight_decay: NonNegative = 0.0
    """L2 penalty added to the gradient."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> SgdSpec:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov=true needs `momentum > 0`, but momentum=0.0; set a momentum or nesterov: false")
        return self


class AdamSpec(Strict):
    """Adam, as `torch.optim.Adam`."""

    name: Literal["adam"]
    """adam"""
    lr: NonNegative = 1e-3
    """Learning rate alpha."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the first moment."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the second moment."""
    eps: Positive = 1e-8
    """Added to the root of the second moment."""
    weight_decay: NonNegative = 0.0
    """L2 penalty added to the gradient."""


class AdamWSpec(AdamSpec):
    """Adam with decoupled weight decay, as `torch.optim.AdamW`."""

    name: Literal["adamw"]  # type: ignore[assignment]
    """adamw"""
    weight_decay: NonNegative = 0.01
    """Decoupled weight decay, times the learning rate."""


class OwnOptimizerSpec(NamedBuilder):
    """A user's own optimizer. The other keys are arguments of its class."""

    name: Annotated[str, Field(pattern=BUILDER)]
    """`package.module:Class`, a subclass of `olfl_ray.engine.Optimizer`."""
    lr: NonNegative = 0.01
    """Learning rate alpha."""


OptimizerSpec: TypeAlias = Annotated[
    Annotated[SgdSpec, Tag("sgd")]
    | Annotated[AdamSpec, Tag("adam")]
    | Annotated[AdamWSpec, Tag("adamw")]
    | Annotated[OwnOptimizerSpec, Tag(OWN)],
    Discriminator(kind_of),
    with_name("sgd", SgdSpec | AdamSpec | AdamWSpec | OwnOptimizerSpec),
]


class ConstantSpec(Strict):
    """A constant learning rate."""

    name: Literal["constant"] = "constant"
    """constant"""


class MilestonesSpec(Strict):
    """The learning rate times `factor` at each milestone."""

    name: Literal["milestones"]
    """milestones"""
    at: Annotated[tuple[Fraction, ...], BeforeValidator(as_tuple), Field(min_length=1)] = (0.5, 0.75)
    """Milestones as fractions of `learner.steps`, increasing."""
    factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Factor at each milestone."""

    @model_validator(mode="after")
    def _increasing(self) -> MilestonesSpec:
        if list(self.at) != sorted(set(self.at)):
            raise ValueError(f"milestones must increase, but at={list(self.at)}; sort them and drop repeats")
        return self


class CosineSpec(Strict):
    """Cosine decay from lr to `final` times lr."""

    name: Literal["cosine"]
    """cosine"""
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Fraction of lr at the last step."""


class OwnScheduleSpec(NamedBuilder):
    """A user's own schedule. The other keys are further arguments of its function."""

    name: Annotated[str, Field(pattern=BUILDER)]
    """`package.module:function`: from the fraction of `learner.steps` that is done to the factor on the learning rate."""


ScheduleSpec: TypeAlias = Annotated[
    Annotated[ConstantSpec, Tag("constant")]
    | Annotated[MilestonesSpec, Tag("milestones")]
    | Annotated[CosineSpec, Tag("cosine")]
    | Annotated[OwnScheduleSpec, Tag(OWN)],
    Discriminator(kind_of),
    with_name("constant", ConstantSpec | MilestonesSpec | CosineSpec | OwnScheduleSpec),
]


class LearnerSpec(Strict):
    """How theta is learned."""

    method: Annotated[str, BeforeValidator(as_name), Field(pattern=PART)] = "online"
    """What is meta-learned, and when: a built-in method, or `package.module:Class`."""
    options: Annotated[dict[str, Any], Field(exclude_if=lambda value: not value)] = {}
    """Settings of a method that has some of its own."""
    steps: Steps = 1500
    """Base steps."""
    optimizer: OptimizerSpec = SgdSpec()
    """Base optimizer and its settings: one of these, or `package.module:Class`, a subclass of `olfl_ray.engine.Optimizer`."""
    schedule: ScheduleSpec = ConstantSpec()
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


class MetaSpec(Strict):
    """How phi is learned."""

    optimizer: Literal["adam", "sgd"] = "adam"
    """Meta-optimizer, on phi (and on the learning rate in online_lr)."""
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
