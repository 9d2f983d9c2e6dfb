"""The image-based simulator: blocks of k-space from a head in several rigid poses.

As Fig. 1 (left) of the paper has it (Loizillon 2024, §III-C.1; Shaw 2019; TorchIO's ``Motion``):

1. move the head into each of its poses, by trilinear interpolation;
2. transform every moved image to k-space;
3. take from each the block of lines that were acquired in that pose;
4. transform the assembled k-space back.

The blocks lie along one axis, so the transforms along the two others cancel. What is left of steps
2 to 4 is one matrix product a pose along that axis (`combine_poses`): exact, and about six volumes
in memory however many poses there are.
"""

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
    Source: paper §III-C.1, Fig. 1 (left); Shaw 2019, as in TorchIO 1.2.1's ``Motion``.
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


def resample_once(
    volume: torch.Tensor, translation_mm: Any, rotation_deg: Any, *, affine: Any
) -> torch.Tensor:
    """Move a volume (I, J, K) rigidly by one pose (3,): blurred like motion, but still.

    Departs from the paper: this is the matched negative that its training lacks.
    """
    trajectory = Trajectory.constant(translation_mm, rotation_deg)
    return image_motion(volume, trajectory, affine=affine, axis=0, output="real")


def combine_poses(
    grid: torch.Tensor, maps: np.ndarray, owner: np.ndarray, axis: int, output: Output
) -> torch.Tensor:
    """Assemble k-space from blocks of moved images (I, J, K) and transform it back.

    `maps` (P, 4, 4) take output voxels to source voxels, and `owner` (N,) names the pose of each
    line along `axis`, from -kmax to +kmax.

    With F_p the rows of the DFT that pose p owns and I_0 the base, the image in the pose of most
    lines, the result is ``I_0 + 1/N sum_p F_p^H F_p (I_p - I_0)``: the other poses add their lines
    of the *difference*. F_p is real here, cosines above sines, so that images stay real.
    """
    # 1. The pose of most lines is the base; if it is alone, there is nothing to assemble.
    fill = float(grid.min())
    counts = np.bincount(owner, minlength=len(maps))
    first = int(np.argmax(counts))
    base = grid if is_identity(maps[first]) else pull_trilinear(grid, maps[first], fill=fill)
    others = [pose for pose in range(len(maps)) if pose != first and counts[pose]]
    if not others:
        return finish(base.clone() if base is grid else base, None, output)
    # 2. All other lines share one array, two real rows a line, one pose after the other. So the
    #    work of the products does not depend on the number of poses, and neither does the memory.
    n = grid.shape[axis]
    lines = [np.flatnonzero(owner == pose) - n // 2 for pose in others]
    n_rows, (i, j, k) = 2 * sum(map(len, lines)), grid.shape
    shapes = (n_rows, j, k), (i, n_rows, k), (n_rows, i, j)  # for the last axis, too, rows lead
    spectrum = grid.new_empty(shapes[axis])
    starts = np.cumsum([0, *(2 * len(block) for block in lines)])
    jobs = list(zip(others, lines, starts[:-1].tolist(), strict=True))

    def transform(part: list[tuple[int, np.ndarray, int]]) -> None:
        moved = torch.empty_like(grid)
        for pose, block, start in part:
            pull_trilinear(grid, maps[pose], fill=fill, out=moved, minus=base)
            rows = spectrum.narrow(axis if axis < 2 else 0, start, 2 * len(block))
            _along_axis(waves(block, n).to(grid), moved, axis, out=rows)

    threads = min(torch.get_num_threads(), len(jobs), MOST_BUFFERS)
    if threads == 1 or grid.device.type == "cuda":
        transform(jobs)
    else:  # whole poses per thread, each of them without OpenMP: its idle threads would spin
        parts = [jobs[t::threads] for t in range(threads)]
        before, alone = torch.get_num_threads(), partial(torch.set_num_threads, 1)
        try:
            with ThreadPoolExecutor(threads, initializer=alone) as pool:
                list(pool.map(transform, parts))
        finally:  # torch keeps one number for all threads
            torch.set_num_threads(before)
    # 3. One product back for all of them: rows cos(a), -sin(a) of every line a.
    back = [waves(block, n) for block in lines]
    real = _along_axis(torch.cat(back).T.to(grid) / n, spectrum, axis, back=True)
    real += base
    if output == "real":
        return real
    # 4. The imaginary part: the same rows turned by a quarter, sin(a), cos(a).
    turned = [torch.cat([-wave[len(wave) // 2 :], wave[: len(wave) // 2]]) for wave in back]
    imaginary = _along_axis(torch.cat(turned).T.to(grid) / n, spectrum, axis, back=True)
    return finish(real, imaginary, output)


def waves(bins: np.ndarray, n: int) -> torch.Tensor:
    """Real and imaginary part of the DFT rows of some bins, shape (2 B, n), float64."""
    phase = np.outer(bins, np.arange(n)) * (2 * np.pi / n)
    return torch.from_numpy(np.concatenate([np.cos(phase), -np.sin(phase)]))


def _along_axis(
    matrix: torch.Tensor,
    volume: torch.Tensor,
    axis: int,
    *,
    out: torch.Tensor | None = None,
    back: bool = False,
) -> torch.Tensor:
    """Apply a matrix (M, N) along one axis of length N, whose place M takes; `back`: to voxels.

    The spectral side of the last axis has its rows first, (M, I, J), so that no product has to
    copy the volume into another order.
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
