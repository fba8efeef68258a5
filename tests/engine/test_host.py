"""Memory is the machine's, or the minimum that the process's control groups allow."""

import os
from pathlib import Path

import psutil
import pytest

from olfl_ray.errors import SpecError
from olfl_ray.memory import free_memory, host_memory, refuse_too_large

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
def test_host_memory_is_the_minimum_of_the_machine_and_its_limits(
    tmp_path: Path, own: str | None, files: dict[str, str], wanted: int
) -> None:
    machine(tmp_path, own, files)
    assert host_memory(tmp_path) == wanted


@pytest.mark.parametrize(
    ("own", "files", "wanted"),
    [
        ("0::/a", {"a/memory.max": "7000", "a/memory.current": "4000"}, 3000),
        (
            "0::/a",
            {"a/memory.max": "7000", "a/memory.current": "4000", "a/memory.stat": "anon 9\ninactive_file 500"},
            3500,
        ),
        ("0::/a", {"memory.max": "900", "memory.current": "1000", "a/memory.max": "max"}, 0),
        (
            "4:memory:/",
            {
                "memory/memory.limit_in_bytes": "3000",
                "memory/memory.usage_in_bytes": "2000",
                "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 100",
            },
            1100,
        ),
    ],
)
def test_free_memory_respects_the_limits(tmp_path: Path, own: str, files: dict[str, str], wanted: int) -> None:
    machine(tmp_path, own, files)
    assert free_memory(tmp_path) == wanted


def test_free_memory_is_checked_only_on_request(tmp_path: Path) -> None:
    assert abs(free_memory(tmp_path) - psutil.virtual_memory().available) < MACHINE / 10
    refuse_too_large(MACHINE // 10**6, "it", "task.model")
    with pytest.raises(SpecError, match=r"0\.0 GB are free now"):
        refuse_too_large(MACHINE // 10**6, "it", "task.model", free=0)


def machine(root: Path, own: str | None, files: dict[str, str]) -> None:
    texts = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    if own is not None:
        texts["proc/self/cgroup"] = own
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
