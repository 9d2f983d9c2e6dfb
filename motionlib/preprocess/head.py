"""Where a head lies in its volume, and whether its skull is there, without registration."""

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from motionlib.preprocess.images import array3

LEAST_AROUND, SKULL_LIMIT = 0.12, 0.5  # of whole heads; see `find_head`
BRIGHT_PERCENT = 99.5  # of the voxels; above it are vessels and spikes
AIR_LIMIT = 0.05  # of the bright voxels: air further from zero was moved there
# of the range of a volume, between the quartiles of its outermost voxels; 66 real heads: up to 0.03
NOISY_AIR = 0.15
TOP_AREA_MM2 = 1000.0  # cross-section at the top of a head
SLAB_MM = (20, 80)  # below the top: neck, jaw and removed faces do not count


@dataclass(frozen=True)
class HeadPlace:
    """Where a head lies; places in mm from the first voxel, along the array's axes."""

    centre_mm: tuple[float, float]  # right-left and front-back
    top_mm: float  # of its highest point
    spread_mm: tuple[float, float]  # standard deviations about the centre; tell the head's size
    stripped: bool  # whether skull and scalp are missing
    mask: np.ndarray = field(repr=False, compare=False)  # of `coarse` voxels
    side_mm: np.ndarray = field(repr=False, compare=False)  # of those


def find_head(volume, affine) -> HeadPlace:
    """Find where the head lies in a RAS volume (I, J, K), without registration.

    With or without skull, face and neck. Of the affine only the voxel sizes are used: the head is
    taken to stand along the array's axes. ValueError if nothing of the size of a head is there.

    The top is the highest level at which the head's cross-section reaches 10 cm²; the centre is the
    mask's centroid between 20 and 80 mm below it, so that neck, jaw and removed faces do not count.
    Stripped brains are told by two facts at once: less than 12 % of the voxels around them differ
    from zero (measured: 0 % around 40 stripped brains, up to 4 % once they have moved, 15 to 100 %
    around 84 whole heads), and no dark skull 7 to 14 mm below the surface (the lower quartile there
    is above half of the median deeper inside; 0.52 to 0.61 in the stripped, median 0.36 in others).
    """
    spacing = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
    array, spacing, offset = coarse(array3(volume), spacing)
    mask = head_mask(array, spacing)
    area = mask.sum(axis=(0, 1)) * spacing[0] * spacing[1]
    if mask.sum() * spacing.prod() < 3e5 or area.max() < 4e3:
        raise ValueError(
            f"The largest object has {mask.sum() * spacing.prod() / 1e6:.2f} litres and at most "
            f"{area.max() / 100:.0f} cm² in an axial slice; expected a head of at least 0.3 litres "
            "and 40 cm²."
        )
    last = int(np.flatnonzero(area >= TOP_AREA_MM2)[-1])
    above = area[last + 1] if last + 1 < len(area) else 0.0
    top = last + (area[last] - TOP_AREA_MM2) / max(area[last] - above, 1.0)
    depth = (top - np.arange(len(area))) * spacing[2]
    slab = mask & ((depth >= SLAB_MM[0]) & (depth <= SLAB_MM[1]))
    slab = slab if slab.any() else mask
    index = np.nonzero(slab)
    centre = [float(index[axis].mean() * spacing[axis] + offset[axis]) for axis in (0, 1)]
    spread = [float(index[axis].std() * spacing[axis]) for axis in (0, 1)]
    return HeadPlace(
        centre_mm=tuple(centre),
        top_mm=float(top * spacing[2] + offset[2]),
        spread_mm=tuple(spread),
        stripped=_is_stripped(array, mask, depth, spacing),
        mask=mask,
        side_mm=spacing,
    )


