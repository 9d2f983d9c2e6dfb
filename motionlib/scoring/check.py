"""The check before a score: refuse what the model cannot judge, remark on what it may misjudge.

Refused are voxels too coarse for the model's grid, maps of tissues, images without a head, heads
that the field of view cuts, and contrasts other than T1w. A head without skull, or one that stands
out poorly, is scored with a remark.

The limits were set on the scans that they are judged on here: of 196 real heads (IXI, ds000011,
ds002748) none is refused, nor are 15 of them moved by 6 to 8 mm; of the virtual warehouse's rejects
all 126 cut, slab-like or segmented ones are, and 30 of 43 of another contrast (15 of 15 real heads
with exchanged contrast). No real image of another contrast was at hand.
"""

import itertools
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from motionlib.preprocess.grid import centre_on_grid, resample_to_grid, study_grid
from motionlib.preprocess.head import HeadPlace, find_head

LEAST_EXTENT_MM = (110.0, 140.0, 115.0)  # real, stripped ones too: from 126, 156 and 120 mm
LEAST_WHOLE_HEIGHT_MM = 140.0  # of heads with their skull; real: from 192 mm
CUT_SHARE = 0.45  # of the widest section, in the field's outermost plane; real: up to 0.12
CUT_SHARE_BELOW = 0.8  # where the neck leaves the field; real: up to 0.64
FULL = 0.9  # of the widest section, in all six outermost planes: the mask has no shape
LITRES = (1.5, 6.5)  # of whole heads; real: 2.3 to 4.1
LEAST_LEVELS = 32  # distinct intensities; real, uint8: from 116; a map of tissues has a handful
LEAST_BALANCE = -0.13  # best plus worst correlation with the template; real: from -0.07
COARSEST, COARSER = 2.0, 1.25  # voxels in units of the model's: refused; left to a person
TEMPLATE_MM = 4.0
LOCAL_MM = 20.0  # structure is what differs from the mean about it, so that bias does not count
INSIDE_MM = 8.0  # of the brain's surface
EVERY = 3  # voxels compared
TEMPLATE_GRIDS = {  # of MNI152 space: voxels, and where the first lies in mm (RAS)
    (169, 208, 179): (-84, -119, -78),  # t1-linear
    **dict.fromkeys([(193, 229, 193), (97, 115, 97)], (-96, -132, -78)),  # 2009c
    **dict.fromkeys([(182, 218, 182), (91, 109, 91)], (-90, -126, -72)),  # FSL
    (197, 233, 189): (-98, -134, -72),  # 2009a
    **dict.fromkeys([(157, 189, 156), (79, 95, 79)], (-78, -112, -70)),  # SPM
    (121, 145, 121): (-90, -126, -72),  # CAT12
    (113, 137, 113): (-84, -120, -72),
}
SHIFTS = list(itertools.product((-2, -1, 0, 1, 2), repeat=3))  # in template voxels


@dataclass(frozen=True)
class Check:
    """Why a scan should not be scored, or what to know about its score; empty if nothing."""

    fault: str = ""
    note: str = ""
    stripped: bool = False  # of skull and scalp
    registered: bool = False  # to a template, which enlarges the head and smooths it
    axis: int | None = None  # across which its planes lie, of a slab or a 2-D protocol
    head: HeadPlace | None = field(default=None, repr=False, compare=False)


def check_scan(array: np.ndarray, affine, *, spacing_mm: float, knows_stripped: bool) -> Check:
    """Look for what makes a score worthless: cut heads, other contrasts, maps, coarse voxels.

    `array`, (I, J, K), holds RAS intensities; `spacing_mm` is the voxel size of the model's grid,
    `knows_stripped` whether it has seen heads without skull.
    """
    # Voxels and intensities, which need no head to be found.
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
    # A whole head, of the right size.
    try:
        head = find_head(array, affine)
    except ValueError as error:
        return Check(f"no head is found: {str(error)[0].lower()}{str(error)[1:].rstrip('.')}")
    litres = float(head.mask.sum() * head.side_mm.prod() / 1e6)
    cut = _cut(head.mask, head.side_mm, litres, head.stripped)
    if cut:
        return Check(cut)
    # The contrast, on the template's grid.
    if not _is_t1w(centre_on_grid(array, affine, study_grid(TEMPLATE_MM), place=head)):
        return Check("its contrast is not that of a T1w head: bright and dark tissue are exchanged")
    notes = []
    if side.max() > COARSER * spacing_mm:  # a still head of 4 mm scores nearly as a moved one
        notes.append(
            f"its voxels of {side.max():.3g} mm are coarser than the model's {spacing_mm:g}"
        )
    if head.stripped and not knows_stripped:
        notes.append("the skull is removed, and the model was not trained on such heads")
    if litres > LITRES[1] or (litres < LITRES[0] and not head.stripped):
        notes.append(
            f"the head stands out poorly ({litres:.1f} litres found), so its place is uncertain"
        )
    place = TEMPLATE_GRIDS.get(array.shape, (np.inf,) * 3)
    registered = bool(np.abs(np.asarray(affine)[:3, 3] - place).max() <= side.max())
    return Check("", "; ".join(notes), head.stripped, registered, head=head)


