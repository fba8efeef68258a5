"""How much memory this process may take: the machine's, or less where a control group (a container) has a limit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from olfl_ray.errors import SpecError

__all__ = ["host_memory", "refuse_too_large"]


def host_memory(root: Path = Path("/")) -> int:
    """Bytes.

    Args:
        root: Where `proc` and `sys` are.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_limits(root)])


def _limits(root: Path) -> Iterator[int]:
    """Those of the process's own control groups and of all above them, of either version (cgroups(7))."""
    groups = root / "sys/fs/cgroup"
    for number, kinds, path in _own(root / "proc/self/cgroup"):
        if number == "0":
            tops, name = [groups, groups / "unified"], "memory.max"
        elif "memory" in kinds.split(","):
            tops, name = [groups / "memory"], "memory.limit_in_bytes"
        else:
            continue
        parts = [part for part in path.split("/") if part]
        for top in tops:
            for depth in range(len(parts) + 1):
                file = top.joinpath(*parts[:depth], name)
                said = file.read_text().strip() if file.is_file() else "max"
                if said.isdigit():  # "max": no limit
                    yield int(said)


def _own(file: Path) -> Iterator[list[str]]:
    if file.is_file():
        for line in file.read_text().splitlines():
            yield line.split(":", 2)


def refuse_too_large(needed: int, what: str, field: str) -> None:
    """Refuse what this process can't hold, before it is made: the system would end the process without a message.

    Args:
        needed: Bytes.
        what: What takes them, for the message.
        field: Field of the spec that decides it.

    Raises:
        SpecError: It is more than the machine, or this process's control group, has.
    """
    if needed > (limit := host_memory()):
        raise SpecError(
            field,
            f"{what} takes {needed / 1e9:.1f} GB, but this machine lets a process have {limit / 1e9:.1f} GB; make it smaller",
        )
