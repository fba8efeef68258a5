"""Lightning: its steps are a learner's; global_step, schedulers and checkpoints work; what it can't do is refused."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import olfl_ray.integrations  # before lightning, as torchvision may be broken here  # noqa: F401
from olfl_ray import OnlineLossLearner
from olfl_ray.errors import SpecError
from olfl_ray.losses import build_loss
from olfl_ray.spec import LearnedLossSpec

pytest.importorskip("lightning")
pytestmark = pytest.mark.filterwarnings("ignore")
lightning = pytest.importorskip("lightning.pytorch")
OnlineLossMixin = pytest.importorskip("olfl_ray.integrations.lightning").OnlineLossMixin

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "lightning_loop.py"


def data(seed: int) -> TensorDataset:
    draw = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(40, 6, generator=draw), torch.randint(3, (40,), generator=draw))


def parts() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3)), build_loss(
        LearnedLossSpec(), "classification", seed=1
    )


class Model(OnlineLossMixin):
    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.net, self.learned_loss = parts()
        self.settings = {"eta": 1e-2, "clip_norm": 0.5, **settings}

    def configure_online_loss(self) -> dict[str, Any]:
        return {"module": self.net, "learned_loss": self.learned_loss, "task_loss": F.cross_entropy, **self.settings}

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = torch.optim.AdamW(self.net.parameters(), lr=0.05)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def train_dataloader(self) -> dict[str, DataLoader]:
        return {"train": DataLoader(data(1), 10), "meta": DataLoader(data(2), 10)}


def trainer(folder: Path, epochs: int = 2, **settings: Any) -> Any:
    return lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **settings,
    )


def state(*modules: nn.Module) -> list[Tensor]:
    return [value.clone() for module in modules for value in module.state_dict().values()]


def by_hand(epochs: int, micro_batches: int = 1) -> list[Tensor]:
    module, learned = parts()
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.05)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
    learner = OnlineLossLearner(module, optimizer, learned, F.cross_entropy, eta=1e-2, clip_norm=0.5)
    for _ in range(epochs):
        pairs = list(zip(DataLoader(data(1), 10), DataLoader(data(2), 10), strict=True))
        for start in range(0, len(pairs), micro_batches):
            train, meta = (list(batches) for batches in zip(*pairs[start : start + micro_batches], strict=True))
            if micro_batches == 1:
                learner.step(train[0], meta[0])
            else:
                learner.step_accumulated(train, meta)
            scheduler.step()
    return state(module, learned)


@pytest.mark.parametrize(("micro_batches", "steps"), [(1, 8), (3, 4)])
def test_its_steps_are_those_of_a_learner(tmp_path: Path, micro_batches: int, steps: int) -> None:
    model, loop = Model(), trainer(tmp_path)
    model.micro_batches = micro_batches
    loop.fit(model)
    assert loop.global_step == model.learner.steps == steps
    assert all(map(torch.equal, state(model.net, model.learned_loss), by_hand(2, micro_batches)))
    assert {"train/meta_loss", "train/meta_grad_norm", "train/base_loss"} <= set(loop.callback_metrics)
    assert loop.optimizers[0].param_groups[0]["lr"] == 0.05 * 0.5 ** (steps // 3)


def test_a_run_resumes_from_a_checkpoint_to_the_same_bits(tmp_path: Path) -> None:
    first = trainer(tmp_path, epochs=1)
    first.fit(Model())
    first.save_checkpoint(tmp_path / "half.ckpt")
    model, second = Model(), trainer(tmp_path, epochs=2)
    second.fit(model, ckpt_path=tmp_path / "half.ckpt")
    assert second.global_step == model.learner.steps == 8
    assert all(map(torch.equal, state(model.net, model.learned_loss), by_hand(2)))


def test_what_it_cannot_do_is_refused(tmp_path: Path) -> None:
    model = Model()
    with pytest.raises(SpecError) as caught:
        trainer(tmp_path).fit(model, {"other": DataLoader(data(1), 10)})
    assert caught.value.field == "train_dataloader"
    for setting in ({"accumulate_grad_batches": 2}, {"gradient_clip_val": 1.0}):
        with pytest.raises(lightning.utilities.exceptions.MisconfigurationException):
            trainer(tmp_path, **setting).fit(Model())


def test_the_example_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLE))
    steps, accuracy = capsys.readouterr().out.splitlines()[-1].split(" steps, accuracy ")
    assert int(steps) == 100
    assert float(accuracy) > 0.85
