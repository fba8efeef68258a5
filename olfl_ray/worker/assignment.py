"""A worker's assignment: which trial to run, and where; plain data, so that Ray can send it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Assignment"]


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """One trial for a worker.

    Args:
        study: URL of the study's storage.
        trial: `arm/name`.
        config: The trial's settings as JSON.
        cache: The driver's folder of prepared data sets.
        data_root: Folder of given data sets, or None.
        studies: Folder of the studies whose learned losses `loss.from` may name, or None.
        device: cpu or cuda.
        threads: CPU threads of the trial.
        commit_every: Steps between two commits.
        pruner: Its section as JSON; a commit is made at the first evaluation at or after each of its decision steps. None: nothing
            ends the trial early.
        max_seconds: Wall-clock budget of the trial, or None.
        epoch: Epoch of the driver's lease, to which a stop request refers.
        recorded: Keys of the commits that the ledger has recorded.
        scratch: Attempts up to this number are discarded.
        alone: Whether the trial has its device to itself.
        shared_data: URL of the storage from which nodes other than the driver's fetch data sets; empty: none.
        studies_url: URL of the folder that contains the study: `loss.from` is looked up there first. Empty: in `studies`.
        gpu: Number of GPUs; for a fraction, the trial gets that part of the memory.
        data: Expected fingerprint of the data set; empty: any.
        witness: Key that the driver has written; a node that can't read it uses another disk. Empty: not checked.
    """

    study: str
    trial: str
    config: str
    cache: str
    data_root: str | None
    studies: str | None
    device: str
    threads: int
    commit_every: int
    pruner: str | None
    max_seconds: float | None
    epoch: int
    recorded: tuple[str, ...] = ()
    scratch: int = 0
    alone: bool = False
    shared_data: str = ""
    studies_url: str = ""
    gpu: float = 0.0
    data: str = ""
    witness: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The assignment as Ray sends it."""
        return {"assignment": json.dumps(asdict(self)), "alone": self.alone}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Assignment:
        """The inverse of `to_dict`."""
        fields = json.loads(data["assignment"])
        return cls(**{**fields, "recorded": tuple(fields["recorded"])})
