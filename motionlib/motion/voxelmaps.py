"""Volumes, affines and poses go in; checked volumes and maps between voxel indices come out."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
import torch

from motionlib.motion.trajectory import rotation_matrices

SMALL_VOXELS = 1_000_000  # below, waking further threads costs more than they save


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
    """Map each voxel of the moved volume to the voxel of the original it shows.

    Parameters
    ----------
    translation, rotation_deg : ndarray, shape (P, 3)
        The poses.
    affine : ndarray, shape (4, 4)
        From voxel indices to RAS mm; ignored in the voxel frame.
    shape : tuple of int
        Size of the volume (I, J, K).
    frame, center, direction : str
        As in `Trajectory` and `image_motion`.

    Returns
    -------
    ndarray, shape (P, 4, 4)
        Affine maps of indices.

    Raises
    ------
    ValueError
        If an option is unknown or does not go with the voxel frame.
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
