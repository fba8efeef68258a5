"""docs/own-data.md: its two studies run as they stand, on a table of imbalanced classes and on a small text classifier."""

from __future__ import annotations

import math
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import environment, olfl

from olfl_ray.study import Study

PAGE = (Path(__file__).parents[2] / "docs" / "own-data.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files that the page speaks of: a tenth of the wines are good, and a tenth of the texts have the token 1."""
    draw = random.Random(0)
    wines = ["id,alcohol,acid,color,quality"]
    for index in range(200):
        good = index % 10 == 0
        acid = "" if index % 25 == 3 else f"{draw.random():.3f}"
        color = draw.choice(["red", "white", "rosé"])
        wines.append(f"{index},{draw.gauss(12 if good else 10, 1):.2f},{acid},{color},{'good' if good else 'usual'}")
    texts = [",".join([*(f"t{index}" for index in range(8)), "label"])]
    for index in range(200):
        tokens = [draw.randint(2, 19) for _ in range(draw.randint(3, 8))]
        tokens[0] = 1 if index % 10 == 0 else tokens[0]
        label = "rare" if index % 10 == 0 else "usual"
        texts.append(",".join(map(str, [*tokens, *[0] * (8 - len(tokens)), label])))
    (tmp_path / "wine.csv").write_text("\n".join(wines) + "\n", encoding="utf-8")
    (tmp_path / "text.csv").write_text("\n".join(texts) + "\n")
    (tmp_path / "wine.yaml").write_text(blocks("yaml")[0])
    module, script = blocks("python")
    (tmp_path / "parts.py").write_text(module)
    (tmp_path / "script.py").write_text(script)
    assert len(script.splitlines()) == 15
    return tmp_path


def check_table(study: Study) -> None:
    """Each arm was measured on the test split, next to the best constant prediction, whose balanced error is 0.5."""
    assert not study.state.failures
    table = study.table
    assert list(table.index) == ["baseline", "online"]
    assert (table["trials"] == 2).all()
    assert (table["trivial"] == 0.5).all()
    assert all(math.isfinite(value) and 0 <= value <= 1 for value in table["mean"])


def test_a_table_of_imbalanced_classes(folder: Path) -> None:
    done = olfl("sweep", "run", "wine.yaml", "--home", "home", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    study = Study.open("wine", home=folder / "home")
    check_table(study)
    assert study.data[0].startswith("data wine.csv: 200 examples, classification; classes 0 to 1: good, usual")
    model = study.model("online/c0")
    assert model.classes == ("good", "usual")
    text = (folder / "wine.csv").read_text(encoding="utf-8")
    (folder / "wine.csv").write_text(text.replace(",red,", ",white,", 1), encoding="utf-8")
    changed = olfl("sweep", "extend", "wine", "--trials", "1", "--home", "home", cwd=folder)
    assert changed.returncode == 2
    assert "its data has changed since the study began" in " ".join(changed.stderr.split())


def test_a_text_classifier_in_a_script_of_15_lines(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder,
        env=environment() | {"OLFL_HOME": str(folder / "home")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^online +2 ", done.stdout, flags=re.MULTILINE), done.stdout
    study = Study.open("text", home=folder / "home")
    check_table(study)
    assert study.spec.task.model.name == "parts:Text"
