"""A loss that is a member of a family, a formula or faulty is recognised as such; a study gets its formula as an arm."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from olfl_ray.errors import DataError, SetupError
from olfl_ray.explain import FAMILIES, Explanation, explain
from olfl_ray.explain.checks import TRUTHS
from olfl_ray.explain.formulas import TERMS
from olfl_ray.explain.reference import Reference, reference_of, slope_of
from olfl_ray.losses import ElementwiseLoss, LearnedLoss, build_loss, read_formula
from olfl_ray.losses.seen import tensor_of
from olfl_ray.spec import LearnedLossSpec, read_spec
from olfl_ray.study import Study

DEMO = Path(__file__).parents[2] / "sweeps" / "digits.yaml"
CLASSES, SMOOTHED = 10, 0.1
Formula = Callable[[Tensor, Tensor], Tensor]
KNOWN: dict[str, Formula] = {
    "cross-entropy": lambda y, p: -y * p.log(),
    "label smoothing": lambda y, p: -((1 - SMOOTHED) * y + SMOOTHED / CLASSES) * p.log(),
    "focal": lambda y, p: -y * (1 - p) ** 2 * p.log(),
    "Poly-1": lambda y, p: y * (-p.log() + 1.5 * (1 - p)),
    "squared error": lambda y, p: (y - p) ** 2,
}
NUMBERS: dict[str, Formula] = {
    "squared error": lambda y, f: (y - f) ** 2,
    "absolute error": lambda y, f: (y - f).abs(),
    "Huber": lambda y, f: torch.where((y - f).abs() < 0.7, (y - f) ** 2 / 2, 0.7 * ((y - f).abs() - 0.35)),
}


class Given(ElementwiseLoss):
    """A loss as a function of target and output."""

    def __init__(self, formula: Formula) -> None:
        super().__init__(None)
        self.formula = formula

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return self.formula(target, output)


def learned(formula: Formula, kind: str = "classification", seen: tuple[float, float] | None = None) -> LearnedLoss:
    loss = LearnedLoss(Given(formula), kind)
    if seen is not None:
        loss.seen = tensor_of({"target": (0, 1) if kind == "classification" else seen, "output": seen})
    return loss


def explained(formula: Formula, kind: str = "classification", seen: tuple[float, float] | None = None) -> Explanation:
    return explain([(None, learned(formula, kind, seen))], "it", classes=CLASSES)


def check(explanation: Explanation, name: str) -> tuple[bool, float, str]:
    row = explanation.checks.loc[name]
    return bool(row["found"]), float(row["share"]), str(row["where"])


@pytest.mark.parametrize("name", KNOWN)
def test_a_member_of_a_family_is_recovered_for_classes(name: str) -> None:
    """Also times 7, with a constant, and with 3 p for every output, which sums to 3: none of these has a meaning."""
    found = explained(lambda y, p: 7 * KNOWN[name](y, p) + 5 + 3 * p).nearest
    assert found is not None
    assert found.family == name
    assert found.misfit < 1e-3
    assert found.factor == pytest.approx(7, rel=1e-3)
    value = {"label smoothing": SMOOTHED, "focal": 2.0, "Poly-1": 1.5}.get(name)
    if value is not None:
        assert found.value == pytest.approx(value, abs=2e-3)
        assert found.low <= found.value <= found.high
        assert found.identified
        assert not found.at_bound


@pytest.mark.parametrize("name", NUMBERS)
def test_a_member_of_a_family_is_recovered_for_numbers(name: str) -> None:
    found = explained(lambda y, f: 0.2 * NUMBERS[name](y, f) - y, "regression", (-2.0, 2.5)).nearest
    assert found is not None
    assert (found.family, found.misfit < 1e-3) == (name, True)
    if name == "Huber":
        assert found.value == pytest.approx(0.7, abs=2e-3)


def test_a_parameter_that_the_seen_range_does_not_show_is_not_identified() -> None:
    found = explained(NUMBERS["squared error"], "regression", (-0.5, 0.5))
    huber = found.families.loc["Huber"]
    assert huber["misfit"] < 1e-3
    assert huber["low"] <= 1 <= huber["high"]
    assert not huber["identified"]
    assert "Huber (delta" in str(found)
    assert "not identified" in str(found)


def test_the_gradient_is_that_of_the_logits() -> None:
    loss = build_loss(LearnedLossSpec(name="mlp"), "classification", seed=3).double()
    draw = torch.Generator().manual_seed(0)
    logits_BC = torch.randn(8, 4, dtype=torch.float64, generator=draw).requires_grad_()
    targets_B = torch.arange(8) % 4
    (wanted_BC,) = torch.autograd.grad(loss(logits_BC, targets_B), logits_BC)
    pairs = [value.detach().numpy() for value in loss.task.pairs(logits_BC, targets_B)]
    reference = Reference(
        kind="classification",
        output_NC=pairs[0],
        target_NC=pairs[1],
        seen={"target": (0, 1), "output": (0, 1)},
        known=True,
    )
    np.testing.assert_allclose(
        reference.gradient(slope_of(loss.network)) / 8 / 4, wanted_BC.numpy(), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("classes", [2, 3, 1000])
def test_the_reference_is_on_the_simplex_and_in_the_seen_range(classes: int) -> None:
    reference = reference_of("classification", {"target": (0, 1), "output": (0.2, 0.9)}, classes=classes)
    np.testing.assert_allclose(reference.output_NC.sum(1), 1)
    assert 0.2 < reference.output_NC[:, 0].min() < 0.21
    assert 0.89 < reference.output_NC[:, 0].max() < 0.9
    assert np.isfinite(reference.task_gradient).all()


def test_a_loss_of_the_wrong_sign_rewards_errors_and_is_near_no_family() -> None:
    for kind, formula, seen in (
        ("classification", KNOWN["cross-entropy"], None),
        ("regression", NUMBERS["squared error"], (-1.0, 1.0)),
    ):
        found = explained(lambda y, f, formula=formula: -formula(y, f), kind, seen)
        wrong, share, _ = check(found, "rewards errors")
        assert wrong
        assert share > (0.15 if kind == "classification" else 0.9)
        assert found.families.loc[["squared error"], "misfit"].item() == 1
        right = explained(formula, kind, seen)
        assert check(right, "rewards errors") == (False, 0.0, "")
        assert not check(right, "flat")[0]


def test_label_smoothing_restrains_confidence_and_rewards_no_error() -> None:
    found = explained(KNOWN["label smoothing"])
    assert not check(found, "rewards errors")[0]
    restrained, _, where = check(found, "restrains confidence")
    assert restrained
    assert "from 0.9" in where


def test_a_constant_is_flat_and_has_no_neighbour_and_no_formula() -> None:
    for kind in FAMILIES:
        found = explained(lambda y, f: torch.zeros_like(f) + 4, kind)
        assert repr(found) == "Explanation('it': flat)"
        assert check(found, "flat") == (True, 1.0, "everywhere")
        assert (found.nearest, found.formula, found.steepness) == (None, None, 0)
        assert "it" in found._repr_html_()
        assert json.dumps(found.document())


def test_a_loss_is_flat_where_it_is_clipped() -> None:
    flat, share, where = check(explained(lambda y, p: -y * p.clamp(max=0.5).log()), "flat")
    assert flat
    assert share == pytest.approx(0.5, abs=0.02)
    assert "from 0.5" in where


def test_the_minimum_of_the_expected_loss_is_the_one_that_theory_gives() -> None:
    truth = np.array(TRUTHS)
    for name in ("cross-entropy", "squared error"):
        found = explained(KNOWN[name])
        np.testing.assert_allclose(found.expected["minimum"], truth, atol=1e-3)
        assert not check(found, "improper")[0]
    found, spread = explained(KNOWN["label smoothing"]), SMOOTHED / CLASSES
    wanted = (truth * (1 - SMOOTHED) + spread) / (1 - SMOOTHED + 2 * spread)
    np.testing.assert_allclose(found.expected["minimum"], wanted, atol=1e-3)
    assert check(explained(KNOWN["focal"]), "improper")[0]
    mean = explained(NUMBERS["squared error"], "regression", (-2.0, 2.0))
    np.testing.assert_allclose(mean.expected["minimum"], mean.expected["truth"], atol=2e-3)
    median = explained(NUMBERS["absolute error"], "regression", (-2.0, 2.0))
    np.testing.assert_allclose(median.expected["minimum"][[0, 18]], [-1, 1], atol=2e-3)
    assert check(median, "improper")[0]


def test_the_formula_of_a_loss_within_the_dictionary_is_that_loss() -> None:
    found = explained(KNOWN["focal"]).formula
    assert found is not None
    assert (found.terms, found.misfit < 1e-3) == (3, True)
    p = torch.linspace(0.05, 0.95, 19, dtype=torch.float64).requires_grad_()
    spec = LearnedLossSpec.model_validate({"name": "expression", "formula": found.formula, "weights": "fixed"})
    network = build_loss(spec, "classification", seed=0).double().network
    for y in (0.0, 1.0):
        y_N = torch.full_like(p, y)
        slopes = [torch.autograd.grad(value.sum(), p)[0] for value in (network(p, y_N), KNOWN["focal"](y_N, p))]
        torch.testing.assert_close(*slopes, rtol=1e-3, atol=1e-3)
    squared = explained(NUMBERS["squared error"], "regression", (-2.0, 2.0)).formula
    assert squared is not None
    assert squared.formula == "1 * square(y - f)"


def test_the_misfit_of_a_formula_is_reported_as_it_is() -> None:
    found = explained(lambda y, p: -y * torch.sin(40 * p))
    assert found.formula is not None
    assert found.formula.misfit > 0.5
    misfits = list(found.fits["misfit"])
    assert misfits == sorted(misfits, reverse=True)


def test_each_term_of_the_dictionaries_is_a_formula() -> None:
    for terms in TERMS.values():
        assert len({read_formula(term).prefix for term in terms}) == len(terms)


def test_a_loss_that_has_recorded_no_range_says_so() -> None:
    assert "has recorded no range" in str(explained(KNOWN["focal"]))
    assert "seen in training" in str(explained(KNOWN["focal"], seen=(0.1, 0.9)))


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_film_has_a_frame_for_each_moment_and_the_tables_are_files(kind: str, tmp_path: Path) -> None:
    formulas = KNOWN if kind == "classification" else NUMBERS
    steps = [
        (10 * k, learned(lambda y, f, k=k: formulas["squared error"](y, f) + k * y * f * f, kind)) for k in range(3)
    ]
    found = explain(steps, "s/online/0", classes=3)
    assert list(found.training["step"].unique()) == [0, 10, 20]
    assert found.training.groupby("family")["misfit"].first()["squared error"] == pytest.approx(0, abs=1e-6)
    files = {path.name: path for path in found.save(tmp_path / "out")}
    assert Image.open(io.BytesIO(files["film.gif"].read_bytes())).n_frames == 3
    assert files["moments.svg"].read_text().startswith("<svg")
    document = json.loads(files["explanation.json"].read_text())
    assert document["families"][0]["misfit"] == found.members[0].misfit
    assert files["surface.csv"].read_text().startswith("step,target,output,learned,slope\n")
    assert found.surface.groupby("step").size().nunique() == 1
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(SetupError, match="out: "):
        found.save(blocked)


def test_the_formula_becomes_one_more_arm_of_the_same_study(tmp_path: Path) -> None:
    spec = read_spec(DEMO)
    found = explain([(1500, learned(KNOWN["focal"]))], "digits/online/c0", classes=10, spec=spec, arm="online")
    written = found.as_arm(tmp_path / "formula.yaml")
    assert "competes as a fixed loss" in written.read_text()
    study = Study.from_yaml(written)
    added = study.spec.arms["online_formula"]
    assert found.formula is not None
    assert added.set["loss.formula"] == found.formula.formula
    assert added.trials == spec.arms["online"].trials
    assert set(study.spec.parameters_of("online_formula")) == {"learner.optimizer.lr"}
    before = Study.from_spec(spec).spec
    assert {name: arm for name, arm in study.spec.arms.items() if name != "online_formula"} == dict(before.arms)
    with pytest.raises(DataError, match="is not a study's trial"):
        explained(KNOWN["focal"]).as_arm(tmp_path / "other.yaml")


def test_what_can_not_be_explained_is_refused() -> None:
    with pytest.raises(DataError, match="not finite"):
        explained(lambda y, p: y * (p - p).sqrt())
    with pytest.raises(DataError, match="classes: is 1"):
        explain([(None, learned(KNOWN["focal"]))], "it", classes=1)
    own = learned(KNOWN["focal"])
    own.kind = "mine.counts:Counts"
    with pytest.raises(DataError, match=r"task mine\.counts"):
        explain([(None, own)], "it")
    assert math.isfinite(explained(KNOWN["focal"]).steepness)
