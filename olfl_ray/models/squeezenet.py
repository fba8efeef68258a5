"""SqueezeNet 1.1 (Iandola et al. 2016) for 32x32 images: a stem of stride 1, and outputs of both signs."""

from __future__ import annotations

from torch import nn

from olfl_ray.models.shapes import Shape, image, rate
from olfl_ray.vision import torchvision

__all__ = ["squeezenet"]


def squeezenet(input_shape: Shape, outputs: int, dropout: float = 0.5) -> nn.Module:
    """torchvision's network with two changes: a stem of stride 1, and no ReLU after the last convolution.

    With that ReLU, a class whose logit is 0 everywhere would never receive a gradient again.
    """
    channels, _, _ = image(input_shape, "squeezenet", 16)
    torchvision()
    from torchvision import models

    net = models.squeezenet1_1(num_classes=outputs, dropout=rate(dropout, "dropout"))
    net.features[0] = nn.Conv2d(channels, 64, 3, padding=1)
    nn.init.kaiming_uniform_(net.features[0].weight)  # as torchvision's own
    nn.init.zeros_(net.features[0].bias)
    drop, last, _, pool = net.classifier
    return nn.Sequential(net.features, drop, last, pool, nn.Flatten())
