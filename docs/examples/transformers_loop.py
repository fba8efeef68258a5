"""transformers: a tiny BERT on token ids with attention masks, trained on a learned loss that adapts."""

import tempfile
from functools import partial

import torch
from torch.nn import functional as F
from transformers import BertConfig, BertForSequenceClassification, TrainingArguments, default_data_collator, set_seed

from olfl_ray import initialise
from olfl_ray.integrations.transformers import OnlineLossTrainer
from olfl_ray.losses import build_loss
from olfl_ray.spec import LearnedLossSpec

set_seed(0)


def example() -> dict:
    """Token 5 says that the label is 1; the others are noise, and some places are padding."""
    length, label = int(torch.randint(4, 13, ())), int(torch.randint(2, ()))
    ids = torch.randint(6, 20, (12,))
    ids[torch.randint(length, ())] = 5 if label else 4
    mask = (torch.arange(12) < length).long()
    return {"input_ids": ids * mask, "attention_mask": mask, "labels": label}


train, meta, test = ([example() for _ in range(count)] for count in (512, 128, 128))


def network() -> BertForSequenceClassification:
    return BertForSequenceClassification(
        BertConfig(vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    )


def batch(examples: list, number: int) -> tuple:
    columns = default_data_collator([examples[(32 * number + at) % len(examples)] for at in range(32)])
    return columns, columns.pop("labels")


learned_loss = build_loss(LearnedLossSpec(), "classification", seed=1)
initialise(
    network,
    learned_loss,
    partial(batch, train),
    partial(batch, meta),
    task_loss=F.cross_entropy,
    lr=0.1,
    steps=60,
    select=lambda returned: returned.logits,
    unpack=True,
)
trainer = OnlineLossTrainer(
    network(),
    TrainingArguments(
        tempfile.mkdtemp(),
        max_steps=60,
        per_device_train_batch_size=32,
        learning_rate=1e-2,
        lr_scheduler_type="cosine",
        logging_steps=20,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    ),
    train_dataset=train,
    eval_dataset=test,
    meta_dataset=meta,
    learned_loss=learned_loss,
    task_loss=F.cross_entropy,
    eta=1e-3,
    compute_metrics=lambda found: {"accuracy": float((found.predictions.argmax(1) == found.label_ids).mean())},
)
trainer.train()
print(f"{trainer.state.global_step} steps, accuracy {trainer.evaluate()['eval_accuracy']:.2f}")
