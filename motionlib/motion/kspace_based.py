"""The k-space simulator: every plane of k-space in its own rigid pose, by a non-uniform FFT.

As Fig. 1 (right) of the paper has it (Loizillon 2024, §II and III-C.1; the fork):

1. add air around the head, so that what leaves the field of view does not wrap;
2. turn the frequencies of each plane by its rotation R, and evaluate the Fourier transform F of the
   resting head there (a type-2 NUFFT: the turned frequencies lie on no grid);
3. multiply by the linear phase of its translation t: ``s(k) = F(R^T k) exp(-i k t)``;
4. transform back and cut the air off.

On the CPU the NUFFT is finufft's, on CUDA `type_2_torch`.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from scipy.fft import next_fast_len

from motionlib.motion.image_based import Output, finish
from motionlib.motion.resampling import (
    check_affine,
    check_axis,
    check_volume,
    one_thread_if_small,
    sampling_maps,
)
from motionlib.motion.trajectory import Trajectory

Pad = int | Sequence[int] | Literal["auto"]
FFTW_ESTIMATE = 64  # planning by measurement costs more than a thousand transforms
NARROW_ABOVE = {True: 1e-8, False: 1e-4}  # below, upsampling by 1.25 needs too wide a kernel
DOUBLE_BELOW = 1e-5  # float32 transforms cannot be more accurate
CHUNK = 4_000_000  # points


@one_thread_if_small
def kspace_motion(
    volume: torch.Tensor,
    trajectory: Trajectory,
    *,
    affine: Any,
    axis: int,
    eps: float = 1e-3,
    pad_vox: Pad = "auto",
    output: Output = "magnitude",
    center: Literal["image", "world"] = "image",
    direction: Literal["push", "pull"] = "push",
    half_sample_grid: bool = False,
) -> torch.Tensor:
    """Corrupt a volume by moving it while its k-space is acquired, one pose per plane.

    Parameters
    ----------
    volume, affine, axis, output, center, direction
        As for `image_motion`. A course from the fork turns about voxel ``N // 2``.
    trajectory : Trajectory
        Any number of poses; evaluated at every plane along `axis`.
    eps : float, default=1e-3
        Relative accuracy of the non-uniform FFT; below 1e-5 it is computed in double.
    pad_vox : int, (int, int, int) or "auto"
        Voxels of air added on each side, so that what leaves the field of view does not wrap.
        ``auto``: the largest displacement, at least 8 % along `axis`, rounded up to sizes that the
        FFT likes.
    half_sample_grid : bool, default=False
        The fork's k-space grid, half a sample off on odd sizes. For equivalence tests only.

    Returns
    -------
    Tensor
        Same shape, dtype and device as `volume` (complex64/128 for ``complex``).

    Raises
    ------
    ValueError
        If the volume, the affine, the axis or an option cannot give a meaningful scan.

    Notes
    -----
    Source: paper §III-C.1, Fig. 1 (right), nT = 200; the fork's ``MotionFromTimeCourse``. Departs
    from the paper: correct grid on odd sizes, voxel sizes, affine honoured, less padding.
    """
    grid, affine = check_volume(volume, output), check_affine(affine)
    axis, shape = check_axis(axis), np.array(grid.shape)
    if not 1e-12 <= eps < 1:
        raise ValueError(f"eps is {eps}; choose an accuracy between 1e-12 and 1e-1.")
    if half_sample_grid and output != "magnitude":
        raise ValueError("The half-sample grid is the fork's, which gives magnitudes only.")
    where = {"frame": trajectory.frame, "center": center, "direction": direction}

    def maps_of(n_lines: int) -> np.ndarray:
        poses = trajectory.at_lines(n_lines, rule="linear")
        return np.linalg.inv(sampling_maps(*poses, affine, grid.shape, **where))

    if isinstance(pad_vox, str):
        if pad_vox != "auto":
            raise ValueError(f"pad_vox is {pad_vox!r}; give voxels per side or 'auto'.")
        before = _pad_for(maps_of(int(shape[axis])), shape, axis)
        after = np.array([_fast_length(n) for n in shape + 2 * before]) - shape - before
    else:
        before = after = np.broadcast_to(np.asarray(pad_vox, dtype=int), 3)
        if before.min() < 0:
            raise ValueError(f"pad_vox is {pad_vox}; give 0 or more voxels per side.")
    padded = tuple(int(n) for n in shape + before + after)
    spectrum = moving_spectrum(
        grid, maps_of(padded[axis]), padded, axis, eps=eps,
        half_sample_grid=half_sample_grid, origin=before,
    )  # fmt: skip
    moved = _image_of(spectrum, grid.shape, before)
    if output == "complex":
        return moved.to(torch.promote_types(volume.dtype, torch.complex32)).reshape(volume.shape)
    result = finish(moved.real, None if output == "real" else moved.imag, output)
    return result.to(volume.dtype).reshape(volume.shape)


def _pad_for(maps: np.ndarray, shape: np.ndarray, axis: int) -> np.ndarray:
    """Voxels of air per side: how far the box's corners travel, and room for ghosts."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij")).reshape(3, -1)
    travel = maps[:, :3, :3] @ corners + maps[:, :3, 3:] - corners
    pad = np.ceil(np.abs(travel).max(axis=(0, 2))).astype(int)
    pad = np.minimum(pad, shape // 8 + 1)
    pad[axis] = max(pad[axis], int(np.ceil(0.08 * shape[axis])))
    return pad


def moving_spectrum(
    grid: torch.Tensor,
    maps: np.ndarray,
    padded: tuple[int, int, int],
    axis: int,
    *,
    eps: float,
    half_sample_grid: bool = False,
    origin: Sequence[int] = (0, 0, 0),
) -> torch.Tensor:
    """K-space of a head (I, J, K), real or complex, in another pose at every plane along `axis`.

    `maps` (N, 4, 4) are the poses of the planes from -kmax to +kmax: where a voxel is moved to, in
    voxels. `padded` is the size of the k-space grid, at least the volume's, and `origin` the index
    of the volume's first voxel in it. Other options as in `kspace_motion`.
    Returns complex samples in FFT order, whose ``ifftn`` is the padded image.
    """
    double = eps < DOUBLE_BELOW or grid.dtype in (torch.float64, torch.complex128)
    real, dtype = (torch.float64, torch.complex128) if double else (torch.float32, torch.complex64)
    # Frequencies in radians per voxel along each axis, in FFT order; the fork's grid lies half a
    # sample off on odd sizes. Maps are given about the voxel N // 2, where the NUFFT has its zero.
    exact = [2 * np.pi * np.fft.fftfreq(n) for n in padded]
    k = [
        line - np.pi / n * (half_sample_grid and n % 2)
        for line, n in zip(exact, padded, strict=True)
    ]
    middle = np.array(grid.shape) // 2
    maps = np.roll(maps, -(padded[axis] // 2), axis=0)  # FFT order
    turn, shift = maps[:, :3, :3], maps[:, :3, 3] + maps[:, :3, :3] @ middle - middle
    first, second = (d for d in range(3) if d != axis)

    # Step 2: q = R^T k. All that changes within a plane is linear in k along `first` and in k along
    # `second`, so that a point is a (N, first) part plus a (N, second) part.
    points = []
    for d in range(3):
        left = turn[:, axis, d, None] * k[axis][:, None] + turn[:, first, d, None] * k[first]
        right = turn[:, second, d, None] * k[second]
        point = torch.empty(padded, dtype=real, device=grid.device)
        left, right = (torch.as_tensor(part).to(point) for part in (left, right))
        torch.add(left[:, :, None], right[:, None, :], out=point.movedim(axis, 0))
        points.append(point.reshape(-1))
    samples = _type_2(grid.to(dtype), points, eps).reshape(padded)

    # Step 3: the phase of the translation, and of the place of the head in the padded grid; its two
    # parts are the factors of an outer product.
    line = shift[:, axis, None] * k[axis][:, None] + (middle + origin)[axis] * exact[axis][:, None]
    left = line + shift[:, first, None] * k[first] + (middle + origin)[first] * exact[first]
    right = shift[:, second, None] * k[second] + (middle + origin)[second] * exact[second]
    view = samples.movedim(axis, 0)
    for phase, place in ((left, 2), (right, 1)):
        view.mul_(torch.as_tensor(np.exp(-1j * phase)).to(samples).unsqueeze(place))
    return samples


def _image_of(spectrum: torch.Tensor, shape: Sequence[int], origin: Sequence[int]) -> torch.Tensor:
    """Inverse FFT of samples in FFT order, cropped to `shape` after each axis."""
    for d in (2, 1, 0):
        spectrum = torch.fft.ifft(spectrum, dim=d)
        if spectrum.shape[d] != shape[d]:
            spectrum = spectrum.narrow(d, int(origin[d]), shape[d])
    return spectrum


def _fast_length(n: int) -> int:
    """Smallest length of at least `n` whose prime factors are 2, 3 and 5."""
    return int(next_fast_len(int(n), real=True))


def _type_2(modes: torch.Tensor, points: list[torch.Tensor], eps: float) -> torch.Tensor:
    """``sum_y modes[y] exp(-i y q)`` with y centred at N // 2, at the points q; shape (M,)."""
    if modes.device.type == "cuda":
        return type_2_torch(modes, points, eps)
    import finufft  # not where CUDA does it

    narrow = eps >= NARROW_ABOVE[modes.dtype == torch.complex128]
    return torch.from_numpy(
        finufft.nufft3d2(
            *(p.numpy() for p in points),
            modes.numpy(),
            eps=eps,
            isign=-1,
            upsampfac=1.25 if narrow else 2.0,
            fftw=FFTW_ESTIMATE,
            spread_sort=0,  # a turned grid is in order already: sorting costs 0.2 of 1.3 CPU-s
            nthreads=torch.get_num_threads(),
        )
    )


def type_2_torch(modes: torch.Tensor, points: list[torch.Tensor], eps: float) -> torch.Tensor:
    """Evaluate the Fourier sums of `_type_2` with torch alone, on any device.

    `modes` (I, J, K) is complex, with coordinate 0 at N // 2; three `points` (M,) are frequencies
    in radians per voxel, of which `CHUNK` are treated at a time, which bounds the memory.

    1. Divide the image by the Fourier transform of the kernel that step 3 will smooth with.
    2. Transform it on a grid twice as fine.
    3. Sum at each point the samples around, weighted by the kernel.

    Source: Barnett, Magland, af Klinteberg 2019 (the kernel ``exp(beta (sqrt(1 - z^2) - 1))``).
    """
    width = math.ceil(-math.log10(eps)) + 2  # measured errors: eps / 6 at 1e-3, eps / 4 at 1e-6
    beta = 2.30 * width  # the reference's choice for twofold oversampling
    sizes = [2 * _fast_length(n) for n in modes.shape]
    scaled = modes
    for d, (n, up) in enumerate(zip(modes.shape, sizes, strict=True)):
        weights = 1 / _kernel_transform(np.arange(n) - n // 2, up, width, beta)
        shape = [1, 1, 1]
        shape[d] = n
        scaled = scaled * torch.as_tensor(weights).to(scaled).reshape(shape)
    full = torch.zeros(sizes, dtype=modes.dtype, device=modes.device)
    full[tuple(slice(0, n) for n in modes.shape)] = scaled
    full = full.roll([-(n // 2) for n in modes.shape], dims=(0, 1, 2))
    table = torch.fft.fftn(full).reshape(-1)
    result = torch.empty(points[0].numel(), dtype=modes.dtype, device=modes.device)
    for start in range(0, result.numel(), CHUNK):
        part = [p[start : start + CHUNK] for p in points]
        result[start : start + CHUNK] = _gather(table, part, sizes, width, beta)
    return result


def _gather(table, points, sizes, width, beta) -> torch.Tensor:
    """Weighted sum of the `width`^3 samples around each point, shape (M,)."""
    taps = []
    for point, up in zip(points, sizes, strict=True):
        place = point * (up / (2 * math.pi))
        first = torch.ceil(place - width / 2)
        axis_taps = []
        for step in range(width):
            z = (first + step - place) * (2 / width)
            weight = torch.exp(beta * (torch.sqrt((1 - z * z).clamp_min(0)) - 1))
            axis_taps.append(((first + step).long() % up, weight))
        taps.append(axis_taps)
    total = torch.zeros(points[0].numel(), dtype=table.dtype, device=table.device)
    for index_x, weight_x in taps[0]:
        for index_y, weight_y in taps[1]:
            row, weight_xy = (index_x * sizes[1] + index_y) * sizes[2], weight_x * weight_y
            for index_z, weight_z in taps[2]:
                total += table[row + index_z] * (weight_xy * weight_z)
    return total


def _kernel_transform(modes: np.ndarray, up: int, width: int, beta: float) -> np.ndarray:
    """Fourier transform of the kernel at the modes, by Gauss-Legendre quadrature; shape (n,)."""
    z, weights = np.polynomial.legendre.leggauss(60)
    kernel = np.exp(beta * (np.sqrt(1 - z**2) - 1)) * weights * width / 2
    return np.cos(np.outer(modes, z * width / 2) * (2 * np.pi / up)) @ kernel
