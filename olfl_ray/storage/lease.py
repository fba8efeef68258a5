"""A lease: one holder at a time, one epoch per holder, and a heartbeat.

Epoch n is the object `lease/n.json`. A driver takes the lease by `create` of the next number, so that one of many
contenders wins, and epochs never repeat. The holder rewrites its own object at every heartbeat, and once more when it
releases the lease; it has lost the lease when a later epoch exists. A lease keeps two well-behaved drivers apart; one that
resumes too late is stopped by the ledger.

Assumptions about clocks: the clocks of two machines are never compared, so they may differ by any amount. A contender on
another machine polls the holder's object until it changes or the holder's ttl has passed by its own monotonic clock; the
two clocks must only run at about the same speed, and a heartbeat (every quarter of the ttl) must get through within the
ttl. On the holder's own machine the age of the last heartbeat is computed from the wall clock that wrote it: if that clock
is set forward by more than the ttl, a live holder can lose the lease, and is fenced.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote

from olfl_ray.errors import Fenced, SetupError, StudyError
from olfl_ray.storage.protocol import Storage

__all__ = ["Lease"]

_BEATS_PER_TTL = 4
_LONGEST = 3600.0  # seconds; a claim with a longer ttl is corrupt, and is not waited for


@dataclass(frozen=True, kw_only=True)
class _Claim:
    """A holder's object.

    Args:
        holder: Name for people.
        host: Host name, for people.
        pid: Process id, meaningful only in `place`.
        place: Boot and process namespace of the holder; process ids are comparable only if this is equal.
        born: When the process started, in the kernel's format; distinguishes it from a later process with the same id.
        since: When the lease was taken, in seconds since 1970.
        beat: Time of the last heartbeat, in seconds since 1970 by the holder's clock.
        ttl: Seconds without a heartbeat after which the lease may be taken.
        released: Whether the holder released it.
    """

    holder: str
    host: str
    pid: int
    place: str
    born: str
    since: float
    beat: float
    ttl: float
    released: bool = False

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> _Claim | None:
        """The claim, or None where the bytes are corrupt."""
        try:
            claim = cls(**json.loads(data))
            since, beat, ttl = float(claim.since), float(claim.beat), float(claim.ttl)
            datetime.fromtimestamp(since, UTC)
            sane = 0 < int(claim.pid) < 2**31 and 0 < ttl <= _LONGEST
            return replace(claim, pid=int(claim.pid), since=since, beat=beat, ttl=ttl) if sane else None
        except (ValueError, TypeError, OverflowError, OSError):
            return None


class Lease:
    """The right to drive a study, kept alive by a background thread; created only by `Lease.acquire`.

    Attributes:
        epoch: Number of this lease; greater than that of every earlier one.
        ttl: Seconds without a heartbeat after which another driver may take the lease.
    """

    epoch: int
    ttl: float

    def __init__(self, storage: Storage, epoch: int, claim: _Claim) -> None:
        self.epoch, self.ttl = epoch, claim.ttl
        self._storage, self._claim = storage, claim
        self._lost = False
        self._turn = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease-{epoch}", daemon=True)
        self._thread.start()

    @classmethod
    def acquire(cls, storage: Storage, holder: str, ttl: float = 10.0, *, above: int = 0) -> Lease:
        """Take the lease if nobody holds it.

        A holder on this machine loses it as soon as its process has ended, or after its `ttl` without a heartbeat.
        The clocks of two machines are not compared: the object of a holder on another machine is watched, and the holder loses
        the lease after its `ttl` without a heartbeat, so this call may take that long.

        Args:
            storage: The study's storage.
            holder: A name for people, shown to anyone who is refused.
            ttl: Seconds without a heartbeat after which another driver may take the lease; at most 3600.
            above: The new epoch is greater than this. Pass the ledger's epoch: it stays valid even if somebody deleted
                the lease's objects by hand.

        Raises:
            StudyError: Somebody else holds it; the message names the host, the process and since when.
        """
        if not 0 < ttl <= _LONGEST:
            raise ValueError(f"ttl: it must be positive and at most {_LONGEST:.0f} seconds, but is {ttl}")
        latest = _latest(storage)
        if latest and not _is_free(storage, latest, ttl):
            raise _refusal(storage, latest)
        epoch = max(latest, above) + 1
        now, pid = time.time(), os.getpid()
        claim = _Claim(
            holder=holder,
            host=socket.gethostname(),
            pid=pid,
            place=_place(),
            born=_born(pid),
            since=now,
            beat=now,
            ttl=ttl,
        )
        if not storage.create(Lease.key(epoch), claim.to_bytes()):
            raise _refusal(storage, epoch)
        return cls(storage, epoch, claim)

    @classmethod
    def is_held(cls, storage: Storage, ttl: float = 10.0) -> bool:
        """Whether somebody holds the lease; a holder on another machine is watched for its `ttl`."""
        latest = _latest(storage)
        return latest > 0 and not _is_free(storage, latest, ttl)

    @staticmethod
    def key(epoch: int) -> str:
        """Key of the object that the holder of an epoch keeps in the storage."""
        return f"lease/{epoch:09d}.json"

    @property
    def lost(self) -> bool:
        """Whether another driver has taken the lease; reads the storage, so it is right even after a long pause."""
        if not self._lost:
            self._lost = _latest(self._storage) > self.epoch
        return self._lost

    def renew(self) -> None:
        """Write a heartbeat now.

        Raises:
            Fenced: Another driver has taken the lease.
        """
        with self._turn:
            if self.lost:
                raise Fenced(f"{self._storage.url}: the lease of epoch {self.epoch} was taken by another driver")
            self._claim = replace(self._claim, beat=time.time())
            self._storage.write(Lease.key(self.epoch), self._claim.to_bytes())

    def release(self) -> None:
        """Release the lease, so that another driver can take it at once; a second call does nothing."""
        self._done.set()
        self._thread.join()
        with self._turn:
            if not (self._claim.released or self.lost):
                self._claim = replace(self._claim, released=True)
                self._storage.write(Lease.key(self.epoch), self._claim.to_bytes())

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _beat(self) -> None:
        while not self._done.wait(self.ttl / _BEATS_PER_TTL):
            try:
                self.renew()
            except SetupError:
                continue  # A full disk may be freed again; until then the lease ages, as it should.
            except Fenced:
                return


def _latest(storage: Storage) -> int:
    """The greatest epoch so far; 0 if there is none."""
    names = (Path(key).stem for key in storage.keys("lease/"))
    return max((int(name) for name in names if name.isdecimal()), default=0)


def _read(storage: Storage, epoch: int) -> bytes:
    try:
        return storage.read(Lease.key(epoch))
    except FileNotFoundError:
        return b""


def _is_free(storage: Storage, epoch: int, ttl: float) -> bool:
    """Whether the holder of an epoch released it, died, or sent no heartbeat for its own ttl (`ttl` if unreadable)."""
    data = _read(storage, epoch)
    claim = _Claim.from_bytes(data)
    if claim is not None:
        if claim.released:
            return True
        if claim.place == _place():
            return not _lives(claim) or time.time() - claim.beat >= claim.ttl
        ttl = claim.ttl
    end = time.monotonic() + ttl
    while time.monotonic() < end:
        time.sleep(ttl / 20)
        seen = _read(storage, epoch)
        if seen != data:
            claim = _Claim.from_bytes(seen)
            return claim is not None and claim.released
    return True


def _refusal(storage: Storage, epoch: int) -> StudyError:
    claim = _Claim.from_bytes(_read(storage, epoch))
    who = "another driver"
    if claim is not None:
        since = datetime.fromtimestamp(claim.since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        who = f"{claim.holder} on host {claim.host} (process {claim.pid}) since {since}"
    name = unquote(storage.url).rpartition("/")[2]
    return StudyError(
        f"{storage.url}: held by {who}; a study has one driver at a time: watch that one (olfl sweep status {name}), or stop "
        f"it (olfl sweep stop {name})"
    )


def _place() -> str:
    """Identifies this boot of this machine and this process namespace, if the system provides them."""
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    except OSError:
        parts.append("unknown")
    return " ".join(parts)


def _born(pid: int) -> str:
    """When a process started, in clock ticks since boot; `dead` for a zombie, empty if unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "dead" if fields[0] in ("Z", "X") else fields[19]


def _lives(claim: _Claim) -> bool:
    try:
        os.kill(claim.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return _born(claim.pid) == claim.born
