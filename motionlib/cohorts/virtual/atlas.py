"""The standard head: tissue maps of the MNI152 brain, distances to the surfaces around it."""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from scipy import ndimage

from motionlib.preprocess.images import read_mni_map

# Two tissue probabilities and the T1 texture (a factor near 1); then signed distances to surfaces
# in mm, negative inside.
CHANNELS = (
    *("grey", "white", "texture"),
    *("hull", "ventricle", "dura", "vessel", "face", "bone", "airway", "eye", "orbit"),
)
_LOW_MM, _HIGH_MM = np.array([-104, -138, -168]), np.array([104, 130, 112])
_FAR_MM = 40.0  # distances are not followed further
_TUBES_MM = {  # radius, then the polyline's points in MNI space
    "vessel": [
        (2.5, [(22, -14, -56), (14, -2, -32), (13, 2, -12)]),  # internal carotid
        (2.0, [(13, 2, -12), (30, 4, -14), (48, -8, 2)]),  # middle cerebral
        (2.0, [(0, -20, -55), (0, -20, -18)]),  # basilar
        (1.8, [(6, 4, -10), (2, 30, 8), (2, 22, 32)]),  # anterior cerebral
        (2.5, [(2, -40, 2), (1, -75, -12)]),  # straight sinus
        (4.0, [(4, -92, -10), (40, -82, -24), (58, -48, -32), (48, -42, -58)]),  # transverse
        (3.0, [(30, -22, -64), (38, -26, -100), (36, -14, -160)]),  # jugular vein and carotid
        (3.0, [(24, -34, 12), (18, -18, 16)]),  # choroid plexus
    ],
    "bone": [
        (8.0, [(52, -8, -52), (54, 8, -92), (32, 50, -116), (0, 64, -120)]),  # mandible
        (7.0, [(38, 42, -72), (14, 68, -78), (0, 72, -80)]),  # upper jaw
        (4.0, [(62, 4, -48), (56, 40, -44)]),  # cheek bone
        (16.0, [(0, -24, -74), (0, -30, -100), (0, -38, -168)]),  # vertebrae
    ],
    "airway": [
        (7.0, [(0, 68, -50), (0, 40, -52), (0, 14, -66)]),  # nose
        (6.0, [(0, 12, -66), (0, 6, -104), (0, 4, -168)]),  # throat
        (9.0, [(26, 46, -60), (24, 36, -56)]),  # maxillary sinus
        (5.0, [(6, 66, 2), (12, 67, 4)]),  # frontal sinus
        (5.0, [(52, -22, -36), (56, -30, -42)]),  # mastoid
    ],
    "eye": [(11.5, [(32, 54, -34), (32, 55, -34)])],
    "orbit": [(17.0, [(32, 52, -34), (27, 34, -33)])],
    "cord": [(9.0, [(0, -38, -64), (0, -44, -100), (0, -52, -168)])],
    "cord_white": [(5.0, [(0, -38, -64), (0, -44, -100), (0, -52, -168)])],
}
_FACE_MM = [  # centre, radii of ellipsoids
    ((0, -28, -110), (58, 66, 96)),  # neck
    ((0, 28, -56), (66, 66, 66)),  # face
    ((0, 44, -96), (46, 44, 36)),  # jaw
    ((0, 92, -58), (13, 18, 22)),  # nose
    ((78, -18, -34), (7, 12, 22)),  # ear
    ((-78, -18, -34), (7, 12, 22)),
]


@dataclass(frozen=True)
class Atlas:
    """Maps of a standard head, sampled together; axes are R, A, S."""

    maps: np.ndarray  # (I, J, K, 12) float32, `CHANNELS` on the last axis
    spacing_mm: float  # edge of a voxel
    origin_mm: np.ndarray  # (3,) MNI position of voxel (0, 0, 0)
    white_sites_mm: np.ndarray  # (N, 3) in periventricular white matter, for lesions
    lobe_sites_mm: np.ndarray  # (N, 3) deep in a lobe, for tumours


