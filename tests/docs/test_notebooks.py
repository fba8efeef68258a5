"""The notebooks of the docs run from top to bottom, and show what their text says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jupytext
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"


def run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The text that each cell of code shows, in order."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FOLDER.parents[1]), os.environ.get("PYTHONPATH", "")]))
    notebook = jupytext.read(FOLDER / name)
    NotebookClient(notebook, timeout=300, startup_timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    cells = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    warnings = [output.text for outputs in cells for output in outputs if output.get("name") == "stderr"]
    assert not [text for text in warnings if not text.startswith("this learned loss has seen")]
    return ["".join(map(_text, outputs)) for outputs in cells]


def _text(output: Any) -> str:
    if output.output_type == "stream":
        return str(output.text)
    live = output.data.get("text/html", "") if output.output_type == "display_data" else ""
    return f"{output.data.get('text/plain', '')}{live}"


def test_the_handle_of_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = run("study.md", tmp_path, monkeypatch)
    everything = "\n".join(shown)
    assert "(True, 'finished')" in everything
    assert "OSError: the power is out" in everything
    assert "difference" in everything
    assert "<b>study digits</b>" in everything  # the cell that is updated while a study runs
    assert "<td>fragile</td><td>0</td><td>3</td>" in everything
    assert "learner.optimizer.lr" in everything
    assert sum("Figure" in text for text in shown) == 5
    assert "(130, 'stopped')" in everything
    assert shown[-1] == "[]"


def test_own_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = run("own_parts.md", tmp_path, monkeypatch)
    assert "400 examples, regression" in shown[1]
    assert "wave" in shown[2]
    assert "did you mean 'waves'" in shown[2]
    errors = [float(line.split()[1]) for line in shown[3].splitlines()]
    assert errors[-1] < errors[0]


def test_own_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = run("own_loop.md", tmp_path, monkeypatch)
    assert "Figure" in shown[-1]
