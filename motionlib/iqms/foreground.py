"""The head's foreground, which every quality measure sets against the air around it.

:func:`slice_foreground` is MRQy's, slice by slice: Otsu's threshold (1979) of a mean of the image
and its equalised copy, and the convex hull of what lies over it. :func:`hull_mask` is ours: one
threshold for the volume, indifferent to intensity scale and to zero padding;
:func:`standardise` turns and crops the volume and scales its head to a fixed brightness besides.
"""

from math import ceil

import numpy as np

from motionlib.compute.compiled import compiled

HEAD_MEDIAN = 1000.0  # standardised intensity of the head's median voxel
MARGIN_MM = 10.0  # air kept around the head by `standardise`
N_BINS = 256  # scikit-image's default, which MRQy keeps
MOST_LEVELS = 2**16  # with a bin each; one hot voxel of int32 would ask for 16 GiB of them


def slice_foreground(image: np.ndarray) -> np.ndarray:
    """Find the head in one slice (I, J) of stored intensities as MRQy 0.0.3 does.

    Source: MRQy 0.0.3, described in words in its paper (Sadri et al., Medical Physics 2020).
    """
    if image.min() == image.max():
        return np.zeros(image.shape, bool)
    # 1. The image and its equalised copy, in 0 to 255, are mixed; each weighs as much as the share
    #    of its pixels over its own threshold.
    counts, centres = _histogram(image)
    equalised = _equalise(image, counts, centres) * 255
    weight_image = np.count_nonzero(image > _otsu(counts, centres)) / image.size
    weight_equalised = np.count_nonzero(equalised > otsu_centre(equalised)) / image.size
    mixed = np.float64(weight_image) * image + np.float64(weight_equalised) * equalised
    # 2. The head is the hull of what lies over the mixture's threshold.
    return convex_hull(mixed > otsu_centre(mixed))


def hull_mask(volume: np.ndarray) -> np.ndarray:
    """Find the head in a volume (I, J, K) with one threshold, slice hulls along the last axis.

    Intensities are non-negative; exact zeros are taken as absent (padding, masked air). The mask
    does not change when intensities are scaled or when zeros are added around the volume; a volume
    without two different positive intensities is refused.
    """
    present = volume[volume > 0]
    if present.size == 0 or present.min() == present.max():
        raise ValueError(
            f"a volume of shape {volume.shape} has no foreground: expected at least two different "
            "positive intensities, check that the file is an image"
        )
    ceiling = np.percentile(present, 99.5)  # bright vessels and spikes must not set the bins
    # the step to a whole-head threshold: half of Otsu's, so that dark tissue and skull stay in
    threshold = otsu_centre(np.minimum(present, ceiling).astype(np.float64)) / 2
    mask = np.zeros(volume.shape, bool)
    for k in range(volume.shape[2]):
        mask[:, :, k] = convex_hull(volume[:, :, k] > threshold)
    return mask


