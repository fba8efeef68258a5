"""Each command reports what it did, or one sentence about what was wrong, with exit code 2 and nothing started."""

import contextlib
import json
import shlex
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from support.commands import command
from typer import Exit
from typer.main import get_command

from benchmarks.services.servers import free_port
from olfl_ray import data, study
from olfl_ray.analysis import final_table
from olfl_ray.cli.app import app
from olfl_ray.cli.outcome import print_result
from olfl_ray.driver.home import data_root
from olfl_ray.errors import SetupError, SpecError
from olfl_ray.ledger import Began, DriverStarted, Ended, Ledger, Proposed
from olfl_ray.spec import TrialConfig, read_spec
from olfl_ray.study import Home, trial_of

SPEC = Path(__file__).parents[2] / "sweeps" / "digits.yaml"


def test_version_is_that_of_the_package(olfl) -> None:
    from importlib.metadata import version

    assert olfl("--version") == (0, f"olfl {version('olfl_ray')}\n", "")


@pytest.mark.parametrize("path", [[], ["sweep"], ["trial"], ["data"], ["spec"]])
def test_help_names_every_command_of_its_group(olfl, path: list[str]) -> None:
    group = get_command(app)
    for name in path:
        group = group.commands[name]
    code, out, _ = olfl(*path, "--help")
    assert code == 0
    listed = {line.split()[1] for line in out.splitlines() if line.startswith("│ ")}
    assert set(group.commands) <= listed


