"""A volume goes in; fifteen measures of every slice and their means come out."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import log, log10, sqrt

import numpy as np

from motionlib.iqms.foreground import slice_foreground, standardise

# Five sorted values: the classical network of nine exchanges.
_SORT_5 = ((0, 1), (3, 4), (2, 4), (2, 3), (0, 3), (0, 2), (1, 4), (1, 3), (1, 2))
# Wire 5 r + c holds the r-th smallest value of column c. What is left of "sort each rank, then sort
# the 13 candidates" after every exchange that no sorted-column 0-1 input needs was deleted; the
# median leaves on wire 12. All 6**5 such inputs were tried (0-1 principle), and a test tries again.
_MERGE_TEXT = """
0-1 3-4 2-4 2-3 0-3 1-4 1-3 5-6 8-9 7-9 7-8 5-8 6-9 6-8 6-7 10-11 13-14 12-14 12-13 10-13 10-12
11-14 11-13 11-12 15-16 18-19 17-18 15-18 15-17 16-19 16-18 16-17 20-21 23-24 22-24 22-23 20-23
20-22 21-22 7-20 11-3 12-4 16-8 9-13 20-15 3-12 20-3 15-12 21-4 15-11 21-3 8-17 21-11 3-12 9-8
11-16 3-9 12-16 3-12
"""
_MERGE = tuple((int(low), int(high)) for low, high in re.findall(r"(\d+)-(\d+)", _MERGE_TEXT))
_BLOCK_ROWS = 48  # keeps the 25 wires in a second-level cache; no effect on the numbers
MEASURES = (  # MRQy's names, in its order
    *("MEAN", "RNG", "VAR", "CV", "CPP", "PSNR", "SNR1", "SNR2", "SNR3", "SNR4"),
    *("CNR", "CVP", "CJV", "EFC", "FBER"),
)


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


def _plan() -> tuple[tuple[int, int, bool, bool], ...]:
    """List the exchanges with the halves of each that reach the median."""
    live, plan = {12}, []
    for low, high in reversed(_MERGE):
        plan.append((low, high, low in live, high in live))
        live |= {low, high}
    return tuple(reversed(plan))


_PLAN = _plan()


def median_5x5(image: np.ndarray) -> np.ndarray:
    """Median of the 25 pixels around each pixel; the frame is continued by its nearest pixel.

    Parameters
    ----------
    image : ndarray, shape (I, J)
        Any real dtype, no NaN.

    Returns
    -------
    ndarray, shape (I, J)
        Same dtype; the exact medians.

    Examples
    --------
    >>> median_5x5(np.eye(7))[3, 3]
    np.float64(0.0)
    """
    padded = np.pad(image, 2, mode="edge")
    if image.dtype.kind == "f" and padded.min() >= 0:
        # bit patterns of non-negative floats sort like the floats, and integers compare faster
        padded = (padded + image.dtype.type(0)).view(f"i{image.dtype.itemsize}")
    medians = np.empty(image.shape, padded.dtype)
    for top in range(0, image.shape[0], _BLOCK_ROWS):
        block = padded[top : top + _BLOCK_ROWS + 4]
        medians[top : top + _BLOCK_ROWS] = _median_of_block(block)
    return medians.view(image.dtype)


def _median_of_block(padded: np.ndarray) -> np.ndarray:
    """Medians of the windows that fit whole: (I + 4, J + 4) in, (I, J) out."""
    rows, columns = padded.shape[0] - 4, padded.shape[1] - 4
    ranks = [padded[r : r + rows] for r in range(5)]
    for low, high in _SORT_5:
        a, b = ranks[low], ranks[high]
        ranks[low], ranks[high] = np.minimum(a, b), np.maximum(a, b)
    wires = [ranks[w // 5][:, w % 5 : w % 5 + columns] for w in range(25)]
    owned = [False] * 25  # the first exchange of a wire must not write into the shared columns
    spare: list[np.ndarray] = []
    for low, high, need_low, need_high in _PLAN:
        a, b = wires[low], wires[high]
        smaller = larger = None
        if need_low:
            smaller = np.minimum(a, b, out=spare.pop() if spare else None)
        if need_high:
            larger = np.maximum(a, b, out=spare.pop() if spare else None)
        spare.extend(wires[w] for w in (low, high) if owned[w])
        wires[low], wires[high] = smaller, larger
        owned[low], owned[high] = need_low, need_high
    return wires[12]


@np.errstate(all="ignore")  # a division by zero is a measure that is undefined here
def slice_measures(image: np.ndarray, mask: np.ndarray, *, compat: bool = True):
    """Measure one slice, given its foreground.

    Parameters
    ----------
    image : ndarray, shape (I, J)
        Intensities in their stored dtype.
    mask : ndarray of bool, shape (I, J)
        The head.
    compat : bool, default=True
        Keep MRQy's slips: patches shifted by three pixels off the maximum; 1e16 for 1e-16 in the
        entropy; energies and differences in the stored dtype, where integers overflow; an image
        in native units minus the median of its copy in [0, 1] as the "noise" of PSNR; FBER 0
        where the air has no energy (NaN in the corrected form).

    Returns
    -------
    list of 15 floats, or None
        In the order of `MEASURES`, possibly NaN or infinite; None if the foreground is constant.
    """
    front, back = np.where(mask, image, 0), np.where(mask, 0, image)
    if front.min() == front.max():
        return None
    f, b = image[mask], image[~mask]
    peak = front.max()
    f64 = f.astype(np.float64)
    mean, std, std_air = f64.mean(), f64.std(), _std(b)
    energy = f64 @ f64
    n = image.size
    patch, air_patch = _patch(front, compat), _patch(back, compat)
    difference = (patch - air_patch).mean(dtype=np.float64)
    patch_mean = patch.mean(dtype=np.float64)
    patch_std, air_patch_std = _std(patch), _std(air_patch)

    # the 3 x 3 kernel of CPP sums to zero, so only pixels on the frame of the image are left over
    edges = [front[0], front[-1], front[:, 0], front[:, -1]]
    corners = front[::-1, ::-1][:: image.shape[0] - 1, :: image.shape[1] - 1]
    cpp = (3 * sum(e.sum(dtype=np.float64) for e in edges) - corners.sum(dtype=np.float64)) / 8 / n

    if compat:
        box = _box(mask)  # no window beyond it holds anything but zeros
        noise = (front[box] - median_5x5(front[box]) / peak).ravel().astype(np.float64)
        rms = np.sqrt(noise @ noise / n)
        squares, air_squares = f**2, b**2
        f_sum, log_term = f64.sum(), 16 * log(10)
        entropy = (log_term - np.log(np.sqrt(energy))) * f_sum / np.sqrt(energy)
        span = f.max() - f.min()
    else:
        rms = np.sqrt(energy / n)
        squares, air_squares = f64**2, b.astype(np.float64) ** 2
        share = f64 / np.sqrt(energy)
        entropy = -np.sum(share * np.log((f64 + 1e-16) / np.sqrt(energy)))
        span = float(f.max()) - float(f.min())
    air_energy = _median(air_squares)
    fber = _median(squares) / air_energy
    if air_energy < 1e-3:
        fber = 0.0 if compat else np.nan
    return [
        mean,
        float(span),
        std**2,
        100 * std / mean,
        cpp,
        20 * _log10(peak / rms),
        std / std_air,
        patch_mean / std_air,
        patch_mean / patch_std,
        patch_mean / air_patch_std,
        difference / air_patch_std,
        patch_std / patch_mean,
        (std + std_air) / abs(mean - (b.mean(dtype=np.float64) if b.size else np.nan)),
        entropy / abs(sqrt(n) * log(1 / sqrt(n))) if n > 1 else np.nan,
        fber,
    ]


def _patch(image: np.ndarray, compat: bool) -> np.ndarray:
    """5 x 5 pixels at the first maximum in raster order (MRQy's end one pixel before it)."""
    row, column = np.unravel_index(image.argmax(), image.shape)
    start = 5 if compat else 2
    rows, columns = row - start + np.arange(5), column - start + np.arange(5)
    inside = ((rows >= 0) & (rows < image.shape[0]))[:, None]
    inside = inside & (columns >= 0) & (columns < image.shape[1])
    patch = image[np.clip(rows, 0, image.shape[0] - 1)][:, np.clip(columns, 0, image.shape[1] - 1)]
    return np.where(inside, patch, image.dtype.type(0))


def _box(mask: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of a mask, with two more on each side where the image has them."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (
        slice(max(rows[0] - 2, 0), rows[-1] + 3),
        slice(max(columns[0] - 2, 0), columns[-1] + 3),
    )


def _std(values: np.ndarray) -> np.float64:
    return values.std(dtype=np.float64) if values.size else np.float64(np.nan)


def _median(values: np.ndarray) -> np.float64:
    """Median by selection; NaN if there are no values."""
    n = values.size
    if n == 0:
        return np.float64(np.nan)
    if n % 2:
        return np.float64(np.partition(values, n // 2)[n // 2])
    return np.partition(values, (n // 2 - 1, n // 2))[n // 2 - 1 : n // 2 + 1].mean(dtype=float)


def _log10(value: float) -> float:
    return log10(value) if value > 0 and np.isfinite(value) else np.nan
