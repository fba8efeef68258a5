"""Lightning: a classifier of scikit-learn's digits, trained on a learned loss that adapts."""

import torch
from lightning.pytorch import Trainer, seed_everything
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from olfl_ray import initialise
from olfl_ray.integrations.lightning import OnlineLossMixin
from olfl_ray.losses import build_loss
from olfl_ray.spec import LearnedLossSpec

seed_everything(0)
digits = load_digits()
x, y = torch.tensor(digits.data / 16).float(), torch.tensor(digits.target)
train, meta, test = (TensorDataset(x[part], y[part]) for part in torch.randperm(len(x)).split([1000, 400, 397]))


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


class Classifier(OnlineLossMixin):
    def __init__(self, learned_loss: nn.Module) -> None:
        super().__init__()
        self.net, self.learned_loss = network(), learned_loss

    def configure_online_loss(self) -> dict:
        return {"module": self.net, "learned_loss": self.learned_loss, "task_loss": F.cross_entropy, "eta": 1e-3}

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.SGD(self.net.parameters(), lr=0.2, momentum=0.9)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)}

    def train_dataloader(self) -> dict:
        return {"train": DataLoader(train, 100, shuffle=True), "meta": DataLoader(meta, 100, shuffle=True)}

    def validation_step(self, batch: list, batch_idx: int) -> None:
        self.log("accuracy", (self.net(batch[0]).argmax(1) == batch[1]).float().mean())

    def val_dataloader(self) -> DataLoader:
        return DataLoader(test, 397)


learned_loss = build_loss(LearnedLossSpec(), "classification", seed=1)
loaders = DataLoader(train, 100, shuffle=True), DataLoader(meta, 100, shuffle=True)
initialise(network, learned_loss, *loaders, task_loss=F.cross_entropy, lr=0.2, steps=100)
trainer = Trainer(max_epochs=10, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
model = Classifier(learned_loss)
trainer.fit(model)
print(f"{trainer.global_step} steps, accuracy {trainer.callback_metrics['accuracy']:.2f}")