def test_data_list_names_every_data_set(olfl) -> None:
    code, out, _ = olfl("data", "list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[2:] if not line.startswith(" ")] == data.names()


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


def test_plan_is_a_spec_with_the_same_digest(olfl, tmp_path: Path) -> None:
    _, out, _ = olfl("sweep", "run", SPEC, "--dry-run")
    plan, _, rest = out.partition("digest ")
    (tmp_path / "plan.yaml").write_text(plan)
    _, again, _ = olfl("sweep", "run", "plan.yaml", "--dry-run")
    assert again.partition("digest ")[2].splitlines()[0] == rest.splitlines()[0]


def test_spec_can_be_read_from_standard_input(tmp_path: Path) -> None:
    dry = command("sweep", "run", "-", "--dry-run", "--name", "piped")
    done = subprocess.run(dry, input=SPEC.read_text(), capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "name: piped" in done.stdout
    done = subprocess.run(dry, input="seed: x", capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("olfl: standard input:1: seed: ")


def test_endless_spec_files_and_closed_standard_input_are_refused(olfl, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = olfl("sweep", "run", "/dev/zero")
    assert (code, err.count("\n")) == (2, 1)
    assert "/dev/zero: is a pipe or a device" in err
    monkeypatch.setattr(sys, "stdin", None)
    code, _, err = olfl("sweep", "run", "-")
    assert (code, err.count("\n")) == (2, 1)
    assert "standard input: is closed" in err


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


CLASHING = "{learner.optimizer.name: {values: [adam, sgd]}, learner.optimizer.momentum: {min: 0.0, max: 0.9}}"
WRONG = {
    "no such file": (["sweep", "run", "nowhere.yaml"], "nowhere.yaml: can't be read"),
    "a folder": (["sweep", "run", "."], "is a folder"),
    "no such study": (["sweep", "status", "x"], "there is no study 'x'"),
    "a study's name that leads out": (["sweep", "report", "../x"], "is not a name of a study"),
    "no spec and no source": (["trial", "run"], "give either a spec or --from"),
    "a port that can't be": (["ui", "--port", "70000"], "--port: 70000 can't be listened on"),
    "no such arm": (["trial", "run", SPEC, "--arm", "x"], "there is no arm 'x'"),
    "no such data set": (["data", "prepare", "mnst"], "did you mean 'mnist'?"),
    "an override without a value": (["sweep", "run", SPEC, "--set", "seed"], "is not of the form field=value"),
    "an override of no field": (["sweep", "run", SPEC, "--set", "sead=1"], "there is no such field"),
    "a GPU where there is none": (
        ["sweep", "run", SPEC, "--set", "resources.gpu=1"],
        "resources.gpu: a GPU was requested",
    ),
    "a storage without a name": (["sweep", "run", SPEC, "--set", "storage=''"], "storage: must be a string"),
    "a storage without a bucket": (["sweep", "run", SPEC, "--set", "storage=s3://"], "storage: 's3://' must be"),
    "a metric of another kind of task": (
        ["sweep", "run", SPEC, "--set", "search.metric=selection/rmse_original_units"],
        "search.metric: is selection/rmse_original_units, but classification measures",
    ),
    "a point of the search space that can't be": (
        ["sweep", "run", SPEC, "--set", f"search.parameters={CLASHING}"],
        "at the point {",
    ),
    "a model that never saw images": (
        ["sweep", "run", SPEC, "--set", "search.parameters={task.model: {values: [linear, lenet5]}}"],
        "lenet5 takes images",
    ),
    "a trial that has its settings": (["trial", "run", "--from", "a/b/0", "--arm", "b"], "leave out --arm and --set"),
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
def test_user_error_is_one_sentence_and_starts_nothing(
    olfl, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
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


def test_list_of_an_empty_home_reports_no_studies(olfl, tmp_path: Path) -> None:
    assert olfl("sweep", "list", "--home", tmp_path) == (0, f"no studies in {tmp_path}\n", "")


def test_stray_folder_hides_no_study_and_a_renamed_one_is_reported(olfl, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    spec = read_spec(SPEC)
    Ledger.create(home.storage("digits"), spec.model_dump(mode="json", by_alias=True), spec.digest, "digits", {})
    (home.studies / "empty").mkdir()
    code, out, _ = olfl("sweep", "list", "--home", home.path)
    assert code == 0
    assert "digits  0 of 54 trials ended" in out
    assert "there is no study here" in out
    (home.studies / "digits").rename(home.studies / "other")
    code, _, err = olfl("sweep", "resume", "other", "--home", home.path)
    assert (code, err.count("\n")) == (2, 1)
    assert "the folder 'other' holds the study 'digits'" in err


def test_study_of_a_version_with_other_fields_is_refused(olfl, tmp_path: Path) -> None:
    home, spec = Home(tmp_path / "home"), read_spec(SPEC)
    Ledger.create(home.storage("digits"), spec.model_dump(mode="json", by_alias=True), "of other fields", "digits", {})
    code, _, err = olfl("sweep", "run", SPEC, "--home", home.path)
    assert (code, err.count("\n")) == (2, 1)
    assert "begun by another version of olfl_ray" in err


@pytest.mark.parametrize("command", [("run", SPEC), ("resume", "digits"), ("status", "digits"), ("report", "digits")])
def test_study_with_removed_fields_is_refused_and_unchanged(olfl, command: tuple[str, ...], tmp_path: Path) -> None:
    home, spec = Home(tmp_path / "home"), read_spec(SPEC)
    before = spec.model_dump(mode="json", by_alias=True)
    before["loss"]["replay"] = False
    Ledger.create(home.storage("digits"), before, "of other fields", "digits", {})
    files = {path: path.read_bytes() for path in home.studies.rglob("*") if path.is_file()}
    code, _, err = olfl("sweep", *command, "--home", home.path)
    assert (code, err.count("\n")) == (2, 1)
    assert "begun by another version of olfl_ray" in err
    assert "loss.replay" in err
    assert {path: path.read_bytes() for path in home.studies.rglob("*") if path.is_file()} == files


def test_job_servers_address_is_only_for_submit(olfl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")
    code, _, err = olfl("sweep", "run", SPEC)
    assert (code, err.count("\n")) == (2, 1)
    assert "`olfl sweep submit`" in err


def test_model_option_that_the_spec_omits_can_be_searched(olfl) -> None:
    search = "search.parameters={task.model.activation: {values: [relu, tanh]}}"
    code, out, err = olfl("sweep", "run", SPEC, "--dry-run", "--set", search)
    assert code == 0, err
    assert '"task.model.activation": "tanh"' in out


def test_folders_in_the_environment_may_start_with_a_tilde(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("OLFL_HOME", "OLFL_CACHE", "OLFL_DATA"):
        monkeypatch.setenv(name, f"~/{name}")
    assert Home.find().path == tmp_path / "OLFL_HOME"
    assert Home.find("~/given").path == tmp_path / "given"
    assert Home.find().cache == tmp_path / "OLFL_CACHE"
    assert data_root() == tmp_path / "OLFL_DATA"
    with pytest.raises(SetupError, match="~nobody-here/x: there is no home folder"):
        Home.find("~nobody-here/x")


def test_a_bug_is_reported_without_the_passwords_of_urls(olfl, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("no answer from http://me:hunter2@127.0.0.1:9/")

    monkeypatch.setattr("olfl_ray.study.describe_data", fail)
    code, _, err = olfl("data", "list")
    report = Path(err.split()[-1])
    said = err + report.read_text()
    report.unlink()
    assert code == 70
    assert "this is a bug: RuntimeError: no answer from http://***@127.0.0.1:9/" in err
    assert "Traceback" in said
    assert "hunter2" not in said


def _answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
        return bool(answer.status == 200)
    return False


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ui_prints_its_address_once_it_responds_and_runs_until_it_is_stopped(
    tmp_path: Path, end: signal.Signals
) -> None:
    port = free_port()
    with (
        (tmp_path / "said").open("w") as said,
        subprocess.Popen(
            command("ui", "--port", port),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            preexec_fn=lambda: signal.signal(
                end, signal.SIG_DFL
            ),  # the user who runs the tests may ignore it, as nohup does
        ) as server,
    ):
        assert server.stdout is not None
        url = server.stdout.readline().strip()  # its first line of output
        try:
            assert url.startswith(f"http://127.0.0.1:{port}")
            assert _answers(f"http://127.0.0.1:{port}")
            browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
            with browser.open(url, timeout=20) as page:  # the page itself, at once
                assert (page.status, b"MLflow" in page.read()) == (200, True)
        finally:
            server.send_signal(end)
        assert server.wait(60) == 0
    assert "Warning" not in (tmp_path / "said").read_text()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)


def test_ui_prints_no_address_if_the_port_is_taken(olfl) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, out, err = olfl("ui", "--port", taken.getsockname()[1])
    assert (code, out) == (2, "")
    assert "--port: " in err


def test_ui_without_a_store_is_one_sentence(olfl, tmp_path: Path) -> None:
    (tmp_path / ".olfl").mkdir()
    (tmp_path / ".olfl" / "mlflow.db").write_bytes(b"this is no database" * 100)
    code, out, err = olfl("ui", "--port", free_port())
    assert (code, out) == (2, "")
    assert "mlflow.db" in err.splitlines()[-1]


def test_refused_study_prints_only_the_reason(olfl, tmp_path: Path) -> None:
    code, out, err = olfl("sweep", "run", SPEC, "--set", "search.metric=selection/rmse")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "search.metric" in err


def test_override_of_one_trial_conflicts_only_with_its_own_arm(tmp_path: Path) -> None:
    def trial(arm: str, field: str) -> TrialConfig:
        return trial_of(SPEC, overrides=[field], arm=arm, source=None, home=Home.find(tmp_path))[0]

    with pytest.raises(SpecError, match="arm online sets"):
        trial("online", "learner.method=offline")
    extra = ["arms.online.set={learner.method: online, learner.optimizer.lr: 0.2}"]
    with pytest.raises(SpecError, match="arm online sets"):
        read_spec(SPEC, [*extra, "learner.optimizer.lr=0.3"])
    config, _ = trial_of(
        SPEC, overrides=[*extra, "learner.optimizer.lr=0.3"], arm="offline", source=None, home=Home.find(tmp_path)
    )
    assert config.learner.optimizer.lr == 0.3


def test_commands_to_copy_work_with_a_folder_with_spaces(
    olfl, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    home, spec = Home(tmp_path / "my [old] home & co"), read_spec(SPEC)
    ledger = Ledger.create(
        home.storage("digits"), spec.model_dump(mode="json", by_alias=True), spec.digest, "digits", {}
    )
    ledger.append(DriverStarted(epoch=1, host="here", pid=1))
    ledger.append(Proposed(trial="online/0", params={}, seeds=[0]))
    ledger.append(Began(trial="online/0", attempt=1))
    ledger.append(Ended(trial="online/0", state="failed", step=0, value=None, metrics={}, cause="boom"))
    code, out, _ = olfl("sweep", "status", "digits", "--home", home.path)
    assert code == 0
    lines = [shlex.split(line) for line in out.splitlines() if "olfl sweep resume" in line]
    assert [line[-2:] for line in lines] == [["--home", str(home.path)]] * 2
    result = study.StudyResult(
        spec=spec,
        state=ledger.state,
        arms=final_table(spec, ledger.state),
        report=home.path / "report",
        tracking=(home.tracking_uri,),
        undelivered=1,
        finished=False,
    )
    with pytest.raises(Exit):
        print_result(result, home)
    lines = capfd.readouterr().out.splitlines()
    assert f"report: {home.path}/report" in lines
    lines = [line for line in lines if "olfl " in line]
    assert len(lines) == 4
    assert all(shlex.quote(str(home.path)) in line for line in lines)
