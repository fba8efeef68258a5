"""Evaluation in chunks that need no more memory than a training step: the results do not depend on the chunk size."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from olfl_ray import data, models
from olfl_ray.engine import Problem, Sgd
from olfl_ray.learnable import Learnable
from olfl_ray.spec import TrialConfig
from olfl_ray.trial import TrialEnvironment
from olfl_ray.trial.build import build_replicate
from olfl_ray.trial.chunks import examples_at_once
from olfl_ray.trial.measure import evaluate


class Wide(nn.Module):
    """Needs 4 MB per example for a moment."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.last, self.seen = nn.Linear(64, outputs), 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen = max(self.seen, len(x))
        wide = x.repeat(1, 2**14)
        found: Tensor = self.last(wide[:, :64])
        return found


def wide(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    return Wide(outputs)


def problem(module: nn.Module) -> Problem:
    loss = F.cross_entropy
    return Problem(
        module=module, learned=Learnable(), task_loss=loss, base_loss=loss, optimizer=Sgd(), draws_random=False
    )


@pytest.mark.parametrize(
    ("name", "options", "shape", "chunk"),
    [
        ("mlp", {"hidden": [1000]}, (784,), range(2048, 2049)),
        ("lenet5", {}, (3, 32, 32), range(2048, 2049)),
        ("allcnnc", {}, (3, 32, 32), range(128, 257)),
        ("resnet18", {}, (3, 32, 32), range(128, 257)),
    ],
)
def test_chunks_are_large_for_small_networks_and_about_a_batch_for_large_ones(
    name: str, options: dict[str, Any], shape: tuple[int, ...], chunk: range
) -> None:
    module = models.build(name, options, input_shape=shape, outputs=10, seed=0, check=False)
    assert examples_at_once(problem(module), torch.zeros(2, *shape), 128) in chunk


@pytest.mark.parametrize("model", ["mlp", f"{__name__}:wide"])
def test_results_do_not_depend_on_the_chunk_size(model: str, tmp_path: Path) -> None:
    settings = {"task": {"dataset": "digits", "model": model, "batch_size": 40}, "learner": {"method": "baseline"}}
    config, place = TrialConfig.model_validate(settings), TrialEnvironment(cache=tmp_path)
    replicate = build_replicate(config, place, data.load("digits", {}, cache=tmp_path, root=None), 0)
    found = [
        evaluate(replace(replicate, chunk=chunk), replicate.start.theta, replicate.start.buffers, "test")
        for chunk in (7, replicate.chunk, 4096)
    ]
    assert found[0]["test/error"] == found[1]["test/error"] == found[2]["test/error"]
    assert found[0]["test/task_loss"] == pytest.approx(found[2]["test/task_loss"], rel=1e-5)
    if model != "mlp":
        module = replicate.problem.module
        assert isinstance(module, Wide)
        module.seen = 0
        evaluate(replicate, replicate.start.theta, replicate.start.buffers, "test")
        assert 40 <= module.seen < 100


ALONE = """
import sys, torch
from pathlib import Path
from olfl_ray.spec import TrialConfig
from olfl_ray.trial import TrialEnvironment, run

def build(kind):
    x = torch.randn(80, 4)
    return x, (x[:, 0] > 0).long() if kind == "classes" else x[:, :1] + x[:, 1:2]

sys.modules["own"] = sys.modules["__main__"]
for kind in ("classes", "numbers"):
    task = {"dataset": {"name": "own:build", "kind": kind}, "model": {"name": "mlp", "hidden": [4]}, "batch_size": 8}
    settings = {"task": task, "learner": {"method": "online", "steps": 2}, "meta": {"init_steps": 1}}
    *_, last = run(TrialConfig.model_validate(settings), TrialEnvironment(cache=Path(sys.argv[1])))
    assert last.outcome == "finished"
print([name for name in ("sklearn", "torch._dynamo") if name in sys.modules])
"""


def test_trial_imports_neither_torchs_compiler_nor_scikit_learn(tmp_path: Path) -> None:
    """Each takes a second of a worker's start, and memory."""
    found = subprocess.run([sys.executable, "-c", ALONE, tmp_path], check=True, capture_output=True, text=True)
    assert found.stdout.splitlines()[-1] == "[]"
