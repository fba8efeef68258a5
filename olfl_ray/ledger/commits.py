"""A commit: a trial's state and its new records, whole or not at all; its manifest is written last."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field

from olfl_ray.ledger.state import TrialId
from olfl_ray.storage import Storage

__all__ = ["Commit", "latest_commit", "read_commit", "trial_folder", "write_commit"]


@dataclass(frozen=True, kw_only=True)
class Commit:
    """The manifest of one commit.

    Args:
        trial: `arm/name`.
        attempt: Attempt that made it.
        position: All steps done, of initialisation and training.
        step: Base steps done.
        outcome: finished or diverged where the trial ended with it, failed where it raised, else None.
        report: The evaluation that counts so far, one value a replicate.
        parent: Key of the commit that this one goes on from; None for the first.
        files: Key of each file that belongs to it -> SHA-256.
        cause: Why it failed.
    """

    trial: str
    attempt: int
    position: int
    step: int
    outcome: str | None
    report: dict[str, list[float]]
    parent: str | None
    files: dict[str, str] = field(default_factory=dict)
    cause: str | None = None

    @property
    def key(self) -> str:
        """Where the manifest stands."""
        return f"{trial_folder(self.trial)}/attempt-{self.attempt}/{self.position:09d}.commit.json"

    def file(self, name: str) -> str | None:
        """Key of the commit's file whose name ends in `name`."""
        return next((key for key in self.files if key.endswith(name)), None)


def trial_folder(trial: str) -> str:
    """Folder of a trial in its study's storage."""
    parsed = TrialId.parse(trial)
    return f"trials/{parsed.arm}/{parsed.name}"


def write_commit(storage: Storage, commit: Commit, files: dict[str, bytes]) -> Commit:
    """Write the files, then the manifest that makes them count.

    Returns:
        The commit with the keys and checksums of its files.
    """
    base = commit.key.removesuffix(".commit.json")
    sums = {}
    for name, data in files.items():
        key = f"{base}.{name}"
        storage.write(key, data)
        sums[key] = hashlib.sha256(data).hexdigest()
    whole = Commit(**{**asdict(commit), "files": sums})
    storage.write(whole.key, json.dumps(asdict(whole)).encode())
    return whole


def read_commit(storage: Storage, key: str) -> Commit:
    """Read a manifest.

    Raises:
        ValueError: It is torn.
    """
    try:
        return Commit(**json.loads(storage.read(key)))
    except TypeError as error:
        raise ValueError(f"{key}: {error}") from None


def latest_commit(storage: Storage, trial: str) -> tuple[Commit, dict[str, bytes]] | None:
    """The last commit of a trial whose manifest and state are whole, with its state; torn ones are passed over."""
    keys = [key for key in storage.keys(trial_folder(trial) + "/") if key.endswith(".commit.json")]
    for key in sorted(keys, key=lambda key: (_position(key), _attempt(key)), reverse=True):
        try:
            commit = read_commit(storage, key)
            state = commit.file(".state.safetensors")
            if state is None:
                continue
            data = storage.read(state)
        except (ValueError, FileNotFoundError):
            continue
        if hashlib.sha256(data).hexdigest() == commit.files[state]:
            return commit, {"state.safetensors": data}
    return None


def _position(key: str) -> int:
    name = key.rsplit("/", 1)[-1].split(".")[0]
    return int(name) if name.isdigit() else -1


def _attempt(key: str) -> int:
    folder = key.rsplit("/", 2)[-2].removeprefix("attempt-")
    return int(folder) if folder.isdigit() else -1
