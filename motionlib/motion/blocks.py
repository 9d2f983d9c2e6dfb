"""Poses and the k-space lines they own go in; the volume their mixed k-space gives comes out."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Literal

import numpy as np
import torch

from motionlib.motion.voxelmaps import is_identity

Output = Literal["magnitude", "real", "complex"]
MOST_BUFFERS = 4  # volumes in memory for the poses at work


def combine_poses(
    grid: torch.Tensor, maps: np.ndarray, owner: np.ndarray, axis: int, output: Output
) -> torch.Tensor:
    """Stream over poses: resample, keep the lines each pose owns, transform back once.

    Parameters
    ----------
    grid : Tensor, shape (I, J, K)
        Motion-free intensities.
    maps : ndarray, shape (P, 4, 4)
        Output voxel to source voxel, per pose.
    owner : ndarray of int, shape (N,)
        Pose of each line along `axis`, from -kmax to +kmax.
    axis : int
        Array axis of the lines.
    output : {"magnitude", "real", "complex"}
        What to return.

    Returns
    -------
    Tensor, shape (I, J, K)
        The combined volume.

    Notes
    -----
    The pose of most lines is the base; every other pose adds its lines of the *difference* to the
    base. The work of the transforms, two thin matrix products, does not depend on the number of
    poses, and neither does the memory.
    """
    from motionlib.motion.resampling import resample

    fill = float(grid.min())
    counts = np.bincount(owner, minlength=len(maps))
    first = int(np.argmax(counts))
    base = grid if is_identity(maps[first]) else resample(grid, maps[first], fill=fill)
    others = [pose for pose in range(len(maps)) if pose != first and counts[pose]]
    if not others:
        return finish(base.clone() if base is grid else base, None, output)
    n = grid.shape[axis]
    lines = [np.flatnonzero(owner == pose) - n // 2 for pose in others]
    spectrum = grid.new_empty(_with(grid.shape, axis, 2 * sum(map(len, lines))))
    starts = np.cumsum([0, *(2 * len(own) for own in lines)])
    jobs = list(zip(others, lines, starts[:-1].tolist(), strict=True))

    def collect(part: list[tuple[int, np.ndarray, int]]) -> None:
        moved = torch.empty_like(grid)
        for pose, own, start in part:
            resample(grid, maps[pose], fill=fill, out=moved, minus=base)
            rows = spectrum.narrow(axis if axis < 2 else 0, start, 2 * len(own))
            multiply(waves(own, n).to(grid), moved, axis, out=rows)

    threads = min(torch.get_num_threads(), len(jobs), MOST_BUFFERS)
    if threads == 1 or grid.device.type == "cuda":
        collect(jobs)
    else:  # whole poses per thread, each of them without OpenMP: its idle threads would spin
        parts = [jobs[t::threads] for t in range(threads)]
        before, alone = torch.get_num_threads(), partial(torch.set_num_threads, 1)
        try:
            with ThreadPoolExecutor(threads, initializer=alone) as pool:
                list(pool.map(collect, parts))
        finally:  # torch keeps one number for all threads
            torch.set_num_threads(before)
    back = [waves(own, n) for own in lines]  # rows cos(a), -sin(a) of every line a
    real = multiply(torch.cat(back).T.to(grid) / n, spectrum, axis, back=True)
    real += base
    if output == "real":
        return real
    turned = [torch.cat([-wave[len(wave) // 2 :], wave[: len(wave) // 2]]) for wave in back]
    return finish(
        real, multiply(torch.cat(turned).T.to(grid) / n, spectrum, axis, back=True), output
    )


def _with(shape: torch.Size, axis: int, rows: int) -> list[int]:
    """Shape of `rows` spectral lines along `axis`; rows come first for the last axis."""
    i, j, k = shape
    return {0: [rows, j, k], 1: [i, rows, k], 2: [rows, i, j]}[axis]


def waves(bins: np.ndarray, n: int) -> torch.Tensor:
    """Real and imaginary part of the DFT rows of some bins, shape (2 B, n), float64."""
    phase = np.outer(bins, np.arange(n)) * (2 * np.pi / n)
    return torch.from_numpy(np.concatenate([np.cos(phase), -np.sin(phase)]))


def multiply(
    matrix: torch.Tensor,
    volume: torch.Tensor,
    axis: int,
    *,
    out: torch.Tensor | None = None,
    back: bool = False,
) -> torch.Tensor:
    """Apply a matrix along one axis; the spectral side of the last axis has its rows first.

    Parameters
    ----------
    matrix : Tensor, shape (M, N)
        Applied from the left.
    volume : Tensor
        (I, J, K); with `back` and axis 2: (N, I, J).
    axis : int
        Array axis of length N.
    out : Tensor, optional
        Memory for the result.
    back : bool
        From lines to voxels.

    Returns
    -------
    Tensor
        With M in the place of N; axis 2: (M, I, J), or (I, J, M) with `back`.
    """
    m = len(matrix)
    if axis == 1:
        stack = matrix.expand(len(volume), *matrix.shape)
        if out is None:
            return torch.bmm(stack, volume)
        return out.baddbmm_(stack, volume, beta=0)
    if axis == 0:
        flat, shape = volume.reshape(len(volume), -1), (m, *volume.shape[1:])
        result = torch.mm(matrix, flat, out=None if out is None else out.view(m, -1))
    elif back:
        flat, shape = volume.reshape(len(volume), -1), (*volume.shape[1:], m)
        result = torch.mm(flat.T, matrix.T)
    else:
        flat, shape = volume.reshape(-1, volume.shape[2]), (m, *volume.shape[:2])
        result = torch.mm(matrix, flat.T, out=None if out is None else out.view(m, -1))
    return result.reshape(shape)


def partial_dft(volume: torch.Tensor, bins: np.ndarray, axis: int) -> torch.Tensor:
    """Compute only some bins of the DFT along one axis.

    Parameters
    ----------
    volume : Tensor, shape (I, J, K)
        Real or complex.
    bins : ndarray of int, shape (B,)
        Frequencies in cycles per volume, negative ones included.
    axis : int
        Array axis.

    Returns
    -------
    Tensor, shape (B, ., .), complex
        The two other axes follow in their order.
    """
    along = waves(bins, volume.shape[axis])
    if volume.is_complex():
        along = torch.complex(along[: len(bins)], along[len(bins) :]).to(volume)
        return torch.tensordot(along, volume, dims=([1], [axis]))
    rows = torch.tensordot(along.to(volume), volume, dims=([1], [axis]))
    return torch.complex(rows[: len(bins)], rows[len(bins) :])


def finish(real: torch.Tensor, imaginary: torch.Tensor | None, output: Output) -> torch.Tensor:
    """Turn real and imaginary part into what was asked for."""
    if output == "real":
        return real
    if output == "complex":
        return torch.complex(real, torch.zeros_like(real) if imaginary is None else imaginary)
    return real.abs() if imaginary is None else torch.hypot(real, imaginary)
