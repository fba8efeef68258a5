"""Standard output and errors that never end a study: what can't be encoded degrades, and a closed reader is reported once."""

from __future__ import annotations

import codecs
import errno
import os
import re
import shlex
import signal
import sys
from ast import literal_eval
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from olfl_ray.errors import SetupError
from olfl_ray.terminal import Terminal

__all__ = ["as_options", "errors", "option", "out", "outliving"]

OPTIONS = {
    "allow": "allow",
    "arm": "arm",
    "arms": "arm",
    "classes": "classes",
    "cluster": "address",
    "failed": "failed",
    "format": "format",
    "from_scratch": "from-scratch",
    "home": "home",
    "keep_runs": "keep-runs",
    "name": "name",
    "overrides": "set",
    "py_modules": "py-module",
    "source": "from",
    "storage": "storage",
    "working_dir": "working-dir",
}
"""Arguments of the library -> options of the command line."""
_ARGUMENT = re.compile(rf"`(?P<name>{'|'.join(OPTIONS)})=(?P<value>[^`]*)`")
NEAREST = {"±": "+-", "…": "...", "–": "-", "—": "-", "×": "x", "−": "-"}


def _nearest(error: UnicodeError) -> tuple[str, int]:
    """Replaces characters that an encoding lacks: by the nearest that it has, else by their code."""
    assert isinstance(error, UnicodeEncodeError)
    lost = error.object[error.start : error.end]
    return "".join(NEAREST.get(sign) or ascii(sign)[1:-1] for sign in lost), error.end


codecs.register_error("olfl.nearest", _nearest)
for size in ("COLUMNS", "LINES"):
    if not os.environ.get(size, "1").strip("0 "):  # a terminal without a size, in which rich would print nothing
        del os.environ[size]


class _Stream:
    """Standard output or error as it is at each call.

    Args:
        name: stdout or stderr.
    """

    outlived: str = ""
    """What continues when output is no longer read, and how to show its state; empty: nothing does."""

    def __init__(self, name: str) -> None:
        self._name = name

    def _stream(self) -> TextIO | None:
        stream: TextIO | None = getattr(sys, self._name)
        shown: TextIO | None = getattr(stream, "rich_proxied_file", stream)  # a live view puts itself in its place
        return shown

    @property
    def encoding(self) -> str:
        """Its encoding."""
        return getattr(self._stream(), "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Whether it is a terminal; a stream that is closed is none."""
        stream = self._stream()
        with suppress(ValueError):
            return stream is not None and stream.isatty()
        return False

    def fileno(self) -> int:
        """Its descriptor."""
        stream = self._stream()
        if stream is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return stream.fileno()

    def write(self, text: str) -> int:
        """Write, in the signs that its encoding has."""
        plain = text.encode(self.encoding, "olfl.nearest").decode(self.encoding)
        with self._kept(), suppress(ValueError):  # it may be closed
            if (stream := self._stream()) is not None:
                stream.write(plain)
        return len(text)

    def flush(self) -> None:
        """Write what waits."""
        with self._kept(), suppress(ValueError):
            if (stream := self._stream()) is not None:
                stream.flush()

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Continue without output if something outlives the command; else end, as programs do when their output is closed."""
        try:
            yield
        except OSError as error:
            with suppress(OSError, ValueError):
                os.dup2(
                    os.open(os.devnull, os.O_WRONLY), self.fileno()
                )  # for all that is written later, by libraries too
            if self._name == "stderr":
                return
            reason = error.strerror or str(error)
            if self.outlived:
                errors.print(
                    f"olfl: standard output can't be written any more ({reason}); {self.outlived}",
                    markup=False,
                    highlight=False,
                )
            elif error.errno == errno.EPIPE:
                raise SystemExit(128 + signal.SIGPIPE) from None
            else:
                raise SetupError(f"standard output: can't be written ({reason}); write it elsewhere") from None


_stdout = _Stream("stdout")
out = Terminal(file=_stdout)
"""Where commands print."""
errors = Terminal(file=_Stream("stderr"), soft_wrap=True)
"""Where one line goes that says what was wrong."""


def as_options(message: str) -> str:
    """A message of the library, which names arguments as `name=value`, with the options that stand for them."""

    def one(found: re.Match[str]) -> str:
        name, value = found["name"], found["value"]
        option = f"--{OPTIONS[name]}"
        if value.startswith("["):
            return " ".join(f"{option} {shlex.quote(one)}" for one in literal_eval(value))
        return " ".join([option, *([] if value in ("", "True") else [shlex.quote(value)])])

    return _ARGUMENT.sub(one, message)


def option(name: str, value: object) -> str:
    """An option of a command that is printed to be copied, as a shell reads it: a path may have spaces."""
    return f"{name} {shlex.quote(str(value))}"


@contextmanager
def outliving(study: str, where: str) -> Iterator[None]:
    """The body continues when standard output is closed.

    Args:
        study: The study that is driven.
        where: Options that lead to it.
    """
    _stdout.outlived = f"the study continues; see it with: olfl sweep status {study} {where}"
    try:
        yield
    finally:
        _stdout.outlived = ""