@lru_cache(maxsize=2)
def build_atlas(spacing_mm: float = 2.0) -> Atlas:
    """Build the maps, voxel edge 1 to 4 mm (about 100 MB at 2 mm), once a process.

    Brain: the MNI152 2009a symmetric maps (grey, white, T1) in nilearn's wheel, a brain without
    skull. Skull and scalp are shells around the closed brain, drawn per patient by
    `anatomy.compose`; face, neck, vessels and cavities are ellipsoids and tubes.
    """
    if not 1 <= spacing_mm <= 4:
        raise ValueError(f"Atlas spacing {spacing_mm} mm: give a value from 1 to 4 mm.")
    # 1. tissue probabilities on the atlas grid, which reaches down to the neck
    shape = tuple(int(n) for n in (_HIGH_MM - _LOW_MM) // spacing_mm + 1)
    t1, grey, white = _templates(spacing_mm, shape)
    axes = [
        (low + spacing_mm * np.arange(n)).astype(np.float32)
        for low, n in zip(_LOW_MM, shape, strict=True)
    ]
    grid = np.meshgrid(*axes, indexing="ij", sparse=True)
    x, y, z = grid
    total = np.maximum(1, (grey + white) / 255)
    grey, white = grey / 255 / total, white / 255 / total
    # 2. surfaces: the closed brain with its cord, and the ventricles
    brain = (t1 > 60) | (grey + white > 0.5)
    brain = ndimage.binary_opening(brain, iterations=max(1, round(3 / spacing_mm)))
    cord = _tubes("cord", grid)
    hull = np.minimum(_hull(brain, spacing_mm), cord)
    white = np.maximum(white, np.clip(0.5 - _tubes("cord_white", grid) / 2, 0, 1) * (z < -66))
    csf = np.clip(1 - grey - white, 0, 1)
    ventricle = _ventricle(csf, hull, grid, spacing_mm)
    # 3. dura and sinuses: thin sheets in the midline and around the hull
    falx = np.maximum(np.abs(x) - 0.8, np.hypot(y + 20, (z - 4)) * -1 + 52)
    falx = np.maximum(np.maximum(falx, -(z - 2)), hull)
    tentorium = np.abs(hull + 0.5) - 0.8
    sinus = np.maximum(np.abs(x) - 3.5, np.abs(hull + 1.5) - 3.0)
    sinus = np.maximum(sinus, np.minimum(-(z + 10), 40) * (y < 60) + 40 * (y >= 60))
    # 4. texture: what the T1 map shows beyond what the tissue maps predict
    predicted = 70 * csf + 165 * grey + 225 * white
    texture = np.where(t1 > 60, t1 / np.maximum(predicted, 50), 1.0)
    channels = {
        "grey": grey,
        "white": white,
        "texture": np.clip(texture, 0.75, 1.2),
        "hull": hull,
        "ventricle": ventricle,
        "dura": np.minimum(falx, tentorium),
        "vessel": np.minimum(_tubes("vessel", grid), sinus),
        "face": _face(grid),
    }
    channels |= {name: _tubes(name, grid) for name in ("bone", "airway", "eye", "orbit")}
    maps = np.stack([channels[name] for name in CHANNELS], axis=-1)
    maps = np.clip(maps, -_FAR_MM, _FAR_MM).astype(np.float32)
    # 5. where lesions and tumours may lie
    near = (white > 0.8) & (ventricle > 3) & (ventricle < 22) & (z > -20)
    lobes = (white > 0.4) & (hull < -16) & (hull > -34) & (ventricle > 10) & (z > -25)
    sites = [np.argwhere(m) * spacing_mm + _LOW_MM for m in (near, lobes & (np.abs(x) > 18))]
    return Atlas(maps, float(spacing_mm), _LOW_MM.astype(np.float32), *sites)


def _templates(spacing_mm, shape):
    """T1, grey and white maps on the atlas grid, three arrays (I, J, K)."""
    for kind in ("t1", "gm", "wm"):
        data, affine = read_mni_map(kind)
        if spacing_mm > 1:
            data = ndimage.gaussian_filter(data, 0.3 * spacing_mm, truncate=3)
        offset = _LOW_MM - affine[:3, 3]
        yield ndimage.affine_transform(
            data, np.full(3, spacing_mm), offset=offset, output_shape=shape, order=1
        )


def _distance(mask, spacing_mm):
    """Signed distance to the border of a mask in mm, negative inside, (I, J, K)."""
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing_mm)
    inside = ndimage.distance_transform_edt(mask, sampling=spacing_mm)
    return (outside - inside).astype(np.float32)


def _hull(brain, spacing_mm):
    """Smooth signed distance to the closed brain, found on every second voxel, (I, J, K)."""
    coarse = _distance(brain[::2, ::2, ::2], 2 * spacing_mm)
    coarse = _distance(_distance(coarse < 14, 2 * spacing_mm) < -14, 2 * spacing_mm)
    coarse = ndimage.gaussian_filter(coarse, 0.8)
    return ndimage.affine_transform(coarse, np.full(3, 0.5), output_shape=brain.shape, order=1)


def _ventricle(csf, hull, grid, spacing_mm):
    """Signed distance to the largest pool of fluid deep inside the brain, (I, J, K)."""
    x, y, z = grid
    deep = (np.abs(x) < 40) & (y > -70) & (y < 42) & (z > -22) & (z < 40) & (hull < -14)
    components, _ = ndimage.label((csf > 0.5) & deep)
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    mask = components == sizes.argmax()
    box = tuple(
        slice(max(0, s.start - int(30 / spacing_mm)), s.stop + int(30 / spacing_mm))
        for s in ndimage.find_objects(mask.astype(np.int8))[0]
    )
    distance = np.full(csf.shape, _FAR_MM, np.float32)
    distance[box] = _distance(mask[box], spacing_mm)
    return distance


def _tubes(name, grid):
    """Signed distance to some mirrored polylines, (I, J, K)."""
    x, y, z = np.abs(grid[0]), grid[1], grid[2]
    shape = np.broadcast_shapes(x.shape, y.shape, z.shape)
    best = np.full(shape, _FAR_MM, np.float32)
    for radius, points in _TUBES_MM[name]:
        for a, b in pairwise(points):
            d = [float(q - p) for p, q in zip(a, b, strict=True)]
            length = sum(v * v for v in d)
            along = ((x - a[0]) * d[0] + (y - a[1]) * d[1] + (z - a[2]) * d[2]) / length
            along = np.clip(along, 0, 1)
            square = (x - a[0] - along * d[0]) ** 2 + (y - a[1] - along * d[1]) ** 2
            square += (z - a[2] - along * d[2]) ** 2
            np.minimum(best, np.sqrt(square) - radius, out=best)
    return best


def _face(grid):
    """Signed distance, roughly, to the neck and face, (I, J, K)."""
    x, y, z = grid
    best = np.float32(_FAR_MM)
    for centre, radii in _FACE_MM:
        q = ((x - centre[0]) / radii[0]) ** 2 + ((y - centre[1]) / radii[1]) ** 2
        q = np.sqrt(q + ((z - centre[2]) / radii[2]) ** 2)
        best = np.minimum(best, (q - 1) * min(radii))
    return best.astype(np.float32)
