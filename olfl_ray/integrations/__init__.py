"""Online steps in other libraries' training loops, a module each: `lightning` and `transformers`, extras of this package."""

from contextlib import suppress

from olfl_ray.vision import torchvision

__all__: list[str] = []

with suppress(ImportError):  # both libraries import torchvision where it is installed
    torchvision()
