"""What every learned loss does: it is elementwise, its derivatives are right, its settings are strict, and files keep it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from olfl_ray.errors import SpecError
from olfl_ray.learnable import Learnable
from olfl_ray.losses import (
    ElementwiseLoss,
    LearnedLoss,
    build_loss,
    bytes_of,
    loss_from_bytes,
    loss_settings,
    named_loss,
)
from olfl_ray.spec import LearnedLossSpec
from olfl_ray.tasks import task_of
from olfl_ray.testing.learnables import LearnableContract

__all__ = ["LearnedLossContract"]


class LearnedLossContract(LearnableContract):
    """Inherit it in a test module, and override `name`; `task` and `outputs` are those of `LearnableContract`."""

    name: str
    """As the spec has it: a built-in name, or `package.module:Class`."""
    options: Mapping[str, Any] = MappingProxyType({})
    """Settings: those without a default, and what keeps it small."""

    def make(self, theta: Mapping[str, Tensor], outputs: int) -> Learnable:
        """The learned loss."""
        return self._loss()

    def test_each_setting_has_a_meaning(self) -> None:
        builder = named_loss(self.name)
        if isinstance(builder, type) and issubclass(builder, ElementwiseLoss):
            bare = [key for key, info in builder.Config.model_fields.items() if not info.description]
            assert not bare, f"write a line below each of {bare}"
            assert (builder.__doc__ or "").strip(), "it has no docstring"

    def test_its_settings_in_full_are_plain_and_stay_as_they_are(self) -> None:
        whole = loss_settings({"name": self.name, **self.options})
        assert json.loads(json.dumps(whole)) == whole
        assert loss_settings(whole) == whole

    def test_a_setting_that_it_does_not_have_is_refused(self) -> None:
        refused = ""
        try:
            loss_settings({"name": self.name, **self.options, "no_such_setting": 1})
        except SpecError as error:
            refused = error.field
        assert refused == "loss.no_such_setting", "it takes settings that it does not have"

    def test_its_parameters_are_counted_as_it_is_built(self) -> None:
        counted = bytes_of(LearnedLossSpec.model_validate({"name": self.name, **self.options}))
        built = sum(value.numel() * value.element_size() for value in self._loss().parameters())
        assert counted in (0, built), "`parameters_of` is not the number of parameters"

    def test_its_weights_depend_on_the_seed_alone(self) -> None:
        before = torch.random.get_rng_state()
        one, other = self._loss().state_dict(), self._loss().state_dict()
        assert torch.equal(before, torch.random.get_rng_state()), "building it changes the global random state"
        assert all(torch.equal(value, other[name]) for name, value in one.items())

    def test_a_pairs_loss_depends_on_that_pair_alone(self) -> None:
        network, (output_N, target_N) = self._loss().network.double(), self._pairs()
        together = network(output_N, target_N)
        assert together.shape == output_N.shape
        assert torch.isfinite(together).all()
        alone = torch.cat([network(*pair) for pair in zip(output_N.split(1), target_N.split(1), strict=True)])
        torch.testing.assert_close(alone, together)
        torch.testing.assert_close(network(output_N.view(2, -1), target_N.view(2, -1)).view(-1), together)

    def test_its_closed_form_is_the_derivative_of_forward(self) -> None:
        loss = self._loss().double()
        phi = {name: value for name, value in loss.named_parameters() if value.requires_grad}
        task, outputs = task_of(self.task), self.outputs
        targets = task.examples(6, outputs)
        targets = targets.double() if targets.is_floating_point() else targets
        for seed in range(3):
            draw = torch.Generator().manual_seed(seed)
            outputs_BC = torch.randn(6, outputs, generator=draw, dtype=torch.float64).requires_grad_()
            closed = loss.outputs_gradient(phi, outputs_BC.detach(), targets)
            if closed is None:
                return  # autograd's are used
            wanted = loss(outputs_BC, targets)
            (slope_BC,) = torch.autograd.grad(wanted, outputs_BC, create_graph=True)
            u_BC = torch.randn(6, outputs, generator=draw, dtype=torch.float64)
            along = torch.autograd.grad(slope_BC, list(phi.values()), u_BC, materialize_grads=True)
            torch.testing.assert_close(closed[0], wanted.detach(), rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(closed[1], slope_BC.detach(), rtol=1e-9, atol=1e-12)
            for found, value in zip(closed[2](u_BC).values(), along, strict=True):
                torch.testing.assert_close(found, value, rtol=1e-9, atol=1e-12)

    def test_its_files_give_it_back(self) -> None:
        loss = self._loss()
        with torch.no_grad():
            for value in loss.parameters():
                value.add_(0.1)
        files = loss.files()
        weights, settings = files["learned_loss.safetensors"], files["learned_loss.json"]
        found = loss_from_bytes(weights, settings, "the test", allow=[self.name, self.task])
        for name, value in loss.state_dict().items():
            assert torch.equal(value, found.state_dict()[name]), name
        output_N, target_N = (value.float() for value in self._pairs())
        assert torch.equal(found.network(output_N, target_N), loss.network(output_N, target_N))
        assert found.settings == loss.settings

    def _loss(self) -> LearnedLoss:
        spec = LearnedLossSpec.model_validate({"name": self.name, **self.options})
        return build_loss(spec, self.task, seed=1)

    def _pairs(self) -> tuple[Tensor, Tensor]:
        """Outputs and targets (12,) as training gives them."""
        task = task_of(self.task)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            output_BC, target_BC = task.pairs(torch.randn(6, 2), task.examples(6, 2))
        return output_BC.reshape(-1).double(), target_BC.reshape(-1).double()
