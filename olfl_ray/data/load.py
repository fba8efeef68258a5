"""A data set by its name: built-in, a file, or a user's builder; loaded once per process."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from olfl_ray.data.conversion import as_indices, as_inputs, as_targets, recognized
from olfl_ray.data.dataset import Dataset
from olfl_ray.data.dataset_file import read_dataset
from olfl_ray.data.formats import file_names, format_of
from olfl_ray.data.prepared import file_name, keep, prepare, read_prepared
from olfl_ray.data.sources import SOURCES
from olfl_ray.errors import SpecError
from olfl_ray.plugins import load_builder, nearest
from olfl_ray.spec import checked_options
from olfl_ray.storage import expanded
from olfl_ray.tasks import Head, task_of
from olfl_ray.tasks.heads import packed_targets, to_plain

__all__ = ["absolute", "check_repeatable", "describe", "forget", "is_builder", "load", "names", "of_object"]

FINGERPRINTED = 4
"""Number of episodes that the fingerprint of a family covers."""
MAX_CACHED = 2
"""Number of data sets that a process keeps loaded."""
_loaded: dict[tuple[Hashable, ...], Dataset] = {}


def names() -> list[str]:
    """Names of the built-in data sets."""
    return sorted(SOURCES)


def describe(root: Path | None) -> list[tuple[str, str, int, tuple[int, ...], str]]:
    """Name, kind, size, shape of an example, and source of each built-in data set.

    Args:
        root: Folder of given files (`OLFL_DATA`), or None.
    """
    found = []
    for name, source in sorted(SOURCES.items()):
        if not source.files:
            where = "bundled with scikit-learn"
        elif root is not None and all((root / file).exists() for file in source.files):
            where = str(root)
        else:
            where = "download, or OLFL_DATA" if source.downloads else "OLFL_DATA"
        found.append((name, source.kind, source.rows, source.shape, where))
    return found


def load(name: str, options: dict[str, Any], *, cache: Path, root: Path | None, wanted: str = "") -> Dataset:
    """Load a data set, preparing it first if necessary; later calls return the same object (see `forget`).

    Args:
        name: Built-in name; a file, such as `csv:FILE`; or `package.module:builder`, which returns a `Dataset` or (x, y).
        options: Settings of the file's format, or the builder's keyword arguments.
        cache: Folder of prepared data sets.
        root: Folder of given files (`OLFL_DATA`), or None.
        wanted: Fingerprint of a file's content, where it is known: its prepared form is then enough.

    Raises:
        SpecError: The name, an option, a file's content, or what a builder returns is invalid.
        DataError: It can't be found, or a file of it is truncated.
    """
    if format_of(name) is not None:
        return _from_file(name, options, cache, wanted)
    if ":" in name:
        return _from_user(name, options)
    if name not in SOURCES:
        raise SpecError(
            "task.dataset",
            f"there is no data set {name!r}{nearest(name, names())}; use one of {', '.join(names())}, a file "
            f"({file_names()}), or package.module:builder",
        )
    if options:
        raise SpecError(f"task.dataset.{next(iter(options))}", f"{name} has no options; remove it")
    path = prepare(name, cache=cache, root=root)
    return _cached(_state(path), lambda: read_prepared(name, path))


def absolute(name: str) -> str:
    """The name of a data set; of one in a file, with the complete path."""
    if format_of(name) is None:
        return name
    head, _, path = name.partition(":")
    return f"{head}:{os.path.normpath(expanded(path).absolute())}"


def is_builder(name: str) -> bool:
    """Whether a data set comes from a user's own code."""
    return ":" in name and format_of(name) is None


def _from_file(name: str, options: dict[str, Any], cache: Path, wanted: str) -> Dataset:
    """The data set of a file: its prepared form, if the content that is wanted is known, else the file itself."""
    kept = cache / file_name(name, options, wanted) if wanted else cache
    if wanted and kept.is_file():
        kind = str(options.get("kind") or "")
        return _cached((*_state(kept), kind), lambda: read_dataset(kept, kind))
    form = format_of(name)
    assert form is not None
    format_ = form(checked_options(form.Config, options, "task.dataset"))
    path = Path(absolute(name).partition(":")[2])
    format_.check(path)
    key = (name, json.dumps(options, sort_keys=True), *(_state(file) for file in format_.files(path)))
    found = _cached(key, lambda: _fingerprinted(format_.read(path), path))
    keep(found, cache / file_name(name, options, found.fingerprint))
    return found


def _fingerprinted(dataset: Dataset, path: Path) -> Dataset:
    """With a digest of all that training and reports use of it."""
    digest = _digest(dataset.x, dataset.y, dataset.test)
    also = [dataset.kind, dataset.outputs, dataset.classes, dataset.columns]
    if dataset.indicators is not None:
        also.append(dataset.indicators.tolist())
    if dataset.heads:
        also.append(to_plain(dataset.heads))
    digest = hashlib.sha256(f"{digest}{json.dumps(also)}".encode()).hexdigest()
    return replace(dataset, fingerprint=digest, source=str(path))


