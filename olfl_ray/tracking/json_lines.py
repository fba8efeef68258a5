"""Records as JSON lines: one file per trial, rewritten completely from the ledger each time, so that nothing is duplicated."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from olfl_ray.ledger import StudyState, TrialState
from olfl_ray.spec import PRINTABLE, Strict
from olfl_ray.storage import Storage, expanded, is_relative, open_storage
from olfl_ray.tracking.tracker import Tracker

__all__ = ["JsonLines"]

STUDY = "study.jsonl"
FOLDER = "tracking"
"""Folder of the files within the study's storage."""


class JsonLines(Tracker):
    """Files: `ARM/ORDINAL.jsonl` for each trial, and `study.jsonl`.

    Each line is an object with a `kind`:

    - `trial`, the first line: study, identity, trial, digest, seeds, settings (as in the spec);
    - `record`, one value of one replicate: step, metric, replicate, value, time_ms;
    - `end`, the last line of a trial that has ended: state, step, value (the searched metric), metrics (for each metric a
      value per replicate), cause, time (seconds since 1970);
    - `study`, the only line of `study.jsonl`: study, identity, digest, spec, storage (where studies are kept), status.

    A number that is not finite is null, as JSON has no other form for it. Files are replaced atomically.
    """

    class Config(Strict):
        """Its settings."""

        folder: Annotated[str, Field(pattern=PRINTABLE)] | None = None
        """A folder, `s3://bucket/folder` or `gs://bucket/folder`, in which each study has its own folder; null: the folder
        `tracking` in the study's storage."""

    @classmethod
    def resolve(cls, config: Config, before: Config | None = None) -> Config:
        if config.folder is None or not is_relative(config.folder):
            return config
        return config.model_copy(update={"folder": str(expanded(config.folder).absolute())})

    @property
    def location(self) -> str:
        return f"{self._root().url}/{FOLDER}" if self.config.folder is None else str(self._root().url)

    def check(self) -> None:
        self._root().keys(f"{FOLDER}/")

    def open(self, identity: str) -> None:
        self._identity = identity
        self._write(STUDY, [self._study("RUNNING")])

    def deliver(self, trial: TrialState) -> None:
        if trial.attempt or trial.ended:
            self._write(f"{trial.id}.jsonl", [*self._trial(trial), *([_end(trial)] if trial.ended else [])])

    def close(self, files: Mapping[str, Path], *, status: str) -> None:
        self._write(STUDY, [self._study(status)])

    def undelivered(self, state: StudyState) -> int:
        self._identity = state.identity
        done = [self._last(STUDY).get("status") in ("FINISHED", "FAILED")]
        done += [self._last(f"{trial.id}.jsonl") == _end(trial) for trial in state.trials.values()]
        return done.count(False)

    def remove(self, identity: str) -> int:
        self._identity = identity
        root = self._root()
        keys = root.keys(self._key(""))
        for key in keys:
            root.delete(key)
        return len(keys)

    def kept_in(self, identity: str) -> set[str]:
        self._identity = identity
        storage = None if self.config.folder is None else self._last(STUDY).get("storage")
        return {storage} if isinstance(storage, str) and storage else set()

    def _root(self) -> Storage:
        if self.config.folder is None:
            return self.study.storage
        return open_storage(f"{self.config.folder.rstrip('/')}/{self.study.spec.name}")

    def _key(self, name: str) -> str:
        return f"{FOLDER if self.config.folder is None else self._identity}/{name}"

    def _write(self, name: str, rows: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
        self._root().write(self._key(name), text.encode())

    def _last(self, name: str) -> dict[str, Any]:
        """The last line of a file; empty if there is none."""
        try:
            lines = self._root().read(self._key(name)).decode().splitlines()
            found: dict[str, Any] = json.loads(lines[-1])
        except (FileNotFoundError, ValueError, IndexError):
            return {}
        return found

    def _study(self, status: str) -> dict[str, Any]:
        spec = self.study.spec
        row = {"kind": "study", "study": spec.name, "identity": self._identity, "digest": spec.digest}
        storage = self.study.storage.url.rpartition("/")[0]
        return {**row, "spec": spec.model_dump(mode="json", by_alias=True), "storage": storage, "status": status}

    def _trial(self, trial: TrialState) -> Iterator[dict[str, Any]]:
        spec = self.study.spec
        yield {
            "kind": "trial",
            "study": spec.name,
            "identity": self._identity,
            "trial": str(trial.id),
            "digest": spec.digest,
            "seeds": list(trial.seeds),
            "settings": self.study.config(trial).model_dump(mode="json", by_alias=True),
        }
        for committed in trial.commits:
            for row in self.study.records(committed.commit):
                yield {"kind": "record", **row, "value": _finite(row["value"])}


def _end(trial: TrialState) -> dict[str, Any]:
    return {
        "kind": "end",
        "state": trial.state,
        "step": trial.step,
        "value": _finite(trial.value),
        "metrics": {name: [_finite(value) for value in values] for name, values in trial.metrics.items()},
        "cause": trial.cause,
        "time": trial.ended_at,
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
