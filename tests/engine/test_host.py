"""Memory is the machine's, or the least that a control group of the process allows."""

import os
from pathlib import Path

import pytest

from olfl_ray.memory import host_memory

MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    ("own", "files", "wanted"),
    [
        (None, {}, MACHINE),
        ("0::/", {"memory.max": "5000"}, 5000),
        ("0::/", {"memory.max": "max"}, MACHINE),
        ("0::/a/b", {"a/b/memory.max": "max", "a/memory.max": "7000", "c/memory.max": "1"}, 7000),
        ("1:name=systemd:/\n0::/a", {"unified/a/memory.max": "6000"}, 6000),
        ("5:cpu:/a\n4:memory:/a", {"memory/a/memory.limit_in_bytes": "4000", "cpu/a/memory.limit_in_bytes": "1"}, 4000),
        ("4:memory:/a", {"memory/memory.limit_in_bytes": "3000"}, 3000),  # in a container, a is its root
        ("4:memory:/", {"memory/memory.limit_in_bytes": "9223372036854771712"}, MACHINE),
    ],
)
def test_host_memory_is_the_least_of_the_machine_and_its_limits(
    tmp_path: Path, own: str | None, files: dict[str, str], wanted: int
) -> None:
    texts = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    if own is not None:
        texts["proc/self/cgroup"] = own
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    assert host_memory(tmp_path) == wanted
