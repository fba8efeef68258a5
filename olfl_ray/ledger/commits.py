"""A commit: a trial's state and its new records, written atomically; its manifest is written last, under a checksum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace

from pydantic import TypeAdapter

from olfl_ray.errors import DataError
from olfl_ray.ledger.codec import seal, unseal
from olfl_ray.ledger.state import TrialId
from olfl_ray.storage import Storage

__all__ = [
    "Commit",
    "RestorePoint",
    "read_commit",
    "read_file",
    "restore_point",
    "state_key",
    "trial_folder",
    "write_commit",
]

_MANIFEST, _STATE = ".commit.json", ".state.safetensors"
_OWN = ("records.parquet", "surfaces.parquet", "state.safetensors")


@dataclass(frozen=True, kw_only=True)
class Commit:
    """The manifest of one commit.

    Args:
        trial: `arm/name`.
        attempt: Attempt that wrote it.
        position: Number of steps done in initialization and training together.
        step: Number of base steps done.
        outcome: finished or diverged if the trial ended with it, else None.
        report: The evaluation that counts so far, one value per replicate.
        parent: Key of the commit that this one resumes from; None for the first.
        files: Key of each file that belongs to it -> SHA-256.
    """

    trial: str
    attempt: int
    position: int
    step: int
    outcome: str | None
    report: dict[str, list[float]]
    parent: str | None
    files: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Key of the manifest."""
        return f"{trial_folder(self.trial)}/attempt-{self.attempt}/{self.position:09d}{_MANIFEST}"

    def file(self, name: str) -> str | None:
        """Key of the commit's file whose name ends in `name`."""
        return next((key for key in self.files if key.endswith(name)), None)


_FORM = TypeAdapter(Commit)


@dataclass(frozen=True, kw_only=True)
class RestorePoint:
    """The point from which a trial resumes.

    Args:
        chain: Its intact commits from the first to the last; empty: start from the beginning.
        state: Bytes of the last one's state; None if the chain is empty.
    """

    chain: tuple[Commit, ...] = ()
    state: bytes | None = None


def trial_folder(trial: str) -> str:
    """Folder of a trial in its study's storage."""
    parsed = TrialId.parse(trial)
    return f"trials/{parsed.arm}/{parsed.name}"


def state_key(commit: Commit) -> str:
    """Key of the state that a commit includes."""
    return commit.key.removesuffix(_MANIFEST) + _STATE


def write_commit(storage: Storage, commit: Commit, files: dict[str, bytes]) -> Commit:
    """Write the files, then the manifest that makes them valid.

    Returns:
        The commit with the keys and checksums of its files.
    """
    base = commit.key.removesuffix(_MANIFEST)
    objects = {f"{base}.{name}": data for name, data in files.items()}
    storage.write_all(objects)
    sums = {key: hashlib.sha256(data).hexdigest() for key, data in objects.items()}
    written = replace(commit, files=sums)
    storage.write(written.key, seal(json.dumps(asdict(written)).encode()))
    return written


def left_by_learnable(storage: Storage, commit: Commit) -> dict[str, bytes]:
    """The commit's files that are neither measurements nor state: those of the trial's learnable, by name.

    Raises:
        DataError: One of them is missing or corrupt.
    """
    base = f"{commit.key.removesuffix(_MANIFEST)}."
    names = [key.removeprefix(base) for key in commit.files]
    found = {name: read_file(storage, commit, f".{name}") for name in names if name not in _OWN}
    return {name: data for name, data in found.items() if data is not None}


def read_commit(storage: Storage, key: str) -> Commit:
    """Read a manifest.

    Raises:
        DataError: It is missing or corrupt.
    """
    try:
        return _FORM.validate_json(unseal(storage.read(key)), strict=True)
    except (ValueError, FileNotFoundError) as error:
        raise _corrupt(storage, key, error) from None


def read_file(storage: Storage, commit: Commit, name: str) -> bytes | None:
    """The commit's file whose name ends in `name`; None if it has none.

    Raises:
        DataError: It is missing or corrupt.
    """
    key = commit.file(name)
    if key is None:
        return None
    try:
        data = storage.read(key)
    except FileNotFoundError as error:
        raise _corrupt(storage, key, error) from None
    if hashlib.sha256(data).hexdigest() != commit.files[key]:
        raise _corrupt(storage, key, "its checksum does not match its content")
    return data


def restore_point(storage: Storage, trial: str, *, recorded: Collection[str] = (), scratch: int = 0) -> RestorePoint:
    """The latest point from which a trial can resume, with every file up to it intact by its checksum.

    Args:
        storage: The study's storage.
        trial: `arm/name`.
        recorded: Keys of the commits in the ledger. A point that keeps more of them wins over a later one: an attempt that was
            given up may have left commits too.
        scratch: Attempts up to this number are discarded.
    """
    found: dict[str, Commit] = {}
    for key in storage.keys(trial_folder(trial) + "/"):
        if key.endswith(_MANIFEST) and _attempt(key) > scratch:
            with suppress(DataError):
                found[key] = read_commit(storage, key)
    with_state = [commit for commit in found.values() if commit.file(_STATE) is not None]
    ranked = sorted(
        with_state,
        key=lambda commit: (
            sum(known.key in recorded for known in _ancestors(commit, found)),
            commit.position,
            commit.attempt,
        ),
        reverse=True,
    )
    for commit in ranked:
        chain = tuple(_ancestors(commit, found))[::-1]
        try:
            if chain[0].parent is not None:
                continue
            state = read_file(storage, commit, _STATE)
            for part in chain:
                for file in part.files:
                    if not file.endswith(_STATE):
                        read_file(storage, part, file)
        except DataError:
            continue
        return RestorePoint(chain=chain, state=state)
    return RestorePoint()


def latest_attempt(storage: Storage, trial: str) -> int:
    """Number of the latest attempt that a worker claimed; 0 if there is none."""
    return max((_attempt(key) for key in storage.keys(trial_folder(trial) + "/")), default=0)


def _ancestors(commit: Commit, found: dict[str, Commit]) -> Iterator[Commit]:
    """The commit and its ancestors, back to the oldest that exists."""
    here: Commit | None = commit
    seen: set[str] = set()
    while here is not None and here.key not in seen:  # a forged chain may be circular
        seen.add(here.key)
        yield here
        here = found.get(here.parent) if here.parent is not None else None


def _attempt(key: str) -> int:
    folder = key.rsplit("/", 2)[-2].removeprefix("attempt-")
    return int(folder) if folder.isdecimal() and folder.isascii() else 0


def _corrupt(storage: Storage, key: str, why: object) -> DataError:
    first = str(why).replace("\n", " ")[:300]
    return DataError(f"{storage.url}/{key}: is corrupt ({first}); restore a copy of that file, or run its trial again")
