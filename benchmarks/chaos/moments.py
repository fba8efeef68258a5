"""The moments in a study's life at which it is killed, or its disk fills up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from benchmarks.chaos.stores import StoreKind
from benchmarks.chaos.sweep import Verb
from benchmarks.chaos.watch import Trigger, after, always, recorded, schema, written

__all__ = ["FIRST", "Harm", "Moment", "moments"]

Harm = Literal["driver", "machine", "disk", "none"]
"""SIGKILL of the driver; of the driver and everything that it started; its disk full until it ends; nothing."""
FIRST = "first start of a home"
SMALL_STEP = 0.05
"""Seconds between two kills while MLflow's store is created."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """One moment, how it is recognized, and what happens then.

    Args:
        family: The group that it belongs to.
        name: Its name within the family.
        reached: Whether the driver has reached it.
        later: Seconds from there to the harm.
        verb: What the driver does.
        harm: The harm that is done.
        moved: Whether the home folder is moved before the study is resumed.
        store: Store of the study's runs; a shared one already has another home's study with the same spec.
        fresh: Whether the shared store is empty.
        second: Whether the driver of a second study starts in the same home at the same time.
    """

    family: str
    name: str
    reached: Trigger
    later: float = 0.0
    verb: Verb = "run"
    harm: Harm = "driver"
    moved: bool = False
    store: StoreKind = "own"
    fresh: bool = False
    second: bool = False


DELIVERING = tuple(0.2 * index for index in range(10))
"""Seconds from a driver's start at which a delivery is killed."""
END: dict[str, Trigger] = {
    "last trial has ended": recorded("Ended", 4),
    "driver notes its end": recorded("DriverStopped"),
    "tables of the report": written("report/tables/*"),
    "page of the report": written("report/index.html"),
}
CHANGE: dict[str, Trigger] = {
    "driver begins": recorded("DriverStarted"),
    "trial is proposed": recorded("Proposed"),
    "trial begins": recorded("Began"),
    "first commit": recorded("Committed"),
    "first trial has ended": recorded("Ended"),
    "driver notes its end": recorded("DriverStopped"),
    "page of the report": written("report/index.html"),
}


def moments(*, seconds: float = 6.0, spacing: float = 0.1, stores: tuple[StoreKind, ...] = ()) -> list[Moment]:
    """All moments, in the order in which they are run.

    Args:
        seconds: Duration of a home's first start in which it is killed every `spacing` seconds.
        spacing: See `seconds`.
        stores: Kinds of shared stores.
    """
    return [
        *_first(seconds, spacing),
        *_schema(),
        *(moment for store in stores if store != "sqlite" for moment in _schema_of(store)),
        *_end(),
        *_changes(),
        *_delivery(),
        *_second_study(),
        *(moment for store in stores for moment in _second_home(store)),
        *_moved(),
        *_full_disk(stores),
    ]


def _first(seconds: float, spacing: float) -> list[Moment]:
    count = round(seconds / spacing)
    return [
        Moment(family=FIRST, name=f"{index * spacing:.2f} s", reached=after(index * spacing), harm=_turn(index))
        for index in range(1, count + 1)
    ]


def _schema() -> list[Moment]:
    return [
        Moment(
            family="MLflow's store is made",
            name=f"{index * SMALL_STEP * 1000:.0f} ms in",
            reached=schema,
            later=index * SMALL_STEP,
            harm=_turn(index),
        )
        for index in range(12)
    ]


def _schema_of(store: StoreKind) -> list[Moment]:
    family = f"MLflow's store is made ({store})"
    alone = [
        Moment(
            family=family,
            name=f"{later * 1000:.0f} ms in",
            reached=schema,
            later=later,
            harm=_turn(index),
            store=store,
            fresh=True,
        )
        for index, later in enumerate((0.0, 0.2, 0.5, 1.0))
    ]
    return [*alone, replace(alone[1], name="two studies at once, one killed 200 ms in", second=True)]


def _end() -> list[Moment]:
    family = "end of a study"
    closing = (0.05, 0.1, 0.2, 0.4)
    return [
        *(
            Moment(family=family, name=name, reached=reached, harm=_turn(index))
            for index, (name, reached) in enumerate(END.items())
        ),
        *(
            Moment(
                family=family,
                name=f"MLflow's parent run is closed, {later * 1000:.0f} ms after the report",
                reached=END["page of the report"],
                later=later,
            )
            for later in closing
        ),
    ]


