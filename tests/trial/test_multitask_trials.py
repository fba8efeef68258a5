"""Trials of several heads: any method resumes bit for bit with random subsets, dicts or one tensor, and every estimator agrees."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from olfl_ray.data import Dataset, InputScaler
from olfl_ray.data.load import of_object
from olfl_ray.engine import OnlineLossLearner, Sgd, exact, finite_difference, reverse
from olfl_ray.errors import SpecError
from olfl_ray.losses import build_loss
from olfl_ray.losses.per_head import HeadLosses
from olfl_ray.records import names
from olfl_ray.spec import LearnedLossSpec, TrialConfig
from olfl_ray.tasks import Head, task_of
from olfl_ray.tasks.multitask import MultiTask
from olfl_ray.testing.problems import distance
from olfl_ray.trial import TrialEnvironment, run, state_from_bytes, state_to_bytes
from olfl_ray.trial.build import Replicate, build_replicate, load_data
from olfl_ray.trial.export import model_to_bytes, read_model
from olfl_ray.trial.model import Origin, TrainedModel, trained_model


class TwoHeads(nn.Module):
    """A user's own module, which returns a dict."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(inputs, 12), nn.BatchNorm1d(12), nn.Tanh(), nn.Dropout(0.2))
        self.kind, self.size = nn.Linear(12, 3), nn.Linear(12, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.body(x)
        return {"size": self.size(features), "kind": self.kind(features)}


def two_heads(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    return TwoHeads(*input_shape)


def one_head_missing(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    module = TwoHeads(*input_shape)
    module.register_forward_hook(lambda _, __, found: {"kind": found["kind"]})
    return module


def things(rows: int = 90) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Three kinds of thing, and the size of each."""
    draw = np.random.default_rng(0)
    kind = np.arange(rows) % 3
    x = draw.normal(size=(rows, 5)) + kind[:, None]
    return x, {"kind": kind, "size": 10 * x[:, :1] + 3}


def named_things() -> Dataset:
    """The same with a declared head, and text as classes."""
    x, y = things()
    y = {"kind": np.array(["cup", "jar", "mug"])[y["kind"]], "size": y["size"]}
    return Dataset(name="things", kind="multitask", x=x, y=y)  # type: ignore[arg-type]


def config(method: str = "baseline", **changes: Any) -> TrialConfig:
    settings: dict[str, Any] = {
        "task": {"dataset": f"{__name__}:things", "model": f"{__name__}:two_heads", "batch_size": 16},
        "learner": {"method": method, "steps": 6, "optimizer": {"name": "adam", "lr": 0.01}},
        "meta": {"init_steps": 4, "eta_online": 1e-2},
        "eval": {"every": 2},
        "seeds": [1],
        "metric": "selection/mean_pseudo_r2",
        "goal": "maximize",
    }
    for name, value in changes.items():
        settings[name] = {**settings.get(name, {}), **value} if isinstance(value, dict) else value
    return TrialConfig.model_validate(settings)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> TrialEnvironment:
    return TrialEnvironment(cache=tmp_path_factory.mktemp("cache"))


def replicate_of(settings: TrialConfig, place: TrialEnvironment) -> Replicate:
    return build_replicate(settings, place, load_data(settings, place), settings.seeds[0])


@pytest.mark.parametrize("method", ["baseline", "uncertainty", "learned_weights", "online"])
def test_random_subsets_resume_bit_for_bit(method: str, place: TrialEnvironment) -> None:
    settings = config(method, task={"options": {"subsets": "random"}})
    found = list(run(settings, place))
    assert found[-1].outcome == "finished"
    middle = state_from_bytes(state_to_bytes(found[-2].state))
    rest = list(run(settings, place, middle))
    assert state_to_bytes(rest[-1].state) == state_to_bytes(found[-1].state)
    metrics = found[-1].records[-1].metrics
    assert {"selection/kind_error", "selection/size_rmse", "selection/size_loss"} <= metrics.keys()
    if method in ("uncertainty", "learned_weights"):
        weights = [metrics[f"train/weight_{head}"][0] for head in ("kind", "size")]
        assert weights[0] != weights[1], "the weights never moved"
    if method == "uncertainty":
        assert "base_loss.s_H" in found[-1].state.replicates[0].learner.theta


def test_every_estimator_agrees_on_dicts_and_subsets(place: TrialEnvironment) -> None:
    sgd = {"method": "online", "optimizer": {"name": "sgd", "lr": 0.05}}
    settings = config(learner=sgd, task={"options": {"subsets": "random"}}, meta={"inner_steps": 2})
    replicate = replicate_of(settings, place)
    batches = [replicate.data.batch("train", "train", step) for step in range(2)]
    meta = replicate.data.batch("meta", "meta", 0)
    torch.manual_seed(0)
    module = replicate.problem.module
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    results = [
        estimator(replicate.problem, replicate.start, 0.05, batches, meta)
        for estimator in (reverse, exact, finite_difference)
    ]
    assert len(results[0].phi_grad) > 2, "one loss network for classes, and one for numbers"
    assert distance(results[1].phi_grad, results[0].phi_grad) < 1e-4
    assert distance(results[2].phi_grad, results[0].phi_grad) < 0.05


def test_own_loop_learns_one_loss_per_kind_of_head() -> None:
    task = task_of("multitask", heads=of_object("mine", things()).heads, options={"weights": {"size": 0.5}})
    assert isinstance(task, MultiTask)
    kinds = {kind: build_loss(LearnedLossSpec(), kind, seed=1) for kind in ("classification", "regression")}
    module, learned = TwoHeads(5), HeadLosses(kinds, task)
    before = {name: value.detach().clone() for name, value in learned.named_parameters()}
    learner = OnlineLossLearner(module, Sgd(), learned, task.loss, lr=0.01, eta=1e-3, select=task.packed)
    data = of_object("mine", things())
    batch = data.x.float()[:16], task.scaled(data.y, torch.arange(90))[0][:16]
    for _ in range(2):
        assert all(value.isfinite() for value in learner.step(batch, batch).values())
    assert all(not torch.equal(value, before[name]) for name, value in learned.named_parameters())


def test_train_and_meta_batch_of_a_step_show_the_same_heads(place: TrialEnvironment) -> None:
    data = replicate_of(config(task={"options": {"subsets": "random"}}), place).data

    def shown(stream: str, part: Any, step: int) -> tuple[bool, ...]:
        return tuple((~data.batch(stream, part, step)[1][0].isnan()).tolist())

    steps = [shown("train", "train", step) for step in range(40)]
    assert steps == [shown("meta", "meta", step) for step in range(40)]
    assert set(steps) == {(True,) * 3 + (True,), (True,) * 3 + (False,), (False,) * 3 + (True,)}
    assert not data.targets("selection").isnan().any(), "an evaluation sees every head"


def test_hidden_head_gets_no_gradient(place: TrialEnvironment) -> None:
    replicate = replicate_of(config(task={"options": {"subsets": "random"}}), place)
    step = next(step for step in range(40) if replicate.data.batch("train", "train", step)[1][0].isnan().tolist()[-1])
    problem, (x, y) = replicate.problem, replicate.data.batch("train", "train", step)
    theta = {name: value.clone().requires_grad_() for name, value in replicate.start.theta.items()}
    with problem.train_pass(theta, replicate.start.buffers, x) as (outputs, _):
        problem.base_loss(outputs, y).backward()
    assert not theta["size.weight"].grad.any()  # type: ignore[union-attr]
    assert theta["kind.weight"].grad.any()  # type: ignore[union-attr]


def test_one_tensor_of_all_outputs_is_a_base_learner_too(place: TrialEnvironment) -> None:
    settings = config(task={"model": "mlp", "options": {"heads": ["size", "kind"], "weights": {"size": 0.5}}})
    replicate = replicate_of(settings, place)
    assert replicate.outputs == 4
    assert [head.name for head in replicate.task.heads] == ["size", "kind"]
    assert replicate.data.target_scale is not None
    assert replicate.data.target_scale.tolist()[1:] == [1.0, 1.0, 1.0], "classes are not scaled"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"task": {"model": f"{__name__}:one_head_missing"}}, "task.model.name"),
        ({"task": {"options": {"heads": ["kinds"]}}}, "task.options.heads"),
        ({"task": {"options": {"weights": {"kind": -1.0}}}}, "task.options.weights.kind"),
        ({"task": {"options": {"weights": {"kind": 0.0, "size": 0.0}}}}, "task.options.weights"),
        ({"task": {"options": {"reference": {"kind": 0.1}}}}, "task.options.reference"),
        ({"task": {"options": {"subset": "all"}}}, "task.options.subset"),
        ({"task": {"dataset": "digits", "model": "linear", "options": {"heads": ["x"]}}}, "task.options.heads"),
        ({"task": {"model": {"name": "multihead", "channels": [4]}}}, "task.model.name"),
        ({"metric": "selection/error"}, "search.metric"),
        (
            {
                "task": {"dataset": "digits-tasks", "model": "multihead"},
                "loss": {"name": "per_label", "labels": 10},
                "learner": {"method": "online"},
            },
            "loss.name",
        ),
    ],
)
def test_mistakes_name_their_field(changes: dict[str, Any], field: str, place: TrialEnvironment) -> None:
    with pytest.raises(SpecError) as found:
        replicate_of(config(**changes), place)
    assert found.value.field == field


def test_weighting_of_one_task_is_refused(place: TrialEnvironment) -> None:
    one = {"dataset": "digits", "model": "linear"}
    with pytest.raises(SpecError, match="heads"):
        replicate_of(config("uncertainty", task=one, metric="selection/error", goal="minimize"), place)


def test_exported_model_predicts_each_head_in_its_own_units(place: TrialEnvironment, tmp_path: Any) -> None:
    settings = config(
        task={"dataset": f"{__name__}:named_things", "model": {"name": "multihead", "hidden": [8]}},
        learner={"steps": 300, "optimizer": {"name": "adam", "lr": 0.02}, "method": "uncertainty"},
        eval={"every": 100},
    )
    state = list(run(settings, place))[-1].state
    model = trained_model(settings, place, state)
    path = tmp_path / "model.safetensors"
    path.write_bytes(model_to_bytes(model, "safetensors"))
    x, y = things()
    again = read_model(path)
    predicted = again.predict(x)
    assert isinstance(predicted, dict)
    assert torch.equal(again(torch.as_tensor(x)), model(torch.as_tensor(x)))
    size = np.asarray(predicted["size"])
    assert np.abs(size - y["size"]).mean() < 0.3 * y["size"].std()
    kinds = np.array(["cup", "jar", "mug"])[y["kind"]]
    assert (np.asarray(predicted["kind"]) == kinds).mean() > 0.8


def test_a_head_with_labels_is_predicted_by_their_names() -> None:
    heads = (
        Head(name="mood", kind="multilabel", outputs=2, classes=("happy", "sad")),
        Head(name="up", kind="regression", outputs=1),
    )
    origin = Origin(name="linear", options={}, input_shape=(3,), dtype=torch.float32, outputs=3, heads=heads)
    model = TrainedModel(nn.Identity(), InputScaler(), origin=origin, kind="multitask")
    found = model.predict(torch.tensor([[1.0, -1, 0.5], [2, 3, 4], [-1, -1, 0]]))
    assert isinstance(found, dict)
    assert found["mood"] == [("happy",), ("happy", "sad"), ()]
    assert torch.equal(torch.as_tensor(found["up"]), torch.tensor([[0.5], [4], [0]]))


def test_confirming_trial_measures_each_head_and_its_trivial_prediction(place: TrialEnvironment) -> None:
    settings = config("uncertainty", confirming=True)
    report = list(run(settings, place))[-1].report
    for head in ("kind_error", "size_rmse", "mean_pseudo_r2", "task_loss"):
        assert names.TEST_PREFIX + head in report
        assert names.TRIVIAL_PREFIX + head in report
    assert report["trivial/mean_pseudo_r2"][0] == pytest.approx(0, abs=0.1)