def standardise(volume: np.ndarray, affine=None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Prepare a volume (I, J, K) for the corrected measures.

    Without an affine the axes are taken as RAS and voxels as 1 mm; negative intensities (real
    parts) lose their sign. Unchanged by scaling of intensities, zero padding, flips and
    permutations of axes that the affine tells; nearly unchanged by crops that leave 10 mm of air.
    Returns the volume, float32 on RAS axes, the head's box and 10 mm of air (where there is air),
    head median 1000; a mask of the same shape, one foreground for all measures; and the box, int
    (3, 2): first and past-last voxel kept, on the RAS axes of the given volume.
    """
    # 1. Turn the axes to RAS.
    spacing_mm = np.ones(3)
    volume = np.abs(volume.astype(np.float32))
    if affine is not None:
        import nibabel as nib  # slow to import, and not needed without an affine

        affine = np.asarray(affine, float)
        volume = nib.apply_orientation(volume, nib.io_orientation(affine))
        lengths = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
        spacing_mm = lengths[np.argsort(nib.io_orientation(affine)[:, 0])]
    # 2. Find the head, and the box about it and its margin of air, but no padding.
    mask = hull_mask(volume)
    box = np.empty((3, 2), int)
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        at = np.flatnonzero(mask.any(axis=others))
        present = np.flatnonzero((volume > 0).any(axis=others))
        margin = ceil(MARGIN_MM / spacing_mm[axis] - 1e-6)
        low, high = max(at[0] - margin, present[0]), min(at[-1] + margin, present[-1])
        box[axis] = min(low, at[0]), max(high, at[-1]) + 1
    # 3. Cut the box out and scale the head.
    kept = tuple(slice(low, high) for low, high in box)
    volume, mask = volume[kept], mask[kept]
    inside = volume[mask & (volume > 0)]
    return volume * np.float32(HEAD_MEDIAN / np.median(inside)), mask, box


def otsu_centre(values: np.ndarray) -> float:
    """Centre of the last bin of the lower class of Otsu 1979; the values' own if all are equal."""
    if values.min() == values.max():
        return values.reshape(-1)[0]
    return _otsu(*_histogram(values))


def _histogram(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count values by bin, and the bins' centres: one per grey level, or 256 for floats.

    Where grey levels lie far apart only those that occur have a bin, which changes no threshold.
    """
    values = np.ravel(values)
    if values.dtype.kind in "iub":
        lowest = int(values.min())
        if int(values.max()) - lowest > MOST_LEVELS:
            centres, counts = np.unique(values.astype(np.int64), return_counts=True)
            return counts, centres
        counts = np.bincount(values.astype(np.int64) - lowest)
        return counts, np.arange(lowest, lowest + counts.size)
    edges = np.linspace(values.min(), values.max(), N_BINS + 1, dtype=values.dtype)
    if not (edges[:-1] < edges[1:]).all():
        raise ValueError(
            f"the intensities of a slice, {edges[0]:g} to {edges[-1]:g}, hardly differ: expected "
            f"room for {N_BINS} steps between them, check how the file stores them"
        )
    counts = np.zeros(N_BINS, np.int64)
    _count(values, edges, counts)
    return counts, (edges[:-1] + edges[1:]) / 2


@compiled(nogil=True)
def _count(values, edges, counts):  # pragma: no cover - compiled
    """Count floats by bin as ``numpy.histogram`` does, to the last tie, in one pass."""
    bins, first = values.dtype.type(counts.size), edges[0]
    span = edges[-1] - first
    for value in values:
        n = min(int((value - first) / span * bins), counts.size - 1)
        # rounding may have put a value beside its bin
        if value < edges[n]:
            n -= 1
        elif n < counts.size - 1 and value >= edges[n + 1]:
            n += 1
        counts[n] += 1


def _otsu(counts: np.ndarray, centres: np.ndarray) -> float:
    """Threshold of a histogram with at least two bins: the largest variance between classes."""
    counts = counts.astype(np.float32)  # as in scikit-image, so that near ties break the same way
    below, above = np.cumsum(counts), np.cumsum(counts[::-1])[::-1]
    mean_below = np.cumsum(counts * centres) / below
    mean_above = (np.cumsum((counts * centres)[::-1]) / above[::-1])[::-1]
    between = below[:-1] * above[1:] * (mean_below[:-1] - mean_above[1:]) ** 2
    return centres[np.argmax(between)]


def _equalise(image: np.ndarray, counts: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Replace each intensity by the share of pixels at or under it, in [0, 1], same shape."""
    share = np.cumsum(counts)
    share = share / float(share[-1])
    if image.dtype.kind in "iub":
        if centres[-1] - centres[0] >= centres.size:
            return share[np.searchsorted(centres, image)]
        return share[image.astype(np.int64) - int(centres[0])]
    floating = np.float32 if image.dtype == np.float32 else np.float64
    share = share.astype(floating)
    out = np.empty(image.size, floating)
    centres, share = centres.astype(np.float64), share.astype(np.float64)
    _interpolate(image.ravel(), centres, share, np.diff(share) / np.diff(centres), out)
    return out.reshape(image.shape)


@compiled(nogil=True)
def _interpolate(x, centres, share, slopes, out):  # pragma: no cover - compiled
    """Fill `out` as ``numpy.interp`` does; the centres lie evenly, so that no search is needed."""
    last = centres.size - 1
    pace = last / (centres[last] - centres[0])
    for n, value in enumerate(x):
        place = min(max((value - centres[0]) * pace, 0.0), last)
        j = int(place)
        while j < last and centres[j + 1] <= value:
            j += 1
        while j >= 0 and centres[j] > value:
            j -= 1
        if j < 0:
            out[n] = share[0]
        elif j == last or centres[j] == value:
            out[n] = share[j]
        else:
            out[n] = slopes[j] * (value - centres[j]) + share[j]


def convex_hull(mask: np.ndarray) -> np.ndarray:
    """Fill a 2-D mask to its convex hull; pixels count as diamonds of half-width 1/2.

    The pixels whose centre lies in the hull or on its border, as scikit-image has them; an empty
    mask stays empty. The left and the right border are lower convex envelopes of the rows' first
    and last pixels; the rows between their vertices are interpolated.
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
