"""Commands in scripts, manifests and documents exist, and the studies that they start are accepted."""

import os
import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.scripts.scripts import cli as ray
from support.deployment import CLUSTER, COMPOSE, MANIFESTS, RAY_UP, ROOT, SCRIPTS, documents, walk
from typer.main import get_command

from olfl_ray.cli import main
from olfl_ray.cli.app import app

with warnings.catch_warnings():  # MLflow's modules warn about each other
    warnings.simplefilter("ignore")
    from mlflow.cli import cli as mlflow

PROGRAMS = {"olfl": get_command(app), "ray": ray, "mlflow": mlflow}
COMMAND = re.compile(r"(?:(?<=[\s`'\"(])|^)(?<!-n )(olfl|ray|mlflow) ([a-z][a-z-]*\b[^\n;&|#`]*)", re.MULTILINE)
DOCUMENTS = [ROOT / "docs" / name for name in ("cluster.md", "mlflow-server.md", "cluster-demo.md")]
DOCUMENTS += [ROOT / "README.md", ROOT / "CONTRIBUTING.md", CLUSTER / "README.md"]
SLURM = CLUSTER / "slurm" / "sweep.sbatch"
SPEC = ROOT / "sweeps" / "digits.yaml"


def _texts(path: Path) -> Iterator[str]:
    """Texts that may contain commands: a file as it is; for YAML its comments, its texts, and lists as one line."""
    text = path.read_text().replace("\\\n", " ")
    if path.suffix != ".yaml":
        yield text
        return
    yield "\n".join(line for line in text.splitlines() if line.lstrip().startswith("#"))
    for document in documents(path):
        for _, value in walk(document):
            if isinstance(value, str):
                yield value
            elif isinstance(value, dict) and isinstance(value.get("command"), list):
                yield " ".join(map(str, [*value["command"], *value.get("args", [])]))


def _unknown(program: str, words: list[str]) -> str:
    """The first argument that the program does not know; empty if it knows them all."""
    command: Any = PROGRAMS[program]
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        found = command.commands.get(words[0])
        if found is None:
            return words[0]
        command, words = found, words[1:]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    if command.name == "symmetric_run":  # passes its arguments on
        options |= {name for parameter in ray.commands["start"].params for name in parameter.opts}
    for word in words:
        if word == "--":
            break
        if word.startswith("--") and word.partition("=")[0] not in options | {"--help"}:
            return word
    return ""


def test_unknown_arguments_are_detected() -> None:
    assert _unknown("olfl", ["sweep", "sumbit"]) == "sumbit"
    assert _unknown("olfl", ["sweep", "run", "x.yaml", "--sets=a"]) == "--sets=a"
    assert _unknown("ray", ["symmetric-run", "--address", "x", "--num-cpus", "1", "--", "--else"]) == ""


@pytest.mark.parametrize(
    "path", [COMPOSE, *MANIFESTS, *RAY_UP, *SCRIPTS, *DOCUMENTS], ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_programs_know_every_command_and_option(path) -> None:
    for text in _texts(path):
        for program, rest in COMMAND.findall(text):
            unknown = _unknown(program, [word.strip("[]") for word in rest.split()])
            assert not unknown, f"{program} {rest}: {unknown}"


def test_commands_are_found_in_all_kinds_of_files() -> None:
    def found(path: Path) -> set[str]:
        return {f"{program} {rest.split()[0]}" for text in _texts(path) for program, rest in COMMAND.findall(text)}

    assert found(COMPOSE) == {"ray start", "mlflow server"}
    assert found(CLUSTER / "kuberay" / "mlflow.yaml") == {"mlflow server"}
    assert {"olfl sweep", "ray symmetric-run"} <= found(SLURM)
    assert {"olfl sweep", "ray up", "ray down"} <= found(DOCUMENTS[0])
    assert {"olfl sweep", "olfl trial", "olfl data", "olfl ui", "olfl spec"} <= found(ROOT / "README.md")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse(path) -> None:
    subprocess.run(["bash", "-n", path], check=True)


def _accepted(arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["olfl", *arguments, "--dry-run"])
    with pytest.raises(SystemExit) as left:
        main()
    assert not left.value.code


def test_study_of_the_ray_job_is_accepted(monkeypatch, tmp_path) -> None:
    entrypoint = documents(CLUSTER / "kuberay" / "rayjob.yaml")[0]["spec"]["entrypoint"]
    place = entrypoint.replace("/spec", str(SPEC.parent)).replace("$OLFL_STORAGE", str(tmp_path))
    wrapper, _, *arguments = shlex.split(place)
    assert f"cluster/docker/ray-job.sh /usr/local/bin/{wrapper}\n" in (CLUSTER / "docker" / "Dockerfile").read_text()
    _accepted(arguments, monkeypatch, tmp_path)


@pytest.mark.parametrize(("code", "status"), [(0, 0), (1, 0), (2, 0), (70, 70), (130, 0), (137, 137)])
def test_kuberay_retries_only_killed_jobs_and_bugs(code: int, status: int) -> None:
    script = CLUSTER / "docker" / "ray-job.sh"
    done = subprocess.run([script, "sh", "-c", f"exit {code}"], capture_output=True, check=False)
    assert done.returncode == status


def test_study_of_the_slurm_job_is_accepted(monkeypatch, tmp_path) -> None:
    given = re.search(r'"\$spec" (--set .*) "\$@"', SLURM.read_text())
    assert given is not None
    sets = shlex.split(given[1].replace("$shared", str(tmp_path)))
    (tmp_path / "home").mkdir()  # as --home does
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/home/mlflow.db")
    _accepted(["sweep", "run", str(SPEC), *sets, "--set", "concurrency=16"], monkeypatch, tmp_path)


@pytest.mark.parametrize(("step", "code"), [("true", 1), ('echo 1 >"$DRIVER"', 0), ('echo 1 >"$DRIVER"; exit 2', 2)])
def test_slurm_job_fails_if_its_driver_failed_or_never_started(tmp_path, step: str, code: int) -> None:
    srun = tmp_path / "srun"
    srun.write_text(f'#!/bin/sh\necho "$SRUN_CPUS_PER_TASK CPUs"; case "$*" in *symmetric-run*) {step};; esac\n')
    srun.chmod(0o700)
    given = {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_PER_TASK": "8", "USER": "me"}
    here = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "OLFL_SHARED": str(tmp_path / "shared"),
        "OLFL_HEAD_IP": "127.0.0.1",
    }
    job = [SLURM, SPEC, "--set", "concurrency=16"]
    done = subprocess.run(["bash", *job], env={**given, **here}, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert done.stdout.splitlines() == ["8 CPUs", "8 CPUs"]
    assert list((tmp_path / "shared").iterdir()) == []  # the token has been removed


def test_ray_in_the_slurm_job_gets_its_own_token() -> None:
    script = SLURM.read_text()
    assert "umask 077" in script
    assert "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$scratch/token" in script
    for option in ("--requeue", "--signal=B:TERM@120", "--open-mode=append"):
        assert f"#SBATCH {option}\n" in script
