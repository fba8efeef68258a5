"""How much memory this process may use, and how much is free: the machine's, or its control group's (a container's)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from olfl_ray.errors import SpecError

__all__ = ["free_memory", "host_memory", "refuse_too_large"]


def host_memory(root: Path = Path("/")) -> int:
    """Memory that this process may use, in bytes.

    Args:
        root: Where `proc` and `sys` are.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *(limit for limit, _ in _groups(root))])


def free_memory(root: Path = Path("/")) -> int:
    """Memory that is free now, in bytes, including file caches that the system would release.

    Args:
        root: Where `proc` and `sys` are.
    """
    import psutil  # a machine that only runs the engine may lack it

    return min([int(psutil.virtual_memory().available), *(max(0, limit - used) for limit, used in _groups(root))])


def _groups(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and usage of the process's own control groups and of all their parents, of either version (cgroups(7))."""
    groups = root / "sys/fs/cgroup"
    for number, kinds, path in _own(root / "proc/self/cgroup"):
        if number == "0":
            tops, limit, use, cache = [groups, groups / "unified"], "memory.max", "memory.current", "inactive_file"
        elif "memory" in kinds.split(","):
            tops, limit, use = [groups / "memory"], "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache = "total_inactive_file"
        else:
            continue
        parts = [part for part in path.split("/") if part]
        for top in tops:
            for depth in range(len(parts) + 1):
                folder = top.joinpath(*parts[:depth])
                text = _text(folder / limit)
                if text.isdigit():  # "max": no limit
                    used, cached = (
                        _text(folder / use),
                        re.search(rf"^{cache} (\d+)", _text(folder / "memory.stat"), re.M),
                    )
                    yield int(text), int(used or 0) - (int(cached[1]) if cached else 0)


def _text(file: Path) -> str:
    return file.read_text().strip() if file.is_file() else ""


def _own(file: Path) -> Iterator[list[str]]:
    for line in _text(file).splitlines():
        yield line.split(":", 2)


def refuse_too_large(needed: int, what: str, field: str, free: int | None = None) -> None:
    """Refuse what does not fit in memory before it is allocated: the system would kill the process without a message.

    Args:
        needed: Bytes.
        what: What needs them, for the message.
        field: Field of the spec that determines the size.
        free: Bytes that are free now (`free_memory`), if these are the limit; None: all that the process may use.

    Raises:
        SpecError: More is needed than the machine, or this process's control group, has.
    """
    limit = host_memory()
    if needed > limit:
        raise SpecError(
            field,
            f"{what} needs {needed / 1e9:.1f} GB, but a process on this machine may use {limit / 1e9:.1f} GB; make it smaller",
        )
    if free is not None and needed > free:
        raise SpecError(
            field,
            f"{what} needs {needed / 1e9:.1f} GB, but of the {limit / 1e9:.1f} GB that a process on this machine may use, only "
            f"{free / 1e9:.1f} GB are free now; stop other programs, or make it smaller",
        )
