"""Each command says what it did, or one sentence about what was wrong, with exit code 2 and nothing started."""

import contextlib
import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from support.commands import wait_until

from olfl_ray.bench.services import free_port
from olfl_ray.cli import main

SPEC = Path(__file__).parents[2] / "sweeps" / "digits.yaml"


@pytest.fixture
def olfl(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path):
    """Run a command in this process, in an empty folder; gives its exit code, output and errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["olfl", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        found = capfd.readouterr()
        return int(left.value.code or 0), found.out, found.err

    return run


def test_version_is_that_of_the_package(olfl) -> None:
    from importlib.metadata import version

    assert olfl("--version") == (0, f"olfl {version('olfl_ray')}\n", "")


@pytest.mark.parametrize("group", [[], ["sweep"], ["trial"], ["data"], ["spec"]])
def test_help_names_its_commands(olfl, group: list[str]) -> None:
    code, out, _ = olfl(*group, "--help")
    assert code == 0
    assert "Usage: olfl" in out


def test_data_list_names_the_five_data_sets(olfl) -> None:
    code, out, _ = olfl("data", "list")
    assert code == 0
    for name in ("california-housing", "cifar10", "diabetes", "digits", "mnist"):
        assert name in out


def test_schema_describes_every_section(olfl) -> None:
    code, out, _ = olfl("spec", "schema")
    assert code == 0
    schema = json.loads(out)
    assert {"task", "learner", "loss", "meta", "search", "arms", "confirm"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False


def test_dry_run_shows_the_plan_and_starts_nothing(olfl, tmp_path: Path) -> None:
    code, out, _ = olfl("sweep", "run", SPEC, "--dry-run", "--set", "arms.online.trials=5")
    assert code == 0
    assert "arm online: 5 trials" in out
    assert '"learner.optimizer.lr": 0.1' in out
    assert "digest " in out
    assert not (tmp_path / ".olfl" / "studies").exists()
    assert not (tmp_path / ".olfl" / "mlflow.db").exists()


def test_the_plan_is_a_spec_itself_with_the_same_digest(olfl, tmp_path: Path) -> None:
    _, out, _ = olfl("sweep", "run", SPEC, "--dry-run")
    plan, _, rest = out.partition("digest ")
    (tmp_path / "plan.yaml").write_text(plan)
    _, again, _ = olfl("sweep", "run", "plan.yaml", "--dry-run")
    assert again.partition("digest ")[2].splitlines()[0] == rest.splitlines()[0]


def test_one_trial_runs_without_ray_and_mlflow(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('ray', 'mlflow'): sys.modules[name] = None\n"
        f"sys.argv = ['olfl', 'trial', 'run', {str(SPEC)!r}, '--arm', 'online', '--set', 'learner.steps=40',\n"
        "            '--set', 'eval.every=20', '--set', 'meta.init_steps=5', '--set', 'replicates=1']\n"
        "from olfl_ray.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("step 40") and "selection/error" in line for line in lines)
    assert lines[-1].startswith("finished: {")


WRONG = {
    "no such file": (["sweep", "run", "nowhere.yaml"], "nowhere.yaml: can't be read"),
    "a folder": (["sweep", "run", "."], "is a folder"),
    "no such study": (["sweep", "status", "x"], "there is no study 'x'"),
    "a study's name that leads out": (["sweep", "report", "../x"], "is not a name of a study"),
    "no spec and no source": (["trial", "run"], "give either a SPEC or --from"),
    "a port that can't be": (["ui", "--port", "70000"], "--port: 70000 can't be listened on"),
    "no such arm": (["trial", "run", SPEC, "--arm", "x"], "there is no arm 'x'"),
    "no such data set": (["data", "prepare", "mnst"], "did you mean 'mnist'?"),
    "an override without a value": (["sweep", "run", SPEC, "--set", "seed"], "is not of the form field=value"),
    "an override of no field": (["sweep", "run", SPEC, "--set", "sead=1"], "there is no such field"),
    "a GPU where there is none": (["sweep", "run", SPEC, "--set", "resources.gpu=1"], "resources.gpu: a GPU was asked"),
    "a store that can't be reached": (
        ["sweep", "run", SPEC, "--set", "tracking.uri=http://127.0.0.1:9"],
        "tracking.uri: http://127.0.0.1:9 can't be reached",
    ),
    "more CPUs than there are": (["sweep", "run", SPEC, "--set", "resources.cpu=9999"], "resources.cpu"),
    "no such model": (["sweep", "run", SPEC, "--set", "task.model=mpl"], "did you mean 'mlp'"),
    "a builder that is not there": (["sweep", "run", SPEC, "--set", "task.model=no.such:thing"], "task.model"),
    "a home that can't be written": (["sweep", "run", SPEC, "--home", "/proc/x"], "home: /proc/x can't be written"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_mistake_is_one_sentence_and_starts_nothing(olfl, kind: str, tmp_path: Path) -> None:
    if kind == "a GPU where there is none":
        import torch

        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
    arguments, wanted = WRONG[kind]
    code, out, err = olfl(*arguments)
    assert code == 2, out + err
    assert wanted in err
    assert err.startswith("olfl: ")
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.glob(".olfl/studies/*/trials"))


def test_ui_serves_mlflow_on_loopback_until_it_is_interrupted(tmp_path: Path) -> None:
    port = free_port()
    server = subprocess.Popen([sys.executable, "-m", "olfl_ray.cli", "ui", "--port", str(port)], cwd=tmp_path)
    try:

        def answers() -> bool:
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as ok,
            ):
                return bool(ok.status == 200)
            return False

        wait_until(answers)
    finally:
        server.send_signal(signal.SIGINT)
    assert server.wait(30) == 0
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