def _state(path: Path) -> tuple[Hashable, ...]:
    found = path.stat()
    return str(path), found.st_ino, found.st_mtime_ns, found.st_size


def forget() -> None:
    """Clear the cache of loaded data sets: a user's builder may return different data."""
    _loaded.clear()


def check_repeatable(name: str, options: dict[str, Any]) -> None:
    """Refuse a user's builder that returns different data when it is called again, as each worker does.

    Args:
        name: As for `load`; only a builder's data set is checked.
        options: The builder's keyword arguments.

    Raises:
        SpecError: It returns different data, as a builder that draws random numbers without a seed does.
    """
    if not is_builder(name):
        return
    builder = load_builder(name, "task.dataset", (Dataset, tuple))
    if _built(name, builder, options).fingerprint != _from_user(name, options).fingerprint:
        raise SpecError(
            "task.dataset",
            f"{name!r} returned different data when it was called again, so each trial would train on different data; give its "
            "random generator a fixed seed, as in np.random.default_rng(0)",
        )


def _cached(wanted: tuple[Hashable, ...], make: Callable[[], Dataset]) -> Dataset:
    """Cache loaded data sets for the trials of this process: no second call, no second checksum."""
    if wanted not in _loaded:
        while len(_loaded) >= MAX_CACHED:
            del _loaded[next(iter(_loaded))]
        _loaded[wanted] = make()
    return _loaded[wanted]


def _from_user(name: str, options: dict[str, Any]) -> Dataset:
    """A user's builder's data, built once per process."""
    builder = load_builder(name, "task.dataset", (Dataset, tuple))
    return _cached((builder, json.dumps(options, sort_keys=True, default=repr)), lambda: _built(name, builder, options))


def _built(name: str, builder: Callable[..., Any], options: dict[str, Any]) -> Dataset:
    """The checked result of a builder; arrays become tensors of the types that training needs."""
    try:
        given = builder(**options)
    except (Exception, SystemExit) as error:
        raise SpecError("task.dataset", f"{name!r} raised {type(error).__name__}: {error}; correct it") from error
    return of_object(name, given)


def of_object(name: str, given: Any) -> Dataset:
    """A checked `Dataset` or (x, y); arrays become tensors of the types that training needs.

    Raises:
        SpecError: It is invalid.
    """
    if not isinstance(given, Dataset) and (not isinstance(given, tuple) or len(given) != 2):
        raise SpecError(
            "task.dataset", f"{name!r} must return a Dataset or (x, y), but returned a {type(given).__name__}"
        )
    if not isinstance(given, Dataset):
        return _of_arrays(name, *given, None)
    if given.episode is None:
        return _of_arrays(name, given.x, given.y, given)
    return _family(name, given)


def episode(dataset: Dataset, seed: int) -> Dataset:
    """One task of a family, drawn by a seed; a data set that is not a family is its own only task.

    Raises:
        SpecError: What the family's builder returns is invalid.
    """
    if dataset.episode is None:
        return dataset
    try:
        given = dataset.episode(seed)
    except (Exception, SystemExit) as error:
        raise SpecError(
            "task.dataset", f"the episode of seed {seed} raised {type(error).__name__}: {error}; correct it"
        ) from error
    if not isinstance(given, tuple) or len(given) != 2:
        raise SpecError(
            "task.dataset", f"the episode of seed {seed} must be (x, y), but is a {type(given).__name__}; return both"
        )
    return _of_arrays(dataset.name, *given, replace(dataset, scaled=False, fingerprint="", test=None))


def _family(name: str, declared: Dataset) -> Dataset:
    """A family: its first task defines the shapes, its first few tasks the fingerprint.

    Raises:
        SpecError: The tasks have different shapes.
    """
    some = [episode(declared, seed) for seed in range(FINGERPRINTED)]
    first = some[0]
    for other in some[1:]:
        if (other.x.shape, other.y.shape, other.outputs) != (first.x.shape, first.y.shape, first.outputs):
            raise SpecError(
                "task.dataset",
                f"{name!r}: all episodes must have the same shapes and number of outputs, but those of seeds 0 and 1 to "
                f"{FINGERPRINTED - 1} differ; give outputs=..., and as many examples in each",
            )
    digest = hashlib.sha256("".join(one.fingerprint for one in some).encode()).hexdigest()
    return replace(first, fingerprint=digest, episode=declared.episode)


