"""Peak memory of two steps above that before the first: of tensors, exactly, and of the process.

A process's resident size changes in the steps of its allocator and includes freed memory; what PyTorch's allocator allocates
and frees is counted to the byte, on a GPU by its own statistics. Each measurement has its own process:
`python -m benchmarks.engine.peak NETWORK ROWS CONTESTANT DEVICE tensors|resident` prints bytes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

__all__ = ["Peak", "peak_memory"]

BEGIN = "olfl: first step"


@dataclass(frozen=True, kw_only=True)
class Peak:
    """Bytes above those before the first step.

    Args:
        tensors: Allocated by PyTorch's allocator.
        resident: Resident size of the process (Linux); None: not measured.
    """

    tensors: int
    resident: int | None


def peak_memory(network: str, rows: int, contestant: str, device: str = "cpu", *, resident: bool = True) -> Peak:
    """Measure in fresh processes, one per figure: counting needs memory itself."""
    kinds = ["tensors", "resident"] if resident and not device.startswith("cuda") else ["tensors"]
    found = {}
    for kind in kinds:
        command = [sys.executable, "-m", __name__, network, str(rows), contestant, device, kind]
        found[kind] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
    return Peak(tensors=found["tensors"], resident=found.get("resident"))


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def _resident(start: Callable[[], Callable[[], object]]) -> int:
    step = start()
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    before = _status("VmRSS")
    for _ in range(2):
        step()
    return _status("VmHWM") - before


def _allocated(start: Callable[[], Callable[[], object]]) -> int:
    """From the profiler's trace, which has each allocation and release since before the network was created."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
        step = start()
        with torch.profiler.record_function(BEGIN):
            pass
        for _ in range(2):
            step()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        seen.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    (begun,) = (event["ts"] for event in events if event.get("name") == BEGIN)
    totals = [(event["ts"], event["args"]["Total Allocated"]) for event in events if event.get("name") == "[memory]"]
    before = max(moment for moment in totals if moment[0] < begun)[1]
    return int(max(total for moment, total in totals if moment >= begun) - before)


def _on_device(start: Callable[[], Callable[[], object]], device: str) -> int:
    """A contestant that replays a graph captures it at its first step, so that its pool counts, whoever owns it."""
    step = start()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    for _ in range(2):
        step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _measure(network: str, rows: int, contestant: str, device: str, kind: str) -> int:
    from benchmarks.engine.contestants import CONTESTANTS, Arena
    from olfl_ray.engine import keep_freed_memory

    keep_freed_memory()

    def start(network: str = network, rows: int = rows) -> Callable[[], object]:
        return CONTESTANTS[contestant].start(Arena(network, rows, device=device))

    start("linear", 2)()  # lazy imports, thread pools and libraries' handles are not part of a step
    if device.startswith("cuda"):
        return _on_device(start, device)
    return _allocated(start) if kind == "tensors" else _resident(start)


if __name__ == "__main__":
    _network, _rows, _contestant, _device, _kind = sys.argv[1:]
    print(_measure(_network, int(_rows), _contestant, _device, _kind))
