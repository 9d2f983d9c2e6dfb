"""One virtual patient: size, shape, folding and pathology of a head, and its tissues.

A patient is the standard head of `atlas`, deformed smoothly, folded differently, with ventricles
by age, and with lesions or a tumour; it stays the same at every visit.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import map_coordinates, spline_filter1d

from motionlib.cohorts.virtual.atlas import CHANNELS, build_atlas
from motionlib.cohorts.virtual.signal import TISSUES
from motionlib.compute.compiled import compiled

NODE_MM = 8.0  # of the deformation once interpolated
PATCH_MM = 4.0  # of the patient's own maps: folding, lesions, tumour
LOW_MM = np.array([-104.0, -138.0, -168.0])  # corner of the template's box
_SPAN_MM = np.array([208.0, 268.0, 280.0])
_KNOT_MM = 36.0  # of the random displacements
N_MAPS, N_PATCHES = len(CHANNELS), 6  # constants when compiled, so that loops are unrolled
HULL, FACE = CHANNELS.index("hull"), CHANNELS.index("face")
CHUNK = 32768  # voxels composed at a time
HULL_REACH_MM, FACE_REACH_MM = 28.0, 14.0  # thickest shells and the largest displacement


@dataclass(frozen=True)
class Anatomy:
    """What stays the same at every visit of one patient."""

    scale: np.ndarray  # (3,) head size against the template
    nodes_mm: np.ndarray  # (a, b, c, 3) smooth displacement into template space, every 8 mm
    # (p, q, r, 6) every 4 mm in template space: weights of fluid and of grey matter (folding), then
    # fractions of lesion, oedema, tumour core and enhancing rim
    patches: np.ndarray
    ventricle_mm: float  # growth of the ventricles
    skull_mm: float  # thickness, as the next
    scalp_mm: float
    t1_factor: np.ndarray = field(repr=False)  # (14,) the patient's T1 against the tables


def draw_anatomy(
    rng: np.random.Generator,
    *,
    age: float = 50.0,
    ventricle: float = 0.0,
    lesions: int = 0,
    enhancing: int = 0,
    tumour: bool = False,
    sex: str = "F",
) -> Anatomy:
    """Draw one patient from his own generator.

    Ventricles and sulci widen after the age of 40, the ventricles by another `ventricle` mm. Of the
    white-matter `lesions`, `enhancing` take up gadolinium. A `tumour` is one glioma: dark core, rim
    that enhances, oedema around it. Male heads are 3 % larger on average.
    """
    atlas = build_atlas()
    old = max(0.0, age - 40.0)
    scale = rng.normal(1.0, 0.035) * rng.normal(1.0, 0.022, 3) * (1.015 if sex == "M" else 0.985)
    knots = np.clip(rng.normal(0, 3.4, (*_count(_KNOT_MM), 3)), -8.0, 8.0)
    knots[..., 0] *= 0.8
    patches = _fold(rng, sulci=0.012 * old + rng.normal(0, 0.15))
    if lesions:
        _add_lesions(patches, atlas, rng, lesions, enhancing)
    if tumour:
        _add_tumour(patches, atlas, rng)
    return Anatomy(
        scale=np.clip(scale, 0.88, 1.12),
        nodes_mm=_smooth_zoom(knots, _count(NODE_MM)),
        patches=patches,
        ventricle_mm=float(np.clip(0.055 * old + rng.normal(0, 0.8) + ventricle, -1.0, 8.0)),
        skull_mm=float(rng.uniform(4.5, 8.0)),
        scalp_mm=float(rng.uniform(3.5, 8.5)),
        t1_factor=np.clip(rng.normal(1.0, 0.03, len(TISSUES)), 0.9, 1.1),
    )


@compiled(fastmath=True, error_model="numpy")
def sample_maps(
    shape, matrix, offset, nodes, low, node_mm, maps, maps_low, maps_mm, patches, patch_mm
):
    """Pull template and patient maps back to every voxel of a scanner's grid of `shape`.

    `matrix` (3, 3) and `offset` (3,) lead from voxel indices to the patient's axes at template
    size, mm. `nodes` (a, b, c, 3) is the displacement in mm on a grid that begins at `low` with
    steps of `node_mm`, `patches` the patient's own maps on one with steps of `patch_mm`; `maps`,
    `maps_low`, `maps_mm` are the atlas's. Returns the flat indices (M,) of the voxels in or near
    the head (all others are air) and the sampled channels (atlas's, then patient's; M), float32.
    """
    total = shape[0] * shape[1] * shape[2]
    index = np.empty(total, np.int64)
    out = np.empty((N_MAPS + N_PATCHES, total), np.float32)
    values = np.empty(N_MAPS + N_PATCHES, np.float32)  # contiguous: lets the loops vectorise
    m = 0
    for i in range(shape[0]):
        for j in range(shape[1]):
            for k in range(shape[2]):
                # 1. where the voxel lies in the undeformed template
                x = matrix[0, 0] * i + matrix[0, 1] * j + matrix[0, 2] * k + offset[0]
                y = matrix[1, 0] * i + matrix[1, 1] * j + matrix[1, 2] * k + offset[1]
                z = matrix[2, 0] * i + matrix[2, 1] * j + matrix[2, 2] * k + offset[2]
                a, b, c, p, q = _cell(maps.shape, maps_low, maps_mm, x, y, z)
                if maps[a, b, c, HULL] > HULL_REACH_MM and maps[a, b, c, FACE] > FACE_REACH_MM:
                    continue  # air, whatever the displacement
                # 2. displace it the patient's way
                d, e, f, p, q = _cell(nodes.shape, low, node_mm, x, y, z)
                x += _blend(nodes, d, e, f, p, q, 0)
                y += _blend(nodes, d, e, f, p, q, 1)
                z += _blend(nodes, d, e, f, p, q, 2)
                # 3. sample all maps there
                a, b, c, p, q = _cell(maps.shape, maps_low, maps_mm, x, y, z)
                for g in range(N_MAPS):
                    values[g] = _blend(maps, a, b, c, p, q, g)
                d, e, f, p, q = _cell(patches.shape, low, patch_mm, x, y, z)
                for g in range(N_PATCHES):
                    values[N_MAPS + g] = _blend(patches, d, e, f, p, q, g)
                for g in range(N_MAPS + N_PATCHES):
                    out[g, m] = values[g]
                index[m] = i * shape[1] * shape[2] + j * shape[2] + k
                m += 1
    return index[:m].copy(), out[:, :m]


def compose(
    sampled: np.ndarray,
    anatomy: Anatomy,
    width_mm: float,
    resected: bool = False,
    growth_mm: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Turn sampled maps and distances, (18, M) from `sample_maps`, into tissue fractions.

    Surfaces are blurred over about `width_mm`, the largest voxel edge (partial volume).
    `growth_mm` widens the ventricles at this visit; `resected` puts fluid in place of the tumour's
    core. Returns fractions (14, M), float32, that sum to 1 in the order of `signal.TISSUES`, and
    the brightness (M,) within a tissue, near 1.
    """
    voxels = sampled.shape[1]
    tissue, texture = np.empty((len(TISSUES), voxels), np.float32), np.empty(voxels, np.float32)
    for first in range(0, voxels, CHUNK):
        part = slice(first, first + CHUNK)
        found = _compose(sampled[:, part], anatomy, width_mm, resected, growth_mm)
        tissue[:, part], texture[part] = found
    return tissue, texture


