"""The benchmarks of the paper's claim: each is a study of methods; its fixed, tuned and short forms are derived here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import Field

from olfl_ray.errors import SpecError
from olfl_ray.methods import complete
from olfl_ray.plugins import nearest
from olfl_ray.spec import Strict, StudySpec, parse_as, parse_spec, read_spec

__all__ = [
    "BASELINE",
    "METHODS",
    "OFFLINE",
    "ONLINE",
    "Card",
    "Scale",
    "Settings",
    "read_cards",
    "study_name",
    "study_of",
]

Scale: TypeAlias = Literal["full", "short"]
Settings: TypeAlias = Literal["fixed", "tuned"]

INDEX = "rows.yaml"
BASELINE, OFFLINE, ONLINE = "baseline", "offline", "online"
"""The arms that the claim is about."""

METHODS: dict[str, str] = {
    BASELINE: "task loss",
    OFFLINE: "offline (ML3)",
    ONLINE: "online (AdaLFL)",
    "from_mlp": "offline, on the MLP's last loss",
    "replay_mlp": "offline, on the MLP's losses in turn",
    "online_lr": "online learning rate",
    "label_smoothing": "label smoothing",
    "focal": "focal loss",
    "poly1": "Poly-1",
    "more_data": "task loss, train + meta examples",
    "same_compute": "task loss, same compute",
}
"""What an arm of that name is; an arm of another name is called by it."""


class Card(Strict):
    """What is said of a benchmark besides its study."""

    title: str
    """Its name in the document: data set and base learner."""
    short: dict[str, Any] = Field(default_factory=dict)
    """What `--scale short` changes, merged into the study."""
    error: str = "error rate"
    """What its errors are, with the unit."""
    claim: bool = True
    """Whether it tests the claim."""
    searched: bool = True
    """Whether its recipe was searched; if not, fixed settings compare rates that nobody chose, and there is no verdict."""
    notes: list[str] = Field(default_factory=list)
    """What was tried, and what a reader must know; printed in the document."""


class _Index(Strict):
    rows: dict[str, Card]


def read_cards(folder: Path) -> dict[str, Card]:
    """The benchmarks of a folder, in the document's order.

    Raises:
        SpecError: The folder's index can't be read, or breaks a rule.
    """
    path = folder / INDEX
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SpecError(
            "--folder", f"{path} can't be read ({error.strerror}); name the folder of the benchmarks"
        ) from None
    return parse_as(_Index, data, source=str(path)).rows


def study_of(
    row: str,
    *,
    folder: Path,
    settings: Settings,
    scale: Scale,
    seeds: int = 10,
    overrides: Sequence[str] = (),
) -> StudySpec:
    """The study of a benchmark.

    Args:
        row: Name of the row.
        folder: Folder of the rows.
        settings: fixed: every arm at the row's own settings, nothing is searched; tuned: as the row's file says, with an
            equal number of search trials an arm.
        scale: full, or short as the row's card says.
        seeds: Fresh seeds on which each arm is reported.
        overrides: `a.b=c` texts.

    Raises:
        SpecError: There is no such row, or its spec breaks a rule.
    """
    cards = read_cards(folder)
    if row not in cards:
        raise SpecError(
            "ROW", f"there is no benchmark {row!r}{nearest(row, list(cards))}; there are: {', '.join(cards)}"
        )
    path = folder / f"{row}.yaml"
    data = read_spec(path).model_dump(mode="json", by_alias=True)
    if scale == "short":
        data = _merged(data, cards[row].short)
    if settings == "fixed":
        data["replicates"], data["search"] = 1, {**data["search"], "parameters": {}, "pruner": {"name": "none"}}
        data["arms"] = {arm: {**spec, "trials": 1, "parameters": {}} for arm, spec in data["arms"].items()}
    data["confirm"] = {"seeds": seeds}
    name = study_name(row, settings, scale)
    return complete(parse_spec(json.dumps(data).encode(), source=str(path), overrides=overrides, name=name))


def study_name(row: str, settings: Settings, scale: Scale) -> str:
    """`paper-ROW-SETTINGS`, and `-short` after it at that scale."""
    return f"paper-{row}-{settings}" + ("-short" if scale == "short" else "")


def _merged(data: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings merged key by key; anything else is replaced."""
    found = dict(data)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(found.get(key), dict)
        found[key] = _merged(found[key], value) if both else value
    return found
