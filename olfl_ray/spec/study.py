"""A study: what is searched, by which arms, with which resources. A trial's settings are its first five sections."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, TypeAdapter, field_validator, model_validator

from olfl_ray.plugins import load_builder
from olfl_ray.spec.base import (
    METRIC,
    PRINTABLE,
    NamedBuilder,
    Steps,
    Strict,
    as_name,
    as_named,
    as_tuple,
)
from olfl_ray.spec.datasets import with_datasets, without_folder
from olfl_ray.spec.parameter import Parameter
from olfl_ray.spec.part import PrunerSpec
from olfl_ray.spec.secrets import refuse_secrets
from olfl_ray.spec.sections import (
    EvalSpec,
    LearnedLossSpec,
    LearnerSpec,
    LossSection,
    MetaSpec,
    MetricSpec,
    StandardizeSpec,
    TaskSpec,
)

__all__ = [
    "ArmSpec",
    "Resources",
    "SamplerSpec",
    "SearchSpec",
    "StoragePlace",
    "StorageSpec",
    "StudySpec",
    "TrackerSpec",
    "TrialConfig",
    "trackers_from",
]

TASK_LOSS = "task_loss"
"""The metric that each task has; the lower it is, the better."""
GOAL_OF = "olfl_ray.tasks:goal_of"
"""Knows the goals of the tasks' own metrics. It imports torch, so it is called only where a spec leaves the goal to it."""
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"


class SamplerSpec(NamedBuilder):
    """How the next point is proposed: a searcher, with its settings next to the name.

    gp and cmaes learn only from finished trials, not from pruned ones; cmaes searches ranges without `when`, gp also lists.
    Their other fields, like gp's first ten trials, are drawn at random.
    """

    name: Annotated[str, BeforeValidator(as_name), Field(min_length=1)] = "tpe"
    """A file of olfl_ray/search, such as tpe, random, grid (all combinations of `values`), qmc (evenly scattered: Sobol'),
    cmaes or gp (Gaussian process); or `package.module:Class`."""


class SearchSpec(Strict):
    """What is optimised, and over which fields."""

    metric: Annotated[str, Field(pattern=METRIC)] = "selection/task_loss"
    """Metric of the validation split that decides everything: the search, the pruner, the evaluation that counts,
    the winner, and on the test split the final table. Classification: error | accuracy | balanced_error | macro_f1 | nll |
    ece; regression: rmse | mse | mae | r2; multilabel: macro_f1 | micro_f1 | hamming | subset_accuracy | lrap | f1_LABEL;
    each: task_loss, and those of task.metrics."""
    goal: Literal["minimize", "maximize"] = "minimize"
    """Which value is better; it must be the metric's own goal, which is the default."""
    sampler: Annotated[SamplerSpec, BeforeValidator(as_named, json_schema_input_type=SamplerSpec | str)] = SamplerSpec()
    """How the next point is proposed."""
    pruner: Annotated[PrunerSpec, BeforeValidator(as_named, json_schema_input_type=PrunerSpec | str)] = Field(
        default_factory=PrunerSpec
    )
    """Which trials are ended early: one of these, or `package.module:Class`, a subclass of `olfl_ray.pruners.Pruner`."""
    deterministic: bool = False
    """Make proposals and pruning independent of which trial ends first."""
    parameters: dict[str, Parameter]
    """Searched fields of every arm, by dotted name."""


class ArmSpec(Strict):
    """One method to compare, with its own settings and search budget."""

    set: dict[str, Any] = {}
    """Fixed settings that differ from the study's, by dotted name."""
    trials: Annotated[int, Field(ge=1, le=1_000_000)]
    """Search trials; the first is the spec's own values. Where the search space has fewer points, each is tried once."""
    parameters: dict[str, Parameter] = {}
    """Fields searched in this arm besides `search.parameters`."""


class ConfirmSpec(Strict):
    """The final comparison of the arms' winners."""

    seeds: Annotated[int, Field(ge=0, le=10_000)] = 10
    """Fresh seeds on which each arm's winner runs again; 0: no confirmation."""
    relearn: bool = True
    """Whether a confirming trial learns the loss again before its training; false: it starts from the learned loss of the
    winner's first replicate."""


