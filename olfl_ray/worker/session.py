"""A worker's session with one trial: restore, run to the next commit, commit. No Ray in here."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch

from olfl_ray.errors import OlflError
from olfl_ray.ledger import Commit, latest_commit, trial_folder, write_commit
from olfl_ray.records import Record, records_to_table, surfaces_to_table, to_parquet
from olfl_ray.spec import TrialConfig
from olfl_ray.storage import Storage, open_storage
from olfl_ray.trial import Place, Progress, TrialState, run, state_from_bytes, state_to_bytes
from olfl_ray.worker.assignment import Assignment

__all__ = ["Session", "StoragePhiCache"]


class StoragePhiCache:
    """Initialised learned losses in the study's storage; the first to come stays."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def get(self, key: str) -> bytes | None:
        """The bytes kept under a key, or None."""
        try:
            return self._storage.read(f"cache/phi/{key}.safetensors")
        except FileNotFoundError:
            return None

    def put(self, key: str, value: bytes) -> None:
        """Keep bytes under a key."""
        self._storage.create(f"cache/phi/{key}.safetensors", value)


class Session:
    """One attempt at a trial; `commits` gives what the driver is told.

    Args:
        assignment: What to run.
    """

    def __init__(self, assignment: Assignment) -> None:
        self.assignment = assignment
        self.storage = open_storage(assignment.study)
        self.config = TrialConfig.model_validate_json(assignment.config)
        self.attempt = self._claim_attempt()
        torch.set_num_threads(assignment.threads)

    def _claim_attempt(self) -> int:
        attempt = 1
        while not self.storage.create(f"{trial_folder(self.assignment.trial)}/attempt-{attempt}/begun.json", b"{}"):
            attempt += 1
        return attempt

    def commits(self) -> Iterator[Commit]:
        """Go on from the trial's last whole commit and yield each new one; the last has an outcome."""
        parent: str | None = None
        state: TrialState | None = None
        found = latest_commit(self.storage, self.assignment.trial)
        if found is not None:
            before, files = found
            if before.outcome in ("finished", "diverged"):
                yield before
                return
            parent, state = before.key, state_from_bytes(files["state.safetensors"], self.assignment.device)
        position, step = (state.position, state.step) if state is not None else (0, 0)
        pending: list[Record] = []
        began = time.monotonic()
        limit = self.assignment.max_seconds
        try:
            for progress in run(self.config, self._place(), state, StoragePhiCache(self.storage)):
                pending.extend(progress.records)
                over = limit is not None and time.monotonic() - began > limit
                if progress.outcome is not None or over or self._due(position, step, progress.state):
                    outcome = progress.outcome or ("failed" if over else None)
                    cause = f"budget.trial_seconds: over {limit} seconds" if outcome == "failed" else None
                    commit = self._commit(progress, pending, parent, outcome, cause)
                    parent, position, step, pending = commit.key, commit.position, commit.step, []
                    yield commit
                    if outcome is not None:
                        return
        except torch.OutOfMemoryError as error:
            yield self._failure(position, step, parent, f"out of device memory: {error}", pending)
        except OlflError as error:
            yield self._failure(position, step, parent, str(error), pending)
        except Exception:
            yield self._failure(position, step, parent, traceback.format_exc(), pending)

    def _place(self) -> Place:
        given = self.assignment
        return Place(
            cache=Path(given.cache),
            data_root=Path(given.data_root) if given.data_root else None,
            studies=Path(given.studies) if given.studies else None,
            device=given.device,
        )

    def _due(self, position: int, step: int, now: TrialState) -> bool:
        """Whether a commit is due: an interval has passed, or the pruner decides here."""
        every = self.assignment.commit_every
        if now.position // every > position // every:
            return True
        return any(step < decide <= now.step for decide in self.assignment.decide_at)

    def _commit(
        self, progress: Progress, pending: list[Record], parent: str | None, outcome: str | None, cause: str | None
    ) -> Commit:
        files = {"records.parquet": to_parquet(records_to_table(pending))}
        surfaces = [surface for record in pending for surface in record.surfaces]
        if surfaces:
            files["surfaces.parquet"] = to_parquet(surfaces_to_table(surfaces))
        files.update(progress.learned_loss)
        files["state.safetensors"] = state_to_bytes(progress.state)
        commit = Commit(
            trial=self.assignment.trial,
            attempt=self.attempt,
            position=progress.state.position,
            step=progress.state.step,
            outcome=outcome,
            report={name: list(values) for name, values in progress.report.items()},
            parent=parent,
            cause=cause,
        )
        return write_commit(self.storage, commit, files)

    def _failure(self, position: int, step: int, parent: str | None, cause: str, pending: list[Record]) -> Commit:
        """A failed trial keeps its last commit's state; its cause is a commit of its own, without a state."""
        commit = Commit(
            trial=self.assignment.trial,
            attempt=self.attempt,
            position=position + 1,
            step=step,
            outcome="failed",
            report={},
            parent=parent,
            cause=cause,
        )
        return write_commit(self.storage, commit, {"records.parquet": to_parquet(records_to_table(pending))})
