"""ResNet3D: five residual blocks and two linear layers, published for brain age.

Shape trace at the paper's grid::

    input                                                              (B, 1, 169, 208, 179)
    block1  residual block with ELU, max-pool 3 stride 2               (B, 8, 84, 103, 89)
    block2                                                             (B, 16, 41, 51, 44)
    block3                                                             (B, 32, 20, 25, 21)
    block4                                                             (B, 64, 9, 12, 10)
    block5                                                             (B, 128, 4, 5, 4)
    fc1     Flatten, Linear(10240, 256), ELU                           (B, 256)
    fc2     Dropout(0.8), Linear(256, 2)                               (B, 2)

3,517,314 parameters, of which 895,104 in the blocks.

Source: Couvy-Duchesne et al. (2020), Front. Psychiatry 11:593336; ClinicaDL 1.x, ``ResNet3D``.
"""

from collections import OrderedDict

import torch
from torch import nn

CHANNELS = (8, 16, 32, 64, 128)
UNPADDED_FROM = 63  # voxels an axis must have for five unpadded pools to leave one


class ResNet3D(nn.Sequential):
    """The brain-age residual network that the paper compares; `dropout` as published."""

    def __init__(self, shape, *, n_classes: int = 2, dropout: float = 0.8):
        blocks, features = residual_blocks(shape, nn.ELU)
        blocks["fc1"] = nn.Sequential(nn.Flatten(), nn.Linear(features, 256), nn.ELU())
        blocks["fc2"] = nn.Sequential(nn.Dropout(dropout), nn.Linear(256, n_classes))
        super().__init__(blocks)


def residual_blocks(shape, activation, attention=None):
    """Chain ``block1`` ... ``block5``, each with its pool; also give the length of their output.

    `activation` makes a block's activation, and `attention` the module on its residual branch from
    the block's width.
    Departs from the paper: where an axis has fewer than 63 voxels the published unpadded pools
    would leave nothing, so every pool is padded by one voxel; no parameter depends on it.
    """
    padding = 0 if min(shape) >= UNPADDED_FROM else 1
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    sizes, channels = tuple(shape), 1
    for number, width in enumerate(CHANNELS, 1):
        extra = None if attention is None else attention(width)
        blocks[f"block{number}"] = nn.Sequential(
            _ResidualBlock(channels, width, activation, extra), nn.MaxPool3d(3, 2, padding)
        )
        sizes, channels = tuple((n + 2 * padding - 3) // 2 + 1 for n in sizes), width
    return blocks, channels * sizes[0] * sizes[1] * sizes[2]


class _ResidualBlock(nn.Module):
    """Two convolutions, then `attention` if any, beside a shortcut that is always there."""

    def __init__(self, channels: int, width: int, activation, attention=None):
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv3d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm3d(width),
            activation(),
            nn.Conv3d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm3d(width),
        )
        self.attention = nn.Identity() if attention is None else attention
        self.shortcut = Shortcut(channels, width, 1, bias=False)
        self.activation = activation()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keep the grid: ``(B, channels, I, J, K)`` to ``(B, width, I, J, K)``."""
        return self.activation(self.attention(self.residual(x)) + self.shortcut(x))


class Shortcut(nn.Conv3d):
    """A bias-free 1x1x1 convolution: on a CPU a product over channels, which stay last.

    On one thread torch takes another way for this size, whose own layout makes others be copied.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Turn ``(B, channels, I, J, K)`` into ``(B, width, I, J, K)``."""
        if x.device.type != "cpu":
            return super().forward(x)
        mixed = nn.functional.linear(x.permute(0, 2, 3, 4, 1), self.weight.flatten(1))
        return mixed.permute(0, 4, 1, 2, 3)
