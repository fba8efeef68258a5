"""A worker's messages to its driver, as plain data: its start, each commit, or why it can't continue."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from olfl_ray.ledger import Commit

__all__ = ["Happened", "Message"]

Happened = Literal["begun", "commit", "stopped", "failed", "out_of_memory", "refused"]


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message from a worker.

    Args:
        event: begun (with the commits that it resumes from), commit, stopped (on request, after a commit), failed,
            out_of_memory (on its device), or refused (by the storage: a full disk, for example).
        trial: `arm/name`.
        attempt: The worker's attempt.
        commit: The commit, if there is one.
        chain: Keys of the commits that it resumes from.
        cause: Why it can't continue.
    """

    event: Happened
    trial: str
    attempt: int
    commit: Commit | None = None
    chain: tuple[str, ...] = ()
    cause: str = ""

    @property
    def last(self) -> bool:
        """Whether it is the worker's last message."""
        if self.commit is not None:
            return self.commit.outcome is not None
        return self.event != "begun"

    def to_result(self) -> dict[str, Any]:
        """The message as Tune sends it."""
        position = 0 if self.commit is None else self.commit.position
        return {"message": json.dumps(asdict(self)), "position": position, "done": self.last}

    @classmethod
    def from_result(cls, result: dict[str, Any]) -> Message:
        """The inverse of `to_result`."""
        message = cls(**json.loads(result["message"]))
        commit: Any = message.commit
        return replace(message, chain=tuple(message.chain), commit=None if commit is None else Commit(**commit))
