"""The Python code of docs/python.md and of the README runs as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from olfl_ray.spec import read_spec, spec_as_yaml

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
SMALL = ["learner.steps=40", "meta.init_steps=10", "eval.every=20", "replicates=1", "confirm.seeds=1"]


def blocks(page: str) -> list[str]:
    return BLOCK.findall((ROOT / page).read_text())


def run(script: str, folder: Path) -> str:
    (folder / "script.py").write_text(script)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_page_about_python(tmp_path: Path) -> None:
    module, *others = blocks("docs/python.md")
    assert module.startswith("# builders.py\n")
    (tmp_path / "builders.py").write_text(module)
    out = run("\n".join(others), tmp_path)
    assert "Study('wine', 14 of 14 trials ended) finished" in out
    assert "('0', '1', '2')" in out
    assert (tmp_path / "curves.svg").stat().st_size > 1000


def test_the_readme(tmp_path: Path) -> None:
    (script,) = [block for block in blocks("README.md") if "ol.Study" in block]
    arms = [f"arms.{arm}.trials=1" for arm in ("baseline", "offline", "online")]
    (tmp_path / "sweeps").mkdir()
    spec = read_spec(ROOT / "sweeps" / "digits.yaml", [*SMALL, *arms])
    (tmp_path / "sweeps" / "digits.yaml").write_text(spec_as_yaml(spec))
    assert "baseline" in run(script, tmp_path)
