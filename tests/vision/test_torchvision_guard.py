"""torchvision works with any torch: in a separate process, models and transforms, whichever build is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import olfl_ray.errors

GUARDED = """
import torch
try:
    import torchvision
except RuntimeError as error:
    assert "operator torchvision::nms does not exist" in str(error), error
from olfl_ray.vision import torchvision
first = torchvision()
import torchvision as plain
assert first is plain is torchvision(), "a second call gives the same module"
from torchvision import datasets, models
from torchvision.transforms import v2
assert tuple(models.resnet18(num_classes=10)(torch.zeros(2, 3, 32, 32)).shape) == (2, 10)
assert v2.functional.horizontal_flip(torch.tensor([[[1.0, 2.0]]])).tolist() == [[[2.0, 1.0]]]
assert datasets.MNIST.resources
"""

ANOTHER_ERROR = """
import sys
sys.path.insert(0, sys.argv[1])
from olfl_ray.vision import torchvision
try:
    torchvision()
except RuntimeError as error:
    print(error)
"""


def run(script: str, *arguments: str) -> str:
    package = str(Path(olfl_ray.errors.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": package, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_models_transforms_and_readers_work() -> None:
    """If the builds do not match, the plain import fails on a missing operator, and the guard fixes it even after that."""
    run(GUARDED)


def test_other_failures_are_raised(tmp_path: Path) -> None:
    """The guard suppresses only the one failure that it fixes."""
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('of another kind')")
    assert run(ANOTHER_ERROR, str(tmp_path)).strip() == "of another kind"
