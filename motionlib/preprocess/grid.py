"""The voxels of a study: its grid, resampling to it, and placing a head there by shifts alone."""

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from motionlib.preprocess.head import HeadPlace, find_head
from motionlib.preprocess.images import array3

# Clinica's crop box: voxel centres x -84..84, y -119..88, z -78..100 mm at 1 mm.
BOX_SIZE_MM = (169, 208, 179)
BOX_CENTRE_MM = (0.0, -15.5, 11.0)

# Where `find_head` finds the MNI152 brain of nilearn; the scalp's top lies 10 mm above the brain's.
MNI_CENTRE_MM = (0.0, -18.7)
MNI_BRAIN_TOP_MM = 80.3
SCALP_MM = 10.0

BRIGHT_PERCENT = 99.5  # of the voxels on a grid: the head is scaled so that this is one
CEILING = 100.0  # brighter voxels are cut; float16 ends at 65,504


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a study lie."""

    shape: tuple[int, int, int]  # along right, anterior, superior
    affine: tuple[tuple[float, ...], ...]  # 4 rows of 4: voxel indices to mm

    @property
    def matrix(self) -> np.ndarray:
        """The affine as an array, shape (4, 4)."""
        return np.array(self.affine, dtype=np.float64)


def study_grid(spacing_mm: float = 1.0) -> Grid:
    """Grid of the study: Clinica's crop box at an isotropic voxel size of 0.25 to 20 mm.

    169x208x179 at 1 mm, with the origin at (-84, -119, -78); at other sizes as many voxels as cover
    the box, about the same centre (43x52x45 at 4 mm). ValueError for other sizes.
    Source: paper §III-B; Clinica's ``ref_cropped_template``.
    """
    if not 0.25 <= spacing_mm <= 20:
        raise ValueError(f"spacing_mm is {spacing_mm}; it must be between 0.25 and 20 mm.")
    shape = tuple(math.ceil(size / spacing_mm - 1e-9) for size in BOX_SIZE_MM)
    affine = np.diag([spacing_mm] * 3 + [1.0])
    affine[:3, 3] = np.array(BOX_CENTRE_MM) - (np.array(shape) - 1) / 2 * spacing_mm
    return Grid(shape, tuple(map(tuple, affine.tolist())))


def slab_grid(spacing_mm: float, slab_mm: float | None = None) -> Grid:
    """Study grid, or its middle sagittal planes: as many as span `slab_mm`, an odd number.

    `ValueError` if the slab is thinner than a voxel or wider than the grid.
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


def middle_planes(n_planes: int, grid: Grid) -> slice:
    """Planes of a whole grid that a slab of so many lies at, along the first axis.

    They follow each other in memory, so that a slab is read without the rest of the volume.
    """
    first = grid.shape[0] // 2 - n_planes // 2
    return slice(first, first + n_planes)


def resample_to_grid(volume, affine, grid: Grid, *, antialias: bool = True) -> np.ndarray:
    """Sample a volume, (1, I, J, K) or (I, J, K), at the voxels of a grid, linearly; float32.

    `affine` leads from voxel indices of `volume` to mm; it is zero where the volume does not reach.
    `antialias` averages over the new voxel where it is larger than the old one.
    """
    array = array3(volume).astype(np.float32, copy=False)
    to_voxel = np.linalg.inv(np.asarray(affine, dtype=np.float64)) @ grid.matrix
    step = np.linalg.norm(to_voxel[:3, :3], axis=1)  # old voxels per new voxel, by old axis
    straight = np.allclose(to_voxel[:3, :3], np.diag(np.diag(to_voxel[:3, :3])), atol=1e-4)
    if straight:
        return _separable(array, np.diag(to_voxel)[:3], to_voxel[:3, 3], grid.shape, antialias)
    if antialias:
        # a Gaussian with the variance of the triangle that `_separable` averages over
        sigma = np.sqrt(np.maximum(step**2 - 1, 0) / 6)
        array = ndimage.gaussian_filter(array, sigma, mode="nearest", truncate=3.0)
    return ndimage.affine_transform(
        array, to_voxel[:3, :3], to_voxel[:3, 3], grid.shape, order=1, mode="constant"
    )


def _separable(array, step, start, shape, antialias) -> np.ndarray:
    """Resample axis by axis, the axis that shrinks most first."""
    for axis in np.argsort([new / old for new, old in zip(shape, array.shape, strict=True)]):
        wide = max(1.0, abs(step[axis])) if antialias else 1.0
        position = start[axis] + step[axis] * np.arange(shape[axis])
        distance = np.abs(position[:, None] - np.arange(array.shape[axis]))
        weight = np.maximum(0, 1 - distance / wide)  # (new, old) triangle
        whole = _triangle_sum(position, wide)
        weight = (weight / whole[:, None]).astype(np.float32)
        array = np.moveaxis(np.tensordot(weight, array, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(array)


def _triangle_sum(position: np.ndarray, wide: float) -> np.ndarray:
    """Sum of the triangle's weights on an endless line of voxels, per position."""
    reach = np.arange(-math.ceil(wide) - 1, math.ceil(wide) + 2)
    distance = np.abs((position - np.floor(position))[:, None] - reach)
    return np.maximum(0, 1 - distance / wide).sum(axis=1)


def centre_on_grid(volume, affine, grid: Grid, *, place: HeadPlace | None = None) -> np.ndarray:
    """Place a head where the MNI head lies, without registration, and resample it; float32.

    The volume, (1, I, J, K) or (I, J, K), is RAS (as `images.load_volume` gives it) with voxels of
    0.5 to 6 mm, which `affine` leads to mm; `grid` is for instance ``study_grid(4.0)``. It is
    averaged over the new voxels where they are larger (no aliasing). The head is looked for unless
    its `place` is given; ValueError if none is found.
    Departs from the paper: shifts only, for studies at 3 to 4 mm; ``preprocess.t1_linear`` is the
    paper's affine registration.
    """
    array = array3(volume)
    place = place or find_head(array, affine)
    spacing = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
    top = MNI_BRAIN_TOP_MM + (0.0 if place.stripped else SCALP_MM)
    placed = np.diag([*spacing, 1.0])
    placed[:3, 3] = np.array([*MNI_CENTRE_MM, top]) - np.array([*place.centre_mm, place.top_mm])
    return resample_to_grid(array, placed, grid)


def place_on_grid(volume, affine, grid: Grid, *, place: HeadPlace | None = None) -> np.ndarray:
    """Centre a head by `centre_on_grid` and scale it by `scaled_to_one`; errors as there."""
    return scaled_to_one(centre_on_grid(volume, affine, grid, place=place))


def scaled_to_one(array: np.ndarray) -> np.ndarray:
    """Scale a head by its brightest voxels to about one; float16, not negative.

    ValueError if nothing is bright.
    """
    array = np.clip(array, 0, None)
    top = float(np.percentile(array, BRIGHT_PERCENT))  # but for a few, such as vessels
    if not top > 0:
        raise ValueError("the scan is empty after centring; expected a head")
    return np.minimum(array / top, CEILING).astype(np.float16)