def head_mask(array: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """Mark the head in (I, J, K): half of Otsu's threshold, the largest piece, its holes filled.

    RAS axes; voxels of 4 to 8 mm are enough. `iqms.foreground.hull_mask` is another, of hulls.
    """
    bright = np.percentile(array, 99.5)
    mask = array > 0.5 * _otsu_edge(np.minimum(array, bright))
    opened = ndimage.binary_opening(mask)
    pieces, n_pieces = ndimage.label(opened if opened.any() else mask)
    if n_pieces > 1:
        mask = pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
    elif n_pieces:
        mask = pieces == 1
    n_close = max(1, round(8 / float(np.mean(spacing_mm))))
    padded = np.pad(mask, n_close)
    inner = (slice(n_close, -n_close),) * 3
    mask = ndimage.binary_closing(padded, iterations=n_close)[inner]
    # skull and sinuses: close every axial slice against its own outside
    for plane in range(mask.shape[2]):
        mask[:, :, plane] = ndimage.binary_fill_holes(mask[:, :, plane])
    return mask


def air_at_zero(volume):
    """Shift the intensities of a volume whose air does not lie at zero; others pass as they are.

    Z-scored scans have it below zero, as have those with an offset of -1024, or above with one of
    +1000. The darkest of the outermost voxels but for a few is where zero was.
    """
    array = array3(volume)
    bright = float(np.percentile(array, BRIGHT_PERCENT))
    around = _faces(array)
    if np.median(around) >= -AIR_LIMIT * bright and array.min() <= AIR_LIMIT * bright:
        return volume
    return array - np.float32(np.percentile(around, 1))


def has_noise_for_air(volume) -> bool:
    """Whether the outermost voxels are as bright and dark as the head, as in uniform MP2RAGE."""
    array = array3(volume)
    low, high = np.percentile(array[::2, ::2, ::2], [100 - BRIGHT_PERCENT, BRIGHT_PERCENT])
    quarters = np.percentile(_faces(array), [25, 75])
    return bool(quarters[1] - quarters[0] > NOISY_AIR * (high - low))


def _faces(array: np.ndarray) -> np.ndarray:
    """Outermost voxels of (I, J, K)."""
    faces = [np.take(array, place, axis).ravel() for axis in range(3) for place in (0, -1)]
    return np.concatenate(faces)


def coarse(array: np.ndarray, spacing: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Average (I, J, K) over blocks of about 6 mm, float32; also their spacing and first place."""
    block = np.maximum(1, np.floor(6.0 / spacing + 1e-6).astype(int))
    block = np.minimum(block, array.shape)
    count = np.array(array.shape) // block
    kept = array[tuple(slice(0, n * b) for n, b in zip(count, block, strict=True))]
    for axis in (2, 1, 0):
        shape = (*kept.shape[:axis], count[axis], block[axis], *kept.shape[axis + 1 :])
        kept = kept.reshape(shape).mean(axis=axis + 1, dtype=np.float32)
    return kept, spacing * block, (block - 1) / 2 * spacing


def _otsu_edge(values: np.ndarray, *, n_bins: int = 128) -> float:
    """Upper edge of the last bin of the lower class of Otsu 1979 (`iqms` takes its centre)."""
    counts, edges = np.histogram(values, n_bins)
    middle = (edges[1:] + edges[:-1]) / 2
    low = counts.cumsum()[:-1].astype(np.float64)
    high = counts.sum() - low
    total = (counts * middle).cumsum()
    inside = (low > 0) & (high > 0)
    between = np.zeros(n_bins - 1)
    gap = total[:-1][inside] / low[inside] - (total[-1] - total[:-1][inside]) / high[inside]
    between[inside] = gap**2 * low[inside] * high[inside]
    return float(edges[1 + int(between.argmax())])


def _is_stripped(array, mask, depth, spacing) -> bool:
    """Tell a stripped brain from a whole head; see `find_head`."""
    slab = (depth >= 0) & (depth < 70)
    bright = np.percentile(array, 99.5)
    outside = ~ndimage.binary_dilation(mask, iterations=2)[:, :, slab]
    around = array[:, :, slab][outside]
    if not len(around) or (around > 1e-3 * bright).mean() > LEAST_AROUND:
        return False
    inside = np.pad(mask, ((1, 1), (1, 1), (0, 1)))
    deep = ndimage.distance_transform_edt(inside, sampling=spacing)[1:-1, 1:-1, :-1][:, :, slab]
    values = array[:, :, slab]
    shell, core = values[(deep > 7) & (deep <= 14)], values[(deep > 20) & (deep < 35)]
    if not len(shell) or not len(core):
        return False
    return bool(np.percentile(shell, 25) > SKULL_LIMIT * np.median(core))
