"""Poses and the k-space lines they own go in; the volume their mixed k-space gives comes out."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from motionlib.voxelmaps import is_identity

Output = Literal["magnitude", "real", "complex"]
CIRCULANT_UP_TO = 8  # above this many poses the partial DFT needs fewer operations


def combine_poses(
    grid: torch.Tensor, maps: np.ndarray, owner: np.ndarray, axis: int, output: Output
) -> torch.Tensor:
    """Stream over poses: resample, keep the lines each pose owns, add up.

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
    """
    from motionlib.resampling import resample

    fill = float(grid.min())
    counts = np.bincount(owner, minlength=len(maps))
    first = int(np.argmax(counts))  # the pose of most lines is the base: the others add differences
    base = grid if is_identity(maps[first]) else resample(grid, maps[first], fill=fill)
    others = [p for p in range(len(maps)) if p != first and counts[p]]
    if not others:
        return finish(base.clone() if base is grid else base, None, output)
    moved = torch.empty_like(grid)
    if len(others) <= CIRCULANT_UP_TO:
        real, imaginary = base.clone(), None if output == "real" else torch.zeros_like(grid)
        for p in others:
            resample(grid, maps[p], fill=fill, out=moved, minus=base)
            along = circulant(owner == p).to(grid)
            _add_along(real, moved, along[0], axis)
            if imaginary is not None:
                _add_along(imaginary, moved, along[1], axis)
        return finish(real, imaginary, output)
    return _combine_partial_dft(grid, base, maps, owner, others, axis, output, fill)


def circulant(mask: np.ndarray) -> torch.Tensor:
    """Real and imaginary part of ``ifft(mask * fft(.))`` as matrices, shape (2, N, N), float64."""
    n = mask.size
    kernel = torch.fft.ifft(torch.fft.ifftshift(torch.as_tensor(mask, dtype=torch.float64)))
    index = torch.arange(n)
    matrix = kernel[(index[:, None] - index[None, :]) % n]
    return torch.stack([matrix.real, matrix.imag])


def _add_along(total: torch.Tensor, part: torch.Tensor, matrix: torch.Tensor, axis: int) -> None:
    """``total += matrix applied to part along axis``; shapes (I, J, K) and (N, N)."""
    i, j, k = part.shape
    if axis == 0:
        total.view(i, j * k).addmm_(matrix, part.view(i, j * k))
    elif axis == 2:
        total.view(i * j, k).addmm_(part.view(i * j, k), matrix.T)
    else:
        total.baddbmm_(matrix.expand(i, j, j), part)


def _combine_partial_dft(grid, base, maps, owner, others, axis, output, fill) -> torch.Tensor:
    """Collect each pose's own bins of the difference to the base, then one inverse FFT."""
    from motionlib.resampling import resample

    n = grid.shape[axis]
    moved = torch.empty_like(grid)
    dtype = torch.complex64 if grid.dtype == torch.float32 else torch.complex128
    shape = [n, *(size for d, size in enumerate(grid.shape) if d != axis)]
    spectrum = torch.zeros(shape, dtype=dtype, device=grid.device)
    for p in others:
        resample(grid, maps[p], fill=fill, out=moved, minus=base)
        own = np.flatnonzero(owner == p) - n // 2
        spectrum[torch.as_tensor(own % n, device=grid.device)] = partial_dft(moved, own, axis)
    change = torch.fft.ifft(spectrum, dim=0).movedim(0, axis)
    real = base + change.real
    return finish(real, None if output == "real" else change.imag.contiguous(), output)


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
    phase = np.outer(bins, np.arange(volume.shape[axis])) * (-2 * np.pi / volume.shape[axis])
    if volume.is_complex():
        along = torch.as_tensor(np.exp(1j * phase)).to(volume)
        return torch.tensordot(along, volume, dims=([1], [axis]))
    along = torch.as_tensor(np.concatenate([np.cos(phase), np.sin(phase)])).to(volume)
    rows = torch.tensordot(along, volume, dims=([1], [axis]))
    return torch.complex(rows[: len(bins)], rows[len(bins) :])


def finish(real: torch.Tensor, imaginary: torch.Tensor | None, output: Output) -> torch.Tensor:
    """Turn real and imaginary part into what was asked for."""
    if output == "real":
        return real
    if output == "complex":
        return torch.complex(real, torch.zeros_like(real) if imaginary is None else imaginary)
    return real.abs_() if imaginary is None else torch.hypot(real, imaginary)
