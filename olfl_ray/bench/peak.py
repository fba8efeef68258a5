"""Peak memory of two steps above the resident size before the first, in a process of its own.

`python -m olfl_ray.bench.peak NETWORK ROWS CONTESTANT` prints bytes.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

__all__ = ["peak_memory"]


def peak_memory(network: str, rows: int, contestant: str) -> int:
    """Bytes, measured in a fresh process (Linux)."""
    command = [sys.executable, "-m", __name__, network, str(rows), contestant]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def _measure(network: str, rows: int, contestant: str) -> int:
    from olfl_ray.bench.contestants import CONTESTANTS, Arena

    CONTESTANTS[contestant].start(Arena("linear", 2))()  # lazy imports and thread pools are no part of a step
    step = CONTESTANTS[contestant].start(Arena(network, rows))
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = _status("VmRSS")
    for _ in range(2):
        step()
    return _status("VmHWM") - before


if __name__ == "__main__":
    print(_measure(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