def _of_arrays(name: str, given_x: Any, given_y: Any, declared: Dataset | None) -> Dataset:
    """Checked arrays as a data set; `declared` is the builder's own declaration."""
    x = as_inputs(name, given_x)
    if isinstance(given_y, Mapping):
        return _of_heads(name, x, given_y, declared)
    heads = () if declared is None else declared.heads
    if declared is None:
        y, classes = as_targets(name, given_y)
    else:
        y, classes = as_targets(
            name, given_y, task_of(declared.kind, heads=heads), declared.outputs or len(declared.classes)
        )
    if len(x) != len(y):
        raise SpecError(
            "task.dataset",
            f"{name!r} returned x of shape {tuple(x.shape)}, y of shape {tuple(y.shape)}; N, the first, must be the same",
        )
    inferred = recognized(y) or ("regression" if y.is_floating_point() else "classification")
    kind = inferred if declared is None else declared.kind
    task = task_of(kind, heads=heads)
    try:
        y = task.checked(y)
    except ValueError as error:
        raise SpecError("task.dataset", f"{name!r}: {error}") from None
    found = Dataset(
        name=name,
        kind=kind,
        x=x,
        y=y,
        outputs=task.outputs(y),
        classes=classes,
        fingerprint=_digest(x, y, heads=heads),
        source=f"builder {name}",
        heads=heads,
    )
    return found if declared is None else _with_declared(name, declared, found)


def _of_heads(name: str, x: Tensor, given_y: Mapping[Any, Any], declared: Dataset | None) -> Dataset:
    """Targets by head, each of the task that its declaration, or else its type, says."""
    kinds = {} if declared is None else {head.name: head for head in declared.heads}
    if unknown := [head for head in kinds if head not in given_y]:
        raise SpecError("task.dataset", f"{name!r} declares the head {unknown[0]!r}, but its y has {_named(given_y)}")
    targets, heads = {}, []
    for head, values in given_y.items():
        if not isinstance(head, str) or not head.isidentifier():
            raise SpecError(
                "task.dataset", f"{name!r} returned a head called {head!r}; use letters, digits and _, as of a variable"
            )
        said = kinds.get(head)
        own = None if said is None else Dataset(name=head, kind=said.kind, outputs=said.outputs, classes=said.classes)
        found = _of_arrays(f"{name}, head {head}", x, values, own)
        targets[head] = found.y
        heads.append(Head(name=head, kind=found.kind, outputs=found.outputs, classes=found.classes))
    if not heads:
        raise SpecError("task.dataset", f"{name!r} returned a y without heads; give targets by name")
    y = packed_targets(heads, targets)
    base = declared or Dataset(name=name, kind="multitask")
    return _of_arrays(name, x, y, replace(base, heads=tuple(heads)))


def _named(given: Mapping[Any, Any]) -> str:
    return ", ".join(map(str, given))


def _digest(x: Tensor, y: Tensor, test: Tensor | None = None, heads: tuple[Head, ...] = ()) -> str:
    """SHA-256 of the content. A builder's own fingerprint does not count: a file that it reads may have changed."""
    digest = hashlib.sha256()
    for part in (x, y, torch.zeros(0) if test is None else test):
        digest.update(f"{part.dtype}{tuple(part.shape)}".encode())
        digest.update(part.contiguous().numpy().tobytes())
    if heads:
        digest.update(json.dumps(to_plain(heads)).encode())
    return digest.hexdigest()


def _with_declared(name: str, declared: Dataset, found: Dataset) -> Dataset:
    """A user's own `Dataset` with tensors as content; fields that it omits are inferred.

    Raises:
        SpecError: Its declaration contradicts its content.
    """
    task = task_of(declared.kind, heads=declared.heads)
    outputs = max(declared.outputs, found.outputs) if task.classes else found.outputs
    if found.y.is_floating_point() == task.classes or declared.outputs not in (0, outputs):
        there = f"{found.outputs} {'columns' if found.outputs > 1 else 'column'} of numbers"
        if not found.y.is_floating_point():
            there = f"{found.outputs} classes"
        raise SpecError(
            "task.dataset",
            f"{name!r} returned a Dataset of kind {declared.kind} with outputs={declared.outputs}, but its y has {there}; correct "
            "them (classes are integers, targets are floats)",
        )
    classes = tuple(map(str, declared.classes)) or found.classes
    if classes and len(classes) != outputs:
        raise SpecError(
            "task.dataset",
            f"{name!r} returned a Dataset with {len(classes)} names of classes, but {outputs} classes; name each",
        )
    if len(set(classes)) < len(classes):
        twice = next(one for one in classes if classes.count(one) > 1)
        raise SpecError("task.dataset", f"{name!r} returned a Dataset with two classes called {twice!r}; rename one")
    test = None if declared.test is None else as_indices(name, declared.test, len(found.y))
    return replace(
        found,
        name=declared.name,
        outputs=outputs,
        classes=classes,
        test=test,
        fingerprint=_digest(found.x, found.y, test, declared.heads),
        source=declared.source or found.source,
        scaled=declared.scaled,
    )
