"""`python -m benchmarks`: what can't be written is refused before anything is killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("document", "says"),
    [("/proc/x/y.md", "--document: /proc/x can't be"), (".", "is a folder; name a file in it")],
)
def test_a_document_where_none_can_be_is_one_sentence(document: str, says: str) -> None:
    words = [sys.executable, "-m", "benchmarks", "chaos", "--document", document]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert says in done.stderr
