"""The first sweep end to end: real Ray, real MLflow, real data, read back from MLflow."""

import json
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import pytest
from support.commands import Run, olfl

from olfl_ray.errors import DataError

SPEC = Path(__file__).parents[2] / "sweeps" / "digits.yaml"
SMALL = [
    *("learner.steps=100", "meta.init_steps=20", "eval.every=20", "replicates=2", "confirm.seeds=2"),
    *("search.pruner.min_steps=40", "arms.offline.parameters={}", "task.batch_size=16"),
    "tracking={name: mlflow, models: true}",
    *("arms.baseline.trials=3", "arms.offline.trials=2", "arms.online.trials=3"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    sets = [part for text in SMALL for part in ("--set", text)]
    done = olfl("sweep", "run", SPEC, "--home", folder, *sets, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "report:" in done.stdout
    return folder


def test_mlflow_has_one_parent_and_one_child_a_trial_none_running(home: Path) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("olfl")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert [run.info.status for run in parents] == ["FINISHED"]
    names = Counter(run.data.tags["olfl.trial"] for run in children)
    assert len(names) == 3 + 2 + 3 + 3 * 2
    assert set(names.values()) == {1}
    assert {run.info.status for run in children} == {"FINISHED"}
    for run in children:
        assert run.data.params["task.dataset.name"] == "digits"
        steps = [point.step for point in client.get_metric_history(run.info.run_id, "selection/error")]
        assert steps == sorted(set(steps))
        assert steps[0] == 20
        learned = {file.path for file in client.list_artifacts(run.info.run_id, "learned_loss")}
        assert bool(learned) == (run.data.tags["olfl.arm"] != "baseline"), run.data.tags["olfl.trial"]
    confirmed = next(run for run in children if run.data.tags["olfl.trial"] == "online/c0")
    assert "test/error" in confirmed.data.metrics
    with_model = {run.data.tags["olfl.trial"] for run in children if client.list_artifacts(run.info.run_id, "model")}
    assert with_model == {name for name in names if "/c" in name}
    files = {file.path for file in client.list_artifacts(confirmed.info.run_id, "learned_loss")}
    assert files == {"learned_loss/learned_loss.json", "learned_loss/learned_loss.safetensors"}


def test_mlflows_model_is_that_of_the_trial(home: Path) -> None:
    import mlflow
    import numpy as np
    from mlflow.tracking import MlflowClient

    from olfl_ray import Study
    from olfl_ray.vision import torchvision

    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    (run,) = client.search_runs(
        [experiment.experiment_id for experiment in client.search_experiments()], "tags.`olfl.trial` = 'online/c1'"
    )
    (folder,) = (home / "artifacts").glob(f"**/{run.info.run_id}/**/MLmodel")
    model = Study.open("digits", home=home).model("online/c1")
    x = model.example(4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's modules warn about their own type hints
        torchvision()  # which MLflow imports with Lightning
        found = mlflow.pyfunc.load_model(str(folder.parent)).predict(x.numpy())
    np.testing.assert_allclose(found, model(x).detach().numpy(), rtol=1e-5, atol=1e-5)


def test_learned_loss_comes_back_as_a_module(home: Path) -> None:
    import torch
    from mlflow.tracking import MlflowClient

    from olfl_ray import load_loss

    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("olfl")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id], "tags.`olfl.trial` = 'online/c0'")
    outputs_BC, targets_B = torch.randn(4, 10), torch.tensor([0, 1, 2, 3])
    from_trial = load_loss("digits/online/c0", home=home)(outputs_BC, targets_B)
    from_run = load_loss(run.info.run_id, home=home)(outputs_BC, targets_B)
    assert torch.isfinite(from_trial)
    assert torch.equal(from_trial, from_run)
    assert not torch.equal(from_trial, load_loss("digits/online/c1", home=home)(outputs_BC, targets_B))

    (settings,) = (home / "artifacts").glob(f"**/{run.info.run_id}/**/learned_loss.json")
    kept = settings.read_text()
    try:  # a peer on the same MLflow store puts another file there
        settings.write_text(kept.replace('"name": "mlp"', '"name": "torch.nn:Bilinear"'))
        with pytest.raises(DataError, match="allow"):
            load_loss(run.info.run_id, home=home)
    finally:
        settings.write_text(kept)


def test_a_learned_loss_is_loaded_at_a_moment_and_exported_as_one_file(home: Path, here: Run, tmp_path: Path) -> None:
    import torch

    import olfl_ray as ol
    from olfl_ray import load_loss

    outputs_BC, targets_B = torch.randn(4, 10), torch.tensor([0, 1, 2, 3])
    last, begun = (load_loss("digits/online/c0", at=at, home=home) for at in (1.0, 0))
    assert torch.equal(last(outputs_BC, targets_B), load_loss("digits/online/c0", home=home)(outputs_BC, targets_B))
    assert not torch.equal(last(outputs_BC, targets_B), begun(outputs_BC, targets_B))
    for at in (1.5, 10**6):
        with pytest.raises(DataError, match=r"^at:"):
            load_loss("digits/online/c0", at=at, home=home)
    with pytest.raises(DataError, match=r"^at:"):
        load_loss(home, at=0.5)
    code, out, err = here("loss", "export", "digits/online/c0", "--standalone", "mine.py", "--home", home)
    assert (code, out.strip()) == (0, "mine.py"), err
    head = " ".join((tmp_path / "mine.py").read_text().split("import base64")[0].split())
    assert "digits" in head
    assert "by online, 100 steps" in head
    assert all(str(ol.Study.open("digits", home=home).trial(f"online/c{n}").seeds[0]) in head for n in (0, 1))
    assert "95 % interval" in head
    assert "outputs from" in head
    check = (
        "import sys, torch, mine; print(mine.LearnedLoss()(*torch.load('pair.pt')).item(), 'olfl_ray' in sys.modules)"
    )
    torch.save((outputs_BC, targets_B), tmp_path / "pair.pt")
    alone = subprocess.run([sys.executable, "-W", "ignore", "-c", check], cwd=tmp_path, capture_output=True, text=True)
    value, imported = alone.stdout.split()
    assert float(value) == pytest.approx(last(outputs_BC, targets_B).item(), rel=1e-5)
    assert imported == "False"
    for wrong in (["--at", "x"], ["--at", "2.0"], ["--standalone", "a b.txt"]):
        code, _, err = here("loss", "export", "digits/online/c0", "--standalone", "b.py", *wrong, "--home", home)
        assert code == 2
        assert "Traceback" not in err


def test_a_trained_model_is_exported_as_one_file_of_each_format(home: Path, here: Run, tmp_path: Path) -> None:
    import torch

    import olfl_ray as ol

    study = ol.Study.open("digits", home=home)
    model = study.model("online/c0")
    x = model.example(5)
    for form in ("safetensors", "pt2", "onnx"):
        code, out, err = here("trial", "export", "digits/online/c0", "--format", form, "--home", home)
        assert (code, out.strip()) == (0, f"digits-online-c0.{form}"), err
        assert not list(tmp_path.glob(".*"))
    again = ol.load_model(tmp_path / "digits-online-c0.safetensors")
    graph = torch.export.load(tmp_path / "digits-online-c0.pt2", extra_files=(notes := {"olfl_ray.json": ""})).module()
    with torch.no_grad():
        assert torch.equal(again(x), model(x))
        torch.testing.assert_close(graph(x), model(x))
    note = json.loads(notes["olfl_ray.json"])
    assert (note["study"], note["trial"], note["digest"]) == ("digits", "online/c0", study.spec.digest)
    assert note["metrics"]["test/error"] == study.trial("online/c0").metrics["test/error"]
    assert note["settings"]["learner"]["steps"] == 100
    assert study.trial("online/c0").export(tmp_path / "b.pt2").stat().st_size > 10_000
    for source, options in (
        ("digits/online/c0", ["--format", "onx"]),
        ("digits/online/c0", ["--to", "a.onnx", "--format", "pt2"]),
        ("digits/online/c0", ["--to", "no/folder/a.pt2"]),
        ("digits/online/c0", ["--to", "a.pt"]),
        ("digits/online/c0", ["--replicate", "1"]),
        ("digits/online/c9", []),
        ("digits/online", []),
    ):
        code, _, err = here("trial", "export", source, *options, "--home", home)
        assert (code, err.count("\n")) == (2, 1), err
        assert "Traceback" not in err


def test_a_trial_starts_from_another_trials_learned_loss(home: Path, here: Run) -> None:
    sets = ["--set", "loss.from=digits/online/c0", "--set", "learner.steps=20", "--set", "eval.every=10"]
    code, out, err = here("trial", "run", SPEC, "--arm", "offline", "--home", home, *sets)
    assert code == 0, err
    assert "finished:" in out
    assert "init/" not in out


@pytest.mark.parametrize("source", ["digits/baseline/0", "digits/online/99", "nowhere/online/0", "a.safetensors", "x"])
def test_a_learned_loss_that_is_not_there_is_one_message(home: Path, here: Run, source: str) -> None:
    code, _, err = here("trial", "run", SPEC, "--arm", "offline", "--home", home, "--set", f"loss.from={source}")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("olfl: --set: loss.from:")
    assert source in err


def test_running_a_finished_study_again_does_nothing(home: Path, here: Run) -> None:
    code, out, err = here("sweep", "resume", "digits", "--home", home)
    assert code == 0, err
    assert "nothing to do" in out


def test_a_name_in_use_by_another_spec_is_refused(home: Path, here: Run) -> None:
    code, _, err = here("sweep", "run", SPEC, "--home", home, "--set", "seed=5")
    assert code == 2
    assert "another spec" in err


def test_a_sweeps_trial_is_reproduced_without_ray_optuna_and_mlflow(home: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('ray', 'optuna', 'mlflow'): sys.modules[name] = None\n"
        "import olfl_ray.trial, olfl_ray.engine\n"
        "from olfl_ray.cli import main\n"
        "main()\n"
    )
    words = [sys.executable, "-c", code, "trial", "run", "--from", "digits/online/c0", "--home", str(home)]
    done = subprocess.run(words, cwd=home, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "finished:" in done.stdout
