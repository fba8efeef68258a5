"""transformers: the Trainer's steps are a learner's; resuming, schedulers, masks and micro-batches work."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import olfl_ray.integrations  # before transformers, as torchvision may be broken here  # noqa: F401
from olfl_ray import OnlineLossLearner, load_loss
from olfl_ray.errors import SpecError
from olfl_ray.losses import build_loss
from olfl_ray.spec import LearnedLossSpec

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
pytestmark = pytest.mark.filterwarnings("ignore")
OnlineLossTrainer = pytest.importorskip("olfl_ray.integrations.transformers").OnlineLossTrainer

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "transformers_loop.py"


def examples(count: int, seed: int) -> list[dict[str, Any]]:
    draw = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        length = int(torch.randint(2, 7, (), generator=draw))
        mask = (torch.arange(6) < length).long()
        ids = torch.randint(1, 9, (6,), generator=draw) * mask
        found.append({"input_ids": ids, "attention_mask": mask, "labels": int(ids.sum() % 2)})
    return found


def model(dropout: float = 0.1) -> nn.Module:
    transformers.set_seed(0)
    return transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=9,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )
    )


def loss() -> nn.Module:
    return build_loss(LearnedLossSpec(), "classification", seed=1)


def trainer(folder: Path, net: nn.Module, learned: nn.Module, steps: int = 6, **settings: Any) -> Any:
    given = {"task_loss": F.cross_entropy, "meta_dataset": examples(16, 2), "eta": 1e-2}
    args = {"max_steps": steps, "save_steps": 3, "learning_rate": 0.02, "lr_scheduler_type": "linear", **settings}
    return OnlineLossTrainer(
        net,
        transformers.TrainingArguments(
            str(folder), per_device_train_batch_size=4, use_cpu=True, report_to=[], disable_tqdm=True, **args
        ),
        train_dataset=examples(40, 1),
        learned_loss=learned,
        **given,
    )


def state(*modules: nn.Module) -> list[Tensor]:
    return [value.clone() for module in modules for value in module.state_dict().values()]


@pytest.mark.parametrize("accumulated", [1, 2])
def test_its_steps_are_those_of_a_learner(tmp_path: Path, accumulated: int) -> None:
    net, learned, seen = model(0.0), loss(), []
    loop = trainer(tmp_path, net, learned, gradient_accumulation_steps=accumulated)
    batch = loop.online_batch
    loop.online_batch = lambda inputs: seen.append(batch(inputs)) or seen[-1]
    loop.train()
    assert loop.state.global_step == loop.learner.steps == 6
    assert loop.lr_scheduler.get_last_lr() == [0.0]
    assert {"meta_loss", "meta_grad_norm"} <= set(trainer_log(loop))
    twin, twins = model(0.0), loss()
    optimizer = torch.optim.AdamW(twin.parameters(), 0.02, weight_decay=0.0)
    learner = OnlineLossLearner(
        twin, optimizer, twins, F.cross_entropy, eta=1e-2, clip_norm=1.0, select=lambda r: r.logits, unpack=True
    )
    twin.train()
    kept = iter(seen)
    for step in range(6):
        optimizer.param_groups[0]["lr"] = 0.02 * (6 - step) / 6
        train, meta = ([next(kept) for _ in range(accumulated)] for _ in range(2))
        if accumulated == 1:
            learner.step(train[0], meta[0])
        else:
            learner.step_accumulated(train, meta)
    for one, other in zip(state(net, learned), state(twin, twins), strict=True):
        assert torch.equal(one, other)


def trainer_log(loop: Any) -> dict[str, float]:
    loop.log({"loss": 1.0})
    return loop.state.log_history[-1]


def test_a_run_resumes_from_a_checkpoint_to_the_same_bits(tmp_path: Path) -> None:
    wanted, wanted_loss = model(), loss()
    trainer(tmp_path / "whole", wanted, wanted_loss).train()
    trainer(tmp_path / "cut", model(), loss()).train()
    net, learned = model(), loss()
    loop = trainer(tmp_path / "cut", net, learned)
    loop.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-3"))
    assert loop.learner.steps == 6
    for one, other in zip(state(net, learned), state(wanted, wanted_loss), strict=True):
        assert torch.equal(one, other)
    kept = load_loss(tmp_path / "whole" / "checkpoint-6")
    assert all(map(torch.equal, state(kept), state(wanted_loss)))
    (tmp_path / "cut" / "checkpoint-3" / "online_loss.pt").unlink()
    with pytest.raises(SpecError) as caught:
        trainer(tmp_path / "cut", model(), loss()).train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-3"))
    assert caught.value.field == "resume_from_checkpoint"


def test_what_it_cannot_do_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        trainer(tmp_path, model(), loss(), label_smoothing_factor=0.1)
    assert caught.value.field == "args.label_smoothing_factor"
    loop = trainer(tmp_path, model(), loss())
    with pytest.raises(SpecError) as caught:
        loop.online_batch({"input_ids": torch.zeros(1)})
    assert caught.value.field == "labels"


def test_the_example_learns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLE))
    steps, accuracy = capsys.readouterr().out.splitlines()[-1].split(" steps, accuracy ")
    assert int(steps) == 60
    assert float(accuracy) > 0.85
