"""Lightning: a `LightningModule` whose training step is a step of Algorithm 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import LRSchedulerConfig

from olfl_ray.engine import Batch, OnlineLossLearner
from olfl_ray.errors import SpecError

__all__ = ["OnlineLossMixin"]

KEPT = "olfl_ray"
"""Key of the learner's state in a checkpoint."""


class OnlineLossMixin(LightningModule):  # type: ignore[misc]
    """Trains a submodule on a learned loss that adapts. Define `configure_optimizers` and `configure_online_loss`.

    `configure_optimizers` returns one of torch's SGD, Adam or AdamW over the base learner's parameters, with schedulers if wanted.
    Each step counts in Lightning's `global_step`, schedulers are stepped as they are configured, and checkpoints hold the
    learner's state. Trained on one device. Clipping and micro-batches are settings of this class, as Lightning has neither with
    manual optimization, which this is.
    """

    micro_batches = 1
    """Batches a step, whose mean gradient theta moves on; at an epoch's end, those that are left."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.automatic_optimization = False
        self._online: OnlineLossLearner | None = None
        self._pending: Mapping[str, Any] | None = None
        self._waiting: list[tuple[Batch, Batch]] = []

    def configure_online_loss(self) -> dict[str, Any]:
        """Arguments of `OnlineLossLearner` but the optimizer: module, learned_loss, task_loss, eta, clip_norm, and others.

        Module and learned loss are two submodules of this one, so that checkpoints hold both.
        """
        raise NotImplementedError("define configure_online_loss, which returns module, learned_loss and task_loss")

    def online_batches(self, batch: Any) -> tuple[Batch, Batch]:
        """The train and the meta batch of what a data loader gives, by default a dict of `train` and `meta`.

        Lightning gives it where `train_dataloader` returns a dict of two loaders; the shorter one is read again.
        """
        if not isinstance(batch, Mapping) or not {"train", "meta"} <= set(batch):
            raise SpecError(
                "train_dataloader",
                f"gives a {type(batch).__name__}, but must give a dict of train and meta; return a dict of two loaders, or "
                "override online_batches",
            )
        return batch["train"], batch["meta"]

    @property
    def learner(self) -> OnlineLossLearner:
        """What takes the steps; there once `fit` has started."""
        if self._online is None:
            optimizer: Any = self.optimizers(use_pl_optimizer=False)
            if isinstance(optimizer, list):
                raise SpecError("configure_optimizers", "returns several optimizers, but must return one; join them")
            self._online = OnlineLossLearner(optimizer=optimizer, **self.configure_online_loss())
            if self._pending is not None:
                self._online.load_state_dict(self._pending)
                self._pending = None
        return self._online

    def on_fit_start(self) -> None:
        """A learner of an earlier `fit` has another optimizer."""
        super().on_fit_start()
        if self.trainer.world_size > 1:
            raise SpecError(
                "devices", f"are {self.trainer.world_size}, but an online step is taken on one; use Trainer(devices=1)"
            )
        if self.trainer.precision in ("16-mixed", "16-true"):
            raise SpecError(
                "precision", f"is {self.trainer.precision}, whose loss is scaled; use bf16-mixed or 32-true"
            )
        if self._online is not None and self._pending is None:
            self._pending = self._online.state_dict(modules=False)
        self._online, self._waiting = None, []

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One step of Algorithm 2; logs train/base_loss, train/task_loss, train/meta_loss and train/meta_grad_norm."""
        self._waiting.append(self.online_batches(batch))
        if len(self._waiting) < self.micro_batches and not self.trainer.is_last_batch:
            return
        train, meta = (list(batches) for batches in zip(*self._waiting, strict=True))
        self._waiting = []
        learner = self.learner
        metrics = learner.step(train[0], meta[0]) if self.micro_batches == 1 else learner.step_accumulated(train, meta)
        counted: Any = self.optimizers()
        counted.step()  # no parameter has a gradient, so that this only counts
        renamed = {"grad_norm": "meta_grad_norm"}
        self.log_dict({f"train/{renamed.get(name, name)}": value for name, value in metrics.items()})
        for config in self._schedulers("step"):
            if learner.steps % config.frequency == 0:
                self._step(config)

    def on_train_epoch_end(self) -> None:
        """Schedulers of an epoch's interval."""
        super().on_train_epoch_end()
        for config in self._schedulers("epoch"):
            if (self.current_epoch + 1) % config.frequency == 0:
                self._step(config)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the learner's state; the modules' tensors are in Lightning's."""
        super().on_save_checkpoint(checkpoint)
        if self._online is not None:
            checkpoint[KEPT] = self._online.state_dict(modules=False)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The state waits for the optimizer."""
        super().on_load_checkpoint(checkpoint)
        self._pending = checkpoint.get(KEPT)

    def _schedulers(self, interval: str) -> list[LRSchedulerConfig]:
        return [config for config in self.trainer.lr_scheduler_configs if config.interval == interval]

    def _step(self, config: LRSchedulerConfig) -> None:
        if not config.reduce_on_plateau:
            config.scheduler.step()
            return
        monitored = self.trainer.callback_metrics.get(config.monitor or "")
        if monitored is None:
            known = ", ".join(self.trainer.callback_metrics) or "none"
            raise SpecError("lr_scheduler.monitor", f"is {config.monitor}, which is not logged; use one of: {known}")
        config.scheduler.step(monitored)
