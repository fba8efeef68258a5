"""transformers: a `Trainer` whose training step is a step of Algorithm 2."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from olfl_ray.engine import Batch, OnlineLossLearner
from olfl_ray.errors import SpecError

__all__ = ["OnlineLossTrainer"]

KEPT = "online_loss.pt"
"""File of the learner's state in a checkpoint's folder."""


class OnlineLossTrainer(Trainer):  # type: ignore[misc]
    """Trains a model on a learned loss that adapts; checkpoints, schedulers and `global_step` are the Trainer's own.

    The model is called with a batch's columns but the labels, attention masks included; its logits and the labels go into both
    losses. The optimizer is AdamW over all parameters in one group (weight decay on each), or the SGD, Adam or AdamW of
    `optimizers`. `max_grad_norm` is part of the step that is differentiated. With `gradient_accumulation_steps` theta moves on the
    mean gradient of the micro-batches, and the meta-gradient is exactly that of this step. Trained on one device, without fp16.

    Args:
        learned_loss: M_phi, called with (logits, labels).
        task_loss: L_T, called with (logits, labels).
        meta_dataset: Examples of the meta batches, which phi moves on, as of `train_dataset`.
        eta: Meta learning rate.
        learner: Other arguments of `OnlineLossLearner`, such as `estimator` or `select`.
        kwargs: Arguments of `Trainer`.
    """

    def __init__(
        self,
        *args: Any,
        learned_loss: nn.Module,
        task_loss: Callable[[Tensor, Any], Tensor],
        meta_dataset: Any,
        eta: float = 1e-5,
        learner: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        _check(self.args)
        if len(meta_dataset) == 0:
            raise SpecError("meta_dataset", "has no examples; give some that are not in train_dataset")
        self.learned_loss, self.task_loss = learned_loss.to(self.args.device), task_loss
        self._meta = _MetaBatches(meta_dataset, self.data_collator, self.args.train_batch_size, self.args.seed)
        self._settings: dict[str, Any] = {
            "eta": eta,
            "clip_norm": self.args.max_grad_norm or None,
            "select": lambda returned: returned["logits"],
            "unpack": True,
            **(learner or {}),
        }
        self._online: OnlineLossLearner | None = None
        self._waiting: list[Batch] = []
        self._from: str | None = None
        self.add_callback(_Keeping(self))

    @property
    def learner(self) -> OnlineLossLearner:
        """What takes the steps; there once `train` has started."""
        if self._online is None:
            if self.optimizer is None:
                raise SpecError("learner", "is made when train() starts; call that first")
            optimizer = getattr(self.optimizer, "optimizer", self.optimizer)  # Accelerate wraps it
            self._online = OnlineLossLearner(self.model, optimizer, self.learned_loss, self.task_loss, **self._settings)
            if self._from is not None:
                self._restore(Path(self._from) / KEPT)
        return self._online

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As of `Trainer`; the learner's state comes from the same checkpoint."""
        self._online, self._waiting = None, []
        self._from = resume_from_checkpoint or None
        if resume_from_checkpoint is True:
            self._from = get_last_checkpoint(self.args.output_dir)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW over all parameters, in one group, where no optimizer was given."""
        args = self.args
        if self.optimizer is None:
            self.optimizer: Any = torch.optim.AdamW(
                [value for value in self.model.parameters() if value.requires_grad],
                args.learning_rate,
                betas=(args.adam_beta1, args.adam_beta2),
                eps=args.adam_epsilon,
                weight_decay=args.weight_decay,
            )
        found: torch.optim.Optimizer = self.optimizer
        return found

    def online_batch(self, inputs: dict[str, Any]) -> Batch:
        """The model's arguments and the targets of a collated batch: by default all columns but `labels`, and these."""
        if "labels" not in inputs:
            raise SpecError("labels", f"are not in the batch ({', '.join(inputs)}); override online_batch")
        return {name: value for name, value in inputs.items() if name != "labels"}, inputs["labels"]

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """One step of Algorithm 2 at the last micro-batch of an optimizer's step; the Trainer's own step finds no gradients."""
        self.model.train()
        self._waiting.append(self.online_batch(dict(self._prepare_inputs(inputs))))
        if not self.accelerator.sync_gradients:
            return torch.zeros((), device=self.args.device)
        train, self._waiting = self._waiting, []
        learner = self.learner
        first = learner.steps * self.args.gradient_accumulation_steps
        numbers = itertools.islice(itertools.count(first), len(train))
        metas = [self.online_batch(dict(self._prepare_inputs(self._meta(number)))) for number in numbers]
        with self.compute_loss_context_manager():
            if self.args.gradient_accumulation_steps == 1:
                self.metrics = learner.step(train[0], metas[0])
            else:
                self.metrics = learner.step_accumulated(train, metas)
        return self.metrics["task_loss"]

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """As of `Trainer`: `loss` is L_T; with the learned loss, L_T of the meta batch, and the norm of the meta-gradient."""
        metrics = getattr(self, "metrics", None)
        if "loss" in logs and metrics is not None:
            logs["learned_loss"], logs["meta_loss"] = metrics["base_loss"].item(), metrics["meta_loss"].item()
            logs["meta_grad_norm"] = metrics["grad_norm"].item()
            logs.pop("grad_norm", None)  # of gradients that are not there
        super().log(logs, *args, **kwargs)

    def _restore(self, path: Path) -> None:
        if not path.exists():
            raise SpecError(
                "resume_from_checkpoint", f"has no {KEPT}; name a checkpoint that an OnlineLossTrainer wrote"
            )
        kept = torch.load(path, map_location=self.args.device, weights_only=True)
        assert self._online is not None
        self._online.load_state_dict(kept["learner"])
        self.learned_loss.load_state_dict(kept["learned_loss"])

    def keep(self, folder: str | Path) -> None:
        """Write the learner's state and the learned loss into a checkpoint's folder; `load_loss` reads the latter."""
        kept = {"learner": self.learner.state_dict(modules=False), "learned_loss": self.learned_loss.state_dict()}
        torch.save(kept, Path(folder) / KEPT)
        if getattr(self.learned_loss, "settings", None) is not None:
            files: dict[str, bytes] = self.learned_loss.files()  # type: ignore[operator]
            for name, content in files.items():
                (Path(folder) / name).write_bytes(content)


