"""The event log: event n is the object `ledger/n.json`, created by create-if-absent and never changed.

No number is ever freed: a driver that resumes too late is fenced because its next number already exists. So compaction
deletes nothing. It writes the lines of all events so far into one object, which a later start reads instead of thousands.
If that object is corrupt, the events themselves are read; if an event is corrupt or missing, its copy is used if that is
intact.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from olfl_ray.errors import Fenced, LedgerError, SetupError, StudyError
from olfl_ray.ledger.codec import Corrupt, Unknown, decode, encode, seal, unseal
from olfl_ray.ledger.events import Event, StudyCreated
from olfl_ray.ledger.rules import advance
from olfl_ray.ledger.state import StudyState, TrialState
from olfl_ray.storage import Storage

__all__ = ["Ledger"]

_FOLDER = "ledger/"
_COMPACTED = f"{_FOLDER}compacted.jsonl"
_COMPACT_EVERY = 500
_AHEAD = 64  # number of events that are read ahead, before it is known whether they exist
_READERS = 16  # concurrent reads: an object store takes some milliseconds for each
_log = logging.getLogger(__name__)


class Ledger:
    """A study's events and the state that results from them; created only by `Ledger.create` or `Ledger.load`.

    One thread of one driver appends. Any number of readers may load at any time.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._writer = secrets.token_hex(4)
        self._lines: list[bytes] = []
        self._events: list[Event] = []
        self._compacted_at = 0
        self._head: StudyState | None = None  # its trials are shared with later states and updated in place
        self._trials: dict[str, TrialState] = {}
        self._state: StudyState | None = None

    @classmethod
    def create(
        cls, storage: Storage, spec: Mapping[str, Any], digest: str, name: str, versions: Mapping[str, str]
    ) -> Ledger:
        """Create a study.

        Args:
            storage: The study's storage.
            spec: The resolved spec, as plain values.
            digest: Digest of what in it affects results.
            digest: Digest of the settings that affect results.
            versions: Version of each library that results depend on.

        Raises:
            StudyError: There is already a study.
        """
        ledger = cls(storage)
        created = StudyCreated(
            spec=dict(spec), digest=digest, name=name, versions=dict(versions), identity=secrets.token_hex(8)
        )
        try:
            ledger.append(created)
        except Fenced as error:
            raise StudyError(
                f"{storage.url}: there is already a study; resume it, or give the new one another name"
            ) from error
        return ledger

    @classmethod
    def load(cls, storage: Storage, upto: int | None = None) -> Ledger:
        """Replay a study's events.

        Args:
            storage: The study's storage.
            upto: Number of events to replay; None: all.

        Raises:
            StudyError: There is no study; or an event is missing, corrupt, illegal, or from a later version.
        """
        ledger = cls(storage)
        numbers = _numbers(storage)
        copies, intact = _compacted(storage)
        last = max([*copies, *numbers], default=0)
        if last == 0:
            raise StudyError(f"{storage.url}: there is no study here; check the name, or run its spec first")
        last = last if upto is None else min(last, upto)
        lines = dict(copies) if intact else {}
        lines |= _read_all(storage, [number for number in range(1, last + 1) if number not in lines])
        for number in range(1, last + 1):
            try:
                ledger._take(*_intact(storage, number, last, lines.get(number), copies.get(number)))
            except Unknown as error:
                raise StudyError(
                    f"{storage.url}/{_key(number)}: event {number} was written by another version of olfl_ray"
                    f" ({error}); use that version"
                ) from error
            except LedgerError as error:
                raise StudyError(
                    f"{storage.url}/{_key(number)}: event {number} breaks the ledger's rules ({error}), which no driver does: "
                    "restore a copy of that file"
                ) from error
        return ledger

    @property
    def events(self) -> tuple[Event, ...]:
        """All events so far, in order."""
        return tuple(self._events)

    @property
    def state(self) -> StudyState:
        """The state of the study."""
        if self._state is None:
            self._state = replace(self.live, trials=self._trials.copy())
        return self._state

    @property
    def live(self) -> StudyState:
        """The same as a live view, whose trials follow later events; its cost does not grow with their number."""
        assert self._head is not None, "a ledger has at least its study's creation"
        return self._head

    def news(self) -> Iterator[Event]:
        """Apply and yield the events that another driver has recorded since the last call or load."""
        ahead = 1
        while True:
            first = len(self._events) + 1
            lines = _read_all(self._storage, list(range(first, first + ahead)))
            for number in range(first, first + ahead):
                if number not in lines:
                    return
                self._take(lines[number], decode(lines[number], number))
                yield self._events[-1]
            ahead = min(2 * ahead, _AHEAD)

    def is_current(self) -> bool:
        """Whether the storage still holds the study that was loaded: it may have been deleted, and another begun there."""
        try:
            if self._storage.read(_key(1)) == self._lines[0]:
                return True
        except FileNotFoundError:
            pass
        return _compacted(self._storage)[0].get(1) == self._lines[0]

    def catch_up(self) -> None:
        """Apply the events that another driver has recorded since."""
        for _ in self.news():
            pass

    def append(self, event: Event) -> None:
        """Record an event durably.

        After a `SetupError` (for example a full disk) only a new load shows whether it was written; the same event may be
        appended again, unchanged.

        Raises:
            LedgerError: The rules do not allow it now, or it can't be expressed in JSON; nothing was written.
            Fenced: Another driver wrote to this study since it was loaded; this ledger can no longer write.
            SetupError: The storage refused the write.
        """
        number = len(self._events) + 1
        try:
            line = encode(number, self._writer, event)
            as_replayed = decode(line, number)
        except (TypeError, ValueError) as error:
            raise LedgerError(f"{error}, in {event!r}") from error
        advance(self._head, as_replayed)
        if not self._storage.create(_key(number), line) and self._storage.read(_key(number)) != line:
            raise Fenced(f"{self._storage.url}: another driver wrote event {number}; this one must stop")
        self._take(line, as_replayed)
        if number - self._compacted_at >= max(_COMPACT_EVERY, number // 10):
            self._compacted_at = number
            try:
                self.compact()
            except SetupError as error:
                _log.warning("%s; the events themselves are intact", error)

    def compact(self) -> None:
        """Make the next start fast. Deletes nothing, and may be interrupted or repeated at any time."""
        body = b"".join(self._lines)
        head = json.dumps({"events": len(self._lines)}).encode() + b"\n"
        self._storage.write(_COMPACTED, seal(head + body))

    def _take(self, line: bytes, event: Event) -> None:
        head, trial = advance(self._head, event)
        if trial is not None:
            self._trials[str(trial.id)] = trial
        self._head = replace(head, trials=self._trials)
        self._state = None
        self._lines.append(line)
        self._events.append(event)


def _key(number: int) -> str:
    return f"{_FOLDER}{number:09d}.json"


def _numbers(storage: Storage) -> list[int]:
    """Numbers of the stored events."""
    names = (PurePosixPath(key) for key in storage.keys(_FOLDER))
    return [int(name.stem) for name in names if name.suffix == ".json" and name.stem.isdecimal()]


def _compacted(storage: Storage) -> tuple[dict[int, bytes], bool]:
    """Number -> line of the intact events in the compacted object, and whether that object is intact."""
    try:
        sealed = storage.read(_COMPACTED)
    except FileNotFoundError:
        return {}, False
    try:
        head, *lines = unseal(sealed).splitlines(keepends=True)
        if json.loads(head)["events"] != len(lines):
            raise Corrupt("it does not have the number of events that it declares")
    except (ValueError, LookupError, TypeError) as error:
        _log.warning("%s/%s: %s; the events themselves are read instead", storage.url, _COMPACTED, error)
        return _salvaged(sealed), False
    return dict(enumerate(lines, start=1)), True


def _salvaged(corrupt: bytes) -> dict[int, bytes]:
    """Number -> line for each line that is intact by its own checksum."""
    found = {}
    for line in corrupt.splitlines(keepends=True):
        try:
            found[int(json.loads(unseal(line))["number"])] = line
        except (ValueError, LookupError, TypeError):
            continue
    return found


def _read_all(storage: Storage, numbers: list[int]) -> dict[int, bytes]:
    """Number -> bytes for those of these events that exist."""

    def read(number: int) -> bytes | None:
        try:
            return storage.read(_key(number))
        except FileNotFoundError:
            return None

    with ThreadPoolExecutor(_READERS) as pool:
        found = dict(zip(numbers, pool.map(read, numbers), strict=True))
    return {number: line for number, line in found.items() if line is not None}


def _intact(storage: Storage, number: int, last: int, line: bytes | None, copy: bytes | None) -> tuple[bytes, Event]:
    """An event with its line, from its own object or else from the copy."""
    problem = "is missing"
    if line is not None:
        try:
            return line, decode(line, number)
        except Corrupt as error:
            problem = f"is corrupt ({error})"
    if copy in (None, line):
        raise _unreadable(storage, number, last, problem)
    _log.warning("%s/%s: event %d %s; its copy in %s is used", storage.url, _key(number), number, problem, _COMPACTED)
    return copy, decode(copy, number)


def _unreadable(storage: Storage, number: int, last: int, problem: str) -> StudyError:
    move = "restore a copy of that file"
    if 1 < number == last:
        move += f", or move it away to resume from event {number - 1}; later work is recomputed"
    return StudyError(f"{storage.url}/{_key(number)}: event {number} of {last} {problem}; {move}")
