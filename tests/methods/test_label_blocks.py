"""Labels in blocks: an output that is there but not shown equals one that is added later; nothing else is trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from olfl_ray import models
from olfl_ray.engine import LearnerState, Problem, Sgd, base_step
from olfl_ray.errors import SpecError
from olfl_ray.losses import LossFiles
from olfl_ray.losses.margins import MarginLoss
from olfl_ray.methods import Setting, method_of
from olfl_ray.methods.label_blocks import ArrivingLabels
from olfl_ray.spec import TrialConfig
from olfl_ray.tasks import task_of
from olfl_ray.trial import TrialEnvironment, run, state_from_bytes, state_to_bytes

BLOCKS = ((0, 1), (2,), (3, 4))
LABELS, STEPS, EACH, RATE = 5, 12, 4, 0.01
OUTPUTS = ("positive", "negative")


def network(outputs: int = LABELS) -> nn.Module:
    found = models.build("dosa", {"hidden": [7], "steps": 3}, input_shape=(4,), outputs=outputs, seed=0)
    return found.double().train()


def batch(step: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(step)
    x = 2 * torch.randn(6, 4, generator=draw, dtype=torch.float64)
    return x, (torch.rand(6, LABELS, generator=draw) > 0.5).float()


def states(loss: Any, optimizer: Sgd) -> list[LearnerState]:
    """The learner before the first step and after each."""
    task = task_of("multilabel")
    learned = ArrivingLabels(BLOCKS, STEPS, MarginLoss(task, LABELS), loss).double()
    plain = task.losses["binary_cross_entropy"]
    problem = Problem(
        module=network(), learned=learned, task_loss=plain, base_loss=plain, optimizer=optimizer, draws_random=False
    )
    theta = problem.theta()
    found = [
        LearnerState(
            theta=theta,
            buffers=problem.buffers(),
            opt_state=optimizer.init(theta),
            phi=problem.phi(),
            meta_state={},
            loss_buffers=problem.loss_buffers(),
        )
    ]
    for step in range(STEPS):
        found.append(base_step(problem, found[-1], batch(step), RATE)[0])
    return found


def widening(loss: str) -> list[dict[str, Tensor]]:
    """theta after each block of a plain loop, whose output layers have only the labels that have arrived."""
    full, arrived, found = network(), [], []
    module: Any = network()
    task, step = task_of("multilabel"), 0
    for block in BLOCKS:
        for name in OUTPUTS:
            old, new = getattr(module, name), nn.Linear(7, len(arrived) + len(block)).double()
            with torch.no_grad():
                for part in ("weight", "bias"):
                    kept = getattr(old, part)[: len(arrived)]
                    getattr(new, part).copy_(torch.cat([kept, getattr(getattr(full, name), part)[list(block)]]))
            setattr(module, name, new)
        arrived += block
        margins = MarginLoss(task, len(block)).double()
        for _ in range(EACH):
            x, y = batch(step)
            outputs, targets = module(x)[:, -len(block) :], y[:, list(block)].double()
            value = (
                margins.each(outputs, targets)
                if loss == "margin"
                else nn.functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
            )
            grads = torch.autograd.grad(value.sum(-1).mean(), list(module.parameters()))
            with torch.no_grad():
                for parameter, slope in zip(module.parameters(), grads, strict=True):
                    parameter.sub_(slope, alpha=RATE)
            step += 1
        found.append({name: value.detach().clone() for name, value in module.named_parameters()})
    return found


@pytest.mark.parametrize("loss", ["margin", "binary_cross_entropy"])
def test_hidden_outputs_equal_outputs_that_are_added_later(loss: Any) -> None:
    """With SGD, and blocks in the order of the labels: theta is that of a network that widens, up to the order of sums."""
    found, arrived = states(loss, Sgd()), 0
    for index, wanted in enumerate(widening(loss)):
        arrived += len(BLOCKS[index])
        theta = found[(index + 1) * EACH].theta
        for name, value in wanted.items():
            own = theta[name][:arrived] if name.startswith(OUTPUTS) else theta[name]
            assert torch.equal(own, value), name


@pytest.mark.parametrize("loss", ["margin", "binary_cross_entropy"])
def test_outputs_of_other_blocks_keep_their_weights_bit_for_bit(loss: Any) -> None:
    found = states(loss, Sgd())
    for step in range(STEPS):
        present = BLOCKS[step // EACH]
        for name in (f"{output}.{part}" for output in OUTPUTS for part in ("weight", "bias")):
            before, after = found[step].theta[name], found[step + 1].theta[name]
            for label in range(LABELS):
                assert torch.equal(before[label], after[label]) == (label not in present)


def config(blocks: Any = BLOCKS, **changes: Any) -> TrialConfig:
    return TrialConfig.model_validate(
        {
            "task": {"dataset": "synthetic-multilabel", "model": {"name": "dosa", "hidden": [8], "steps": 3}},
            "learner": {
                "method": "label_blocks",
                "options": {"blocks": blocks, **changes},
                "steps": 6,
                "optimizer": {"name": "adam", "lr": 0.01},
            },
            "eval": {"every": 2, "report": "last"},
            "seeds": [1],
        }
    )


def test_trial_records_blocks_and_f1_of_each_label_and_resumes_bit_for_bit(tmp_path: Any) -> None:
    place = TrialEnvironment(cache=tmp_path)
    whole = list(run(config(), place))
    records = [record.metrics for progress in whole for record in progress.records if "train/block" in record.metrics]
    assert [metrics["train/block"][0] for metrics in records] == [0.0, 1.0, 2.0]
    for number, block in enumerate(BLOCKS, 1):
        own = [records[-1][f"selection/f1_{label}"][0] for label in block]
        assert records[-1][f"selection/block_{number}_f1"][0] == pytest.approx(sum(own) / len(own))
    learner = whole[-1].state.replicates[0].learner
    assert not learner.phi
    assert int(learner.loss_buffers["step"]) == 6
    rest = list(run(config(), place, state_from_bytes(state_to_bytes(whole[1].state))))
    assert state_to_bytes(rest[-1].state) == state_to_bytes(whole[-1].state)


@pytest.mark.parametrize(
    ("blocks", "field"),
    [
        ([[0], [0, 1]], "learner.options.blocks"),
        ([[]], "learner.options.blocks"),
        ([], "learner.options.blocks"),
        ([[-1]], "learner.options.blocks"),
        ([[0], [7]], "learner.options.blocks"),
        ([[label] for label in range(5)] + [[5], [6]], "learner.options.blocks"),
    ],
)
def test_wrong_blocks_are_refused(blocks: Any, field: str) -> None:
    settings = config(blocks)

    def built() -> None:
        setting = Setting(
            config=settings,
            kind="multilabel",
            task=task_of("multilabel"),
            outputs=LABELS,
            theta={},
            seed=0,
            losses=LossFiles(),
        )
        method_of(settings.learner).learnable(setting)

    with pytest.raises(SpecError) as caught:
        built()
    assert caught.value.field.startswith(field)