def _changes() -> list[Moment]:
    changes: dict[str, Trigger] = {"trials are added": recorded("Revised"), **CHANGE}
    retries: dict[str, Trigger] = {"trial is reopened": recorded("Reopened"), **CHANGE}
    del retries["trial is proposed"]  # it was proposed before it failed
    verbs: tuple[tuple[Verb, dict[str, Trigger]], ...] = (("extend", changes), ("retry", retries))
    return [
        Moment(family=verb, name=name, reached=reached, verb=verb, harm=_turn(index))
        for verb, triggers in verbs
        for index, (name, reached) in enumerate(triggers.items())
    ]


def _delivery() -> list[Moment]:
    family = "delivery to a new store"
    places: list[tuple[str, Trigger, float]] = [
        *((f"store is made, {later * 1000:.0f} ms in", schema, later) for later in (0.0, 0.2, 0.4, 0.6)),
        *((f"{later * 1000:.0f} ms of delivery", recorded("DriverStarted"), later) for later in DELIVERING),
        *((f"{later * 1000:.0f} ms after the report", END["page of the report"], later) for later in (0.0, 0.2)),
    ]
    return [
        Moment(family=family, name=name, reached=reached, later=later, verb="deliver", harm=_turn(index))
        for index, (name, reached, later) in enumerate(places)
    ]


def _second_study() -> list[Moment]:
    family = "two studies at once in a fresh home"
    harms: dict[str, tuple[Trigger, float, Harm]] = {
        "no kill": (always, 0.0, "none"),
        "one killed, MLflow's store is made": (schema, 0.0, "driver"),
        "one killed, 200 ms later": (schema, 0.2, "driver"),
        "one killed, 500 ms later": (schema, 0.5, "machine"),
        "one killed, first commit": (recorded("Committed"), 0.0, "driver"),
        "one killed, page of the report": (written("report/index.html"), 0.0, "driver"),
    }
    return [
        Moment(family=family, name=name, reached=reached, later=later, harm=harm, second=True)
        for name, (reached, later, harm) in harms.items()
    ]


def _second_home(store: StoreKind) -> list[Moment]:
    family = f"two homes, one spec, one store ({store})"
    harms: dict[str, Trigger] = {
        "study begins": recorded("DriverStarted"),
        "first commit": recorded("Committed"),
        "first trial has ended": recorded("Ended"),
        "page of the report": written("report/index.html"),
    }
    return [
        Moment(family=family, name=name, reached=reached, harm=_turn(index), store=store)
        for index, (name, reached) in enumerate(harms.items())
    ]


def _moved() -> list[Moment]:
    family = "home moved before the study is resumed"
    places: tuple[tuple[str, Trigger, Verb], ...] = (
        ("first commit", recorded("Committed"), "run"),
        ("page of the report", written("report/index.html"), "run"),
        ("extend, first commit", recorded("Committed"), "extend"),
        ("retry, trial begins", recorded("Began"), "retry"),
    )
    return [
        Moment(family=family, name=name, reached=reached, verb=verb, moved=True, harm=_turn(index))
        for index, (name, reached, verb) in enumerate(places)
    ]


def _full_disk(stores: tuple[StoreKind, ...]) -> list[Moment]:
    def full(name: str, reached: Trigger, *, verb: Verb = "run", later: float = 0.0) -> Moment:
        return Moment(family="disk full", name=name, reached=reached, later=later, verb=verb, harm="disk")

    return [
        full("before the first start", always),
        full("MLflow's store is made", schema),
        full("200 ms later", schema, later=0.2),
        full("study begins", recorded("DriverStarted")),
        full("first commit", recorded("Committed")),
        full("last trial has ended", END["last trial has ended"]),
        full("tables of the report", END["tables of the report"]),
        full("page of the report", END["page of the report"]),
        full("extend, driver begins", recorded("DriverStarted"), verb="extend"),
        full("extend, first commit", recorded("Committed"), verb="extend"),
        full("retry, trial begins", recorded("Began"), verb="retry"),
        full("delivery to a new store", recorded("DriverStarted"), verb="deliver", later=0.5),
        replace(full("two studies at once, MLflow's store is made", schema), second=True),
        replace(full("home moved after, first commit", recorded("Committed")), moved=True),
        *(
            replace(full(f"second home of one store ({store}), first commit", recorded("Committed")), store=store)
            for store in stores
        ),
    ]


def _turn(index: int) -> Harm:
    """Alternately the driver alone, and everything that it started."""
    return "machine" if index % 2 else "driver"
