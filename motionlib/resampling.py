"""A volume and a map between voxels go in; the moved volume comes out (numba, or torch on CUDA)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import torch


def _compile(function: Any) -> Any:
    """Compile with a cache on disk; without one where no folder can be written."""
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # numba found no writable cache folder
        return numba.njit(nogil=True)(function)


@_compile
def _rows(
    source, base, shape, out_shape, matrix, fill, out, start, stop
):  # pragma: no cover - compiled
    """Trilinear pull of the slabs start..stop; ITK's border rule; minus `base` if it has voxels."""
    nx, ny, nz = shape
    hx, hy, hz = nx - 0.5, ny - 0.5, nz - 0.5
    top_x, top_y, top_z = max(nx - 2, 0), max(ny - 2, 0), max(nz - 2, 0)
    step_x = np.uint64(ny * nz if nx > 1 else 0)
    step_y = np.uint64(nz if ny > 1 else 0)
    step_z = np.uint64(1 if nz > 1 else 0)
    subtract = base.size > 0
    ax, ay, az = matrix[0, 2], matrix[1, 2], matrix[2, 2]
    for i in range(start, stop):
        for j in range(out_shape[1]):
            x0 = matrix[0, 0] * i + matrix[0, 1] * j + matrix[0, 3]
            y0 = matrix[1, 0] * i + matrix[1, 1] * j + matrix[1, 3]
            z0 = matrix[2, 0] * i + matrix[2, 1] * j + matrix[2, 3]
            row = (i * out_shape[1] + j) * out_shape[2]
            for k in range(out_shape[2]):
                x = x0 + ax * k
                y = y0 + ay * k
                z = z0 + az * k
                if x < -0.5 or x >= hx or y < -0.5 or y >= hy or z < -0.5 or z >= hz:
                    value = fill
                else:
                    x = min(max(x, 0.0), nx - 1.0)
                    y = min(max(y, 0.0), ny - 1.0)
                    z = min(max(z, 0.0), nz - 1.0)
                    ix = min(int(x), top_x)
                    iy = min(int(y), top_y)
                    iz = min(int(z), top_z)
                    u = source.dtype.type(x - ix)
                    v = source.dtype.type(y - iy)
                    w = source.dtype.type(z - iz)
                    a = np.uint64((ix * ny + iy) * nz + iz)
                    b = a + step_y
                    c = a + step_x
                    d = c + step_y
                    near_a = source[a] + w * (source[a + step_z] - source[a])
                    near_b = source[b] + w * (source[b + step_z] - source[b])
                    far_a = source[c] + w * (source[c + step_z] - source[c])
                    far_b = source[d] + w * (source[d + step_z] - source[d])
                    near = near_a + v * (near_b - near_a)
                    far = far_a + v * (far_b - far_a)
                    value = near + u * (far - near)
                if subtract:
                    value -= base[row + k]
                out[row + k] = value


def resample(
    volume: torch.Tensor,
    matrix: np.ndarray,
    *,
    fill: float,
    out: torch.Tensor | None = None,
    minus: torch.Tensor | None = None,
) -> torch.Tensor:
    """Pull a volume through an affine map of voxel indices, trilinearly.

    Parameters
    ----------
    volume : Tensor, shape (I, J, K)
        float32 or float64, contiguous. Not modified.
    matrix : ndarray, shape (3, 4) or (4, 4)
        From the index of an output voxel to the continuous index in `volume`.
    fill : float
        Value where the index leaves [-0.5, N - 0.5); inside, neighbours are clamped to the edge.
    out : Tensor, optional
        Contiguous memory to write into; its shape is the output grid (default: the volume's).
    minus : Tensor, shape of `out`, optional
        Subtracted from the result on the way.

    Returns
    -------
    Tensor, shape of `out`
        Moved volume on the same device.

    Notes
    -----
    Source: ITK's ``LinearInterpolateImageFunction`` (border rule), as TorchIO 1.2.1 resamples.
    """
    out = torch.empty_like(volume) if out is None else out
    if volume.device.type == "cuda":
        return _resample_torch(volume, matrix, fill, out, minus)
    flat = volume.numpy().reshape(-1)
    base = flat[:0] if minus is None else minus.numpy().reshape(-1)
    target = out.numpy().reshape(-1)
    matrix = np.ascontiguousarray(matrix[:3], dtype=np.float64)
    value = flat.dtype.type(fill)
    shape, out_shape = tuple(volume.shape), tuple(out.shape)
    n_slabs = out_shape[0]

    def run(bounds: tuple[int, int]) -> None:
        _rows(flat, base, shape, out_shape, matrix, value, target, *bounds)

    threads = min(torch.get_num_threads(), n_slabs)
    if threads == 1:
        run((0, n_slabs))
    else:
        edges = np.linspace(0, n_slabs, threads + 1).astype(int)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(run, zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)))
    return out


def fine_grid(volume: torch.Tensor) -> torch.Tensor:
    """Double the sampling of a volume by zero-filling its spectrum; voxel v goes to index 2 v.

    Parameters
    ----------
    volume : Tensor, shape (I, J, K)
        Real.

    Returns
    -------
    Tensor, shape (2 I, 2 J, 2 K)
        The band-limited volume on the finer grid, equal to `volume` on its own voxels for odd
        sizes and up to the Nyquist frequency for even ones.
    """
    i, j, k = volume.shape
    spectrum = torch.fft.rfftn(volume)
    if k % 2 == 0:
        spectrum[:, :, -1] /= 2  # no longer the last frequency, so it has a mirror image now
    low_i, low_j, half = (i + 1) // 2, (j + 1) // 2, k // 2 + 1
    finer = torch.zeros((2 * i, 2 * j, k + 1), dtype=spectrum.dtype, device=volume.device)
    for rows, to_rows in ((slice(0, low_i),) * 2, (slice(low_i, i), slice(low_i - i, None))):
        for cols, to_cols in ((slice(0, low_j),) * 2, (slice(low_j, j), slice(low_j - j, None))):
            finer[to_rows, to_cols, :half] = spectrum[rows, cols]
    return torch.fft.irfftn(finer, s=(2 * i, 2 * j, 2 * k)).mul_(8)


def _resample_torch(
    volume: torch.Tensor,
    matrix: np.ndarray,
    fill: float,
    out: torch.Tensor,
    minus: torch.Tensor | None,
) -> torch.Tensor:
    """Do the same with ``grid_sample``: edges clamped, then everything outside set to `fill`."""
    shape = out.shape
    matrix = torch.as_tensor(matrix[:3], dtype=volume.dtype, device=volume.device)
    axes = [torch.arange(n, dtype=volume.dtype, device=volume.device) for n in shape]
    points = []
    for row in matrix:
        across = row[0] * axes[0][:, None] + row[1] * axes[1] + row[3]
        points.append(across[:, :, None] + row[2] * axes[2])
    inside = torch.ones(shape, dtype=torch.bool, device=volume.device)
    for point, n in zip(points, volume.shape, strict=True):
        inside &= (point >= -0.5) & (point < n - 0.5)
    scaled = [p * (2 / max(n - 1, 1)) - 1 for p, n in zip(points, volume.shape, strict=True)]
    moved = torch.nn.functional.grid_sample(
        volume[None, None],
        torch.stack(scaled[::-1], dim=-1)[None],
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )[0, 0]
    torch.where(
        inside, moved, torch.as_tensor(fill, dtype=volume.dtype, device=volume.device), out=out
    )
    return out if minus is None else out.sub_(minus)
