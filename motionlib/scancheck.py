"""A scan goes in; why it should not be scored, and what to know about its score, come out.

The limits were set on 860 usable scans and 169 rejects and are judged on the same ones: of 196
real heads (IXI, ds000011, ds002748) and 664 virtual ones up to the heaviest motion none is
refused; of the virtual rejects all 126 cut, slab-like or segmented ones are, and 24 of 43 of
another contrast.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from motionlib.grids import centre_on_grid, resample, study_grid
from motionlib.headfinder import coarse, find_head, head_mask

LEAST_EXTENT_MM = (110.0, 140.0, 115.0)  # real, stripped ones too: from 126, 156 and 120 mm
LEAST_WHOLE_HEIGHT_MM = 140.0  # of heads with their skull; real: from 192 mm
CUT_SHARE = 0.45  # of the widest section, in the field's outermost plane; real: up to 0.12
CUT_SHARE_BELOW = 0.8  # where the neck leaves the field; real: up to 0.64
FULL = 0.9  # of the widest section, in all six outermost planes: the mask has no shape
LITRES = (1.5, 6.5)  # of whole heads; real: 2.3 to 4.1
LEAST_LEVELS = 32  # distinct intensities; real, uint8: from 116; a map of tissues has a handful
LEAST_BALANCE = -0.2  # best plus worst correlation with the template's brain; real: from -0.12
LEAST_CORRELATION = -0.3  # worst correlation, brain with its rim; real: from 0.05
COARSEST = 2.0  # largest voxel in units of the model's; virtual warehouse: up to 1.7
TEMPLATE_MM = 8.0
SHIFTS = list(itertools.product((-2, -1, 0, 1, 2), repeat=3))  # in template voxels


@dataclass(frozen=True)
class Check:
    """What was found about a scan.

    Attributes
    ----------
    fault : str
        Why it should not be scored, one clause; empty if it can be.
    note : str
        What to know about its score; empty if nothing.
    """

    fault: str = ""
    note: str = ""


def check_scan(array: np.ndarray, affine, *, spacing_mm: float, knows_stripped: bool) -> Check:
    """Look for what makes a score worthless: cut heads, other contrasts, maps, coarse voxels.

    Parameters
    ----------
    array : ndarray, shape (I, J, K)
        RAS intensities.
    affine : array-like, shape (4, 4)
        Voxel indices to mm.
    spacing_mm : float
        Voxel size of the model's grid.
    knows_stripped : bool
        Whether the model has seen heads without skull.

    Returns
    -------
    Check
    """
    side = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
    if side.max() > COARSEST * spacing_mm:
        return Check(
            f"its voxels of {side.max():.3g} mm are too coarse for the model's grid of "
            f"{spacing_mm:g} mm"
        )
    levels = len(np.unique(array[::3, ::3, ::3]))
    if levels < LEAST_LEVELS:
        return Check(
            f"it has {levels} distinct intensities, as a map of tissues has; expected a T1w image"
        )
    try:
        found = find_head(array, affine)
    except ValueError as error:
        return Check(f"no head is found: {str(error)[0].lower()}{str(error)[1:].rstrip('.')}")
    small, spacing, _ = coarse(array, side)
    mask = head_mask(small, spacing)
    litres = float(mask.sum() * spacing.prod() / 1e6)
    cut = _cut(mask, spacing, litres, found.stripped)
    if cut:
        return Check(cut)
    if not is_t1w(centre_on_grid(array, affine, study_grid(TEMPLATE_MM))):
        return Check("its contrast is not that of a T1w head: bright and dark tissue are exchanged")
    notes = []
    if found.stripped and not knows_stripped:
        notes.append("the skull is removed, and the model was not trained on such heads")
    if litres > LITRES[1] or (litres < LITRES[0] and not found.stripped):
        notes.append(
            f"the head stands out poorly ({litres:.1f} litres found), so its place is uncertain"
        )
    return Check(note="; ".join(notes))


def _cut(mask: np.ndarray, spacing: np.ndarray, litres: float, stripped: bool) -> str:
    """Say where the field of view cuts the head, or nothing."""
    least = list(LEAST_EXTENT_MM)
    if not stripped:
        least[2] = LEAST_WHOLE_HEIGHT_MM
    sections = [mask.sum(axis=tuple(o for o in range(3) if o != axis)) for axis in range(3)]
    if min(min(area[0], area[-1]) / max(area.max(), 1) for area in sections) > FULL:
        return "no head stands out from its surroundings: the whole field of view is alike"
    names = ("right to left", "front to back", "top to bottom")
    ends = (("left", "right"), ("back", "front"), ("bottom", "top"))
    for axis in range(3):
        area = sections[axis]
        inside = np.flatnonzero(area)
        extent_mm = (inside[-1] - inside[0] + 1) * spacing[axis]
        if extent_mm < least[axis]:
            return (
                f"the head measures {extent_mm:.0f} mm from {names[axis]}, expected at least "
                f"{least[axis]:.0f} mm: it is cut by the field of view or its voxel size is wrong"
            )
        for end, name in zip((area[0], area[-1]), ends[axis], strict=True):
            limit = CUT_SHARE_BELOW if name == "bottom" else CUT_SHARE
            if end > limit * area.max() and (litres <= LITRES[1] or name == "bottom"):
                share = end / area.max()
                return (
                    f"the field of view cuts the head at the {name}: {share:.0%} of its widest "
                    "section lie in the outermost plane"
                )
    return ""


def is_t1w(placed: np.ndarray) -> bool:
    """Tell by the MNI152 map whether bright and dark tissue are where a T1w image has them.

    Parameters
    ----------
    placed : ndarray
        On ``study_grid(TEMPLATE_MM)``.

    Returns
    -------
    bool
        False only where it is plain; a contrast near to T1w passes.

    Notes
    -----
    The head is only placed, so the template is moved by up to 16 mm each way. A T1w brain agrees
    with it better somewhere than it ever disagrees.
    """
    padded = np.pad(placed, 2)
    worst = {}
    for name, (index, values) in _template().items():
        at = [padded[tuple((index + 2 + np.array(shift)).T)] for shift in SHIFTS]
        seen = np.array(at, dtype=np.float64)
        seen -= seen.mean(axis=1, keepdims=True)
        spread = seen.std(axis=1)
        correlation = (seen @ values) / len(values) / np.maximum(spread, 1e-12)
        worst[name] = (float(correlation.max()), float(correlation.min()))
    balance = sum(worst["inner"])
    return balance >= LEAST_BALANCE and worst["brain"][1] >= LEAST_CORRELATION


@lru_cache(maxsize=1)
def _template() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Voxels of the template's brain with and without its rim, and their standardised values."""
    from scipy import ndimage

    from motionlib.targets import load_target

    grid = study_grid(TEMPLATE_MM)
    target = load_target("whole-head")
    head = resample(target.array, target.affine, grid)
    brain = resample(target.brain.astype(np.float32), target.affine, grid) > 0.5
    found = {}
    for name, region in (("brain", brain), ("inner", ndimage.binary_erosion(brain))):
        values = head[region].astype(np.float64)
        found[name] = (np.argwhere(region), (values - values.mean()) / values.std())
    return found
