"""A grid, a count and k-space with gaps go in; coil sensitivities and filled k-space come out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

KERNEL_LINES = 4  # acquired lines that a missing one is made from, as vendors use
BLOCK_VOX = 8  # the kernel follows the sensitivities from block to block
RIDGE = 1e-4  # of the mean diagonal; keeps blocks of air solvable


def sensitivities(shape: Sequence[int], n_coils: int) -> torch.Tensor:
    """Smooth complex receive sensitivities of coils around the head, fixed to the scanner.

    Parameters
    ----------
    shape : sequence of int
        Grid (I, J, K).
    n_coils : int
        Number of coils; one coil is uniform.

    Returns
    -------
    Tensor, shape (C, I, J, K), complex64
        Squared magnitudes add up to one in every voxel.

    Raises
    ------
    ValueError
        If `n_coils` is below one.
    """
    if n_coils < 1:
        raise ValueError(f"n_coils is {n_coils}; at least one coil receives.")
    if n_coils == 1:
        return torch.ones((1, *shape), dtype=torch.complex64)
    axes = [np.linspace(-1, 1, n) for n in shape]
    maps = torch.empty((n_coils, *shape), dtype=torch.complex64)
    for coil in range(n_coils):
        angle = 2 * np.pi * (coil + 0.5) / n_coils
        place = 1.2 * np.array([np.sin(angle), np.cos(angle), 0.4 * (-1) ** coil])
        profile = [
            np.exp(-0.5 * ((x - c) / 0.9) ** 2 + 1j * (0.8 * x * c + angle / 3))
            for x, c in zip(axes, place, strict=True)
        ]
        maps[coil] = outer(profile)
    return maps / maps.abs().square().sum(0).sqrt()


def smooth_phase(shape: Sequence[int], rng: np.random.Generator) -> torch.Tensor:
    """Draw a smooth image phase, a random paraboloid of about one turn; (I, J, K) complex64."""
    factors = []
    for n in shape:
        x = np.linspace(-1, 1, n)
        slope, bend = rng.uniform(-1.5, 1.5), rng.uniform(-1.5, 1.5)
        factors.append(np.exp(1j * (slope * x + bend * x**2)))
    return outer(factors)


def outer(factors: Sequence[np.ndarray]) -> torch.Tensor:
    """Outer product of three complex vectors, shape (I, J, K), complex64."""
    x, y, z = (torch.as_tensor(f).to(torch.complex64) for f in factors)
    return (x[:, None] * y)[:, :, None] * z


def fill_missing(
    samples: torch.Tensor, acquired: np.ndarray, reference: np.ndarray, acceleration: int
) -> torch.Tensor:
    """Estimate the lines that an accelerated scan skips (GRAPPA, one kernel per block of voxels).

    Parameters
    ----------
    samples : Tensor, shape (C, N, A, B), complex
        Coil data: k-space lines along N in rising order, image space along A and B.
    acquired : ndarray of bool, shape (N,)
        Lines that were measured, reference lines included.
    reference : ndarray of int
        Indices of the contiguous fully sampled lines in the middle.
    acceleration : int
        Every so many lines was measured.

    Returns
    -------
    Tensor, shape (C, N, A, B)
        The same with every line between measured ones filled.

    Raises
    ------
    ValueError
        If there are too few reference lines to fit a kernel.

    Notes
    -----
    Source: Griswold 2002 (GRAPPA); kernels in hybrid space after Brau 2008.
    """
    span = (KERNEL_LINES - 1) * acceleration
    if reference.size <= span:
        raise ValueError(
            f"{reference.size} reference lines cannot calibrate acceleration {acceleration}; "
            f"use at least {span + 1}."
        )
    blocks, undo = _to_blocks(samples)  # (blocks, C, N, pixels)
    n = samples.shape[1]
    lattice = np.flatnonzero(acquired)
    lattice = lattice[(lattice - reference[0]) % acceleration == 0]
    steps = np.arange(-(KERNEL_LINES // 2 - 1), KERNEL_LINES // 2 + 1) * acceleration
    for offset in range(1, acceleration):
        low, high = reference[0] - steps[0] + offset, reference[-1] - (steps[-1] - offset)
        targets = np.arange(low, high + 1)
        weights = _fit(blocks, targets, targets[:, None] - offset + steps)
        missing = np.arange(n)[
            ~acquired & ((np.arange(n) - offset - reference[0]) % acceleration == 0)
        ]
        missing = missing[(missing > lattice[0]) & (missing < lattice[-1])]
        if missing.size:
            sources = missing[:, None] - offset + steps
            blocks[:, :, missing] = _apply(blocks, weights, sources, (sources >= 0) & (sources < n))
    return undo(blocks)


def _to_blocks(samples: torch.Tensor):
    """Tile A and B; return (blocks, C, N, pixels) and the way back."""
    c, n, a, b = samples.shape
    tall, wide = -(-a // BLOCK_VOX), -(-b // BLOCK_VOX)
    padded = torch.nn.functional.pad(
        torch.view_as_real(samples), (0, 0, 0, wide * BLOCK_VOX - b, 0, tall * BLOCK_VOX - a)
    )
    padded = torch.view_as_complex(padded.contiguous())
    tiles = padded.reshape(c, n, tall, BLOCK_VOX, wide, BLOCK_VOX).permute(2, 4, 0, 1, 3, 5)

    def undo(blocks: torch.Tensor) -> torch.Tensor:
        grid = blocks.reshape(tall, wide, c, n, BLOCK_VOX, BLOCK_VOX).permute(2, 3, 0, 4, 1, 5)
        return grid.reshape(c, n, tall * BLOCK_VOX, wide * BLOCK_VOX)[:, :, :a, :b]

    return tiles.reshape(tall * wide, c, n, BLOCK_VOX**2), undo


def _neighbours(blocks: torch.Tensor, sources: np.ndarray) -> torch.Tensor:
    """Coil values of the source lines as equations, shape (blocks, lines * pixels, C * taps)."""
    count, taps = sources.shape
    picked = blocks[:, :, torch.as_tensor(sources.reshape(-1))]
    picked = picked.reshape(len(blocks), blocks.shape[1], count, taps, -1).permute(0, 2, 4, 1, 3)
    return picked.reshape(len(blocks), -1, blocks.shape[1] * taps)


def _fit(blocks: torch.Tensor, targets: np.ndarray, sources: np.ndarray) -> torch.Tensor:
    """Ridge regression of target lines on their neighbours, shape (blocks, C * taps, C)."""
    known = _neighbours(blocks, sources)
    wanted = _neighbours(blocks, targets[:, None])
    normal = known.mH @ known
    size = normal.shape[-1]
    diagonal = torch.diagonal(normal, dim1=-2, dim2=-1).real.mean(-1)
    ridge = (RIDGE * diagonal).clamp_min(torch.finfo(torch.float32).tiny)
    eye = torch.eye(size, dtype=normal.dtype, device=normal.device)
    return torch.linalg.solve(normal + ridge[:, None, None] * eye, known.mH @ wanted)


def _apply(
    blocks: torch.Tensor, weights: torch.Tensor, sources: np.ndarray, inside: np.ndarray
) -> torch.Tensor:
    """Estimate lines from their neighbours (zero outside k-space); (blocks, C, lines, pixels)."""
    known = _neighbours(blocks, np.where(inside, sources, 0))
    coils, (count, taps) = blocks.shape[1], sources.shape
    known = known.reshape(len(blocks), count, -1, coils, taps)
    known = known * torch.as_tensor(inside, device=blocks.device)[None, :, None, None, :]
    estimate = known.reshape(len(blocks), -1, coils * taps) @ weights
    return estimate.reshape(len(blocks), count, -1, coils).permute(0, 3, 1, 2)
