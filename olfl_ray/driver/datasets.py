"""The built-in data sets and their preparation; and the data of a study."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from olfl_ray import data
from olfl_ray.driver.home import Home, data_root
from olfl_ray.errors import SpecError
from olfl_ray.spec import StudySpec, TrialConfig, field_of, located, parse_spec, read_spec, seed_of, trial_config
from olfl_ray.storage import Storage
from olfl_ray.tracking import DatasetNote
from olfl_ray.trial import DataSummary, TrialEnvironment, data_summary

__all__ = [
    "DATASETS",
    "check_dataset",
    "data_summaries",
    "dataset",
    "dataset_lines",
    "dataset_notes",
    "describe_data",
    "outputs_of",
    "prepare_data",
    "stored_lines",
    "stored_notes",
]

DATASETS = "datasets.json"
"""Where a study keeps what its data are."""
CLASSES_SHOWN, MOST_NAMES = 20, 1000


def describe_data() -> list[tuple[Any, ...]]:
    """The built-in data sets."""
    return [tuple(row) for row in data.describe(data_root())]


def prepare_data(name: str, *, home: Home) -> str:
    """Find, check and prepare a data set; one line about it."""
    found = data.load(name, {}, cache=home.cache, root=data_root())
    return f"{name}: {len(found.y)} examples, {found.kind}, from {found.source}"


def outputs_of(config: TrialConfig, home: Home) -> int:
    """Number of outputs that a trial's data set needs: its classes, or its targets. Reads the data set."""
    wanted = config.task.dataset
    found = data.load(wanted.name, wanted.options, cache=home.cache, root=data_root())
    found = data.for_task(found, config.task.options)
    return found.outputs or found.task.outputs(found.y)


def dataset_notes(spec: StudySpec, home: Home) -> dict[str, DatasetNote]:
    """Each arm's data set: name, digest, source, rows, kind, and names of its classes, where they have names."""
    notes: dict[str, DatasetNote] = {}
    for arm in spec.arms:
        task = trial_config(spec, arm, {}, seeds=(spec.seed,)).task
        found = data.load(task.dataset.name, task.dataset.options, cache=home.cache, root=data_root())
        found = data.for_task(found, task.options)
        note = {
            "name": found.name,
            "digest": found.fingerprint[:32],
            "source": found.source,
            "rows": len(found.y),
            "kind": found.kind,
            "classes": [name[:80] for name in found.classes[:MOST_NAMES]],
        }
        heads = {head.name: f"{head.kind}, {head.outputs} outputs" for head in found.heads}
        notes[arm] = note | ({"heads": heads} if heads else {})
    return notes


def data_summaries(spec: StudySpec, home: Home) -> list[DataSummary]:
    """A summary of each arm's data, once for arms that share them, with the splits of the first replicate of a search trial.

    Raises:
        UserError: A data set can't be loaded, or is too small to be split.
    """
    found: dict[str, DataSummary] = {}
    environment = TrialEnvironment(cache=home.cache, data_root=data_root())
    for arm in spec.arms:
        config = trial_config(spec, arm, {}, seeds=(seed_of(spec.seed, "search", 0),))
        task = config.task
        key = task.model_dump_json(include={"dataset", "split", "standardize", "loss", "metrics", "options"})
        if key not in found:
            try:
                found[key] = data_summary(config, environment)
            except SpecError as error:
                raise SpecError(field_of(spec, arm, error.field), error.problem, error.where) from error
    return list(found.values())


def check_dataset(target: str, *, overrides: Sequence[str] = (), home: Home) -> list[DataSummary]:
    """A summary of the data of a spec, or of a data set by its name.

    Args:
        target: A spec's file, ending in .yaml or .yml, `-` for standard input; or the name of a data set.
        overrides: `a.b=c` texts, such as `task.dataset.target=quality`.
        home: The home folder.

    Raises:
        UserError: The spec or the data set is invalid.
    """
    data.forget()
    if target == "-" or target.endswith((".yaml", ".yml")):
        spec = read_spec(target, overrides)
        with located(target, overrides):
            return data_summaries(spec, home)
    bare = {"name": "data", "task": {"dataset": {"name": target}}, "search": {"parameters": {}}}
    return data_summaries(parse_spec(json.dumps(bare).encode(), source="data", overrides=overrides), home)


def dataset(given: Any, *, name: str = "data", home: Home | str | Path | None = None, **options: Any) -> dict[str, Any]:
    """Write an object of this program to a file in the home folder, and return it as a spec's `task.dataset`.

    Every trial can read the file. It is named after its content, so changed content makes a different study.

    Args:
        given: A pandas or Arrow table, with `target` and other options of one; arrays (x, y); an `olfl_ray.data.Dataset`; or
            a torch data set of (x, y) with a length.
        name: Name of the data set.
        home: The home folder; None: `OLFL_HOME`, else `./.olfl`.
        options: Those of a table in a file: target, kind, drop, categorical, missing, ids.

    Raises:
        SpecError: The object is invalid.
    """
    place = home if isinstance(home, Home) else Home.find(home)
    return data.store(given, name, place.cache / "objects", options)


def dataset_lines(notes: Mapping[str, DatasetNote]) -> list[str]:
    """A line for each data set: its examples, and the names of its classes in their order."""
    lines: dict[str, None] = {}
    for note in notes.values():
        names = [str(name) for name in note["classes"]]
        more = f", ... ({len(names)} classes)" if len(names) > CLASSES_SHOWN else ""
        classes = f"; classes 0 to {len(names) - 1}: {', '.join(names[:CLASSES_SHOWN])}{more}" if names else ""
        lines[f"data {note['name']}: {note['rows']} examples, {note['kind']}{classes}"] = None
    return list(lines)


def stored_notes(storage: Storage) -> dict[str, DatasetNote]:
    """What an existing study recorded of each arm's data set; empty if it recorded nothing."""
    try:
        notes: dict[str, DatasetNote] = json.loads(storage.read(DATASETS))
        dataset_lines(notes)  # refuses another form
    except (FileNotFoundError, ValueError, TypeError, AttributeError, KeyError):
        return {}
    return notes


def stored_lines(storage: Storage) -> list[str]:
    """The same as text, one line for each data set."""
    return dataset_lines(stored_notes(storage))
