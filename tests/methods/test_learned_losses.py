"""The `loss` section: its settings are those of the learned loss that it names, checked and completed before anything starts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from olfl_ray.errors import SpecError
from olfl_ray.losses import ElementwiseLoss, build_loss
from olfl_ray.methods import check_settings, check_used, complete
from olfl_ray.spec import Strict, StudySpec, base_values, own_point, parse_spec, trial_config
from olfl_ray.study import Study

MLP = {
    "name": "mlp",
    "reduction": "mean",
    "from": None,
    "hidden": [40, 40],
    "activation": {"name": "smooth_leaky_relu", "beta": 10.0, "gamma": 0.01},
    "output": "none",
    "bias": False,
    "init": "kaiming_normal",
}
ML3 = {"name": "ml3", "reduction": "mean", "from": None, "init": "kaiming_normal"}


class Power(ElementwiseLoss):
    """A weighted power of the difference."""

    class Config(Strict):
        degree: int
        """Degree."""
        scale: float = 1.0
        """Weight at the beginning."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.degree, self.weight = config.degree, nn.Parameter(torch.tensor(config.scale))

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return self.weight * (output - target) ** self.degree


def power(degree: int, scale: float = 1.0) -> nn.Module:
    return Power(Power.Config(degree=degree, scale=scale))


def whatever(**settings: Any) -> nn.Module:
    return power(**settings)


CLASS, FUNCTION = f"{__name__}:Power", f"{__name__}:power"


def spec(loss: Any = None, arms: dict[str, Any] | None = None, **parameters: Any) -> StudySpec:
    found = {
        "name": "s",
        "task": {"dataset": "digits"},
        "loss": {} if loss is None else loss,
        "search": {"parameters": {key.replace("__", "."): value for key, value in parameters.items()}},
        "arms": {name: {"trials": 2, **arm} for name, arm in (arms or {"a": {}}).items()},
    }
    return parse_spec(json.dumps(found).encode())


def loss_of(study: StudySpec, arm: str = "a", **params: Any) -> dict[str, Any]:
    config = trial_config(study, arm, {key.replace("__", "."): value for key, value in params.items()}, seeds=(0,))
    check_settings(config)
    return config.loss.model_dump(mode="json", by_alias=True)


def refused(study: StudySpec) -> SpecError:
    with pytest.raises(SpecError) as caught:
        complete(study)
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_spec_is_read_without_torch() -> None:
    text = "{name: s, task: {dataset: digits}, loss: {name: ml3, init: xavier_uniform}, search: {parameters: {}}}"
    script = f"import sys; from olfl_ray.spec import parse_spec; parse_spec({text.encode()!r}); print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "False\n"
    )


def test_two_spellings_are_one_study() -> None:
    least = complete(spec())
    assert loss_of(least) == MLP
    assert complete(least) == least
    for loss in ("mlp", {"hidden": [40, 40]}, {"activation": "smooth_leaky_relu"}, {"activation": {"beta": 10}}, MLP):
        assert complete(spec(loss)).digest == least.digest, loss
    for loss in ({"hidden": [40]}, {"activation": "tanh"}, "ml3"):
        assert complete(spec(loss)).digest != least.digest, loss
    arm = {"set": {"loss.name": "ml3"}}
    full = {"set": {f"loss.{key}": value for key, value in ML3.items()}}
    for own in (arm, full):
        assert base_values(complete(spec(arms={"a": own})), "a")["loss"] == ML3
    given = {"set": {"loss.activation.gamma": 0}}
    assert complete(spec(arms={"a": given})).arms["a"].set == {"loss.activation.gamma": 0.0}


