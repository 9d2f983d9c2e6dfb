"""Resampling of a moved head: the voxel maps of its poses and a trilinear pull through them.

A pose tells where each voxel of the moved volume comes from (`sampling_maps`); `pull_trilinear`
looks there. On the CPU the pull is compiled with numba and runs along the last axis of the array,
where the source index grows by a constant step; on CUDA it is torch's ``grid_sample``.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import Any

import numpy as np
import torch

from motionlib.compute.compiled import compiled
from motionlib.motion.trajectory import rotation_matrices

SMALL_VOXELS = 1_000_000  # below, waking further threads costs more than they save


def sampling_maps(
    translation: np.ndarray,
    rotation_deg: np.ndarray,
    affine: np.ndarray,
    shape: tuple[int, ...],
    *,
    frame: str = "ras",
    center: str = "image",
    direction: str = "push",
) -> np.ndarray:
    """Affine maps (P, 4, 4) from the voxels of a moved volume to those of the original they show.

    One for each of P poses (P, 3), by indices; `affine` goes from indices to RAS mm, and the voxel
    frame ignores it. The options are those of `Trajectory` and `image_motion`.
    """
    if center not in ("image", "world") or direction not in ("push", "pull"):
        raise ValueError(
            f"center={center!r}, direction={direction!r}; use image or world, and push or pull."
        )
    size = np.asarray(shape[-3:], dtype=np.float64)
    if frame == "voxel":
        if center == "world":
            raise ValueError("A course from the fork turns about voxel N // 2; use center='image'.")
        affine, middle = np.eye(4), size // 2
    else:
        middle = affine[:3, :3] @ ((size - 1) / 2) + affine[:3, 3]
        middle = middle if center == "image" else np.zeros(3)
    turn = rotation_matrices(rotation_deg)
    world = np.tile(np.eye(4), (len(turn), 1, 1))
    world[:, :3, :3] = turn
    world[:, :3, 3] = translation + middle - turn @ middle
    maps = np.linalg.inv(affine) @ world @ affine
    return np.linalg.inv(maps) if direction == "push" else maps


def is_identity(matrix: np.ndarray) -> bool:
    """Whether a map leaves every voxel in place, to rounding."""
    return bool(np.abs(matrix - np.eye(4)).max() < 1e-12)


def pull_trilinear(
    volume: torch.Tensor,
    matrix: np.ndarray,
    *,
    fill: float,
    out: torch.Tensor | None = None,
    minus: torch.Tensor | None = None,
) -> torch.Tensor:
    """Pull a volume (I, J, K) through an affine map of voxel indices, trilinearly.

    `matrix` (3, 4) or (4, 4) takes the index of an output voxel to the continuous index in
    `volume`, a contiguous float32 or float64. Where that leaves [-0.5, N - 0.5) the result is
    `fill`; inside, neighbours are clamped to the edge (ITK's ``LinearInterpolateImageFunction``, as
    TorchIO 1.2.1). `out` is contiguous memory to write into, its shape the output grid (default:
    the volume's), and `minus` is subtracted on the way.
    """
    out = torch.empty_like(volume) if out is None else out
    if volume.device.type == "cuda":
        return _pull_torch(volume, matrix, fill, out, minus)
    flat = volume.numpy().reshape(-1)
    base = flat[:0] if minus is None else minus.numpy().reshape(-1)
    target = out.numpy().reshape(-1)
    matrix = np.ascontiguousarray(matrix[:3], dtype=np.float64)
    value = flat.dtype.type(fill)
    shape, out_shape = tuple(volume.shape), tuple(out.shape)
    n_slabs = out_shape[0]

    def run(bounds: tuple[int, int]) -> None:
        _rows(flat, base, shape, out_shape, matrix, value, target, *bounds)

    # slabs of the output are independent, and the compiled loop lets go of Python's lock
    threads = min(torch.get_num_threads(), n_slabs)
    if threads == 1:
        run((0, n_slabs))
    else:
        edges = np.linspace(0, n_slabs, threads + 1).astype(int)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(run, zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)))
    return out


def _pull_torch(
    volume: torch.Tensor,
    matrix: np.ndarray,
    fill: float,
    out: torch.Tensor,
    minus: torch.Tensor | None,
) -> torch.Tensor:
    """Pull by ``grid_sample``: edges clamped, then everything outside set to `fill`."""
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


@compiled(nogil=True)
def _edge(source, shape, x, y, z, fill):  # pragma: no cover - compiled
    """Trilinear value at one point with ITK's border rule."""
    nx, ny, nz = shape
    if x < -0.5 or x >= nx - 0.5 or y < -0.5 or y >= ny - 0.5 or z < -0.5 or z >= nz - 0.5:
        return fill
    x = min(max(x, 0.0), nx - 1.0)
    y = min(max(y, 0.0), ny - 1.0)
    z = min(max(z, 0.0), nz - 1.0)
    ix, iy, iz = min(int(x), nx - 2), min(int(y), ny - 2), min(int(z), nz - 2)
    value = fill - fill
    for a in range(2):
        for b in range(2):
            for c in range(2):
                weight = abs(1 - a - (x - ix)) * abs(1 - b - (y - iy)) * abs(1 - c - (z - iz))
                index = ((ix + a) * ny + iy + b) * nz + iz + c
                value += source.dtype.type(weight) * source[index]
    return value


@compiled(nogil=True)
def _inside(start, step, low, high, top):  # pragma: no cover - compiled
    """Narrow the range low..high of k to where ``0 <= start + k step < top``.

    The bounds are clipped before they become integers (a tiny step gives huge ones), and a margin
    of 1e-6 leaves to the border rule what rounding may have put on the wrong side.
    """
    if step == 0.0:
        return low, (high if start >= 0.0 and start < top else low)
    first, last = -start / step, (top - start) / step
    if step < 0.0:
        first, last = last, first
    limit = high
    low = min(max(low, int(np.ceil(min(max(first, -1.0), 1e9) + 1e-6))), limit)
    high = min(high, int(np.floor(min(max(last, -1.0), 1e9) - 1e-6)) + 1)
    return low, max(low, high)


@compiled(nogil=True)
def _held(start, step, low, high, top):  # pragma: no cover - compiled
    """Shorten the range until the fixed-point index start + k step is in 0..top at both ends.

    `_inside` decides in floating point: along a line that is almost parallel to a face, rounding
    may put a point on the face itself, whose next voxel would lie beyond the volume.
    """
    while low < high and not 0 <= start + low * step < top:
        low += 1
    while low < high and not 0 <= start + (high - 1) * step < top:
        high -= 1
    return low, high


@compiled(nogil=True)
def _rows(source, base, shape, out_shape, matrix, fill, out, start, stop):  # pragma: no cover
    """Trilinear pull of the slabs start..stop; minus `base` if it has voxels.

    Along a row (i, j) of the output the source index is (x, y, z) + k (ax, ay, az).
    1. Find the k for which all eight neighbours are inside the volume.
    2. Points outside that range take the slow way, with the border rule.
    3. Inside, the index is a fixed-point number: upper 32 bits voxel, lower weight; twice as fast.
    """
    ny, nz = shape[1], shape[2]
    unit = 4294967296.0  # 2^32
    mask = np.int64(0xFFFFFFFF)
    scale = source.dtype.type(1.0 / unit)
    ax, ay, az = matrix[0, 2], matrix[1, 2], matrix[2, 2]
    step_x, step_y, step_z = np.int64(ax * unit), np.int64(ay * unit), np.int64(az * unit)
    plane, line, next_voxel = np.uint64(ny * nz), np.uint64(nz), np.uint64(1)
    for i in range(start, stop):
        for j in range(out_shape[1]):
            x = matrix[0, 0] * i + matrix[0, 1] * j + matrix[0, 3]
            y = matrix[1, 0] * i + matrix[1, 1] * j + matrix[1, 3]
            z = matrix[2, 0] * i + matrix[2, 1] * j + matrix[2, 3]
            row = (i * out_shape[1] + j) * out_shape[2]
            # 1. the range of k, first in floating point, then exactly
            low, high = _inside(x, ax, 0, out_shape[2], shape[0] - 1.0)
            low, high = _inside(y, ay, low, high, shape[1] - 1.0)
            low, high = _inside(z, az, low, high, shape[2] - 1.0)
            fx = fy = fz = np.int64(0)  # of k = 0, were it inside
            if low < high:
                fx = np.int64((x + ax * low) * unit) - low * step_x
                fy = np.int64((y + ay * low) * unit) - low * step_y
                fz = np.int64((z + az * low) * unit) - low * step_z
                low, high = _held(fx, step_x, low, high, (shape[0] - 1) << 32)
                low, high = _held(fy, step_y, low, high, (shape[1] - 1) << 32)
                low, high = _held(fz, step_z, low, high, (shape[2] - 1) << 32)
            # 2. both ends of the row
            for k in range(low):
                out[row + k] = _edge(source, shape, x + ax * k, y + ay * k, z + az * k, fill)
            for k in range(high, out_shape[2]):
                out[row + k] = _edge(source, shape, x + ax * k, y + ay * k, z + az * k, fill)
            # 3. the inside: interpolate along k, then j, then i
            if low < high:
                fx, fy, fz = fx + low * step_x, fy + low * step_y, fz + low * step_z
                for k in range(low, high):
                    a = np.uint64((fx >> 32) * ny * nz + (fy >> 32) * nz + (fz >> 32))
                    u = source.dtype.type(fx & mask) * scale
                    v = source.dtype.type(fy & mask) * scale
                    w = source.dtype.type(fz & mask) * scale
                    fx += step_x
                    fy += step_y
                    fz += step_z
                    b = a + line
                    c = a + plane
                    d = c + line
                    near_a = source[a] + w * (source[a + next_voxel] - source[a])
                    near_b = source[b] + w * (source[b + next_voxel] - source[b])
                    far_a = source[c] + w * (source[c + next_voxel] - source[c])
                    far_b = source[d] + w * (source[d + next_voxel] - source[d])
                    near = near_a + v * (near_b - near_a)
                    far = far_a + v * (far_b - far_a)
                    out[np.uint64(row + k)] = near + u * (far - near)
            if base.size > 0:
                for k in range(out_shape[2]):
                    out[row + k] -= base[row + k]


def one_thread_if_small(function: Callable) -> Callable:
    """Let a function of a volume use a single thread while the volume is small."""

    @wraps(function)
    def wrapped(volume: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        before = torch.get_num_threads()
        small = isinstance(volume, torch.Tensor) and volume.numel() < SMALL_VOXELS
        if before == 1 or not small:
            return function(volume, *args, **kwargs)
        torch.set_num_threads(1)
        try:
            return function(volume, *args, **kwargs)
        finally:
            torch.set_num_threads(before)

    return wrapped


def check_volume(volume: torch.Tensor, output: str = "real") -> torch.Tensor:
    """Return the volume as a contiguous (I, J, K) view, or say in one sentence what is wrong."""
    if not isinstance(volume, torch.Tensor):
        raise ValueError(f"The volume is a {type(volume).__name__}; give a torch tensor.")
    if output not in ("magnitude", "real", "complex"):
        raise ValueError(f"output is {output!r}; use 'magnitude', 'real' or 'complex'.")
    if volume.device.type not in ("cpu", "cuda"):
        raise ValueError(f"The volume is on device {volume.device}; move it to the CPU or to CUDA.")
    if volume.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"The volume has dtype {volume.dtype}; convert it to float32.")
    shape = tuple(volume.shape)
    if not (len(shape) == 3 or (len(shape) == 4 and shape[0] == 1)):
        raise ValueError(
            f"The volume has shape {shape}; give one 3-D scan (1, I, J, K) or (I, J, K)."
        )
    if volume.numel() == 0:
        raise ValueError(f"The volume of shape {shape} is empty; give a scan with voxels.")
    if min(shape[-3:]) < 2:
        raise ValueError(
            f"The volume of shape {shape} is flat; all three axes need 2 voxels or more."
        )
    low, high = (float(v) for v in torch.aminmax(volume))
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("The volume holds NaN or infinite voxels; repair or exclude the scan.")
    if low == high:
        raise ValueError(f"The volume is constant ({low:g}); there is no head in it to move.")
    if output == "magnitude" and low < 0:
        raise ValueError(
            f"The volume has negative voxels (lowest {low:g}), which a magnitude would fold; "
            "simulate before z-scoring or use output='real'."
        )
    return volume.detach().reshape(shape[-3:]).contiguous()


def check_affine(affine: Any) -> np.ndarray:
    """Return the affine as float64, or say what is wrong with it."""
    affine = np.asarray(affine, dtype=np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise ValueError(f"The affine has shape {affine.shape}; give a finite (4, 4) matrix.")
    if abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise ValueError("The affine cannot be inverted; its axes must span space.")
    return affine


def check_axis(axis: int) -> int:
    """Return the array axis as 0, 1 or 2."""
    if axis not in (0, 1, 2, -1, -2, -3):
        raise ValueError(f"axis is {axis!r}; use 0, 1 or 2 of the array (I, J, K).")
    return int(axis) % 3
