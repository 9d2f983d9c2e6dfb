"""A slice or a volume goes in; the head's mask comes out (Otsu, histogram equalisation, hull).

Two foregrounds live here. :func:`slice_foreground` is MRQy's, slice by slice; :func:`head_mask` is
ours: one threshold for the volume, indifferent to intensity scale and to zero padding.
"""

from __future__ import annotations

from math import ceil

import numpy as np

HEAD_MEDIAN = 1000.0  # standardised intensity of the head's median voxel
MARGIN_MM = 10.0  # air kept around the head by `standardise`
N_BINS = 256  # scikit-image's default, which MRQy keeps


def intensity_histogram(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count intensities: one bin per grey level for integers, 256 equal bins for floats.

    Parameters
    ----------
    values : ndarray
        At least one finite value.

    Returns
    -------
    counts, centres : ndarray, shape (n_bins,)
        Number of values and intensity of each bin's centre.
    """
    values = np.ravel(values)
    if values.dtype.kind in "iub":
        lowest = int(values.min())
        counts = np.bincount(values.astype(np.int64) - lowest)
        return counts, np.arange(lowest, lowest + counts.size)
    counts, edges = np.histogram(values, bins=N_BINS)
    return counts, (edges[:-1] + edges[1:]) / 2


def otsu_threshold(values: np.ndarray) -> float:
    """Intensity that best splits the values in two classes; the value itself if they are equal.

    Parameters
    ----------
    values : ndarray
        Intensities, any shape.

    Returns
    -------
    float
        Centre of the last bin of the lower class.

    Notes
    -----
    Source: Otsu 1979. Counts are held in float32, as scikit-image holds them, so that near ties
    break the same way.
    """
    if values.min() == values.max():
        return values.reshape(-1)[0]
    return _otsu(*intensity_histogram(values))


def _otsu(counts: np.ndarray, centres: np.ndarray) -> float:
    """Threshold of a histogram with at least two bins."""
    counts = counts.astype(np.float32)
    below, above = np.cumsum(counts), np.cumsum(counts[::-1])[::-1]
    mean_below = np.cumsum(counts * centres) / below
    mean_above = (np.cumsum((counts * centres)[::-1]) / above[::-1])[::-1]
    between = below[:-1] * above[1:] * (mean_below[:-1] - mean_above[1:]) ** 2
    return centres[np.argmax(between)]


def equalise(image: np.ndarray) -> np.ndarray:
    """Replace each intensity by the share of pixels at or under it, in [0, 1], same shape."""
    return _equalise(image, *intensity_histogram(image))


def _equalise(image: np.ndarray, counts: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Equalise with a histogram already at hand."""
    share = np.cumsum(counts)
    share = share / float(share[-1])
    floating = np.float32 if image.dtype == np.float32 else np.float64
    if image.dtype.kind in "iub":
        return share[image.astype(np.int64) - int(centres[0])]
    share = share.astype(floating)
    return np.interp(image.ravel(), centres, share).reshape(image.shape).astype(floating)


def _envelope(y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices of the lower convex envelope of points sorted by strictly increasing `y`."""
    while y.size > 2:
        # a point on or over the chord of its neighbours is no vertex, whatever else is removed
        turn = (y[1:-1] - y[:-2]) * (x[2:] - x[:-2]) - (x[1:-1] - x[:-2]) * (y[2:] - y[:-2])
        keep = np.concatenate(([True], turn > 0, [True]))
        if keep.all():
            break
        y, x = y[keep], x[keep]
    return y, x


def convex_hull(mask: np.ndarray) -> np.ndarray:
    """Fill a 2-D mask to its convex hull; pixels count as diamonds of half-width 1/2.

    Parameters
    ----------
    mask : ndarray of bool, shape (I, J)
        Any set of pixels.

    Returns
    -------
    ndarray of bool, shape (I, J)
        Pixels whose centre lies in the hull or on its border; all False for an empty mask.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    hull = np.zeros(mask.shape, bool)
    if rows.size == 0:
        return hull
    columns = mask.shape[1]
    first = mask[rows].argmax(axis=1)
    last = columns - 1 - mask[rows, ::-1].argmax(axis=1)
    # twice the coordinates, so that the diamonds' corners are whole numbers
    span = np.arange(2 * rows[0] - 1, 2 * rows[-1] + 2)
    inside = np.arange(rows[0], rows[-1] + 1)
    bounds = []
    for extreme in (2 * first, -2 * last):
        edge = np.full(span.size, np.iinfo(np.int32).max, np.int64)
        at = 2 * rows - span[0]
        edge[at] = extreme - 1
        np.minimum.at(edge, at - 1, extreme)
        np.minimum.at(edge, at + 1, extreme)
        known = edge < np.iinfo(np.int32).max
        y, x = _envelope(span[known], edge[known])
        bounds.append(np.interp(2 * inside, y, x))
    column = 2 * np.arange(columns)
    # vertices are whole numbers, so borders are off by at least 1/(2 rows) when they are off
    left, right = bounds[0][:, None] - 1e-6, -bounds[1][:, None] + 1e-6
    hull[inside] = (column >= left) & (column <= right)
    return hull


def slice_foreground(image: np.ndarray) -> np.ndarray:
    """Find the head in one slice as MRQy 0.0.3 does.

    Parameters
    ----------
    image : ndarray, shape (I, J)
        Stored intensities, integer or floating.

    Returns
    -------
    ndarray of bool, shape (I, J)
        Convex hull of the pixels over Otsu's threshold of a mean of the image and its equalised
        copy (range 0 to 255), each weighted by its share of pixels over its own threshold.

    Notes
    -----
    Source: MRQy 0.0.3, described in words in its paper (Sadri et al., Medical Physics 2020).
    """
    if image.min() == image.max():
        return np.zeros(image.shape, bool)
    counts, centres = intensity_histogram(image)
    equalised = _equalise(image, counts, centres) * 255
    weight_image = np.count_nonzero(image > _otsu(counts, centres)) / image.size
    weight_equalised = np.count_nonzero(equalised > otsu_threshold(equalised)) / image.size
    mixed = np.float64(weight_image) * image + np.float64(weight_equalised) * equalised
    return convex_hull(mixed > otsu_threshold(mixed))


def head_mask(volume: np.ndarray) -> np.ndarray:
    """Find the head in a volume with one threshold, slice hulls along the last axis.

    Parameters
    ----------
    volume : ndarray, shape (I, J, K)
        Non-negative intensities. Exact zeros are taken as absent (padding, masked air).

    Returns
    -------
    ndarray of bool, shape (I, J, K)
        Unchanged when intensities are scaled or when zeros are added around the volume.

    Raises
    ------
    ValueError
        If the volume holds fewer than two different non-zero values.
    """
    present = volume[volume > 0]
    if present.size == 0 or present.min() == present.max():
        raise ValueError(
            f"a volume of shape {volume.shape} has no foreground: expected at least two different "
            "positive intensities, check that the file is an image"
        )
    ceiling = np.percentile(present, 99.5)  # bright vessels and spikes must not set the bins
    # the step to a whole-head threshold: half of Otsu's, so that dark tissue and skull stay in
    threshold = otsu_threshold(np.minimum(present, ceiling).astype(np.float64)) / 2
    mask = np.zeros(volume.shape, bool)
    for k in range(volume.shape[2]):
        mask[:, :, k] = convex_hull(volume[:, :, k] > threshold)
    return mask


def standardise(volume: np.ndarray, affine=None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prepare a volume for the corrected measures.

    Parameters
    ----------
    volume : ndarray, shape (I, J, K)
        Intensities in any unit; negative ones (real parts) lose their sign.
    affine : ndarray, shape (4, 4), optional
        Voxel to world. Without it the axes are taken as RAS and voxels as 1 mm.

    Returns
    -------
    volume : ndarray of float32, shape (I', J', K')
        RAS axes, the head's box and 10 mm of air (where there is air), head median 1000.
    mask : ndarray of bool, same shape
        One foreground for all measures.
    box : ndarray of int, shape (3, 2)
        First and past-last voxel kept, on the RAS axes of the given volume.

    Notes
    -----
    Unchanged by scaling of intensities, zero padding, flips and permutations of axes that the
    affine tells; nearly unchanged by crops that leave 10 mm of air.
    """
    spacing_mm = np.ones(3)
    volume = np.abs(volume.astype(np.float32))
    if affine is not None:
        import nibabel as nib

        affine = np.asarray(affine, float)
        volume = nib.apply_orientation(volume, nib.io_orientation(affine))
        lengths = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
        spacing_mm = lengths[np.argsort(nib.io_orientation(affine)[:, 0])]
    mask = head_mask(volume)
    box = np.empty((3, 2), int)
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        at = np.flatnonzero(mask.any(axis=others))
        present = np.flatnonzero((volume > 0).any(axis=others))
        margin = ceil(MARGIN_MM / spacing_mm[axis] - 1e-6)
        low, high = max(at[0] - margin, present[0]), min(at[-1] + margin, present[-1])
        box[axis] = min(low, at[0]), max(high, at[-1]) + 1
    kept = tuple(slice(low, high) for low, high in box)
    volume, mask = volume[kept], mask[kept]
    inside = volume[mask & (volume > 0)]
    return volume * np.float32(HEAD_MEDIAN / np.median(inside)), mask, box