class Resources(Strict):
    """Resources of one trial."""

    cpu: Annotated[int, Field(ge=1, le=65_536)] = 1
    """CPU cores and threads."""
    gpu: Annotated[float, Field(ge=0)] = 0.0
    """GPUs. With a fraction, trials share a GPU, and each may use this fraction of its memory."""
    memory: Annotated[int, Field(gt=0, le=2**50)] | None = None
    """Bytes of memory that Ray reserves; null: none reserved."""
    custom: dict[Annotated[str, Field(pattern=NAME)], Annotated[float, Field(gt=0)]] = {}
    """Custom resources of a cluster, by the names that its nodes declare."""
    may_join: bool = False
    """Whether nodes that can run a trial may join the cluster later; false: a study that no present node can run is refused."""

    @model_validator(mode="after")
    def _whole_above_one(self) -> Resources:
        for name in ("CPU", "GPU", "memory", "object_store_memory"):
            if name in self.custom:
                raise ValueError(f"custom: {name} is not a custom resource; set it by its own field")
        for name, amount in {
            "gpu": self.gpu,
            **{f"custom.{name}": given for name, given in self.custom.items()},
        }.items():
            if amount > 1 and amount != int(amount):
                raise ValueError(
                    f"{name}: above 1 Ray takes only whole numbers, but it is {amount}; use {round(amount)}"
                )
            if 0 < amount < 1e-4:
                raise ValueError(f"{name}: Ray takes no less than 0.0001, but it is {amount}; use more")
        return self


class BudgetSpec(Strict):
    """Wall-clock limits."""

    trial_seconds: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """Limit of one attempt at a trial, in seconds; a trial that exceeds it commits and fails."""
    study_seconds: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """Limit of the study, in seconds; no trial is started after it."""


class CheckpointSpec(Strict):
    """When trials commit, and so how much work a crash may cost."""

    every_steps: Steps = 500
    """Steps between two commits, rounded up to the next evaluation."""


def _as_storage(value: Any) -> Any:
    return {"url": value} if value is None or isinstance(value, str) else value


class StorageSpec(Strict):
    """Where studies are kept."""

    url: Annotated[str, Field(pattern=PRINTABLE)] | None = None
    """A folder, `s3://bucket/folder` or `gs://bucket/folder`; null: the home folder."""
    shared: bool = False
    """Whether every node of a cluster sees that folder under the same path."""


StoragePlace: TypeAlias = Annotated[
    StorageSpec, BeforeValidator(_as_storage, json_schema_input_type=StorageSpec | str | None)
]
"""A storage section; a text is its url."""


class TrackerSpec(NamedBuilder):
    """A tracker of the study's records, with its settings next to the name."""

    name: Annotated[str, BeforeValidator(as_name), Field(min_length=1)] = "mlflow"
    """A file or package of olfl_ray/tracking, such as mlflow (uri, experiment) or json_lines (folder); or
    `package.module:Class`."""


def _as_trackers(value: Any) -> Any:
    """One tracker, or a list of them, as a tuple."""
    return tuple(map(as_named, value if isinstance(value, list | tuple) else [value]))


Trackers: TypeAlias = Annotated[
    tuple[TrackerSpec, ...],
    BeforeValidator(_as_trackers, json_schema_input_type=list[TrackerSpec | str] | TrackerSpec | str),
]
"""A list of trackers; one alone needs no list."""


def trackers_from(value: Any) -> tuple[TrackerSpec, ...]:
    """The trackers of a spec's plain values."""
    found: tuple[TrackerSpec, ...] = TypeAdapter(Trackers).validate_python(value)
    return found


class TrialConfig(Strict):
    """All settings of one trial, resolved."""

    task: TaskSpec
    learner: LearnerSpec = Field(default_factory=LearnerSpec)
    loss: LossSection = LearnedLossSpec()
    meta: MetaSpec = MetaSpec()
    eval: EvalSpec = EvalSpec()
    metric: str = "selection/task_loss"
    """Metric of the validation split that decides which evaluation is the best (`search.metric`)."""
    goal: Literal["minimize", "maximize"] = "minimize"
    """Which value of it is better (`search.goal`)."""
    study_seed: int = 0
    """Seed of the study; only it decides the test split."""
    seeds: Annotated[tuple[int, ...], BeforeValidator(as_tuple)] = (0,)
    """One seed a replicate."""
    confirming: bool = False
    """Whether this trial may touch the test split."""


def default_arm(spec: dict[str, Any]) -> str:
    """Name of the one arm of a spec without arms, from plain values: its method's, of a user's own the class's."""
    learner = spec.get("learner")
    return str(learner.get("method", "online") if isinstance(learner, dict) else "online").rpartition(":")[2]


