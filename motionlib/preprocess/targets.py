"""The name of a target goes in; a head in MNI space that others are registered to comes out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from motionlib.preprocess.grid import Grid, resample
from motionlib.preprocess.images import read_array

TARGET_SPACING_MM = 2.0
MAP_NAME = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
# Shells around the brain: outer edge in mm, intensity in units of the map's white matter.
SHELLS = ((2.5, 0.25), (7.5, 0.08), (12.0, 0.75))
CORE_MM = 2.0  # beyond it scalps differ too much to guide the affine; see `register`
SKULL_BASE_MM = -45.0  # below it the shells would run through the face and the neck


@dataclass(frozen=True)
class Target:
    """What heads are registered to.

    Attributes
    ----------
    name : str
        ``whole-head``, ``stripped`` or the file's name.
    array : ndarray, shape (I, J, K), float32
        Intensities on `affine`, 2 mm.
    affine : ndarray, shape (4, 4)
        Voxel indices to MNI mm (RAS).
    region : ndarray of bool, shape (I, J, K)
        Where starting angles and sizes are compared: the brain and its surroundings.
    core : ndarray of bool, shape (I, J, K)
        Where the two are compared from then on: of a whole head the brain and 2 mm around it; of a
        stripped one `region`.
    brain : ndarray of bool, shape (I, J, K)
        The MNI152 brain.
    head : ndarray of bool, shape (I, J, K)
        All that stands out from the air: the brain, or the head down to the skull base.
    """

    name: str
    array: np.ndarray
    affine: np.ndarray
    region: np.ndarray
    core: np.ndarray
    brain: np.ndarray
    head: np.ndarray


@lru_cache(maxsize=4)
def load_target(kind: str) -> Target:
    """Build the target ``whole-head`` or ``stripped``, or read a template file.

    Parameters
    ----------
    kind : str
        One of the two names, or the path of a template in MNI152 space, for instance Clinica's
        ``mni_icbm152_t1_tal_nlin_sym_09c.nii``.

    Returns
    -------
    Target

    Notes
    -----
    Source: the MNI152 2009a map in nilearn's wheel, which is skull-stripped. The whole head adds
    shells of fluid, skull and scalp around it; measured (`preprocessing`), whole heads registered
    to the stripped map can be 12 mm off, to a whole head 0.3 mm.
    """
    from scipy import ndimage

    shape = (97, 117, 105)
    affine = np.diag([TARGET_SPACING_MM] * 3 + [1.0])
    affine[:3, 3] = (-96.0, -134.0, -100.0)
    grid = Grid(shape, tuple(map(tuple, affine.tolist())))
    brain_map = resample(*_mni_map(), grid)
    brain = ndimage.binary_fill_holes(
        ndimage.binary_closing(brain_map > 0.15 * brain_map.max(), iterations=4)
    )
    outside = ndimage.distance_transform_edt(~brain, sampling=TARGET_SPACING_MM)
    region = outside <= SHELLS[-1][0] + 4
    white = float(np.percentile(brain_map[brain], 90))
    height = affine[2, 3] + TARGET_SPACING_MM * np.arange(shape[2])
    if kind == "stripped":
        return Target(kind, brain_map, affine, outside <= 8, outside <= 8, brain, brain)
    skull = (outside <= SHELLS[-1][0]) & (height[None, None] > SKULL_BASE_MM) | brain
    if kind != "whole-head":
        other = resample(*read_array(kind), grid)
        return Target(Path(kind).name, other, affine, region, outside <= CORE_MM, brain, skull)
    head, inner = brain_map.copy(), 0.0
    for outer, level in SHELLS:
        shell = (outside > inner) & (outside <= outer) & (height > SKULL_BASE_MM)
        head[shell] = level * white
        inner = outer
    head = ndimage.gaussian_filter(head, 0.5)
    region &= height > SKULL_BASE_MM - 15
    return Target(kind, head, affine, region, outside <= CORE_MM, brain, skull)


def _mni_map() -> tuple[np.ndarray, np.ndarray]:
    """Read the MNI152 T1 map, shape (197, 233, 189), and its affine."""
    import nilearn

    folder = Path(nilearn.__file__).parent / "datasets" / "data"
    if not (folder / MAP_NAME).is_file():
        raise FileNotFoundError(
            f"This nilearn has no {MAP_NAME}; install nilearn 0.12 or newer, or give template=."
        )
    return read_array(folder / MAP_NAME)
