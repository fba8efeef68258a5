"""What can happen to a study: eleven kinds of event, each immutable and with a timestamp."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from math import isfinite
from time import time as now
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

__all__ = [
    "Began",
    "Committed",
    "DriverStarted",
    "DriverStopped",
    "Ended",
    "Event",
    "Examined",
    "Proposed",
    "Reopened",
    "Revised",
    "Stopped",
    "StudyCreated",
]

EndState = Literal["finished", "pruned", "diverged", "failed"]
"""How a trial ends; the table in docs/design.md says what Optuna and MLflow receive for each."""

Count: TypeAlias = Annotated[int, Field(ge=0, lt=2**63)]
"""A non-negative number that fits a table column."""

_FLOAT = "$float"  # JSON has no NaN and no infinity: {"$float": "nan"} encodes one.


@dataclass(frozen=True, kw_only=True)
class Event:
    """One fact about a study.

    Args:
        time: Wall-clock time at which it was recorded, in seconds since 1970.
    """

    _kinds: ClassVar[dict[str, type[Event]]] = {}

    time: float = field(default_factory=now)

    def __init_subclass__(cls) -> None:
        Event._kinds[cls.__name__] = cls

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: `kind`, then the fields.

        Raises:
            TypeError: A field holds a value that can't be expressed in JSON.
        """
        return {"kind": type(self).__name__} | {f.name: _pack(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The event that `to_json` wrote.

        Raises:
            ValueError: The kind or a field is not one that this version knows, or has a value of another type.
        """
        values = {name: _unpack(value) for name, value in data.items()}
        kind = values.pop("kind", None)
        found: Any = Event._kinds.get(str(kind))
        if found is None or not issubclass(found, cls):
            raise ValueError(f"unknown kind of event {kind!r}")
        try:
            event: Self = found(**values)
            _types(found).validate_python(vars(event), strict=True)
        except TypeError as error:
            raise ValueError(f"unknown form of {kind}: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"unknown form of {kind}: {where}: {first['msg']}") from None
        return event


@cache
def _types(kind: Any) -> TypeAdapter[Any]:
    """Validates the types of an event's fields: a ledger may come from anyone."""
    hints = get_type_hints(kind, include_extras=True)
    form: Any = TypedDict
    return TypeAdapter(form("Form", {field.name: hints[field.name] for field in fields(kind)}))


@dataclass(frozen=True, kw_only=True)
class StudyCreated(Event):
    """The study's first event.

    Args:
        spec: The resolved spec, as plain values.
        digest: Digest of the settings that affect results.
        name: The study's name.
        versions: Version of each library that results depend on.
        identity: Random, generated once: it differs between two studies with the same spec and name. Empty in older ledgers.
    """

    spec: dict[str, Any]
    digest: str
    name: str
    versions: dict[str, str]
    identity: str = ""


@dataclass(frozen=True, kw_only=True)
class Revised(Event):
    """A study's mutable settings have changed: arms added, trials per arm, resources, budget, tracking.

    Args:
        spec: The new resolved spec.
        digest: Its digest; it differs from the old one if an arm was added. Empty in older ledgers: unchanged.
    """

    spec: dict[str, Any]
    digest: str = ""


@dataclass(frozen=True, kw_only=True)
class Examined(Event):
    """An arm's data, task and code were inspected before its first trial; later starts must find the same.

    Args:
        arm: The arm.
        data: Digest of the data set's content.
        code: Digest of each module that one of the arm's builders comes from.
        task: Name of the task.
        primary: Name of the task's primary metric.
        goals: minimize or maximize for each metric of a split.
        units: Unit of each metric.
        learns: Whether anything is learned besides theta.
        shape: Shape of one input. Empty in older ledgers, as are the following fields.
        outputs: Outputs of the base learner: the number of classes, or of regression targets.
        classes: Number of examples of each class or label; empty if the targets are neither.
        labels: Whether they are labels, of which an example has any number.
        splits: Number of examples of each split, and of a train `batch`, of the first seed.
        trivial: Metrics of the best constant prediction on the test split, of the first seed.
    """

    arm: str
    data: str
    code: dict[str, str]
    task: str
    primary: str
    goals: dict[str, str]
    units: dict[str, str]
    learns: bool
    shape: list[int] = field(default_factory=list)
    outputs: Count = 0
    classes: list[int] = field(default_factory=list)
    labels: bool = False
    splits: dict[str, int] = field(default_factory=dict)
    trivial: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DriverStarted(Event):
    """A driver took over the study; this event's number fences off the previous driver.

    Args:
        epoch: Epoch of the driver's lease; greater than that of any earlier driver.
        host: Host name.
        pid: Process id on that host.
        machine: Its hardware and system, as texts by name. Empty in older ledgers.
        versions: Version of each library. Empty in older ledgers.
    """

    epoch: Count
    host: str
    pid: Count
    machine: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DriverStopped(Event):
    """A driver stopped in an orderly way.

    Args:
        epoch: Epoch of the driver's lease.
        reason: One line for people.
    """

    epoch: Count
    reason: str


@dataclass(frozen=True, kw_only=True)
class Proposed(Event):
    """A trial was proposed.

    Args:
        trial: Its id, such as `online/3` or `online/c3`.
        params: Its settings: dotted field of the spec -> value.
        seeds: Seed of each replicate.
        filtered: Candidates that the searcher dropped since the proposal before: for each its `params`, the `filter`, and the
            trial whose value it takes over (`same_as`), if there is one.
    """

    trial: str
    params: dict[str, Any]
    seeds: list[Count]
    filtered: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Began(Event):
    """A worker started the trial.

    Args:
        trial: Its id.
        attempt: Number of the attempt, from 1, greater than any earlier one; the worker writes under `attempt-N/`.
        dropped: Keys of manifests whose files were found corrupt; those commits no longer count and are recomputed.
    """

    trial: str
    attempt: Count
    dropped: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Committed(Event):
    """A checkpoint and the records before it are now final.

    Args:
        trial: Its id.
        attempt: The attempt that wrote it; only the current one may commit.
        commit: Key of the worker's manifest; each is recorded once.
        step: Number of base steps done; it never decreases (0 during Algorithm 1).
        value: Search metric at that step, mean over replicates; None if it was not measured.
        values: Every metric at that step, mean over replicates.
    """

    trial: str
    attempt: Count
    commit: str
    step: Count
    value: float | None
    values: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Ended(Event):
    """A trial has ended for good.

    Args:
        trial: Its id.
        state: How it ended.
        step: Number of base steps of the result.
        value: Search metric of the result, mean over replicates; None if there is none.
        metrics: One value per replicate for each metric.
        cause: Why the trial failed or was cut short, in one line; None if it was not.
    """

    trial: str
    state: EndState
    step: Count
    value: float | None
    metrics: dict[str, list[float]]
    cause: str | None


@dataclass(frozen=True, kw_only=True)
class Stopped(Event):
    """A running trial was suspended after its last commit; it can start again.

    Args:
        trial: Its id.
        out_of_memory: Whether its device ran out of memory; it then starts again alone on its device.
    """

    trial: str
    out_of_memory: bool = False


@dataclass(frozen=True, kw_only=True)
class Reopened(Event):
    """A failed trial may be retried.

    Args:
        trial: Its id.
        scratch: Number of the latest attempt whose work is discarded; 0: resume from the last commit.
    """

    trial: str
    scratch: Count = 0


def _pack(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return float(value) if isfinite(value) else {_FLOAT: str(float(value))}
    if isinstance(value, Mapping):
        if _FLOAT in value or not all(isinstance(key, str) for key in value):
            raise TypeError(f"keys of a mapping must be strings other than {_FLOAT!r}, but are {list(value)!r}")
        return {key: _pack(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_pack(item) for item in value]
    raise TypeError(f"{value!r} of type {type(value).__name__} has no JSON form")


def _unpack(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {_FLOAT}:
            return float(value[_FLOAT])
        return {key: _unpack(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_unpack(item) for item in value]
    return value
