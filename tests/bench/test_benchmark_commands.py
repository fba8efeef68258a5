"""`python -m benchmarks`: an unwritable document is refused before anything is killed."""

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
def test_unwritable_document_is_one_sentence(document: str, says: str) -> None:
    words = [sys.executable, "-m", "benchmarks", "chaos", "--document", document]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert says in done.stderr


@pytest.mark.parametrize("option", [("--others", "7"), ("--others", "-1"), ("--processes", "0"), ("--count", "0")])
def test_random_modules_refuse_an_invalid_number(
    option: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.modules import check

    monkeypatch.setattr(sys, "argv", ["check.py", *option])
    with pytest.raises(SystemExit) as left:
        check.main()
    assert left.value.code == 2
    assert option[0] in capsys.readouterr().err
