"""The exception tree: errors that a user can fix, and bugs.

OlflError
├── UserError              a mistake that the user can fix; the command line prints one message and exits with code 2
│   ├── SpecError          a field of a spec breaks a rule of form or substance
│   ├── DataError          a data set is missing, truncated, or of another shape
│   ├── StudyError         a study's name, state or storage does not allow what was requested
│   └── SetupError         this machine or a service lacks what was requested
└── LedgerError            an event that breaks the ledger's rules: a bug, never a user's mistake; exit code 70
    └── Fenced             another driver has taken the study over; this one must stop
"""

import os
import signal

__all__ = [
    "BUG",
    "INTERRUPTED",
    "DataError",
    "Fenced",
    "LedgerError",
    "OlflError",
    "SetupError",
    "SpecError",
    "StudyError",
    "UserError",
]

INTERRUPTED = 128 + signal.SIGINT
"""Exit code of a command that was interrupted; not an error."""

BUG = os.EX_SOFTWARE
"""Exit code of a bug, 70 as in sysexits.h; 1 means that trials failed or that runs did not reach MLflow."""


class OlflError(Exception):
    """Root of every error this package raises on purpose."""


class UserError(OlflError):
    """A mistake that the user can fix: one message that names the subject, the value, the rule and the next move."""


class SpecError(UserError):
    """A field of a spec breaks a rule.

    Args:
        field: Dotted name of the field, such as `search.parameters.learner.optimizer.lr`; empty for the complete file.
        problem: The value, the rule that it breaks, and the next move.
        where: File and line, as far as known, such as `sweeps/digits.yaml:12`.
    """

    def __init__(self, field: str, problem: str, where: str = "") -> None:
        self.field, self.problem, self.where = field, problem, where
        super().__init__(": ".join(part for part in (where, field, problem) if part))


class DataError(UserError):
    """A data set is missing, truncated, or does not have the shape that its name promises."""


class StudyError(UserError):
    """A study's name, state or storage does not allow what was requested."""


class SetupError(UserError):
    """This machine or a service it needs lacks what was requested (a GPU, a writable home, a tracking server)."""


class LedgerError(OlflError):
    """An event breaks the rules of the ledger: a bug in the writer, never a user's mistake."""


class Fenced(LedgerError):
    """Another driver has since written to this study: the driver that sees this must stop at once."""
