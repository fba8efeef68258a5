"""The machine that drives a benchmark's study, recorded next to its results."""

from __future__ import annotations

import json
import os

import torch

from olfl_ray.machine import processor
from olfl_ray.spec import Strict, StudySpec
from olfl_ray.storage import Storage

__all__ = ["Machine", "machines_of", "note_machine"]

KEY = "paper/machines.json"


class Machine(Strict):
    """What decides how long a trial takes."""

    processor: str
    """Model of the processor."""
    cores: int
    """Its cores."""
    gpu: str | None
    """Model of the GPU; null: the trials ran on the processor."""
    at_a_time: int
    """Trials at a time."""
    threads: int
    """Threads of a trial."""
    torch: str
    """Version of PyTorch."""

    def __str__(self) -> str:
        where = f"{self.gpu}, " if self.gpu else ""
        return (
            f"{where}{self.processor}, {self.cores} cores, {self.at_a_time} trials at a time with {self.threads} "
            f"thread{'s' if self.threads > 1 else ''} each, PyTorch {self.torch}"
        )


def note_machine(spec: StudySpec, storage: Storage) -> None:
    """Add this machine to those that drove the study, if it is not among them."""
    on_gpu = spec.resources.gpu > 0 and torch.cuda.is_available()
    here = Machine(
        processor=processor(),
        cores=os.cpu_count() or 1,
        gpu=torch.cuda.get_device_name() if on_gpu else None,
        at_a_time=spec.concurrency,
        threads=spec.resources.cpu,
        torch=torch.__version__,
    )
    known = machines_of(storage)
    if here not in known:
        storage.write(KEY, json.dumps([one.model_dump() for one in (*known, here)]).encode())


def machines_of(storage: Storage) -> list[Machine]:
    """The machines that drove a study."""
    try:
        return [Machine.model_validate(one) for one in json.loads(storage.read(KEY))]
    except FileNotFoundError:
        return []