def check_planes(array: np.ndarray, affine, *, spacing_mm: float) -> Check | None:
    """Tell a slab, the thick planes of a 2-D protocol, or one plane; None for any other scan.

    Exactly one axis is shorter than a head, or has voxels too coarse for the grid of `spacing_mm`.
    Neither the head's place nor its contrast is known, so a person has to look at the score.
    """
    side = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
    extent = np.array(array.shape) * side
    odd = (extent < LEAST_EXTENT_MM) | (side > COARSEST * spacing_mm)
    if odd.sum() != 1:
        return None
    axis = int(np.flatnonzero(odd)[0])
    what = f"planes of {side[axis]:.3g} mm" if side[axis] > COARSEST * spacing_mm else "a slab"
    words = ("left to right", "front to back", "top to bottom")[axis]
    return Check(
        note=f"it is {what}, {extent[axis]:.0f} mm from {words}, scored by these planes alone: "
        "neither its contrast nor the threshold was tried on such scans",
        axis=axis,
    )


def _cut(mask: np.ndarray, spacing: np.ndarray, litres: float, stripped: bool) -> str:
    """Say where the field of view cuts the head, or nothing."""
    least = list(LEAST_EXTENT_MM)
    if not stripped:
        least[2] = LEAST_WHOLE_HEIGHT_MM
    # Area of the head in each plane across each axis.
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
        # A whole head ends before the field does; the neck may leave it below. Where air is taken
        # for head (too many litres), only the lower end can be trusted.
        for end, name in zip((area[0], area[-1]), ends[axis], strict=True):
            limit = CUT_SHARE_BELOW if name == "bottom" else CUT_SHARE
            if end > limit * area.max() and (litres <= LITRES[1] or name == "bottom"):
                share = end / area.max()
                return (
                    f"the field of view cuts the head at the {name}: {share:.0%} of its widest "
                    "section lie in the outermost plane"
                )
    return ""


def _is_t1w(placed: np.ndarray) -> bool:
    """Whether bright and dark tissue of a head on the template's grid are where T1w has them.

    False only where it is plain; a contrast near to T1w passes. The head is only placed, so the
    MNI152 map is moved by up to 8 mm: T1w agrees better somewhere than it disagrees anywhere.
    """
    index, brain, values = _template()
    padded = np.pad(np.clip(_structure(placed, brain), -1, 1), 2)
    flat, width = np.ravel_multi_index(tuple((index + 2).T), padded.shape), padded.shape
    correlations = []
    for i, j, k in SHIFTS:
        seen = padded.ravel()[flat + ((i * width[1] + j) * width[2] + k)]
        spread = max(float(seen.std()), 1e-9)
        correlations.append(float(((seen - seen.mean()) * values).mean()) / spread)
    return max(correlations) + min(correlations) >= LEAST_BALANCE


def _structure(array: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """How much each voxel differs from the mean of the brain about it, as a share."""
    from scipy import ndimage

    sigma = LOCAL_MM / TEMPLATE_MM
    weight = ndimage.gaussian_filter(brain.astype(np.float32), sigma)
    mean = ndimage.gaussian_filter(array * brain, sigma) / np.maximum(weight, 1e-3)
    return array / np.maximum(mean, 1e-6) - 1


@lru_cache(maxsize=1)
def _template() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Voxels inside the template's brain, the brain, and the standardised structure there."""
    from scipy import ndimage

    from motionlib.preprocess.registration import load_target

    grid = study_grid(TEMPLATE_MM)
    target = load_target("whole-head")
    head = resample_to_grid(target.array, target.affine, grid)
    brain = resample_to_grid(target.brain.astype(np.float32), target.affine, grid) > 0.5
    inside = ndimage.binary_erosion(brain, iterations=round(INSIDE_MM / TEMPLATE_MM))
    values = _structure(head, brain)[inside]
    values = np.clip((values - values.mean()) / values.std(), -3, 3)[::EVERY]
    return np.argwhere(inside)[::EVERY], brain, values
