"""Run a benchmark: an ordinary study, with the machine recorded next to its results."""

from __future__ import annotations

from collections.abc import Callable

from experiments.paper.machine import note_machine
from olfl_ray.driver import Home, StudyResult, drive
from olfl_ray.ledger import Event, StudyState
from olfl_ray.spec import StudySpec

__all__ = ["run_row"]


def run_row(spec: StudySpec, *, home: Home, watch: Callable[[Event, StudyState], None] | None = None) -> StudyResult:
    """Run what the study of a benchmark lacks; a killed one resumes.

    Args:
        spec: From `study_of`.
        home: The home folder.
        watch: Called with each event of the ledger and the state after it.

    Raises:
        UserError: As for `olfl_ray.study.Study.run`.
    """
    noted = False

    def observe(event: Event, state: StudyState) -> None:
        nonlocal noted
        if not noted:  # at the first event the study is there, and a killed one has its machine too
            note_machine(spec, home.storage(spec.name))
            noted = True
        if watch is not None:
            watch(event, state)

    return drive(spec, home, watch=observe)