def _compose(sampled, anatomy: Anatomy, width_mm: float, resected: bool, growth_mm: float):
    """Do as `compose` for voxels few enough for all that is in between to stay in the cache."""
    at = dict(zip(CHANNELS, sampled, strict=False))
    more_csf, more_grey, lesion, oedema, core, rim = sampled[len(CHANNELS) :]
    soft = max(2.0, width_mm)
    out = np.zeros((len(TISSUES), sampled.shape[1]), np.float32)
    row = {name: out[i] for i, name in enumerate(TISSUES)}

    # 1. brain: sharpen the average maps, fold them the patient's way, widen the ventricles
    brain = _inside(at["hull"], soft)
    grey, white = at["grey"], at["white"]
    csf = np.clip(1 - grey - white, 0.03, 1) ** 2 * more_csf
    grey, white = grey**2 * more_grey, white**2
    solid = 1 - _inside(at["ventricle"] - anatomy.ventricle_mm - growth_mm, soft)
    share = brain * solid / (csf + grey + white)
    kept = share
    if resected:
        cavity = np.clip(core + 0.7 * rim, 0, 1)
        core, rim, oedema = 0 * core, 0.4 * rim * (1 - cavity), oedema * (1 - cavity)
        kept = kept * (1 - cavity)
    brainy = (grey + white) * share
    for name, level in (("rim", rim), ("tumour", core), ("oedema", oedema), ("lesion", lesion)):
        row[name][:] = level * brainy
        brainy = brainy * (1 - level)
        kept = kept * (1 - level)
    row["grey"][:] = grey * kept
    row["white"][:] = white * kept
    row["csf"][:] = brain - out.sum(axis=0)

    # 2. skull, scalp, face: shells around the brain joined with ellipsoids
    outer = anatomy.skull_mm + 1.0
    head = _inside(
        np.minimum(at["hull"] - outer - anatomy.scalp_mm, at["face"] - 0.4 * anatomy.scalp_mm), soft
    )
    skull = np.maximum(_inside(at["hull"] - outer, soft), _inside(at["bone"], soft)) - brain
    skull = np.clip(skull, 0, 1)
    diploe = _inside(np.abs(at["hull"] - 1 - 0.5 * anatomy.skull_mm) - 0.2 * outer, soft)
    diploe = np.maximum(diploe, _inside(at["bone"] + 3.0, soft))
    row["marrow"][:] = 0.75 * skull * diploe
    row["bone"][:] = skull - row["marrow"]
    flesh = np.clip(head - brain - skull, 0, 1)
    orbit = _inside(at["orbit"], soft) * flesh
    eye = _inside(at["eye"], soft) * orbit
    surface = np.minimum(at["hull"] - outer - anatomy.scalp_mm, at["face"])
    fatty = np.clip(_inside(-surface - anatomy.scalp_mm, soft), 0.18, 0.9)
    fatty = np.clip(fatty + 0.12 * (more_grey - 1), 0, 1) * (flesh - orbit)
    row["fat"][:] = fatty + orbit - eye
    row["csf"] += eye
    row["muscle"][:] = flesh - fatty - orbit

    # 3. thin structures take their share of whatever lies there; air fills the rest
    for name, fraction in (
        ("dura", 0.55 * _inside(at["dura"], soft)),
        ("vessel", _inside(at["vessel"], soft)),
        ("air", _inside(at["airway"], soft) * (1 - brain)),
    ):
        fraction = fraction * np.minimum(1, head + brain)
        out *= 1 - fraction
        row[name] += fraction
    row["air"][:] = np.clip(1 - out[1:].sum(axis=0), 0, 1)
    texture = 1 + (at["texture"] - 1) * 0.7 * brain
    return out, texture


