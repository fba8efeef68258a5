"""A worker's session with one trial: restore, run to the next commit, commit. Does not use Ray."""

from __future__ import annotations

import hashlib
import socket
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch

from olfl_ray import data
from olfl_ray.errors import OlflError, SetupError
from olfl_ray.ledger import Commit, StopRequest, restore_point, state_key, trial_folder, write_commit
from olfl_ray.pruners import pruner_of
from olfl_ray.records import Record, records_to_table, surfaces_to_table, to_parquet
from olfl_ray.spec import PrunerSpec, TrialConfig, without_secrets
from olfl_ray.storage import Storage, open_storage
from olfl_ray.trial import Progress, TrialEnvironment, TrialState, run, set_threads, state_from_bytes, state_to_bytes
from olfl_ray.worker.assignment import Assignment
from olfl_ray.worker.messages import Happened, Message
from olfl_ray.worker.source import KeptLosses

__all__ = ["Session", "StoragePhiCache"]


class StoragePhiCache:
    """Initialized learned losses in the study's storage, each named by its SHA-256; a corrupt one is created again."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def get(self, key: str) -> bytes | None:
        """The bytes stored under a key, or None."""
        try:
            kept = self._storage.read(f"cache/phi/{key}.safetensors")
        except FileNotFoundError:
            return None
        check, value = kept[:32], kept[32:]
        return value if hashlib.sha256(value).digest() == check else None

    def put(self, key: str, value: bytes) -> None:
        """Store bytes under a key."""
        self._storage.write(f"cache/phi/{key}.safetensors", hashlib.sha256(value).digest() + value)


class Session:
    """One attempt at a trial; `messages` yields its messages to the driver.

    Args:
        assignment: The trial to run.
    """

    def __init__(self, assignment: Assignment) -> None:
        self.assignment = assignment
        self.storage = open_storage(assignment.study)
        self.config = TrialConfig.model_validate_json(assignment.config)
        given = assignment.pruner
        self._pruner = None if given is None else pruner_of(PrunerSpec.model_validate_json(given))
        self._attempt = 0
        self._stop = StopRequest(self.storage, assignment.epoch)
        set_threads(assignment.threads)

    def messages(self) -> Iterator[Message]:
        """Start an attempt, report the commits that it resumes from, then each new one; `Message.last` marks the last message."""
        try:
            self._require_witness()
            _bound_memory(self.assignment)
            self._attempt = self._claim_attempt()
            yield from self._resume()
        except SetupError as error:
            yield self._message("refused", cause=str(error))
        except torch.OutOfMemoryError as error:
            yield self._message("out_of_memory", cause=str(error).splitlines()[0])
        except OlflError as error:
            yield self._message("failed", cause=str(error))
        except Exception as error:
            first = "".join(traceback.format_exception_only(error)).splitlines()[0]
            yield self._message("failed", cause=f"{first}\n\n{traceback.format_exc()}")

    def _require_witness(self) -> None:
        witness = self.assignment.witness
        if witness and not self.storage.exists(witness):
            raise SetupError(
                f"{self.storage.url}: host {socket.gethostname()} does not see what the driver keeps there; mount that "
                "folder on every node, or keep the study on an object store (storage: s3://bucket/folder)"
            )

    def _claim_attempt(self) -> int:
        attempt = self.assignment.scratch + 1
        while not self.storage.create(f"{trial_folder(self.assignment.trial)}/attempt-{attempt}/begun.json", b"{}"):
            attempt += 1
        return attempt

    def _message(
        self, event: Happened, *, commit: Commit | None = None, chain: tuple[str, ...] = (), cause: str = ""
    ) -> Message:
        trial, attempt, cause = self.assignment.trial, self._attempt, without_secrets(cause)
        return Message(event=event, trial=trial, attempt=attempt, commit=commit, chain=chain, cause=cause)

    def _resume(self) -> Iterator[Message]:
        given = self.assignment
        point = restore_point(self.storage, given.trial, recorded=given.recorded, scratch=given.scratch)
        yield self._message("begun", chain=tuple(commit.key for commit in point.chain))
        for commit in point.chain:  # the driver may have been killed between a commit and its record
            yield self._message("commit", commit=commit)
            if commit.outcome is not None:
                return
        self._states = [state_key(commit) for commit in point.chain[-2:]]
        last = point.chain[-1] if point.chain else None
        state = None if point.state is None else state_from_bytes(point.state, given.device)
        yield from self._run(last, state)

    def _run(self, last: Commit | None, state: TrialState | None) -> Iterator[Message]:
        """Continue from a commit and its state; yields a message at each new commit."""
        position, step = (state.position, state.step) if state is not None else (0, 0)
        parent = None if last is None else last.key
        pending: list[Record] = []
        began = time.monotonic()
        limit = self.assignment.max_seconds
        for progress in run(self.config, self._environment(), state, StoragePhiCache(self.storage)):
            pending.extend(progress.records)
            over = limit is not None and time.monotonic() - began > limit
            stop = self._stop.made()
            if progress.outcome is not None or over or stop or self._due(position, step, progress):
                commit = self._commit(progress, pending, parent)
                parent, position, step, pending = commit.key, commit.position, commit.step, []
                yield self._message("commit", commit=commit)
                if commit.outcome is not None:
                    return
                if over:
                    yield self._message("failed", cause=f"budget.trial_seconds: exceeded {limit} seconds")
                    return
                if stop:
                    yield self._message("stopped")
                    return

    def _environment(self) -> TrialEnvironment:
        given = self.assignment
        cache = Path(given.cache)
        if given.shared_data:
            named = self.config.task.dataset
            cache = data.node_cache(named.name, cache, open_storage(given.shared_data), named.options, given.data)
        return TrialEnvironment(
            cache=cache,
            data_root=Path(given.data_root) if given.data_root else None,
            losses=KeptLosses(studies=Path(given.studies) if given.studies else None, studies_url=given.studies_url),
            device=given.device,
            data=given.data,
        )

    def _due(self, position: int, step: int, progress: Progress) -> bool:
        """Whether a commit is due: an interval has passed, the pruner decides here, or phi has been initialized."""
        every, now = self.assignment.commit_every, progress.state
        if now.position // every > position // every or (now.step == 0 and progress.files):
            return True
        return self._pruner is not None and self._pruner.decides(step, now.step)

    def _commit(self, progress: Progress, pending: list[Record], parent: str | None) -> Commit:
        files = {"records.parquet": to_parquet(records_to_table(pending))}
        surfaces = [surface for record in pending for surface in record.surfaces]
        if surfaces:
            files["surfaces.parquet"] = to_parquet(surfaces_to_table(surfaces))
        files.update(progress.files)
        files["state.safetensors"] = state_to_bytes(progress.state)
        commit = Commit(
            trial=self.assignment.trial,
            attempt=self._attempt,
            position=progress.state.position,
            step=progress.state.step,
            outcome=progress.outcome,
            report={name: list(values) for name, values in progress.report.items()},
            parent=parent,
        )
        written = write_commit(self.storage, commit, files)
        self._states.append(state_key(written))
        while len(self._states) > 2:  # the last two are enough to resume, even if the last is corrupt
            self.storage.delete(self._states.pop(0))
        return written


def _bound_memory(assignment: Assignment) -> None:
    """Limit a trial on a shared GPU to its part of the memory: beyond it, the trial is out of memory."""
    if assignment.device.startswith("cuda") and torch.cuda.is_available():
        share = min(assignment.gpu, 1.0) if assignment.gpu and not assignment.alone else 1.0
        torch.cuda.set_per_process_memory_fraction(share)
