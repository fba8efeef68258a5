"""`olfl init`: what it writes passes its own test, is accepted and valid by its schema; nothing is overwritten."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML
from support.commands import environment, olfl

from olfl_ray.errors import SetupError, StudyError
from olfl_ray.spec import read_spec
from olfl_ray.study import write_project

FILES = ["study.yaml", "builders.py", "test_builders.py", "study.schema.json"]


def test_a_written_project_passes_its_own_test_and_is_accepted(tmp_path: Path) -> None:
    done = olfl("init", "my wine", "--name", "wine", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "my wine"
    written = [line.removeprefix("wrote ") for line in done.stdout.splitlines() if line.startswith("wrote ")]
    assert written == [str(folder / file) for file in FILES]
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout
    assert "5 passed" in tested.stdout
    dry = olfl("sweep", "run", "study.yaml", "--dry-run", cwd=folder, modules=[folder])
    assert dry.returncode == 0, dry.stderr
    assert "arm online: 4 trials over learner.optimizer.lr, meta.eta_online" in dry.stdout


def test_the_spec_names_its_schema_and_is_valid_by_it(tmp_path: Path) -> None:
    spec, *_, schema = write_project(tmp_path / "wine")
    first, *_ = spec.read_text().splitlines()
    assert first == f"# yaml-language-server: $schema={schema.name}"
    content = YAML(typ="safe").load(spec.read_text())
    assert content["name"] == "wine"
    jsonschema.validate(content, json.loads(schema.read_text()))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**content, "nmae": "wine"}, json.loads(schema.read_text()))


@pytest.mark.parametrize("there", FILES)
def test_nothing_is_overwritten(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("mine")
    with pytest.raises(StudyError, match=f"{there}: exists"):
        write_project(tmp_path, "wine")
    assert [path.name for path in tmp_path.iterdir()] == [there]


@pytest.mark.parametrize("name", ["wine", "null", "true", "123", "1e3", "0x10", "1.5", "2024-01-01", "yes"])
def test_every_name_is_read_back_as_it_was_given(name: str, tmp_path: Path) -> None:
    spec, *_ = write_project(tmp_path / "made", name)
    assert read_spec(spec).name == name


def test_a_folder_that_cannot_take_all_files_keeps_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "inner"):
        with pytest.raises(SetupError, match="can't be written"):
            write_project(folder, "wine")
    made = tmp_path / "made"
    made.mkdir()
    (made / "builders.py").symlink_to("nothing")
    with pytest.raises(StudyError, match=r"builders\.py: exists"):
        write_project(made, "wine")
    assert [path.name for path in made.iterdir()] == ["builders.py"]
    (made / "builders.py").unlink()
    opened = Path.open

    def full(self: Path, mode: str = "r", **options: Any) -> Any:
        if self.name == "test_builders.py" and mode == "x":
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(self, mode, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(SetupError, match="No space left"):
        write_project(made, "wine")
    assert list(made.iterdir()) == []


def test_a_name_that_no_study_may_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="name="):
        write_project(tmp_path / "a wine")
    assert list(tmp_path.iterdir()) == []
