"""This machine: its processor, memory, GPUs, system and software versions."""

from __future__ import annotations

import os
import platform
import subprocess
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["machine", "processor", "version_of"]


def version_of(name: str) -> str:
    """The version of an installed distribution, or `not installed`."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """The processor's name, as reported by the system."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine() or "unknown processor"


def machine(*, gpus: bool = False) -> dict[str, str]:
    """The hardware and system, as texts by name.

    Args:
        gpus: Whether to ask for the GPUs, which takes a tenth of a second and more.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = {"processor": f"{processor()}, {os.cpu_count()} cores", "memory": f"{memory / 2**30:.0f} GiB"}
    if gpus and (names := _gpus()):
        found["GPUs"] = ", ".join(f"{count} × {name}" for name, count in Counter(names).items())
    return {**found, "system": platform.platform(), "Python": platform.python_version()}


def _gpus() -> list[str]:
    """Name of each NVIDIA GPU. Asking torch would create a context on one of them."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]
