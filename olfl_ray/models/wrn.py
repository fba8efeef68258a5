"""Wide residual network WRN-depth-width (Zagoruyko & Komodakis 2016) for 32x32 images, with pre-activation blocks."""

# B batch, C channels, H height, W width

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from olfl_ray.errors import SpecError
from olfl_ray.models.shapes import Shape, image, positive_int, rate

__all__ = ["wrn"]


class Block(nn.Module):
    """x + conv(dropout(relu(bn(conv(relu(bn(x))))))); where the shape changes, a 1x1 convolution replaces the first x.

    Args:
        inputs: Channels of x.
        outputs: Channels of the result.
        stride: Of the first convolution.
        dropout: Rate between the convolutions.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.shortcut = None if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        active_BCHW = F.relu(self.bn1(x_BCHW))
        residual_BCHW: Tensor = self.conv2(self.dropout(F.relu(self.bn2(self.conv1(active_BCHW)))))
        return residual_BCHW + (x_BCHW if self.shortcut is None else self.shortcut(active_BCHW))


def wrn(input_shape: Shape, outputs: int, depth: int = 16, width: int = 8, dropout: float = 0.0) -> nn.Module:
    """Three groups of (depth - 4) / 6 blocks with 16, 32 and 64 times `width` channels.

    Args:
        input_shape: Shape of an image.
        outputs: Number of classes or targets.
        depth: Number of convolutions on the longest path, 6 n + 4.
        width: Factor of the channels.
        dropout: Rate inside the blocks; the paper uses 0.3, 0.4 on SVHN, or none.
    """
    channels, _, _ = image(input_shape, "wrn", 16)
    rate(dropout, "dropout")
    blocks, rest = divmod(positive_int(depth, "depth") - 4, 6)
    if rest or blocks < 1:
        raise SpecError("task.model.depth", f"must be 6 n + 4 (10, 16, 22, 28, ...), but it is {depth}; change it")
    sizes = [16, *(base * positive_int(width, "width") for base in (16, 32, 64))]
    layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, 1, 1, bias=False)]
    for group in range(3):
        for block in range(blocks):
            inputs = sizes[group] if block == 0 else sizes[group + 1]
            stride = 2 if block == 0 and group > 0 else 1
            layers.append(Block(inputs, sizes[group + 1], stride, dropout))
    last = sizes[-1]
    layers += [nn.BatchNorm2d(last), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, outputs)]
    net = nn.Sequential(*layers)
    for part in net.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
    return net