def _inside(distance_mm, width_mm):
    """Fraction of a voxel inside a surface at a signed distance."""
    return np.clip(0.5 - distance_mm / width_mm, 0, 1)


def _count(step_mm):
    """Nodes needed to cover the template's box."""
    return tuple(int(n) for n in np.ceil(_SPAN_MM / step_mm) + 1)


def _smooth_zoom(knots, shape) -> np.ndarray:
    """Cubic interpolation of coarse knots (a, b, c, 3) onto a finer grid, float32."""
    out = knots
    for axis, n in enumerate(shape):
        filtered = spline_filter1d(out, axis=axis, mode="nearest")
        at = np.linspace(0, knots.shape[axis] - 1, n)
        basis = np.stack(
            [
                map_coordinates(row, [at], order=3, mode="nearest", prefilter=False)
                for row in np.eye(knots.shape[axis])
            ],
            axis=1,
        )
        out = np.moveaxis(np.tensordot(basis, filtered, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(out, np.float32)


def _fold(rng, sulci) -> np.ndarray:
    """Patches without pathology: random weights of fluid and grey matter, (p, q, r, 6)."""
    shape = _count(PATCH_MM)
    patches = np.zeros((*shape, 6), np.float32)
    noise = rng.standard_normal((*shape, 2), dtype=np.float32)
    patches[..., 0] = np.exp(0.75 * noise[..., 0] + sulci)
    patches[..., 1] = np.exp(0.45 * noise[..., 1])
    return patches


def _blob(patches, centre_mm, radius_mm):
    """Slices around a position and the distance to it relative to the radius."""
    at = (np.asarray(centre_mm) - LOW_MM) / PATCH_MM
    reach = np.asarray(radius_mm) / PATCH_MM * 1.8 + 1
    low = np.maximum(0, np.floor(at - reach)).astype(int)
    high = np.minimum(patches.shape[:3], np.ceil(at + reach) + 1).astype(int)
    axes = [
        ((np.arange(a, b) - c) * PATCH_MM / r) ** 2
        for a, b, c, r in zip(low, high, at, np.broadcast_to(radius_mm, 3), strict=True)
    ]
    distance = np.sqrt(axes[0][:, None, None] + axes[1][:, None] + axes[2])
    return tuple(slice(a, b) for a, b in zip(low, high, strict=True)), distance


def _add_lesions(patches, atlas, rng, count, enhancing) -> None:
    """Paint white-matter lesions into channels 2 (lesion) and 5 (rim)."""
    for index in range(count):
        centre = atlas.white_sites_mm[rng.integers(len(atlas.white_sites_mm))]
        radius = np.exp(rng.normal(1.35, 0.35)) * rng.uniform(0.8, 1.25, 3)
        box, distance = _blob(patches, centre, radius)
        level = np.clip(1.5 - distance, 0, 1) * rng.uniform(0.7, 1.0)
        channel = 5 if index < enhancing else 2
        patches[(*box, channel)] = np.maximum(patches[(*box, channel)], level)


def _add_tumour(patches, atlas, rng) -> None:
    """Paint one glioma into channels 3 (oedema), 4 (core) and 5 (rim)."""
    centre = atlas.lobe_sites_mm[rng.integers(len(atlas.lobe_sites_mm))]
    radius = rng.uniform(14, 25) * rng.uniform(0.85, 1.2, 3)
    thickness = rng.uniform(3.5, 6.5) / radius.mean()
    for channel in (3, 4, 5):
        box, distance = _blob(patches, centre, radius * (1.7 if channel == 3 else 1.0))
        ripple = rng.normal(0, 0.08, distance.shape)
        if channel == 3:
            level = np.clip((1.0 - distance + ripple) * 3, 0, 1) * 0.85
        elif channel == 4:
            level = np.clip((1.0 - distance + ripple) * 4, 0, 1)
        else:
            level = np.clip(1.6 - np.abs(distance - 0.92 + ripple) / thickness * 2, 0, 1)
        patches[(*box, channel)] = np.maximum(patches[(*box, channel)], level)


@compiled(fastmath=True, error_model="numpy", inline="always")
def _cell(n, low, step, x, y, z):
    """Clip a position in mm to a grid; its cell's lower corner and the eight weights."""
    x = min(max((x - low[0]) / step, 0.0), n[0] - 1.001)
    y = min(max((y - low[1]) / step, 0.0), n[1] - 1.001)
    z = min(max((z - low[2]) / step, 0.0), n[2] - 1.001)
    i, j, k = int(x), int(y), int(z)
    u, v, w = np.float32(x - i), np.float32(y - j), np.float32(z - k)
    a, b, c = np.float32(1) - u, np.float32(1) - v, np.float32(1) - w
    low = (a * b * c, a * b * w, a * v * c, a * v * w)
    return i, j, k, low, (u * b * c, u * b * w, u * v * c, u * v * w)


@compiled(fastmath=True, error_model="numpy", inline="always")
def _blend(maps, i, j, k, p, q, c):
    """Trilinear value of channel `c` in the cell (i, j, k)."""
    return (
        p[0] * maps[i, j, k, c]
        + p[1] * maps[i, j, k + 1, c]
        + p[2] * maps[i, j + 1, k, c]
        + p[3] * maps[i, j + 1, k + 1, c]
        + q[0] * maps[i + 1, j, k, c]
        + q[1] * maps[i + 1, j, k + 1, c]
        + q[2] * maps[i + 1, j + 1, k, c]
        + q[3] * maps[i + 1, j + 1, k + 1, c]
    )
