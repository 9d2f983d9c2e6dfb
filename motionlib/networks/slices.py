"""Slices: a small 2-D network on planes of all three orientations, averaged over the scan.

Shape trace with two members on a grid of (96, 120, 104)::

    input                                                    (B, 1, 96, 120, 104)
    cut     head scaled to one; planes across each axis      3 x (B * 8, 1, H, W)
    block1  for each member and plane, at 1/2, 1/4, 1/8 of
            the resolution: 2 x (Conv2d 3, BatchNorm, ReLU)  3 x (B * 8, 16 .. 64, h, w)
            mean over place and planes                       (B, 2 * 64)
    fc1     Dropout, Linear                                  (B, 2)

73,000 parameters a member. A plane enters twice, once cut so low that the air can be seen, and with
2x2 voxels as channels, so that no detail is thrown away. Members are trained apart (`SliceNet`) and
stand side by side in one `Slices`, whose log-odds are the mean of theirs.

Source: the plan of two convolutions a block is VGG's (Simonyan and Zisserman 2015), the 2x2 voxels
as channels are Shi et al.'s (2016) sub-pixel convolution run backwards; a score of a scan as the
mean over its planes as in Sujit et al. (2019), J. Magn. Reson. Imaging 50:1260.
"""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

CHANNELS = (16, 32, 64)  # of the three blocks
PLANES = 8  # across each axis of a scan
REACH = (0.20, 0.85)  # of the head's extent: planes nearer to its ends show little of it
HEAD = 0.12  # of the 98th percentile of the grid: brighter voxels are the head's
BRIGHTEST = 3.0  # of the head's level; vessels and fat are cut there
AIR = 0.2  # of the head's level: up to it the second channel shows air, where ghosts lie
EDGE = 0.3  # of the head's level: brighter voxels tell where the head begins and ends
MULTIPLE = 8  # three halvings


