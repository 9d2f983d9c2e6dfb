"""A scan goes in; the array that a network sees, made as the training copies are, comes out."""

from __future__ import annotations

import numpy as np

from motionlib.preprocess.grid import Grid, centre_on_grid, study_grid
from motionlib.preprocess.head import array3

BRIGHT_PERCENT = 99.5  # of the voxels on the grid; the head is scaled so that this is one
AIR_LIMIT = 0.05  # of the bright voxels: air further below zero was moved there
CEILING = 100.0  # brighter voxels are cut before float16


def model_input(volume, affine, spacing_mm: float, slab_mm: float | None = None) -> np.ndarray:
    """Place a head on the study grid, without registration, and scale it to about one.

    Parameters
    ----------
    volume : Tensor or ndarray, shape (1, I, J, K) or (I, J, K)
        RAS, as `images.read_array` gives it.
    affine : array-like, shape (4, 4)
        Voxel indices to mm.
    spacing_mm : float
        Voxel size of the study grid that the model was trained on.
    slab_mm : float, optional
        Keep a slab about the midsagittal plane, at least this thick; None keeps the whole grid.

    Returns
    -------
    ndarray, shape of ``slab_grid(spacing_mm, slab_mm)``, float16
        To the bit what `motionlib.experiments.cohort` keeps of the same scan; a test compares them.

    Raises
    ------
    ValueError
        If no head is found, or nothing is left of it on the grid.
    """
    grid = slab_grid(spacing_mm, slab_mm)
    array = np.clip(centre_on_grid(_lifted(volume), affine, grid), 0, None)
    top = float(np.percentile(array, BRIGHT_PERCENT))
    if not top > 0:
        raise ValueError("the scan is empty after centring; expected a head")
    return np.minimum(array / top, CEILING).astype(np.float16)


def _lifted(volume):
    """Put the air of a z-scored scan at zero; other scans pass as they are."""
    array = array3(volume)
    faces = [np.take(array, place, axis).ravel() for axis in range(3) for place in (0, -1)]
    air = float(np.median(np.concatenate(faces)))
    if air >= -AIR_LIMIT * float(np.percentile(array, BRIGHT_PERCENT)):
        return volume
    return array - np.float32(air)


def slab_grid(spacing_mm: float, slab_mm: float | None = None) -> Grid:
    """Study grid, or its middle sagittal planes: as many as span `slab_mm`, an odd number.

    Raises
    ------
    ValueError
        If the slab is thicker than the grid or thinner than a voxel.
    """
    grid = study_grid(spacing_mm)
    if slab_mm is None:
        return grid
    half = int(np.ceil(slab_mm / spacing_mm / 2 - 0.5))
    middle = grid.shape[0] // 2
    if not spacing_mm <= slab_mm or half > min(middle, grid.shape[0] - 1 - middle):
        raise ValueError(
            f"a slab of {slab_mm} mm does not fit a grid of {grid.shape[0]} planes of {spacing_mm} "
            "mm; choose it between one voxel and the head's width"
        )
    affine = grid.matrix
    affine[:3, 3] += affine[:3, 0] * (middle - half)
    return Grid((2 * half + 1, *grid.shape[1:]), tuple(map(tuple, affine.tolist())))


def standardised(array: np.ndarray) -> np.ndarray:
    """Z-score an array of `model_input` as `data.VolumeStore` does.

    Returns
    -------
    ndarray, same shape, float32
        Mean 0, standard deviation 1.

    Raises
    ------
    ValueError
        If the array is constant.
    """
    flat = array.astype(np.float32)
    mean, sd = np.float32(flat.mean(dtype=np.float64)), np.float32(flat.std(dtype=np.float64))
    if not (np.isfinite(mean) and np.isfinite(sd) and sd > 0):
        raise ValueError("the scan is constant on the study grid; expected a head")
    return (flat - mean) / sd