@pytest.mark.parametrize(
    ("loss", "field", "says"),
    [
        ({"hiddn": [4]}, "loss.hiddn", "did you mean 'loss.hidden'"),
        ({"hidden": [4, 0]}, "loss.hidden.1", "greater than or equal to 1, but it is 0"),
        ({"hidden": []}, "loss.hidden", "at least 1 item"),
        ({"bias": 1}, "loss.bias", "valid boolean"),
        ({"activation": {"gama": 0.1}}, "loss.activation.gama", "did you mean 'loss.activation.gamma'"),
        ({"activation": {"name": "tanh", "gamma": 0.1}}, "loss.activation.gamma", "no such field"),
        ({"activation": {"gamma": 1.5}}, "loss.activation.gamma", "less than 1, but it is 1.5"),
        ({"name": "ml3", "hidden": [4]}, "loss.hidden", "there are: init"),
        ({"name": "ml"}, "loss.name", "did you mean 'mlp'"),
        ({"name": CLASS}, "loss.degree", "required"),
        ({"name": CLASS, "degre": 2}, "loss.degre", "did you mean 'loss.degree'"),
        ({"name": CLASS, "degree": 2, "scal": 2.0}, "loss.scal", "did you mean 'loss.scale'"),
        ({"name": FUNCTION, "degree": 2, "scal": 2.0}, "loss.scal", "did you mean 'scale'"),
        ({"name": FUNCTION}, "loss.degree", "needs this setting"),
        ({"name": f"{__name__}:nothing"}, "loss.name", "has no 'nothing'"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_field_and_rule(loss: Any, field: str, says: str) -> None:
    error = refused(spec(loss))
    assert error.field == field
    assert says in error.problem
    own = refused(spec(arms={"b": {}, "a": {"set": {f"loss.{key}": value for key, value in loss.items()}}}))
    set_by_arm = field.split(".")[1] in loss
    assert own.field == (f"arms.a.set.{'.'.join(field.split('.')[:2])}" if set_by_arm else field)
    assert own.problem == error.problem


def test_an_error_names_the_line_of_the_file(tmp_path: Path) -> None:
    text = "name: s\ntask: {dataset: digits}\nloss:\n  hidden: [4]\n  bais: true\nsearch: {parameters: {}}\n"
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(SpecError, match=r"s\.yaml:5: loss\.bais: .*'loss\.bias'"):
        Study.from_yaml(tmp_path / "s.yaml", home=tmp_path)
    with pytest.raises(SpecError, match=r"--set: loss\.inti"):
        Study.from_yaml(tmp_path / "s.yaml", ["loss={inti: x}"], home=tmp_path)
    (tmp_path / "s.yaml").write_text(text.replace("  bais: true\n", "arms: {a: {trials: 1, set: {loss.bais: true}}}\n"))
    with pytest.raises(SpecError, match=r"s\.yaml:5: arms\.a\.set\.loss\.bais"):
        Study.from_yaml(tmp_path / "s.yaml", home=tmp_path)


def test_an_arm_with_another_loss_starts_from_the_defaults_of_that_one() -> None:
    study = complete(
        spec(
            {"hidden": [4], "init": "xavier_uniform", "reduction": "sum"}, {"a": {}, "b": {"set": {"loss.name": "ml3"}}}
        )
    )
    assert loss_of(study, "a") == {**MLP, "hidden": [4], "init": "xavier_uniform", "reduction": "sum"}
    assert loss_of(study, "b") == {**ML3, "reduction": "sum"}
    own = {"set": {"loss.init": "xavier_uniform", "loss.name": "ml3"}}
    assert loss_of(complete(spec({"hidden": [4]}, {"a": own}))) == {**ML3, "init": "xavier_uniform"}
    back = {"set": {"loss.name": "mlp", "loss.bias": True}}
    assert loss_of(complete(spec("ml3", {"a": back}))) == {**MLP, "bias": True}
    assert refused(spec({"hidden": [4]}, {"a": {"set": {"loss.name": "ml3", "loss.bias": True}}})).field == (
        "arms.a.set.loss.bias"
    )


def test_an_arm_gives_what_the_studys_own_loss_requires() -> None:
    arms = {"a": {"set": {"loss.degree": 2}}, "plain": {"set": {"learner.method": "baseline"}}}
    study = complete(spec({"name": CLASS}, arms))
    check_used(study)
    assert loss_of(study)["degree"] == 2
    searched = complete(spec({"name": CLASS}, {"a": {"parameters": {"loss.degree": {"values": [2, 4]}}}}))
    assert loss_of(searched, loss__degree=4)["degree"] == 4


@pytest.mark.parametrize(
    ("field", "search", "says"),
    [
        ("loss.activation.gamma", {"min": 0.1, "max": 1}, "less than 1, but it is 1"),
        ("loss.activation.gamma", {"values": [0.1, "high"]}, "valid number"),
        ("loss.activation.gama", {"min": 0.1, "max": 0.2}, "did you mean 'loss.activation.gamma'"),
        ("loss.hidden", {"values": [[4], []]}, "at least 1 item"),
        ("loss.name", {"values": ["mlp", "ml4"]}, "there is no 'ml4'"),
        (
            "loss.activation.gamma",
            {"values": [0.1], "when": {"loss.activation.name": "tanh"}},
            "fixed at 'smooth_leaky",
        ),
        ("loss.activation.gamma", {"values": [0, 0.1, 0.0]}, "appears twice"),
    ],
)
def test_a_search_is_checked_at_its_ends(field: str, search: Any, says: str) -> None:
    for arms, parameters, where in (
        ({"a": {}}, {field: search}, "search"),
        ({"a": {"parameters": {field: search}}}, {}, "arms.a"),
    ):
        with pytest.raises(SpecError) as caught:
            complete(spec(arms=arms, **parameters))
        assert caught.value.field.startswith(f"{where}.parameters.{field}"), caught.value.field
        assert says in caught.value.problem


def test_a_search_takes_the_types_of_its_fields_and_begins_at_the_specs_own_values() -> None:
    parameters = {
        "loss.activation.gamma": {"min": 0, "max": 0.5},
        "loss.bias": {"values": [True, False]},
        "loss.activation": {"values": ["tanh", "smooth_leaky_relu"]},
    }
    for field, wanted in {
        "loss.activation.gamma": 0.01,
        "loss.bias": False,
        "loss.activation": MLP["activation"],
    }.items():
        study = complete(spec(**{field: parameters[field]}))
        assert own_point(study, "a") == {field: wanted}
    gamma = complete(spec(**{"loss.activation.gamma": parameters["loss.activation.gamma"]}))
    assert isinstance(gamma.search.parameters["loss.activation.gamma"].min, float)


def test_a_searched_loss_has_the_settings_of_each_point() -> None:
    study = complete(
        spec(
            {"hidden": [4]},
            loss__name={"values": ["mlp", "ml3"]},
            loss__bias={"values": [True, False], "when": {"loss.name": "mlp"}},
        )
    )
    assert own_point(study, "a") == {"loss.name": "mlp", "loss.bias": False}
    assert loss_of(study, loss__name="mlp", loss__bias=True) == {**MLP, "hidden": [4], "bias": True}
    assert loss_of(study, loss__name="ml3") == {key: ML3[key] for key in ("name", "reduction", "from")}
    with pytest.raises(SpecError, match=r"loss\.gamma"):
        loss_of(study, loss__name="ml3", loss__gamma=0.1)


@pytest.mark.parametrize("name", [CLASS, FUNCTION, f"{__name__}:whatever"])
def test_a_users_own_has_its_settings_next_to_its_name(name: str) -> None:
    study = complete(spec({"name": name, "degree": 4, "scale": 0.5}))
    built = build_loss(trial_config(study, "a", {}, seeds=(0,)).loss, "regression", seed=0)
    output, target = torch.tensor([[2.0]]), torch.tensor([[1.0]])
    assert built(3 * output, target).item() == 0.5 * 5**4


def test_a_client_without_a_users_module_has_the_same_study() -> None:
    loss = {"name": CLASS, "degree": 4}
    assert complete(spec(loss), own=False).digest == complete(spec(loss)).digest
    nowhere = spec({"name": "no_such_package:Loss", "x": 1})
    assert complete(nowhere, own=False).loss.options == {"x": 1}
    assert refused(nowhere).field == "loss.name"


def test_settings_are_those_of_the_loss_that_from_names() -> None:
    assert complete(spec({"name": CLASS, "from": "s/a/0"})).loss.options == {}
    assert refused(spec({"name": CLASS, "from": "s/a/0", "degre": 2})).field == "loss.degre"
    assert refused(spec({"name": "ml4", "from": "s/a/0"})).field == "loss.name"
