"""A volume and a fault go in; a scan that nobody would grade comes out."""

from __future__ import annotations

import numpy as np

from motionlib.cohorts.virtual.moving import foreground_mean, reconstruct, still_noise
from motionlib.cohorts.virtual.plans import REJECT_KINDS
from motionlib.cohorts.virtual.scanners import Scanner


def reject_scan(volume, affine, kind: str, scanner: Scanner, rng: np.random.Generator):
    """Turn a volume into one that no one would grade.

    Parameters
    ----------
    volume : ndarray, shape (I, J, K)
        Motion-free signal, R, A, S axes.
    affine : ndarray, shape (4, 4)
        Voxel indices to mm.
    kind : {"truncated", "slab", "not T1w", "segmented"}
        Cut field of view; a thin slab; another contrast; a map of tissue classes.
    scanner : Scanner
        Its noise and smoothing apply.
    rng : numpy.random.Generator
        The scan's own.

    Returns
    -------
    volume : ndarray, float32
        Smaller than the input where the field of view is cut.
    affine : ndarray, shape (4, 4)

    Raises
    ------
    ValueError
        If the kind is unknown.
    """
    if kind not in REJECT_KINDS:
        raise ValueError(f"Reject {kind!r} is unknown: give one of {', '.join(REJECT_KINDS)}.")
    volume = np.asarray(volume, np.float32)
    volume = volume / foreground_mean(volume)
    if kind == "segmented":
        cuts = np.quantile(volume[volume > 0.3], [0.3, 0.6, 0.9])
        return np.digitize(volume, [0.3, *cuts]).astype(np.float32) / 2, affine
    if kind == "not T1w":
        head = volume > 0.25
        top = float(np.quantile(volume[head], 0.97))
        volume = np.where(head, np.clip(1.15 * top - volume, 0.05, None), volume * 0.3)
    else:
        axis = int(rng.choice(3, p=(0.15, 0.25, 0.6)))
        n = volume.shape[axis]
        if kind == "slab":
            keep = max(8, int(n * rng.uniform(0.12, 0.25)))
            start = int(rng.integers(n // 6, n - keep))
        else:
            keep = max(8, int(n * rng.uniform(0.4, 0.6)))
            start = int(rng.integers(2)) * (n - keep)
        volume = np.take(volume, np.arange(start, start + keep), axis=axis)
        affine = affine.copy()
        affine[:3, 3] += affine[:3, axis] * start
    noisy = still_noise(volume, scanner.noise_sd, rng)
    return reconstruct(noisy, affine, scanner, rng), affine
