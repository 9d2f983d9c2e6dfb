"""A volume goes in; fifteen measures of every slice and their means come out."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from motionlib.iqms.foreground import slice_foreground, standardise
from motionlib.iqms.slicemeasures import MEASURES, slice_measures


@dataclass(frozen=True)
class Quality:
    """What was measured in one volume.

    Attributes
    ----------
    values : dict of str to float
        Mean over slices of each measure; NaN where no slice has a finite value.
    slices_used : dict of str to int
        How many slices entered each mean.
    slice_index : ndarray of int, shape (n,)
        Slices that are not constant, along the last axis of the measured array.
    foreground_voxels : ndarray of int, shape (n,)
        Pixels of each slice's mask.
    per_slice : ndarray of float, shape (n, 15)
        Every measure in every such slice.
    volume : ndarray, shape (I, J, K)
        The measured array: as given, or standardised.
    mask : ndarray of bool, shape (I, J, K)
        The foreground, on the measured array.
    """

    values: dict[str, float]
    slices_used: dict[str, int]
    slice_index: np.ndarray
    foreground_voxels: np.ndarray
    per_slice: np.ndarray
    volume: np.ndarray
    mask: np.ndarray

    def table(self):
        """Per-slice values as a DataFrame: slice, foreground_voxels and the 15 measures."""
        import pandas as pd

        table = pd.DataFrame(self.per_slice, columns=MEASURES)
        table.insert(0, "foreground_voxels", self.foreground_voxels)
        table.insert(0, "slice", self.slice_index)
        return table


def measure(volume, *, compat: bool = True, affine=None, threads: int = 1) -> Quality:
    """Measure a volume and keep the slices.

    Parameters
    ----------
    volume : ndarray or Tensor, shape (I, J, K) or (1, I, J, K)
        Intensities as stored; integers stay integers (MRQy's arithmetic depends on it).
    compat : bool, default=True
        MRQy 0.0.3's numbers, or corrected definitions on a standardised volume.
    affine : ndarray, shape (4, 4), optional
        Voxel to world, RAS; used by ``compat=False`` alone.
    threads : int, default=1
        Slices measured at a time; no effect on the numbers.

    Returns
    -------
    Quality
        Values, per-slice values, number of slices used, mask.

    Raises
    ------
    ValueError
        If the volume is not 3-D, holds NaN or infinity, or has no foreground in any slice.
    """
    volume = _as_array(volume)
    if compat:
        slices = range(1, volume.shape[2])  # MRQy never looks at slice 0
        masks = None
    else:
        volume, masks, _ = standardise(volume, affine)
        slices = range(volume.shape[2])

    def one(k: int):
        image = np.ascontiguousarray(volume[:, :, k])
        mask = slice_foreground(image) if masks is None else masks[:, :, k]
        return mask, slice_measures(image, mask, compat=compat)

    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(one, slices))
    else:
        found = [one(k) for k in slices]
    if masks is None:
        masks = np.zeros(volume.shape, bool)
        for k, (mask, _) in zip(slices, found, strict=True):
            masks[:, :, k] = mask
    kept = [(k, row) for k, (_, row) in zip(slices, found, strict=True) if row is not None]
    if not kept:
        raise ValueError(
            f"none of the {volume.shape[2]} slices has a foreground that varies: expected an image "
            "of a head, check that the file is not empty or constant"
        )
    index = np.array([k for k, _ in kept])
    per_slice = np.array([row for _, row in kept])
    finite = np.isfinite(per_slice)
    counts = finite.sum(axis=0)
    sums = np.where(finite, per_slice, 0.0).sum(axis=0)
    means = np.divide(sums, counts, out=np.full(len(MEASURES), np.nan), where=counts > 0)
    return Quality(
        values=dict(zip(MEASURES, means.tolist(), strict=True)),
        slices_used=dict(zip(MEASURES, counts.tolist(), strict=True)),
        slice_index=index,
        foreground_voxels=masks[:, :, index].sum(axis=(0, 1)),
        per_slice=per_slice,
        volume=volume,
        mask=masks,
    )


def _as_array(volume) -> np.ndarray:
    """Bring a tensor or array to a 3-D native-endian array of a dtype that MRQy could meet."""
    volume = np.asarray(volume)
    if volume.ndim == 4 and volume.shape[0] == 1:
        volume = volume[0]
    if volume.ndim != 3 or min(volume.shape) < 2:
        raise ValueError(
            f"a volume has shape {volume.shape}: expected (I, J, K) or (1, I, J, K) with at least "
            "2 voxels along each axis, select one volume of a series first"
        )
    if volume.dtype == np.float16:
        volume = volume.astype(np.float32)
    if volume.dtype.kind not in "iuf":
        raise ValueError(f"a volume has dtype {volume.dtype}: expected integers or floats")
    if not np.isfinite(volume).all():
        raise ValueError(
            f"a volume holds {np.count_nonzero(~np.isfinite(volume))} voxels that are NaN or "
            "infinite: expected finite intensities, replace them first"
        )
    return volume.astype(volume.dtype.newbyteorder("="), copy=False)
