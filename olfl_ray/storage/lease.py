"""A lease: one holder at a time, one epoch per holder, and a heartbeat.

Epoch n is the object `lease/n.json`. Taking the lease is `create` of the next number, so that of many takers
one wins, and epochs never repeat. The holder writes its own object again at every beat, and once more when it
lets go; it has lost the lease when a later epoch is there. A lease keeps two careful drivers apart; one that
wakes up late is stopped by the ledger.

What it takes for granted of clocks: the clocks of two machines are never compared, so they may differ by any
amount. A taker elsewhere looks at the holder's object until it changed or the holder's ttl has passed by the taker's
own monotonic clock; the two clocks must only run at about the same speed, and a beat (a quarter of the ttl) must
get through within the ttl. On the holder's own machine the age of the last beat is read off the wall clock that
wrote it: where that clock is set forward by more than the ttl, a holder that lives can lose the lease, and is fenced.
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
_LONGEST = 3600.0  # seconds; a claim with a longer ttl is corrupt, and nobody waits for it


@dataclass(frozen=True, kw_only=True)
class _Claim:
    """What a holder says of itself.

    Args:
        holder: Name for people.
        host: Host name, for people.
        pid: Process id, meaningful in `place` only.
        place: Boot and process namespace of the holder; process ids can be compared where this is the same.
        born: When the process started, in the kernel's format; distinguishes it from a later process with the same id.
        since: When the lease was taken, in seconds since 1970.
        beat: When the heart beat last, in seconds since 1970 by the holder's clock.
        ttl: Seconds without a beat after which the lease may be taken.
        released: Whether the holder let go.
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
    """The right to drive a study, kept alive by a background thread; made by `Lease.acquire` only.

    Attributes:
        epoch: Number of this holding; greater than that of every holding before.
        ttl: Seconds without a beat after which another may take the lease.
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
        """Take the lease, if nobody holds it.

        A holder on this machine loses it as soon as its process has ended, or after its `ttl` without a beat.
        The clocks of two machines are not compared: a holder elsewhere is watched, and loses the lease after
        its `ttl` without a beat, so this call may take that long.

        Args:
            storage: The study's storage.
            holder: A name for people, shown to whoever is refused.
            ttl: Seconds without a beat after which this holding may be taken by another; at most 3600.
            above: The new epoch is greater than this. Give the ledger's epoch: it holds even where somebody
                deleted the lease's objects by hand.

        Raises:
            StudyError: Somebody else holds it; names the host, the process and since when.
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
        """Whether somebody holds the lease; watches a holder on another machine for its `ttl`."""
        latest = _latest(storage)
        return latest > 0 and not _is_free(storage, latest, ttl)

    @staticmethod
    def key(epoch: int) -> str:
        """Key of the object that an epoch's holder keeps in the storage."""
        return f"lease/{epoch:09d}.json"

    @property
    def lost(self) -> bool:
        """Whether another has taken the lease; asks the storage, so it is right even after a long pause."""
        if not self._lost:
            self._lost = _latest(self._storage) > self.epoch
        return self._lost

    def renew(self) -> None:
        """Beat now.

        Raises:
            Fenced: Another has taken the lease.
        """
        with self._turn:
            if self.lost:
                raise Fenced(f"{self._storage.url}: the lease of epoch {self.epoch} was taken by another driver")
            self._claim = replace(self._claim, beat=time.time())
            self._storage.write(Lease.key(self.epoch), self._claim.to_bytes())

    def release(self) -> None:
        """Let go, so that another can take the lease at once; the second time nothing happens."""
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
                continue  # A full disk may get free space again; until then this lease ages, as it should.
            except Fenced:
                return


def _latest(storage: Storage) -> int:
    """Greatest epoch ever taken; 0 where there is none."""
    names = (Path(key).stem for key in storage.keys("lease/"))
    return max((int(name) for name in names if name.isdecimal()), default=0)


def _read(storage: Storage, epoch: int) -> bytes:
    try:
        return storage.read(Lease.key(epoch))
    except FileNotFoundError:
        return b""


def _is_free(storage: Storage, epoch: int, ttl: float) -> bool:
    """Whether an epoch's holder let go, died, or shows no beat for its own ttl (`ttl` where unreadable)."""
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
    """Names this boot of this machine and this process namespace, if the system provides it."""
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    except OSError:
        parts.append("unknown")
    return " ".join(parts)


def _born(pid: int) -> str:
    """When a process started, in clock ticks since boot; `dead` for a zombie, empty where nobody can tell."""
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