class _Keeping(TrainerCallback):  # type: ignore[misc]
    def __init__(self, trainer: OnlineLossTrainer) -> None:
        self._trainer = trainer

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._trainer.keep(Path(args.output_dir) / f"checkpoint-{state.global_step}")


class _MetaBatches:
    """Meta batches by their number, in an order of their own, so that a resumed run sees the same."""

    def __init__(self, dataset: Any, collate: Any, size: int, seed: int) -> None:
        self._dataset, self._collate, self._size, self._seed = dataset, collate, min(size, len(dataset)), seed
        self._turn, self._order = -1, list[int]()

    def __call__(self, number: int) -> dict[str, Any]:
        turn, index = divmod(number, len(self._dataset) // self._size)
        if turn != self._turn:
            draw = torch.Generator().manual_seed(self._seed + turn)
            self._turn, self._order = turn, torch.randperm(len(self._dataset), generator=draw).tolist()
        chosen = self._order[index * self._size : (index + 1) * self._size]
        found: dict[str, Any] = self._collate([self._dataset[at] for at in chosen])
        return found


def _check(args: TrainingArguments) -> None:
    if args.world_size > 1 or args.n_gpu > 1:
        raise SpecError("args", f"use {max(args.world_size, args.n_gpu)} devices, but an online step is taken on one")
    if args.fp16:
        raise SpecError("args.fp16", "is True, which scales the loss; use bf16=True or neither")
    if args.label_smoothing_factor:
        raise SpecError("args.label_smoothing_factor", "is set, but the task loss is given; smooth in it, and set 0")
