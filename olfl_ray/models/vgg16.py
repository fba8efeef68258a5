"""VGG-16 with batch norms (Simonyan & Zisserman 2015, configuration D) for 32x32 images: convolutions and one linear layer."""

from __future__ import annotations

from torch import nn

from olfl_ray.models.shapes import Shape, image
from olfl_ray.vision import torchvision

__all__ = ["vgg16"]


def vgg16(input_shape: Shape, outputs: int) -> nn.Module:
    """torchvision's 13 convolutions; their output (1x1 for 32x32 images) is averaged and fed to one linear layer.

    The paper's three linear layers of 4,096 units are for 224x224 images.
    """
    channels, _, _ = image(input_shape, "vgg16", 32)
    torchvision()
    from torchvision.models import vgg

    features = vgg.make_layers(vgg.cfgs["D"], batch_norm=True)
    features[0] = nn.Conv2d(channels, 64, 3, padding=1)
    for layer in features:
        if isinstance(layer, nn.Conv2d):  # as torchvision's own
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, outputs))
