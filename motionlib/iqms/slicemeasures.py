"""One slice and its foreground go in; MRQy's fifteen measures of it come out."""

from __future__ import annotations

from math import log, log10, sqrt

import numpy as np

from motionlib.iqms.median import median_5x5

MEASURES = (  # MRQy's names, in its order
    *("MEAN", "RNG", "VAR", "CV", "CPP", "PSNR", "SNR1", "SNR2", "SNR3", "SNR4"),
    *("CNR", "CVP", "CJV", "EFC", "FBER"),
)


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
