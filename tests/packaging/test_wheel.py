"""The wheel, in fresh environments: complete beside its dependencies, and its engine beside torch alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path) -> str:
    """Standard output; nothing of this process's environment leads back to the checkout."""
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**env, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def fresh(folder: Path, wheel: Path) -> tuple[Path, Path]:
    """A new environment with the wheel and nothing else: its `bin` and its `site-packages`."""
    venv.create(folder, symlinks=True)
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        folder,
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        wheel,
        cwd=folder,
    )
    (site,) = folder.glob("lib/python*/site-packages")
    return folder / "bin", site


def needed_by(name: str, found: dict[str, Distribution]) -> dict[str, Distribution]:
    """What `pip install NAME` installs, as far as it is installed here."""
    if name not in found:
        found[name] = distribution(name)
        for text in found[name].requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                needed_by(re.sub(r"[-_.]+", "-", requirement.name).lower(), found)
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder, cwd=ROOT)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_has_the_package_its_types_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = next(archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA"))
    files = [path for path in (ROOT / "olfl_ray").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert names == {path.relative_to(ROOT).as_posix() for path in files}
    assert {"olfl_ray/py.typed", "olfl_ray/analysis/templates/report.html"} <= names
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"Requires-Python: {','.join(sorted(declared['requires-python'].split(',')))}" in metadata
    assert len(re.findall(r"^Requires-Dist: (?!.*extra ==)", metadata, re.M)) == len(declared["dependencies"])


def test_the_engine_runs_where_only_torch_is_installed(wheel: Path, tmp_path: Path) -> None:
    found, site = fresh(tmp_path / "env", wheel)
    installed = needed_by("torch", {})
    for one in installed.values():
        for top in {file.parts[0] for file in one.files or () if file.parts[0] not in ("..", "__pycache__")}:
            (site / top).symlink_to(str(one.locate_file(top)))
    assert not {"numpy", "pydantic", "safetensors"} & installed.keys()
    printed = run(found / "python", ROOT / "docs" / "examples" / "own_loop.py", cwd=tmp_path)
    assert [line.split()[0] for line in printed.splitlines()] == ["50", "100", "150", "200"]
    lacking = (
        "import olfl_ray, olfl_ray.losses\n"
        "for package, name in ((olfl_ray, 'Study'), (olfl_ray.losses, 'build_loss')):\n"
        "    try:\n"
        "        getattr(package, name)\n"
        "    except ModuleNotFoundError as error:\n"
        "        print(error)\n"
    )
    messages = run(found / "python", "-c", lacking, cwd=tmp_path).splitlines()
    assert len(messages) == 2
    assert all("pip install olfl_ray" in message for message in messages)


def test_the_installed_command_runs_a_trial(wheel: Path, tmp_path: Path) -> None:
    found, site = fresh(tmp_path / "env", wheel)
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    version = run(found / "python", "-c", "import olfl_ray; print(olfl_ray.__version__)", cwd=tmp_path).strip()
    assert wheel.name.startswith(f"olfl_ray-{version}-")
    assert run(found / "olfl", "--version", cwd=tmp_path).strip() == f"olfl {version}"
    small = [f"--set={one}" for one in ("learner.steps=20", "meta.init_steps=2", "eval.every=20", "replicates=1")]
    spec = ROOT / "sweeps" / "digits.yaml"
    printed = run(found / "olfl", "trial", "run", spec, "--home", tmp_path / "home", *small, cwd=tmp_path)
    assert "step 20" in printed
    assert "finished" in printed
    where = run(found / "python", "-c", "import olfl_ray; print(olfl_ray.__file__)", cwd=tmp_path).strip()
    assert Path(where).is_relative_to(tmp_path)