def _goal_of(metric: Any, task: Any) -> str:
    """The goal of a metric: what `task.metrics` says of a user's own, else the tasks' own; from plain values or sections."""
    name = str(metric).rpartition("/")[2]
    own = (task.get("metrics") if isinstance(task, dict) else getattr(task, "metrics", None)) or ()
    for entry in own if isinstance(own, list | tuple) else ():
        found = as_named(entry.model_dump() if isinstance(entry, MetricSpec) else entry)
        if isinstance(found, dict) and str(found.get("name")).rpartition(":")[2] == name:
            return str(found.get("goal", "minimize"))
    return "minimize" if name == TASK_LOSS else str(load_builder(GOAL_OF, "search.metric")(name))


class StudySpec(Strict):
    """One sweep."""

    name: Annotated[str, Field(pattern=NAME)]
    """Name of the study: letters, digits, `_`, `.`, `-`; at most 64."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of everything random in the study."""
    task: TaskSpec
    """What is learned."""
    learner: LearnerSpec = Field(default_factory=LearnerSpec)
    """How theta is learned."""
    loss: LossSection = LearnedLossSpec()
    """The learned loss."""
    meta: MetaSpec = MetaSpec()
    """How phi is learned."""
    eval: EvalSpec = EvalSpec()
    """When a trial is evaluated."""
    replicates: Annotated[int, Field(ge=1, le=1000)] = 3
    """Seeds that each search trial is averaged over."""
    search: SearchSpec
    """What is optimised, over which fields."""
    arms: dict[Annotated[str, Field(pattern=NAME)], ArmSpec] = {}
    """The methods to compare; none: one arm, named after learner.method, with 8 trials."""
    confirm: ConfirmSpec = ConfirmSpec()
    """The final comparison."""
    resources: Resources = Resources()
    """Resources of one trial."""
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 2
    """Largest number of trials that run at the same time."""
    budget: BudgetSpec = BudgetSpec()
    """Wall-clock limits."""
    checkpoint: CheckpointSpec = CheckpointSpec()
    """When trials commit, and so how much work a crash may cost."""
    storage: StoragePlace = StorageSpec()
    """Where the study is kept; a text is its url."""
    tracking: Trackers = (TrackerSpec(),)
    """Tracker of the study's records, or a list of trackers; without a name it is mlflow. An empty list: no tracker."""

    @field_validator("name")
    @classmethod
    def _no_dots_only(cls, value: str) -> str:
        if ".." in value:
            raise ValueError(f"`..` is not allowed in a name, but name={value!r}; use letters, digits, `_`, `.`, `-`")
        return value

    @model_validator(mode="before")
    @classmethod
    def _no_secrets(cls, value: Any) -> Any:
        refuse_secrets(value)
        return value

    @model_validator(mode="before")
    @classmethod
    def _default_arm(cls, value: Any) -> Any:
        if isinstance(value, dict) and not value.get("arms"):
            return {**value, "arms": {default_arm(value): {"trials": 8}}}
        return value

    @model_validator(mode="before")
    @classmethod
    def _default_goal(cls, value: Any) -> Any:
        search = value.get("search") if isinstance(value, dict) else None
        if isinstance(search, dict) and "goal" not in search and "metric" in search:
            return {**value, "search": {**search, "goal": _goal_of(search["metric"], value.get("task"))}}
        if isinstance(search, SearchSpec) and "goal" not in search.model_fields_set:
            goal = _goal_of(search.metric, value.get("task"))
            return {**value, "search": search.model_copy(update={"goal": goal})}
        return value

    def parameters_of(self, arm: str) -> dict[str, Parameter]:
        """The arm's search space: the study's parameters and the arm's own, which win."""
        return {**self.search.parameters, **self.arms[arm].parameters}

    def identity(self) -> dict[str, Any]:
        """What affects results, as plain values: a part that all arms share, and under `arms` a part for each.

        Of a data set in a file it has the file's name, not its folder; the ledger has a digest of the content.
        """
        data = self.model_dump(mode="json", by_alias=True)
        found = {key: data[key] for key in ("seed", "task", "learner", "loss", "meta", "eval", "replicates", "search")}
        if self.task.standardize == StandardizeSpec():  # as it was before there was a choice
            found["task"] = {key: value for key, value in found["task"].items() if key != "standardize"}
        found["resources"] = {"cpu": data["resources"]["cpu"]}
        if self.search.deterministic:
            found["concurrency"] = self.concurrency
        if not self.confirm.relearn:
            found["confirm"] = {"relearn": False}
        found["arms"] = {
            name: {key: value for key, value in arm.items() if key != "trials"} for name, arm in data["arms"].items()
        }
        return with_datasets(found, without_folder)

    @property
    def digest(self) -> str:
        """SHA-256 of what affects results, in hexadecimal."""
        canonical = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()
