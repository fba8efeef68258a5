"""A sweep in a hostile environment: planted secrets, another user, a long TMPDIR, a kill, a terminal that closes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.commands import command, environment, state_of, wait_until

from olfl_ray.sweep.embedded import PREFIX

SPEC = {
    "name": "s",
    "task": {"dataset": "digits", "model": {"name": "mlp", "hidden": [16]}, "batch_size": 16},
    "learner": {"method": "baseline", "steps": 60_000},
    "eval": {"every": 50},
    "replicates": 1,
    "search": {"pruner": "none", "parameters": {"learner.optimizer.lr": {"min": 0.001, "max": 0.1}}},
    "arms": {"baseline": {"trials": 2}},
    "confirm": {"seeds": 0},
    "checkpoint": {"every_steps": 1000},
}
SECRETS = {
    name: f"planted-{name.lower()}"
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SECURITY_TOKEN",
        "AWS_SESSION_TOKEN",
        "GOOGLE_BEARER_TOKEN",
        "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_TOKEN",
        "PGPASSWORD",
        "RAY_AUTH_TOKEN",
    )
}


@pytest.fixture
def short() -> Iterator[Path]:
    """A temporary folder whose path leaves room for a socket's, open to all as the system's is."""
    folder = Path(tempfile.mkdtemp(prefix="olfl", dir="/tmp"))
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


def _read_as_another(path: Path) -> int:
    """Exit code of another user's attempt to read a file."""
    return subprocess.run(["cat", path], user=65534, capture_output=True, check=False).returncode


def test_a_sweeps_ray_is_private_tells_no_secret_is_swept_up_after_a_kill_and_stops_when_the_terminal_closes(
    tmp_path: Path, short: Path
) -> None:
    (tmp_path / "spec.yaml").write_text(json.dumps(SPEC))
    long = tmp_path / ("x" * 90)
    long.mkdir()
    own = {"TMPDIR": str(long), "RAY_TMPDIR": str(short), "PYTHONIOENCODING": "ascii"}

    def drive(log: str) -> subprocess.Popen[str]:
        with (tmp_path / log).open("w") as file:
            return subprocess.Popen(
                command("sweep", "run", "spec.yaml", "--home", tmp_path),
                stdout=file,
                stderr=file,
                text=True,
                cwd=tmp_path,
                env={**environment(), **SECRETS, **own},
                start_new_session=True,
            )

    def begun(commits: int) -> bool:
        state = state_of(tmp_path, "s")
        return (
            state is not None
            and len(state.trials) == 2
            and all(len(t.commits) >= commits for t in state.trials.values())
        )

    driver = drive("first")
    wait_until(lambda: begun(1))
    (folder,) = short.glob(f"{PREFIX}*")
    assert folder.stat().st_mode & 0o777 == 0o700
    token = folder / "token"
    assert token.stat().st_mode & 0o777 == 0o600
    if os.getuid() == 0:
        (short / "public").write_text("the attempt itself works")
        assert [_read_as_another(short / "public"), _read_as_another(token)] == [0, 1]
        (short / "public").unlink()
    logs = [path for path in folder.rglob("*") if path.is_file() and path != token]
    assert any(path.parent.name == "logs" and path.stat().st_size for path in logs)
    secrets = [*SECRETS.values(), token.read_text()]
    for path in [*logs, tmp_path / "first"]:
        said = path.read_bytes()
        assert not [secret for secret in secrets if secret.encode() in said], path
    children = psutil.Process(driver.pid).children(recursive=True)
    driver.kill()
    driver.wait()
    psutil.wait_procs(children, timeout=10)
    assert folder.is_dir()

    driver = drive("second")
    wait_until(lambda: begun(2))
    assert not folder.exists()
    (folder,) = short.glob(f"{PREFIX}*")
    os.killpg(driver.pid, signal.SIGHUP)  # as a terminal does that closes, to all that it started
    os.killpg(driver.pid, signal.SIGHUP)
    assert driver.wait(120) == 130
    state = state_of(tmp_path, "s")
    assert state is not None
    assert {trial.state for trial in state.trials.values()} == {"stopped"}
    assert not list(short.iterdir())
    said = (tmp_path / "second").read_text()
    assert "olfl sweep resume s" in said
    assert "bug" not in said
    assert not list(long.glob("*ray*"))
