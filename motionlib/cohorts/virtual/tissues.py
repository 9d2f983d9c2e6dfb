"""Maps, a deformation and a pose go in; tissue fractions of every voxel come out."""

from __future__ import annotations

import numpy as np
from numba import njit

from motionlib.cohorts.virtual.anatomy import Anatomy
from motionlib.cohorts.virtual.atlas import CHANNELS
from motionlib.cohorts.virtual.signal import TISSUES

HULL, FACE = CHANNELS.index("hull"), CHANNELS.index("face")
HULL_REACH_MM, FACE_REACH_MM = 28.0, 14.0  # thickest shells and the largest displacement


@njit(cache=True, fastmath=True, error_model="numpy", inline="always")
def _cell(n, x, y, z):
    """Clip a position in voxels; its lower corner and the eight weights."""
    x = min(max(x, 0.0), n[0] - 1.001)
    y = min(max(y, 0.0), n[1] - 1.001)
    z = min(max(z, 0.0), n[2] - 1.001)
    i, j, k = int(x), int(y), int(z)
    u, v, w = np.float32(x - i), np.float32(y - j), np.float32(z - k)
    a, b, c = np.float32(1) - u, np.float32(1) - v, np.float32(1) - w
    low = (a * b * c, a * b * w, a * v * c, a * v * w)
    return i, j, k, low, (u * b * c, u * b * w, u * v * c, u * v * w)


@njit(cache=True, fastmath=True, error_model="numpy", inline="always")
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


@njit(cache=True, fastmath=True, error_model="numpy")
def sample_maps(
    shape,
    matrix,
    offset,
    nodes,
    low,
    node_mm,
    maps,
    maps_low,
    maps_mm,
    patches,
    patch_mm,
):
    """Pull template and patient maps back to every voxel of a scanner's grid.

    Parameters
    ----------
    shape : ndarray of int, shape (3,)
        The scanner's grid.
    matrix, offset : ndarray, shapes (3, 3) and (3,)
        Voxel indices to the patient's axes at template size, mm.
    nodes : ndarray, shape (a, b, c, 3), float32
        Displacement in mm on a grid that begins at `low` with steps of `node_mm`.
    low, node_mm : ndarray of shape (3,), float
        See `nodes`.
    maps, maps_low, maps_mm
        The atlas: channels last, its first voxel's position, its spacing.
    patches, patch_mm
        The patient's own maps, on a grid that begins at `low`.

    Returns
    -------
    index : ndarray of int64, shape (M,)
        Flat voxels in or near the head; all others are air.
    sampled : ndarray, shape (channels of maps + channels of patches, M), float32
    """
    n_maps, n_patches = maps.shape[3], patches.shape[3]
    total = shape[0] * shape[1] * shape[2]
    index = np.empty(total, np.int64)
    out = np.empty((n_maps + n_patches, total), np.float32)
    values = np.empty(n_maps + n_patches, np.float32)  # contiguous: lets the loops vectorise
    m = 0
    for i in range(shape[0]):
        for j in range(shape[1]):
            for k in range(shape[2]):
                x = matrix[0, 0] * i + matrix[0, 1] * j + matrix[0, 2] * k + offset[0]
                y = matrix[1, 0] * i + matrix[1, 1] * j + matrix[1, 2] * k + offset[1]
                z = matrix[2, 0] * i + matrix[2, 1] * j + matrix[2, 2] * k + offset[2]
                a, b, c, p, q = _cell(
                    maps.shape,
                    (x - maps_low[0]) / maps_mm,
                    (y - maps_low[1]) / maps_mm,
                    (z - maps_low[2]) / maps_mm,
                )
                if maps[a, b, c, HULL] > HULL_REACH_MM and maps[a, b, c, FACE] > FACE_REACH_MM:
                    continue  # air, whatever the displacement
                d, e, f, p, q = _cell(
                    nodes.shape,
                    (x - low[0]) / node_mm,
                    (y - low[1]) / node_mm,
                    (z - low[2]) / node_mm,
                )
                x += _blend(nodes, d, e, f, p, q, 0)
                y += _blend(nodes, d, e, f, p, q, 1)
                z += _blend(nodes, d, e, f, p, q, 2)
                a, b, c, p, q = _cell(
                    maps.shape,
                    (x - maps_low[0]) / maps_mm,
                    (y - maps_low[1]) / maps_mm,
                    (z - maps_low[2]) / maps_mm,
                )
                for g in range(n_maps):
                    values[g] = _blend(maps, a, b, c, p, q, g)
                d, e, f, p, q = _cell(
                    patches.shape,
                    (x - low[0]) / patch_mm,
                    (y - low[1]) / patch_mm,
                    (z - low[2]) / patch_mm,
                )
                for g in range(n_patches):
                    values[n_maps + g] = _blend(patches, d, e, f, p, q, g)
                for g in range(n_maps + n_patches):
                    out[g, m] = values[g]
                index[m] = i * shape[1] * shape[2] + j * shape[2] + k
                m += 1
    return index[:m].copy(), out[:, :m]


def _inside(distance_mm, width_mm):
    """Fraction of a voxel inside a surface at a signed distance."""
    return np.clip(0.5 - distance_mm / width_mm, 0, 1)


def compose(
    sampled: np.ndarray,
    anatomy: Anatomy,
    width_mm: float,
    resected: bool = False,
    growth_mm: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Turn sampled maps and distances into tissue fractions.

    Parameters
    ----------
    sampled : ndarray, shape (18, M), float32
        From `sample_maps`: the atlas's channels, then the patient's.
    anatomy : Anatomy
        Thickness of the shells, growth of the ventricles.
    width_mm : float
        Largest voxel edge: surfaces are blurred over about a voxel (partial volume).
    resected : bool, default=False
        Fluid instead of the tumour's core.
    growth_mm : float, default=0
        Additional growth of the ventricles at this visit.

    Returns
    -------
    tissue : ndarray, shape (14, M), float32
        Fractions that sum to 1, in the order of `signal.TISSUES`.
    texture : ndarray, shape (M,), float32
        Brightness within a tissue, near 1.
    """
    at = dict(zip(CHANNELS, sampled, strict=False))
    more_csf, more_grey, lesion, oedema, core, rim = sampled[len(CHANNELS) :]
    soft = max(2.0, width_mm)
    out = np.zeros((len(TISSUES), sampled.shape[1]), np.float32)
    row = {name: out[i] for i, name in enumerate(TISSUES)}

    # brain: sharpen the average maps, fold them the patient's way, widen the ventricles
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

    # skull, scalp, face: shells around the brain joined with ellipsoids
    outer = anatomy.skull_mm + 1.0
    head = _inside(
        np.minimum(at["hull"] - outer - anatomy.scalp_mm, at["face"] - 0.4 * anatomy.scalp_mm),
        soft,
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
    return out, texture.astype(np.float32)
