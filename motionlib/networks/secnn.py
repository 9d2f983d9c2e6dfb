"""SECNN: ResNet3D's blocks with squeeze-and-excitation, gates that weight the channels.

The grids are ResNet3D's. At the paper's size::

    block1-5  residual block with ReLU and channel gates, max-pool 3 stride 2
    fc1       Flatten, Dropout(0.5), Linear(10240, 256), ReLU
    fc2       Linear(256, 2)

3,523,049 parameters, of which 900,839 in the blocks.

Source: Hu et al. (2018), CVPR; Ghosal et al. (2019), ISBI; ClinicaDL 1.x, ``SqueezeExcitationCNN``.
"""

import torch
from torch import nn

from motionlib.networks.resnet3d import residual_blocks

RATIO = 8  # channels to bottleneck units; ClinicaDL 1.x


class SECNN(nn.Sequential):
    """The squeeze-and-excitation network that the paper compares; `dropout` as published."""

    def __init__(self, shape, *, n_classes: int = 2, dropout: float = 0.5):
        blocks, features = residual_blocks(shape, nn.ReLU, _ChannelGates)
        blocks["fc1"] = nn.Sequential(
            nn.Flatten(), nn.Dropout(dropout), nn.Linear(features, 256), nn.ReLU()
        )
        blocks["fc2"] = nn.Sequential(nn.Linear(256, n_classes))
        super().__init__(blocks)


class _ChannelGates(nn.Module):
    """Weight each channel by a gate that a two-layer bottleneck reads off the channel means."""

    def __init__(self, width: int):
        super().__init__()
        few = width // RATIO
        self.gates = nn.Sequential(
            nn.Linear(width, few), nn.ReLU(), nn.Linear(few, width), nn.Sigmoid()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale the channels of ``(B, C, I, J, K)``."""
        return x * self.gates(x.mean(dim=(2, 3, 4)))[:, :, None, None, None]
