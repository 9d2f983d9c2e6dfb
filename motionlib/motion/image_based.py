"""A clean volume and a trajectory go in; what a moving head would have given comes out."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from motionlib.motion.resampling import (
    check_affine,
    check_axis,
    check_volume,
    is_identity,
    one_thread_if_small,
    pull_trilinear,
    sampling_maps,
)
from motionlib.motion.trajectory import Trajectory

Pad = int | Sequence[int] | Literal["auto"]
Output = Literal["magnitude", "real", "complex"]
MOST_BUFFERS = 4  # volumes in memory for the poses at work


@one_thread_if_small
def image_motion(
    volume: torch.Tensor,
    trajectory: Trajectory,
    *,
    affine: Any,
    axis: int,
    center: Literal["image", "world"] = "image",
    direction: Literal["push", "pull"] = "push",
    output: Output = "magnitude",
    keep_center: bool = True,
) -> torch.Tensor:
    """Corrupt a volume by filling blocks of its k-space from resampled, moved copies.

    Parameters
    ----------
    volume : Tensor, shape (1, I, J, K) or (I, J, K)
        Motion-free intensities, float32 (float64 is computed in double). Not modified.
    trajectory : Trajectory
        Held poses own blocks of lines (bounds ``int(N * time)``); gliding ones are evaluated at
        every line, which costs one resampling a line.
    affine : array-like, shape (4, 4)
        From voxel indices to RAS mm.
    axis : int
        Array axis along which k-space is acquired in time (0, 1 or 2).
    center : {"image", "world"}
        Rotate about the volume's centre or about the affine's origin (TorchIO 1.2.1).
    direction : {"push", "pull"}
        ``push``: the head is moved by the pose. ``pull``: I'(x) = I(Rx + t), TorchIO's.
    output : {"magnitude", "real", "complex"}
        ``magnitude``: the scanner's; ``real``: TorchIO's, can be negative.
    keep_center : bool, default=True
        Exchange the block of the first pose with the block at half time (held poses only).

    Returns
    -------
    Tensor
        Same shape, dtype and device as `volume` (complex64/128 for ``complex``).

    Raises
    ------
    ValueError
        If the volume, the affine, the axis or the trajectory cannot give a meaningful scan.

    Notes
    -----
    Source: paper §III-C.1, Fig. 1 (left); TorchIO 1.2.1 ``Motion``.
    Blocks lie along one axis, so the transforms of the two other axes cancel and the result is
    ``sum_p A_p I_p`` with one circulant matrix ``A_p`` per pose along `axis`: exact, streaming,
    about six volumes in memory however many poses.
    Departs from the paper: image centre, push and magnitude are the defaults instead of TorchIO's
    world origin, pull and real part.
    """
    grid, affine = check_volume(volume, output), check_affine(affine)
    axis = check_axis(axis)
    n_lines = grid.shape[axis]
    if trajectory.interpolation != "linear":
        if len(trajectory) > n_lines:
            raise ValueError(
                f"{len(trajectory)} segments do not fit into {n_lines} lines along axis {axis}; "
                "use fewer segments or a gliding trajectory (interpolation='linear')."
            )
        trajectory = trajectory.with_centre_kept() if keep_center else trajectory
    shifts, angles = trajectory.at_lines(n_lines, rule="hold")
    poses, owner = np.unique(np.hstack([shifts, angles]), axis=0, return_inverse=True)
    maps = sampling_maps(
        poses[:, :3], poses[:, 3:], affine, grid.shape,
        frame=trajectory.frame, center=center, direction=direction,
    )  # fmt: skip
    return combine_poses(grid, maps, owner.reshape(-1), axis, output).reshape(volume.shape)


def recentre(
    volume: torch.Tensor,
    trajectory: Trajectory,
    *,
    axis: int,
    mode: Literal["none", "center", "wft", "wft2"] = "wft",
) -> Trajectory:
    """Subtract a typical pose, so that the corrupted scan stays on top of the clean one.

    Parameters
    ----------
    volume : Tensor, shape (1, I, J, K) or (I, J, K)
        The scan to be corrupted.
    trajectory : Trajectory
        Evaluated at every line along `axis`.
    axis : int
        Array axis of the lines.
    mode : {"none", "center", "wft", "wft2"}
        Subtract nothing; the pose at the k-space centre; the mean pose weighted by the root of
        each plane's energy; or weighted by ``|sum F^2|`` (the fork squares complex numbers).

    Returns
    -------
    Trajectory
        One gliding pose per line.

    Raises
    ------
    ValueError
        If the volume or an option cannot be used.

    Notes
    -----
    Source: the fork's ``displacement_shift_strategy`` center_zero, 1D_wFT and 1D_wFT2.
    """
    grid, axis = check_volume(volume), check_axis(axis)
    n_lines = grid.shape[axis]
    course = np.hstack(trajectory.at_lines(n_lines, rule="linear"))
    if mode not in ("none", "center", "wft", "wft2"):
        raise ValueError(f"mode is {mode!r}; use 'none', 'center', 'wft' or 'wft2'.")
    if mode == "center":
        course = course - course[n_lines // 2]
    elif mode != "none":
        spectrum = torch.fft.fftshift(torch.fft.fftn(grid.double())).movedim(axis, 0).flatten(1)
        power = spectrum.abs().square().sum(1).sqrt() if mode == "wft" else spectrum.square().sum(1)
        weights = power.abs().cpu().numpy()
        course = course - (weights / weights.sum()) @ course
    return Trajectory(
        np.linspace(0, 1, n_lines), course[:, :3], course[:, 3:], "linear", trajectory.frame
    )


def resample_once(
    volume: torch.Tensor,
    translation_mm: Any,
    rotation_deg: Any,
    *,
    affine: Any,
    center: Literal["image", "world"] = "image",
) -> torch.Tensor:
    """Move a volume rigidly by one pose: blurred by interpolation like motion, but still.

    Parameters
    ----------
    volume : Tensor, shape (1, I, J, K) or (I, J, K)
        Intensities; may be negative. Not modified.
    translation_mm, rotation_deg : array-like, shape (3,)
        The pose, along and about the RAS axes.
    affine : array-like, shape (4, 4)
        From voxel indices to RAS mm.
    center : {"image", "world"}
        Centre of rotation.

    Returns
    -------
    Tensor
        Same shape and dtype as `volume`.

    Raises
    ------
    ValueError
        If the volume or the affine cannot be used.

    Notes
    -----
    Departs from the paper: this is the matched negative that its training lacks.
    """
    trajectory = Trajectory.constant(translation_mm, rotation_deg)
    return image_motion(volume, trajectory, affine=affine, axis=0, center=center, output="real")


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
    fill = float(grid.min())
    counts = np.bincount(owner, minlength=len(maps))
    first = int(np.argmax(counts))
    base = grid if is_identity(maps[first]) else pull_trilinear(grid, maps[first], fill=fill)
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
            pull_trilinear(grid, maps[pose], fill=fill, out=moved, minus=base)
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


def finish(real: torch.Tensor, imaginary: torch.Tensor | None, output: Output) -> torch.Tensor:
    """Turn real and imaginary part into what was asked for."""
    if output == "real":
        return real
    if output == "complex":
        return torch.complex(real, torch.zeros_like(real) if imaginary is None else imaginary)
    return real.abs() if imaginary is None else torch.hypot(real, imaginary)
