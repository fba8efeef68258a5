"""Contract of methods: a method reads exactly the settings that it lists, and learns exactly what it declares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from olfl_ray.errors import SpecError
from olfl_ray.learnable import Learnable
from olfl_ray.losses import LossFiles, task_loss
from olfl_ray.methods import METHODS, Method, Setting, check_used, method_of
from olfl_ray.spec import StudySpec, TrialConfig, trial_config
from olfl_ray.tasks import Head, task_of

__all__ = ["MethodContract"]

OPTIONAL: dict[str, Any] = {
    "loss.hidden": [7],
    "loss.bias": True,
    "loss.init": "xavier_uniform",
    "loss.reduction": "sum",
    "meta.optimizer": "sgd",
    "meta.eta_init": 0.02,
    "meta.eta_online": 0.03,
    "meta.init_steps": 3,
    "meta.inner_steps": 2,
    "meta.every": 2,
    "meta.batch": "train",
    "meta.clip_norm": 1.0,
    "meta.estimator": "reverse",
    "meta.memory": "low",
}
"""Settings that not every method reads, each with a non-default value."""
BEFORE = ("meta.optimizer", "meta.eta_init", "meta.init_steps")
DURING = ("meta.optimizer", "meta.eta_online", "meta.every")


class MethodContract:
    """Inherit it in a test module, and override `name`."""

    name: str
    """Name in the spec: a built-in name, or `package.module:Class`."""
    dataset = "digits"
    """A bundled data set that the method supports."""
    options: Mapping[str, Any] = MappingProxyType({})
    """Its settings, if it has some without a default."""
    heads: Sequence[Head] = ()
    """Heads of the task, if the method needs several."""

    def test_it_lists_settings_that_exist(self) -> None:
        assert isinstance(self._method.uses, tuple), "`uses` is a tuple of names"
        for used in self._method.uses:
            assert any(_within(field, used) for field in _fields()), f"there is no field or section {used!r}"
            assert any(_within(field, used) or _within(used, field) for field in OPTIONAL) or used.startswith(
                ("loss.", "meta.")
            ), f"every method uses {used}; leave it out"

    def test_a_setting_that_it_does_not_use_is_refused(self) -> None:
        for field, value in OPTIONAL.items():
            used = any(_within(field, own) for own in self._method.uses)
            assert self._refused({field: value}) == ("" if used else f"arms.it.set.{field}")

    def test_initial_phi_depends_only_on_listed_settings(self) -> None:
        before = self._phi({})
        for field, value in OPTIONAL.items():
            if not any(_within(field, own) for own in self._method.uses):
                after = self._phi({field: value})
                same = before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
                assert same, f"its initial phi depends on {field}, which it does not list"

    def test_initial_phi_depends_only_on_the_seed(self) -> None:
        one, other = self._phi({}), self._phi({})
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), "two calls with one seed give two initial phis"

    def test_it_learns_when_it_declares_to(self) -> None:
        method = self._method
        learns = bool(self._phi({}))
        assert learns == (method.before or method.during), "phi is empty, or `before` and `during` are both False"
        for when, needed in ((method.before, BEFORE), (method.during, DURING)):
            for field in needed if when else ():
                assert any(_within(field, own) for own in method.uses), f"it learns by {field}, but does not list it"
        if not learns:
            assert not any(own.startswith("meta") for own in method.uses), "it learns nothing, but lists meta"

    def test_theta_is_trained_on_train_or_meta(self) -> None:
        parts = self._method.trained_on
        assert parts, "`trained_on` is empty"
        assert set(parts) <= {"train", "meta"}, "the splits that select and test are for nothing else"

    def test_its_base_loss_is_a_scalar_with_a_gradient(self) -> None:
        setting = self._setting({})
        loss = method_of(setting.config.learner).base_loss(setting, task_loss("auto", setting.task))
        outputs = torch.linspace(-1.0, 1.0, 4 * setting.outputs).reshape(4, -1).requires_grad_()
        value = loss(outputs, setting.task.examples(4, setting.outputs))
        assert value.shape == (), "the base loss is no scalar"
        (slope,) = torch.autograd.grad(value, outputs)
        assert torch.isfinite(slope).all(), "the base loss has no finite gradient"

    def test_its_phis_are_those_of_what_it_learns_in_order(self) -> None:
        setting = self._setting({})
        found = method_of(setting.config.learner).phis(setting)
        since = [start for start, _ in found]
        assert since == sorted(since), "they are not in the order of the training"
        assert all(0 <= start <= 1 for start in since), "each holds from a fraction of the training on"
        for _, phi in found:
            assert phi.keys() == self._phi({}).keys()

    def test_it_returns_a_learnable(self) -> None:
        assert isinstance(self._learnable({}), Learnable)
        assert issubclass(self._method, Method)

    def _refused(self, own: dict[str, Any]) -> str:
        """The field for which a spec is refused; empty if it is accepted."""
        try:
            check_used(self._spec(own))
        except SpecError as error:
            return error.field
        return ""

    @property
    def _method(self) -> type[Method]:
        return METHODS.find(self.name, "learner.method")

    def _spec(self, own: dict[str, Any]) -> StudySpec:
        return StudySpec.model_validate(
            {
                "name": "x",
                "task": {"dataset": self.dataset, "model": "linear"},
                "learner": {"method": self.name, "options": dict(self.options)},
                "search": {"parameters": {}},
                "arms": {"it": {"trials": 1, "set": own}},
            }
        )

    def _learnable(self, own: dict[str, Any]) -> Learnable:
        setting = self._setting(own)
        return method_of(setting.config.learner).learnable(setting)

    def _setting(self, own: dict[str, Any]) -> Setting:
        config: TrialConfig = trial_config(self._spec(own), "it", {}, seeds=(0,))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = nn.Linear(4, 3)
        theta: dict[str, Tensor] = {name: value.detach() for name, value in module.named_parameters()}
        kind = "multitask" if self.heads else "classification"
        return Setting(
            config=config,
            kind=kind,
            task=task_of(kind, heads=self.heads),
            outputs=sum(head.outputs for head in self.heads) or 3,
            theta=theta,
            seed=1,
            losses=LossFiles(),
        )

    def _phi(self, own: dict[str, Any]) -> dict[str, Tensor]:
        return {name: value.detach() for name, value in self._learnable(own).named_parameters() if value.requires_grad}


def _fields() -> list[str]:
    """Fields of the sections that a method may list."""
    sections = {name: TrialConfig.model_fields[name].annotation for name in ("learner", "loss", "meta")}
    return [
        f"{section}.{field.alias or name}"
        for section, kind in sections.items()
        for name, field in kind.model_fields.items()  # type: ignore[union-attr]
    ]


def _within(field: str, section: str) -> bool:
    return f"{field}.".startswith(f"{section}.")
