"""Image files come in; checked RAS volumes go out, and volumes come in and files go out."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from motionlib.files import atomic, gzipped
from motionlib.preprocess.grid import Grid, centre_on_grid, resample, study_grid
from motionlib.preprocess.head import array3
from motionlib.preprocess.images import read_array

__all__ = [
    "Grid",
    "centre_on_grid",
    "load_volume",
    "phantom",
    "read_array",
    "resample",
    "save_volume",
    "study_grid",
    "zscore",
]


def load_volume(path: str | os.PathLike):
    """Read one scan as a torch tensor.

    Parameters
    ----------
    path : path-like
        NIfTI (``.nii``, ``.nii.gz``) or another format of nibabel (MINC, MGH).

    Returns
    -------
    volume : Tensor, shape (1, I, J, K), float32
        Axes point to right, anterior, superior as closely as they can without resampling.
    affine : ndarray, shape (4, 4)
        Voxel indices to mm.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no usable three-dimensional scan; the sentence says why.
    """
    import torch

    array, affine = read_array(path)
    return torch.from_numpy(array)[None], affine


def save_volume(volume, affine, path: str | os.PathLike, *, dtype: str = "float32") -> Path:
    """Write a volume as NIfTI, atomically and with the same bytes every time.

    Parameters
    ----------
    volume : Tensor or ndarray, shape (1, I, J, K) or (I, J, K)
        Intensities.
    affine : array-like, shape (4, 4)
        Voxel indices to mm.
    path : path-like
        Ends in ``.nii`` or ``.nii.gz`` (compressed).
    dtype : {"float32", "int16", "uint8"}, default="float32"
        On disk; whole numbers carry a slope that uses their range.

    Returns
    -------
    Path
        The path written.
    """
    import nibabel as nib

    if not str(path).endswith((".nii", ".nii.gz")):
        raise ValueError(f"{Path(path).name} has another suffix; expected .nii or .nii.gz.")
    array = array3(volume)
    if not np.isfinite(array).all():
        raise ValueError(f"The volume for {Path(path).name} has values that are not finite.")
    image = nib.Nifti1Image(array.astype(np.float32), np.asarray(affine, dtype=np.float64))
    image.set_data_dtype(dtype)
    image.header.set_xyzt_units("mm")
    content = image.to_bytes()
    if str(path).endswith(".gz"):
        content = gzipped(content)
    with atomic(path) as aside:
        aside.write_bytes(content)
    return Path(path)


def zscore(volume):
    """Subtract the mean of the whole image and divide by its standard deviation.

    Parameters
    ----------
    volume : Tensor or ndarray
        Any shape; not modified.

    Returns
    -------
    Tensor or ndarray
        Mean 0, standard deviation 1 (population), same shape and type.

    Raises
    ------
    ValueError
        If the volume is constant.

    Notes
    -----
    Source: paper §III-B ("the entire image"). It comes after simulation: the magnitude of a
    z-scored image is wrong.
    """
    centred = volume - volume.mean()
    spread = float((centred * centred).mean()) ** 0.5
    if not spread > 0:
        raise ValueError("The volume is constant and has no z-score; expected a head.")
    return centred / spread


def phantom(shape: tuple[int, int, int] = (24, 28, 24), seed: int = 0):
    """Draw a small head for tests: skin, skull, grey and white matter, ventricles, texture.

    Parameters
    ----------
    shape : tuple of 3 int, default=(24, 28, 24)
        Number of voxels; the head fills most of the field.
    seed : int, default=0
        Small differences in size and texture.

    Returns
    -------
    Tensor, shape (1, I, J, K), float32
        Non-negative, exactly zero outside the head.
    """
    import torch
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    axes = [np.linspace(-1, 1, size) for size in shape]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    size = rng.uniform(0.95, 1.05, 3)
    radius = np.sqrt((x / 0.78 / size[0]) ** 2 + (y / 0.85 / size[1]) ** 2 + (z / 0.8) ** 2)
    volume = np.select(
        [radius < 0.62, radius < 0.78, radius < 0.88, radius < 1.0], [1, 0.7, 0.1, 0.9]
    )
    for side in (-1, 1):
        ventricle = ((x - side * 0.16) / 0.1) ** 2 + (y / 0.3) ** 2 + ((z - 0.05) / 0.18) ** 2
        volume[ventricle < 1] = 0.25
    texture = gaussian_filter(rng.standard_normal(shape), 1.0)
    volume = volume * (1 + 0.15 * texture / texture.std()).clip(0.5, 1.5)
    return torch.from_numpy(volume.astype(np.float32))[None]
