"""Conv5FC3: five convolutions and three linear layers, the network that the paper fine-tunes.

Shape trace at the paper's grid::

    input                                                    (B, 1, 169, 208, 179)
    block1  Conv3d 3, BatchNorm, ReLU, padded max-pool 2     (B, 8, 85, 104, 90)
    block2                                                   (B, 16, 43, 52, 45)
    block3                                                   (B, 32, 22, 26, 23)
    block4                                                   (B, 64, 11, 13, 12)
    block5                                                   (B, 128, 6, 7, 6)
    fc1     Flatten, Dropout, Linear(32256, 1300), ReLU      (B, 1300)
    fc2     Linear(1300, 50), ReLU                           (B, 50)
    fc3     Linear(50, 2)                                    (B, 2)

42,293,972 parameters, of which 294,720 in the blocks.

Source: Wen et al. (2020), Medical Image Analysis 63:101694; ClinicaDL 1.x, class ``Conv5_FC3``.
"""

from collections import OrderedDict

from torch import nn

from motionlib.networks.pooling import FirstBlock, NormPool

CHANNELS = (8, 16, 32, 64, 128)
HIDDEN = (1300, 50)


class Conv5FC3(nn.Sequential):
    """The convolutional network of Wen et al. that the paper fine-tunes.

    `shape` is any grid of 2 voxels and more an axis. `dropout`, before the first linear layer, is
    not stated in the paper; 0 is the training tool's default (its class default is 0.5). A smaller
    `hidden`, the widths of the linear layers, makes a model that is small to ship.
    """

    def __init__(self, shape, *, n_classes: int = 2, dropout: float = 0.0, hidden=HIDDEN):
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        sizes, channels = tuple(shape), 1
        for number, width in enumerate(CHANNELS, 1):
            chain = FirstBlock if channels == 1 else nn.Sequential
            conv = nn.Conv3d(channels, width, 3, padding=1)
            blocks[f"block{number}"] = chain(conv, NormPool(width))
            sizes, channels = tuple(-(-n // 2) for n in sizes), width
        features = channels * sizes[0] * sizes[1] * sizes[2]
        blocks["fc1"] = nn.Sequential(
            nn.Flatten(), nn.Dropout(dropout), nn.Linear(features, hidden[0]), nn.ReLU()
        )
        blocks["fc2"] = nn.Sequential(nn.Linear(hidden[0], hidden[1]), nn.ReLU())
        blocks["fc3"] = nn.Sequential(nn.Linear(hidden[1], n_classes))
        super().__init__(blocks)
