"""MRQy's fifteen image-quality measures (Sadri et al., Medical Physics 2020), slice by slice.

1. The head is found in each slice (:mod:`motionlib.iqms.foreground`); the rest of it is air.
2. Fifteen formulas compare the two, one function each below.
3. A volume has the mean over its slices; slices where a measure is undefined drop out of that
   measure's mean alone, as they do in MRQy.

``compat=True`` keeps the slips of MRQy 0.0.3, each told at its formula; ``compat=False`` gives the
definitions as they are meant, on a standardised volume with one foreground. Written from the
formulas, not from code.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import log, log10, sqrt

import numpy as np

from motionlib.compute.compiled import compiled
from motionlib.iqms.foreground import slice_foreground, standardise

PATCH = 5  # pixels along each side of the patch at the brightest pixel, as in MRQy
NO_ENERGY = 1e-3  # median squared intensity of air under which MRQy calls FBER 0


@dataclass(frozen=True)
class Quality:
    """What was measured in one volume.

    `values` are the means over slices of each measure, NaN where no slice has a finite value, and
    `slices_used` how many slices entered each mean. `slice_index` (n,) lists the slices whose
    foreground varies, along the last axis of the measured array; `foreground_voxels` (n,) counts
    the pixels of each one's mask, and `per_slice` has every measure in each, (n,). `volume` (I, J,
    K) is the measured array, as given or standardised, and `mask` the foreground on it.
    """

    values: dict[str, float]
    slices_used: dict[str, int]
    slice_index: np.ndarray
    foreground_voxels: np.ndarray
    per_slice: dict[str, np.ndarray]
    volume: np.ndarray
    mask: np.ndarray

    def table(self):
        """Per-slice values as a DataFrame: ``slice foreground_voxels`` and the 15 measures."""
        import pandas as pd  # the command measures without it, and starts sooner

        lead = {"slice": self.slice_index, "foreground_voxels": self.foreground_voxels}
        return pd.DataFrame({**lead, **self.per_slice})


def measure(volume, *, compat: bool = True, affine=None, threads: int = 1) -> Quality:
    """Measure a volume and keep the slices; parameters and errors as in `iqms.image_quality`.

    Returns
    -------
    Quality
        Values, per-slice values, number of slices used, mask.
    """
    volume = _as_array(volume)
    if compat:
        slices = range(1, volume.shape[2])  # MRQy never looks at slice 0
        masks = None
    else:
        volume, masks, _ = standardise(volume, affine)
        slices = range(volume.shape[2])

    def of_slice(k: int):
        image = np.ascontiguousarray(volume[:, :, k])
        mask = slice_foreground(image) if masks is None else masks[:, :, k]
        return mask, slice_measures(image, mask, compat=compat)

    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            measured = list(pool.map(of_slice, slices))
    else:
        measured = [of_slice(k) for k in slices]
    if masks is None:
        masks = np.zeros(volume.shape, bool)
        for k, (mask, _) in zip(slices, measured, strict=True):
            masks[:, :, k] = mask
    index = [k for k, (_, row) in zip(slices, measured, strict=True) if row is not None]
    if not index:
        raise ValueError(
            f"none of the {volume.shape[2]} slices has a foreground that varies: expected an image "
            "of a head, check that the file is not empty or constant"
        )
    rows = [list(row.values()) for _, row in measured if row is not None]
    values = np.array(rows)  # (n, 15): added up slice after slice, not in pairs
    finite = np.isfinite(values)
    counts = finite.sum(axis=0)
    sums = np.where(finite, values, 0.0).sum(axis=0)
    means = np.divide(sums, counts, out=np.full(len(MEASURES), np.nan), where=counts > 0)
    return Quality(
        values=dict(zip(MEASURES, means.tolist(), strict=True)),
        slices_used=dict(zip(MEASURES, counts.tolist(), strict=True)),
        slice_index=np.array(index),
        foreground_voxels=masks[:, :, index].sum(axis=(0, 1)),
        per_slice=dict(zip(MEASURES, values.T, strict=True)),
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


@np.errstate(all="ignore")  # a division by zero is a measure that is undefined here
def slice_measures(image: np.ndarray, mask: np.ndarray, *, compat: bool = True):
    """Measure one slice (I, J), given its foreground, a mask of the same shape.

    Returns the 15 values by name, possibly NaN or infinite; None if the foreground is constant.
    """
    front = np.where(mask, image, 0)
    if front.min() == front.max():
        return None
    parts = _Slice(image, mask, front, compat)
    return {name: formula(parts) for name, formula in zip(MEASURES, _FORMULAS, strict=True)}


class _Slice:
    """A slice taken apart into head and air, and what several formulas share.

    ``front`` is the head in (I, J) with zeros elsewhere; ``head`` and ``air`` are the pixels alone,
    in the stored dtype, ``head64`` the head in double precision.
    """

    def __init__(self, image: np.ndarray, mask: np.ndarray, front: np.ndarray, compat: bool):
        self.mask, self.front, self.compat, self.n_pixels = mask, front, compat, image.size
        self.head, self.air = image[mask], image[~mask]
        self.head64 = self.head.astype(np.float64)
        self.energy = self.head64 @ self.head64
        self.mean, self.sd, self.sd_air = self.head64.mean(), self.head64.std(), _std(self.air)
        self.peak = front.max()
        patch, air_patch = _patch(front, compat), _patch(np.where(mask, 0, image), compat)
        self.patch_mean, self.patch_sd = patch.mean(dtype=np.float64), _std(patch)
        self.air_patch_sd = _std(air_patch)
        self.patch_difference = (patch - air_patch).mean(dtype=np.float64)


def _mean(s: _Slice) -> float:
    """MEAN: mean(head)."""
    return s.mean


def _rng(s: _Slice) -> float:
    """RNG: max(head) - min(head). MRQy subtracts in the stored dtype, where integers overflow."""
    if s.compat:
        return float(s.head.max() - s.head.min())
    return float(s.head.max()) - float(s.head.min())


def _var(s: _Slice) -> float:
    """VAR: var(head)."""
    return s.sd**2


def _cv(s: _Slice) -> float:
    """CV: 100 sd(head) / mean(head), in percent."""
    return 100 * s.sd / s.mean


def _cpp(s: _Slice) -> float:
    """CPP: mean over the slice of head * kernel, 3 x 3 with 1 amid eight -1/8.

    The kernel sums to zero, so all cancels but the frame: this measures a cut head, not contrast.
    """
    edges = [s.front[0], s.front[-1], s.front[:, 0], s.front[:, -1]]
    corners = s.front[::-1, ::-1][:: s.front.shape[0] - 1, :: s.front.shape[1] - 1]
    frame = 3 * sum(edge.sum(dtype=np.float64) for edge in edges)
    return (frame - corners.sum(dtype=np.float64)) / 8 / s.n_pixels


def _psnr(s: _Slice) -> float:
    """PSNR: 20 log10(max(head) / rms(noise)), in decibels.

    The noise is meant to be the head minus its 5 x 5 median. MRQy takes the median of the head over
    its maximum from the head in native units: hardly anything. Corrected: rms of the head itself.
    """
    if not s.compat:
        return 20 * _log10(s.peak / np.sqrt(s.energy / s.n_pixels))
    box = _box(s.mask)  # no window beyond it holds anything but zeros
    front = s.front[box]
    noise = (front - _median_5x5(front) / s.peak).ravel().astype(np.float64)
    return 20 * _log10(s.peak / np.sqrt(noise @ noise / s.n_pixels))


def _snr1(s: _Slice) -> float:
    """SNR1: sd(head) / sd(air)."""
    return s.sd / s.sd_air


def _snr2(s: _Slice) -> float:
    """SNR2: mean(patch of the head) / sd(air)."""
    return s.patch_mean / s.sd_air


def _snr3(s: _Slice) -> float:
    """SNR3: mean(patch of the head) / sd(patch of the head)."""
    return s.patch_mean / s.patch_sd


def _snr4(s: _Slice) -> float:
    """SNR4: mean(patch of the head) / sd(patch of the air)."""
    return s.patch_mean / s.air_patch_sd


def _cnr(s: _Slice) -> float:
    """CNR: mean(patch of the head - patch of the air) / sd(patch of the air)."""
    return s.patch_difference / s.air_patch_sd


def _cvp(s: _Slice) -> float:
    """CVP: sd(patch of the head) / mean(patch of the head)."""
    return s.patch_sd / s.patch_mean


def _cjv(s: _Slice) -> float:
    """CJV: (sd(head) + sd(air)) / |mean(head) - mean(air)|.

    Source: Ganzetti et al. 2016 and MRIQC, there of grey against white matter.
    """
    mean_air = s.air.mean(dtype=np.float64) if s.air.size else np.nan
    return (s.sd + s.sd_air) / abs(s.mean - mean_air)


def _efc(s: _Slice) -> float:
    """EFC: -sum(p ln(p)) / (sqrt(N) ln(sqrt(N))), p = head / sqrt(sum of head^2), N pixels.

    MRQy adds 1e16 inside the logarithm where 1e-16 is meant (and MRIQC has it): its value is a
    logarithm of brightness. Source: Atkinson et al. 1997, as in MRIQC.
    """
    norm = np.sqrt(s.energy)
    if s.compat:
        entropy = (16 * log(10) - np.log(norm)) * s.head64.sum() / norm
    else:
        entropy = -np.sum(s.head64 / norm * np.log((s.head64 + 1e-16) / norm))
    root = sqrt(s.n_pixels)
    return entropy / abs(root * log(1 / root)) if s.n_pixels > 1 else np.nan


def _fber(s: _Slice) -> float:
    """FBER: median(head^2) / median(air^2); undefined, in MRQy 0, where the air has no energy.

    MRQy squares in the stored dtype, where integers overflow. Source: MRIQC (Shehzad et al. 2015).
    """
    head, air = s.head, s.air
    if not s.compat:
        head, air = s.head64, s.air.astype(np.float64)
    air_energy = _median(air**2)
    if air_energy < NO_ENERGY:
        return 0.0 if s.compat else np.nan
    return _median(head**2) / air_energy


_FORMULAS = (
    *(_mean, _rng, _var, _cv, _cpp, _psnr, _snr1, _snr2, _snr3, _snr4),
    *(_cnr, _cvp, _cjv, _efc, _fber),
)
MEASURES = tuple(formula.__name__[1:].upper() for formula in _FORMULAS)  # MRQy's names and order


def _patch(image: np.ndarray, compat: bool) -> np.ndarray:
    """5 x 5 pixels about the first maximum in raster order; zeros beyond the image.

    MRQy's patch is shifted by three pixels along both axes and ends beside the maximum.
    """
    row, column = np.unravel_index(image.argmax(), image.shape)
    start = PATCH if compat else PATCH // 2
    rows, columns = row - start + np.arange(PATCH), column - start + np.arange(PATCH)
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
    """Spread of the values in double precision; NaN if there are none."""
    return values.std(dtype=np.float64) if values.size else np.float64(np.nan)


def _median(values: np.ndarray) -> np.float64:
    """Median by selection; NaN if there are no values."""
    n = values.size
    if n == 0:
        return np.float64(np.nan)
    # two places at a time: numpy's way to one alone is thirty times slower where values repeat
    ordered = np.partition(values, (n // 2 - 1, n // 2))
    return ordered[(n - 1) // 2 : n // 2 + 1].mean(dtype=float)


def _log10(value: float) -> float:
    """Logarithm to the base of 10; NaN where there is none."""
    return log10(value) if value > 0 and np.isfinite(value) else np.nan


# Five values are sorted by the classical network of nine exchanges.
_SORT_5 = np.array([(0, 1), (3, 4), (2, 4), (2, 3), (0, 3), (0, 2), (1, 4), (1, 3), (1, 2)])
# Wire 5 r + c holds the r-th smallest value of column c. What is left of "sort each rank, then sort
# the 13 candidates" after every exchange that no sorted-column 0-1 input needs was deleted; the
# median leaves on wire 12. All 6**5 such inputs were tried (0-1 principle), and a test tries again.
_MERGE_TEXT = """
0-1 3-4 2-4 2-3 0-3 1-4 1-3 5-6 8-9 7-9 7-8 5-8 6-9 6-8 6-7 10-11 13-14 12-14 12-13 10-13 10-12
11-14 11-13 11-12 15-16 18-19 17-18 15-18 15-17 16-19 16-18 16-17 20-21 23-24 22-24 22-23 20-23
20-22 21-22 7-20 11-3 12-4 16-8 9-13 20-15 3-12 20-3 15-12 21-4 15-11 21-3 8-17 21-11 3-12 9-8
11-16 3-9 12-16 3-12
"""
_MERGE = np.array([pair.split("-") for pair in _MERGE_TEXT.split()], int)


def _median_5x5(image: np.ndarray) -> np.ndarray:
    """Median of the 25 pixels around each pixel; the frame is continued by its nearest pixel.

    Takes and gives (I, J) of any real dtype without NaN: SciPy's medians, bit for bit. Each column
    of five is sorted once for all windows that hold it; a network of exchanges then takes the
    median of five sorted columns, for a row of pixels at once.
    """
    kind = np.float32 if image.dtype.itemsize < 4 else image.dtype  # exact, and compared faster
    out = np.empty(image.shape, kind)
    _median_rows(np.pad(image.astype(kind, copy=False), 2, mode="edge"), out)
    return out.astype(image.dtype, copy=False)


@compiled(nogil=True)
def _median_rows(padded, out):  # pragma: no cover - compiled
    """Medians of the windows that fit whole: (I + 4, J + 4) in, (I, J) out."""
    rows, columns = out.shape
    ranks = np.empty((5, columns + 4), padded.dtype)
    wires = np.empty((25, columns), padded.dtype)
    for i in range(rows):
        # 1. Sort every column of five; afterwards ranks[r] holds each column's r-th smallest.
        for r in range(5):
            for n in range(columns + 4):
                ranks[r, n] = padded[i + r, n]
        for low, high in _SORT_5:
            _exchange(ranks[low], ranks[high])
        # 2. Send five neighbouring columns through the network.
        for w in range(25):
            for n in range(columns):
                wires[w, n] = ranks[w // 5, w % 5 + n]
        for low, high in _MERGE:
            _exchange(wires[low], wires[high])
        for n in range(columns):
            out[i, n] = wires[12, n]


@compiled(nogil=True)
def _exchange(low, high):  # pragma: no cover - compiled
    """Put the smaller of each pair into `low`, the larger into `high`."""
    for n in range(low.size):
        a, b = low[n], high[n]
        low[n], high[n] = min(a, b), max(a, b)
