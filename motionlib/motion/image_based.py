"""A clean volume and a trajectory go in; what a moving head would have given comes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from motionlib.motion.blocks import Output, combine_poses, finish
from motionlib.motion.trajectory import Trajectory
from motionlib.motion.voxelmaps import (
    check_affine,
    check_axis,
    check_volume,
    one_thread_if_small,
    sampling_maps,
)

Pad = int | Sequence[int] | Literal["auto"]


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
    mask_corners: bool = False,
) -> torch.Tensor:
    """Corrupt a volume by moving it while its k-space is acquired, one pose per plane.

    Parameters
    ----------
    volume : Tensor, shape (1, I, J, K) or (I, J, K)
        Motion-free intensities, float32 (float64 is computed in double). Not modified.
    trajectory : Trajectory
        Any number of poses; evaluated at every plane along `axis`.
    affine : array-like, shape (4, 4)
        From voxel indices to RAS mm.
    axis : int
        Array axis along which k-space is acquired in time (0, 1 or 2).
    eps : float, default=1e-3
        Relative accuracy of the non-uniform FFT; below 1e-5 it is computed in double.
    pad_vox : int, (int, int, int) or "auto"
        Voxels of air added on each side, so that what leaves the field of view does not wrap.
        ``auto``: the largest displacement, at least 8 % along `axis`, rounded up to sizes that the
        FFT likes.
    output : {"magnitude", "real", "complex"}
        What to return.
    center, direction : str
        As in `image_motion`. A course from the fork turns about voxel ``N // 2``.
    half_sample_grid : bool, default=False
        The fork's k-space grid, half a sample off on odd sizes. For equivalence tests only.
    mask_corners : bool, default=False
        Set k-space to zero where a turn asks for frequencies beyond the measured box, instead of
        folding them periodically as the fork does.

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
    Source: paper §III-C.1, Fig. 1 (right), nT = 200; the fork's ``MotionFromTimeCourse`` with
    type-2 NUFFT: ``s(k) = F(R^T k) exp(-i k t)``.
    Departs from the paper: correct grid on odd sizes, voxel sizes, affine honoured, less padding.
    """
    from motionlib.motion.kspace_based import fast_length, image_of, moving_spectrum

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
        after = np.array([fast_length(n) for n in shape + 2 * before]) - shape - before
    else:
        before = after = np.broadcast_to(np.asarray(pad_vox, dtype=int), 3)
        if before.min() < 0:
            raise ValueError(f"pad_vox is {pad_vox}; give 0 or more voxels per side.")
    padded = tuple(int(n) for n in shape + before + after)
    spectrum = moving_spectrum(
        grid, maps_of(padded[axis]), padded, axis, eps=eps,
        half_sample_grid=half_sample_grid, mask_corners=mask_corners, origin=before,
    )  # fmt: skip
    moved = image_of(spectrum, grid.shape, before)
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
