"""docs/own-loop.md: its blocks run, one after the other, as a reader would run them."""

import re
from pathlib import Path

import pytest
import torch

from olfl_ray.losses import build_loss
from olfl_ray.spec import LearnedLossSpec

PAGE = Path(__file__).parents[2] / "docs" / "own-loop.md"


def test_every_block_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "learned_loss_folder"
    folder.mkdir()
    for name, content in build_loss(LearnedLossSpec(), "classification", seed=1).files().items():
        (folder / name).write_bytes(content)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 7
    space: dict[str, object] = {"__name__": "page"}
    state = torch.get_rng_state()
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), space)
    torch.set_rng_state(state)
    printed = capsys.readouterr().out
    assert printed.startswith("100 ")
    assert float(printed.split()[1]) < 1.0