class PlaneConv(nn.Conv3d):
    """A 2-D convolution whose kernel is kept as (O, I, 1, 3, 3).

    The training loop lays every kernel out for volumes, which torch refuses for four dimensions.
    """

    def __init__(self, n_in: int, n_out: int):
        super().__init__(n_in, n_out, (1, 3, 3), bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve planes (N, C, H, W), padded by one pixel."""
        kernel = self.weight[:, :, 0].contiguous(memory_format=torch.channels_last)
        return functional.conv2d(x, kernel, padding=1)


class SliceNet(nn.Module):
    """One member: features of single planes, and the log-odds that it trains with."""

    def __init__(self, channels: Sequence[int] = CHANNELS):
        super().__init__()
        widths = (8, *channels)  # 2x2 voxels, twice
        self.blocks = nn.ModuleList()
        for n_in, n_out in pairwise(widths):
            layers = []
            for a, b in ((n_in, n_out), (n_out, n_out)):
                layers += [PlaneConv(a, b), nn.BatchNorm2d(b), nn.ReLU(inplace=True)]
            self.blocks.append(nn.Sequential(*layers))
        self.head = nn.Linear(channels[-1], 1)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Map what `seen` makes of planes to features (N, C)."""
        for place, block in enumerate(self.blocks):
            x = block(functional.max_pool2d(x, 2) if place else x)
        return x.mean((2, 3))

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        """Log-odds of motion of every plane, (N,)."""
        return self.head(self.features(seen(planes))).flatten()


class Cut(nn.Module):
    """Scale a head to level one and cut planes across its three axes."""

    def __init__(self, planes: int):
        super().__init__()
        self.planes = planes

    def forward(self, x: torch.Tensor, axes: Sequence[int] = (0, 1, 2)) -> list[torch.Tensor]:
        """Cut (B, 1, I, J, K) into (B * planes, 1, H, W) across each axis; z-scored or not."""
        heads = [scaled(volume[0]) for volume in x]
        cuts = []
        for axis in axes:
            planes = []
            for head in heads:
                first, last = plane_range(head, axis)
                at = torch.linspace(first, last, self.planes, device=x.device).round().long()
                planes.append(padded(head.index_select(axis, at).movedim(axis, 0)))
            cuts.append(torch.cat(planes)[:, None])
        return cuts


class Members(nn.Module):
    """Features of a scan by every member: means over its planes, side by side."""

    def __init__(self, members: int, channels: Sequence[int], planes: int):
        super().__init__()
        self.planes = planes
        self.nets = nn.ModuleList(SliceNet(channels) for _ in range(members))
        for net in self.nets:
            del net.head  # one layer behind all members takes its place

    def forward(self, cuts: list[torch.Tensor]) -> torch.Tensor:
        """Map the planes of `Cut` to (B, members * C)."""
        cuts, means = [seen(planes) for planes in cuts], []
        for net in self.nets:
            parts = [net.features(c).unflatten(0, (-1, self.planes)).mean(1) for c in cuts]
            means.append(torch.stack(parts).mean(0))
        return torch.cat(means, dim=1)


class Slices(nn.Sequential):
    """Members side by side on the planes of a scan.

    `shape` is any grid of 8 voxels and more an axis on which a whole head lies; `members` counts
    the networks, `channels` are those of their three blocks, `planes` is how many planes each axis
    gives. `dropout` acts before the linear layer.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        n_classes: int = 2,
        dropout: float = 0.0,
        members: int = 1,
        channels: Sequence[int] = CHANNELS,
        planes: int = PLANES,
    ):
        if min(shape) < MULTIPLE:
            raise ValueError(f"Slices needs {MULTIPLE} voxels an axis; the grid has {shape}.")
        blocks: OrderedDict[str, nn.Module] = OrderedDict()
        blocks["cut"] = Cut(planes)
        blocks["block1"] = Members(members, tuple(channels), planes)
        linear = nn.Linear(members * channels[-1], n_classes)
        blocks["fc1"] = nn.Sequential(nn.Dropout(dropout), linear)
        super().__init__(blocks)

    def across(self, x: torch.Tensor, axis: int) -> torch.Tensor:
        """Classes of scans (B, 1, I, J, K) by their planes across one axis alone, (B, n_classes).

        For scans of few planes, or of one: the other axes may have any number of voxels.
        """
        return self.fc1(self.block1(self.cut(x, (axis,))))


def joined(shape: Sequence[int], members: Sequence[SliceNet], *, planes: int = PLANES) -> Slices:
    """Put trained members side by side; the log-odds of a scan are the mean of theirs.

    `shape` and `planes` are those of `Slices`; the result has the members' channels and two
    classes, and is in evaluation mode.
    """
    channels = [block[0].out_channels for block in members[0].blocks]
    network = Slices(shape, members=len(members), channels=channels, planes=planes)
    for net, member in zip(network.block1.nets, members, strict=True):
        net.blocks.load_state_dict(member.blocks.state_dict())
    linear = network.fc1[1]
    with torch.no_grad():
        linear.weight[0], linear.bias[0] = 0.0, 0.0
        linear.weight[1] = torch.cat([member.head.weight[0] for member in members]) / len(members)
        linear.bias[1] = torch.stack([member.head.bias[0] for member in members]).mean()
    return network.eval()


def seen(planes: torch.Tensor) -> torch.Tensor:
    """Make a network's input (N, 8, H / 2, W / 2) of planes (N, 1, H, W) of heads of level one."""
    head = planes.clamp(0, BRIGHTEST) - 0.5
    air = planes.clamp(0, AIR) / AIR - 0.5
    x = functional.pixel_unshuffle(torch.cat([head, air], dim=1), 2)
    return x.contiguous(memory_format=torch.channels_last)


def scaled(volume: torch.Tensor) -> torch.Tensor:
    """Put the darkest voxel of a volume (I, J, K) at zero and the head's median at one."""
    volume = volume - volume.min()
    coarse = volume[::2, ::2, ::2].flatten()  # an eighth of the voxels tells the level
    bright = coarse.kthvalue(max(1, int(0.98 * coarse.numel()))).values
    inside = coarse[coarse > HEAD * bright]
    return volume / inside.median().clamp(min=1e-6) if inside.numel() else volume


def plane_range(head: torch.Tensor, axis: int) -> tuple[int, int]:
    """First and last plane across an axis that shows enough of a head of level one."""
    across = [other for other in range(3) if other != axis]
    profile = (head > EDGE).float().mean(across)
    inside = torch.nonzero(profile > 0.1 * profile.max()).flatten()
    if not inside.numel():  # nothing stands out: the whole grid
        inside = torch.arange(head.shape[axis])
    first, last = int(inside[0]), int(inside[-1])
    return tuple(first + int(share * (last - first)) for share in REACH)


def padded(planes: torch.Tensor) -> torch.Tensor:
    """Pad planes (..., H, W) with zeros to multiples of `MULTIPLE`."""
    height, width = planes.shape[-2:]
    return functional.pad(planes, (0, -width % MULTIPLE, 0, -height % MULTIPLE))
