"""ViT3D: a vision transformer over cubes of voxels.

Shape trace at the paper's grid, patches of 13 x 13 x 16 voxels::

    input                                                       (B, 1, 169, 208, 179)
    embedding  crop to 169 x 208 x 176, patches, Linear(2704, 1024),
               class token, learned positions                   (B, 2289, 1024)
    block1-6   LayerNorm, 16 heads of 64; LayerNorm, MLP 2048   (B, 2289, 1024)
    fc1        class token, LayerNorm, Linear(1024, 2)          (B, 2)

55,499,778 parameters; 226,356,226 with patches of 56 x 52 x 59 (36 tokens).

Source: Dosovitskiy et al. (2021), ICLR; the first author's fork of ClinicaDL, ``ViTVNet``.
"""

from collections import OrderedDict

import torch
from torch import nn

PAPER_PATCH = (13, 13, 16)  # May 2023; (56, 52, 59) is the fork's of June 2023
PAPER_TOKENS = 13 * 16 * 11
SMALL_TOKENS = 200  # most tokens that a default patch makes on a smaller grid


class ViT3D(nn.Sequential):
    """The vision transformer that the paper compares.

    `patch` is `default_patch` unless given; (56, 52, 59) is the fork's second version. `dim`, the
    width of a token, is 1024 at the paper's grid and 256 on smaller ones; a head is `head_dim`
    wide. `dropout` acts in the perceptrons. Departs from the paper's public fork in three places
    that are faults there: the position table has the right length, positions and class token are
    trained and saved, and attention is scaled by the head's width.
    """

    def __init__(
        self, shape, *, n_classes=2, dropout=0.0, patch=None, dim=None, depth=6, head_dim=64
    ):
        if dim is None:
            dim = 256 if patch is None and default_patch(shape) != PAPER_PATCH else 1024
        patch = default_patch(shape) if patch is None else tuple(patch)
        if len(patch) != 3 or _tokens(shape, patch) < 1:
            raise ValueError(f"Shape {shape} holds no patch of {patch} voxels; give a smaller one.")
        if dim % head_dim:
            raise ValueError(f"Width {dim} is not a multiple of the head's width {head_dim}.")
        blocks: OrderedDict[str, nn.Module] = OrderedDict(embedding=_Embedding(shape, patch, dim))
        for number in range(1, depth + 1):
            blocks[f"block{number}"] = _Layer(dim, dim // head_dim, 2 * dim, dropout)
        blocks["fc1"] = nn.Sequential(_ClassToken(), nn.LayerNorm(dim), nn.Linear(dim, n_classes))
        super().__init__(blocks)


def default_patch(shape) -> tuple[int, int, int]:
    """Choose the patch: the paper's where it makes as many tokens as at the paper's grid.

    On smaller grids the smallest cube that makes at most 200 (8 voxels at 43 x 52 x 45: 150).
    """
    if _tokens(shape, PAPER_PATCH) >= PAPER_TOKENS:
        return PAPER_PATCH
    edge = 1
    while _tokens(shape, (edge,) * 3) > SMALL_TOKENS:
        edge += 1
    return (edge,) * 3


def _tokens(shape, patch) -> int:
    """Count the whole patches in a grid."""
    i, j, k = (n // p for n, p in zip(shape, patch, strict=True))
    return i * j * k


class _Embedding(nn.Module):
    """Project patches (what fills none is cropped), prepend the class token, add positions."""

    def __init__(self, shape, patch, dim: int):
        super().__init__()
        self.patch = tuple(patch)
        self.counts = tuple(n // p for n, p in zip(shape, patch, strict=True))
        voxels = patch[0] * patch[1] * patch[2]
        self.project = nn.Linear(voxels, dim)
        self.class_token = nn.Parameter(torch.randn(1, 1, dim))
        self.positions = nn.Parameter(torch.randn(1, _tokens(shape, patch) + 1, dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Turn ``(B, 1, I, J, K)`` into ``(B, tokens + 1, dim)``."""
        (a, b, c), (p, q, r) = self.counts, self.patch  # patches, and voxels of one, along I, J, K
        x = x[:, 0, : a * p, : b * q, : c * r].reshape(-1, a, p, b, q, c, r)
        x = x.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, a * b * c, p * q * r)
        x = self.project(x)
        return torch.cat([self.class_token.expand(len(x), -1, -1), x], 1) + self.positions


class _Layer(nn.Module):
    """Attention and a two-layer perceptron, each behind a LayerNorm and beside a shortcut."""

    def __init__(self, dim: int, heads: int, mlp: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim)
        self.to_qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, mlp),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(mlp, dim),
            nn.Dropout(dropout),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keep the shape ``(B, tokens + 1, dim)``."""
        batch, tokens, dim = x.shape
        qkv = self.to_qkv(self.norm1(x)).reshape(batch, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        # scaled by 1 / sqrt(64) = 1/8; the fork's dim ** -0.5 = 1/32 is a slip
        attended = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.to_out(attended.transpose(1, 2).reshape(batch, tokens, dim))
        return x + self.mlp(self.norm2(x))


class _ClassToken(nn.Module):
    """Keep the first token."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Turn ``(B, tokens + 1, dim)`` into ``(B, dim)``."""
        return x[:, 0]
