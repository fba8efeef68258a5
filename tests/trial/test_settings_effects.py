"""Each setting has its documented effect, and none where it does not apply."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits

from olfl_ray import data
from olfl_ray.errors import SpecError
from olfl_ray.losses import loss_from_bytes
from olfl_ray.records import names
from olfl_ray.spec import TrialConfig, seed_of
from olfl_ray.trial import Progress, TrialEnvironment, check, run

METHODS = ["baseline", "offline", "online", "online_lr"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> TrialEnvironment:
    """Prepared data sets, shared."""
    return TrialEnvironment(cache=tmp_path_factory.mktemp("cache"))


def config(method: str, dataset: str = "digits", **changes: Any) -> TrialConfig:
    settings: dict[str, Any] = {
        "task": {"dataset": dataset, "model": {"name": "mlp", "hidden": [8]}, "batch_size": 16},
        "learner": {"method": method, "steps": 12, "optimizer": {"name": "sgd", "lr": 0.1}},
        "meta": {"init_steps": 5, "eta_online": 1e-2},
        "eval": {"every": 1},
    }
    for section, values in changes.items():
        settings[section] = {**settings.get(section, {}), **values} if isinstance(values, dict) else values
    return TrialConfig.model_validate({**settings, "seeds": [1]})


def series(found: list[Progress], name: str) -> list[float]:
    return [record.metrics[name][0] for progress in found for record in progress.records if name in record.metrics]


def phis(found: list[Progress]) -> list[torch.Tensor]:
    """phi after each base step, as one vector."""
    return [
        torch.cat([value.flatten() for value in progress.state.replicates[0].learner.phi.values()])
        for progress in found
        if progress.state.step > 0
    ]


def everything(found: list[Progress]) -> list[dict[str, tuple[float, ...]]]:
    return [
        {name: values for name, values in record.metrics.items() if name not in names.VOLATILE}
        for progress in found
        for record in progress.records
    ]


@pytest.mark.parametrize("method", ["online", "online_lr"])
def test_phi_moves_every_third_step_only(method: str, place: TrialEnvironment) -> None:
    found = list(run(config(method, meta={"every": 3}), place))
    after = phis(found)
    moved = [step for step in range(2, 13) if not torch.equal(after[step - 1], after[step - 2])]
    assert moved == [3, 6, 9, 12]
    steps = [r.step for p in found for r in p.records if names.META_TASK_LOSS in r.metrics]
    assert steps == [3, 6, 9, 12]


@pytest.mark.parametrize("method", ["offline", "online", "online_lr"])
def test_meta_batches_from_train_never_see_the_meta_split(method: str, place: TrialEnvironment) -> None:
    """With senseless examples in the meta split a trial does not change, unless its meta batches come from there."""

    def trial(batch: str, spoilt: bool) -> list[dict[str, tuple[float, ...]]]:
        task = {"dataset": {"name": f"{__name__}:digits_with_a_meta_split", "spoilt": spoilt}}
        return everything(list(run(config(method, task=task, meta={"batch": batch}), place)))

    assert trial("train", True) == trial("train", False)
    assert trial("meta", True) != trial("meta", False)


def digits_with_a_meta_split(spoilt: bool) -> data.Dataset:
    """The meta split of replicate 1 is corrupted: every pixel is at its darkest."""
    x, y = (torch.as_tensor(part) for part in load_digits(return_X_y=True))
    dataset = data.Dataset(
        name="digits", kind="classification", x=x, y=y, test=None, outputs=10, fingerprint="", source="scikit-learn"
    )
    rows = data.split(dataset, study_seed=0, seed=seed_of(1, "split"), test=0.2, meta=0.1, selection=0.1).meta
    if spoilt:
        x[rows] = 16
    return dataset


@pytest.mark.parametrize("method", ["label_smoothing", "focal", "poly1"])
def test_fixed_loss_trains_theta_and_the_task_loss_is_measured(method: str, place: TrialEnvironment) -> None:
    plain, fixed = (list(run(config(name), place)) for name in ("baseline", method))
    assert everything(plain) != everything(fixed)
    measured = [series(found, names.TRAIN_TASK_LOSS)[0] for found in (plain, fixed)]
    assert measured[0] == measured[1], "at the same theta, before the first step"


def test_fixed_loss_is_refused_with_another_task_loss(place: TrialEnvironment) -> None:
    with pytest.raises(SpecError, match=r"focal.*cross-entropy.*regression") as caught:
        check(config("focal", "diabetes"), place)
    assert caught.value.field == "learner.method"


@pytest.mark.parametrize(
    ("schedule", "factor"),
    [
        ({"name": "constant"}, lambda done: 1.0),
        (
            {"name": "milestones", "at": [0.25, 0.5], "factor": 0.2},
            lambda done: 0.2 ** ((done >= 0.25) + (done >= 0.5)),
        ),
        ({"name": "cosine", "final": 0.1}, lambda done: 0.1 + 0.45 * (1 + math.cos(math.pi * done))),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_schedule_sets_the_learning_rate_of_each_step(
    method: str, schedule: Any, factor: Any, place: TrialEnvironment
) -> None:
    found = list(run(config(method, learner={"schedule": schedule}), place))
    rates = series(found, names.TRAIN_LR)
    alphas = [float(phi[0]) for phi in phis(found)] if method == "online_lr" else [0.1] * 12
    assert rates == pytest.approx([alpha * factor(step / 12) for step, alpha in enumerate(alphas)], rel=1e-6)


@pytest.mark.parametrize("dataset", ["digits", "diabetes"])
def test_learned_loss_of_a_finished_trial_is_its_phi(dataset: str, place: TrialEnvironment) -> None:
    last = list(run(config("online", dataset), place))[-1]
    loss = loss_from_bytes(last.files["learned_loss.safetensors"], last.files["learned_loss.json"], "the trial")
    phi = last.state.replicates[0].learner.phi
    assert loss.kind == ("classification" if dataset == "digits" else "regression")
    assert dict(loss.named_parameters()).keys() == phi.keys()
    assert all(torch.equal(value, phi[name]) for name, value in loss.named_parameters())
    (final,) = (surface for surface in last.records[-1].surfaces if surface.step == 12)
    assert loss.surface()[2].tolist() == list(final.learned)


def saved(found: list[Progress], folder: Path) -> str:
    folder.mkdir()
    for name, content in found[-1].files.items():
        (folder / name).write_bytes(content)
    return str(folder)


@pytest.mark.parametrize("dataset", ["digits", "diabetes"])
def test_trial_starts_from_the_learned_loss_of_another(dataset: str, place: TrialEnvironment, tmp_path: Path) -> None:
    """No initialization; an offline trial keeps it to the end, an online one continues from it."""
    first = list(run(config("online", dataset), place))
    source = {"from": saved(first, tmp_path / "loss")}
    kept, learned = (list(run(config(method, dataset, loss=source), place)) for method in ("offline", "online"))
    start = phis(first)[-1]
    for found in (kept, learned):
        assert series(found, names.INIT_TASK_LOSS) == []
        assert found[0].state.init_steps == 0
    assert all(torch.equal(phi, start) for phi in phis(kept))
    assert not torch.equal(phis(learned)[0], start)
    assert kept[-1].files == first[-1].files


def test_learned_loss_of_another_task_or_missing_is_refused(place: TrialEnvironment, tmp_path: Path) -> None:
    source = saved(list(run(config("online"), place)), tmp_path / "loss")
    with pytest.raises(SpecError, match=r"^loss\.from: .* learned for classification, but the task is regression"):
        check(config("online", "diabetes", loss={"from": source}), place)
    with pytest.raises(SpecError, match=r"^loss\.from: .*nowhere"):
        check(config("online", loss={"from": str(tmp_path / "nowhere")}), place)
    (tmp_path / "loss" / "learned_loss.safetensors").write_bytes(b"truncated")
    with pytest.raises(SpecError, match=r"^loss\.from: .*is not a learned loss"):
        check(config("online", loss={"from": source}), place)


@pytest.mark.parametrize(("metric", "goal"), [("error", "minimize"), ("macro_f1", "maximize"), ("nll", "minimize")])
def test_report_best_is_the_best_by_the_studys_metric_and_last_is_the_last(
    metric: str, goal: str, place: TrialEnvironment
) -> None:
    learner = {"optimizer": {"name": "sgd", "lr": 1.0}, "steps": 30}
    best, last = (
        list(
            run(
                config(
                    "baseline",
                    learner={"method": "baseline", **learner},
                    eval={"report": report},
                    metric=f"selection/{metric}",
                    goal=goal,
                ),
                place,
            )
        )
        for report in ("best", "last")
    )
    values = series(best, f"selection/{metric}")
    assert best[-1].report[f"selection/{metric}"] == ((min if goal == "minimize" else max)(values),)
    assert last[-1].report[f"selection/{metric}"] == (values[-1],)


def test_unknown_metric_or_one_with_the_opposite_goal_is_refused(place: TrialEnvironment) -> None:
    with pytest.raises(SpecError, match=r"search\.metric.*macro_f1"):
        check(config("baseline", metric="selection/macrof1"), place)
    with pytest.raises(SpecError, match=r"search\.goal.*maximize"):
        check(config("baseline", metric="selection/macro_f1"), place)


@pytest.mark.parametrize("method", METHODS)
def test_bf16_rounds_differently_and_reaches_about_the_same_loss(method: str, place: TrialEnvironment) -> None:
    exact, rounded = (
        series(
            list(run(config(method, learner={"method": method, "precision": precision}), place)),
            "selection/task_loss",
        )
        for precision in ("float32", "bf16")
    )
    assert exact != rounded
    assert rounded == pytest.approx(exact, rel=0.05)


seen: list[str] = []


class Watching(torch.nn.Linear):
    """Records how a GPU's products would be rounded at each of its passes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen.append(torch.backends.cuda.matmul.fp32_precision)
        return super().forward(x.flatten(1))


def watching(input_shape: tuple[int, ...], outputs: int) -> torch.nn.Module:
    return Watching(math.prod(input_shape), outputs)


@pytest.mark.parametrize(("precision", "wanted"), [("float32", "ieee"), ("tf32", "tf32")])
def test_every_pass_of_a_step_has_the_requested_precision(precision: str, wanted: str, place: TrialEnvironment) -> None:
    task, learner = {"model": f"{__name__}:watching"}, {"precision": precision, "steps": 1}
    settings = config("online", task=task, learner=learner)
    for run_all in (check, lambda *given: list(run(*given))):
        seen.clear()
        run_all(settings, place)
        assert seen.count(wanted) > 4
        assert set(seen) <= {wanted, "ieee"}, "the modes of the estimator are compared in float32"
