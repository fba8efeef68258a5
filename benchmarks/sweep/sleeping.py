"""A base learner that sleeps at its evaluation and records the time, in any process: a trial of known length."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

__all__ = ["Span", "build", "read_spans"]


PROBE = 2
"""Number of examples in the pass with which a trial measures the memory of an evaluation."""


class Sleeping(nn.Module):
    """Sleeps at each evaluation, and records its end.

    Args:
        learner: The wrapped learner.
        seconds: Duration of the sleep.
        file: File of the recorded times; created if absent.
    """

    def __init__(self, learner: nn.Module, seconds: float, file: str) -> None:
        super().__init__()
        self.learner, self.seconds, self.file = learner, seconds, file

    def forward(self, x: Tensor) -> Tensor:
        """The learner's outputs."""
        outputs: Tensor = self.learner(x)
        if not self.training and len(x) > PROBE:
            time.sleep(self.seconds)
            _note(self.file, "end")
        return outputs


@dataclass(frozen=True)
class Span:
    """One trial as seen by its worker.

    Args:
        pid: Process id of the worker.
        begin: When its base learner was built, in seconds of the system's monotonic clock.
        end: When its evaluation ended.
    """

    pid: int
    begin: float
    end: float


def build(input_shape: tuple[int, ...], outputs: int, seconds: float, file: str) -> nn.Module:
    """A linear learner that sleeps.

    Args:
        input_shape: Shape of one example.
        outputs: Number of classes.
        seconds: Duration of an evaluation's sleep.
        file: File of the recorded times.
    """
    _note(file, "begin")
    return Sleeping(nn.Linear(input_shape[0], outputs), seconds, file)


def read_spans(file: Path) -> list[Span]:
    """The recorded trials, by their start. A learner that was only built, for a check, does not count."""
    lines = (line.split() for line in file.read_text().splitlines())
    return sorted(_paired((int(pid), word, float(at)) for pid, word, at in lines), key=lambda span: span.begin)


def _paired(notes: Iterable[tuple[int, str, float]]) -> list[Span]:
    begun: dict[int, float] = {}
    found = []
    for pid, word, at in notes:
        if word == "begin":
            begun[pid] = at
        else:
            found.append(Span(pid, begun.pop(pid), at))
    return found


def _note(file: str, word: str) -> None:
    """Append one line; appends this short are atomic."""
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, f"{os.getpid()} {word} {time.monotonic():.6f}\n".encode())
    finally:
        os.close(descriptor)
