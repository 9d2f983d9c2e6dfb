"""A generator, an age and a pathology go in; the constant parts of one patient come out."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from motionlib.cohorts.virtual.atlas import build_atlas
from motionlib.cohorts.virtual.signal import TISSUES

NODE_MM = 8.0  # of the deformation once interpolated
PATCH_MM = 4.0  # of the patient's own maps: folding, lesions, tumour
LOW_MM = np.array([-104.0, -138.0, -168.0])  # corner of the template's box
_SPAN_MM = np.array([208.0, 268.0, 280.0])
_KNOT_MM = 36.0  # of the random displacements


@dataclass(frozen=True)
class Anatomy:
    """What stays the same at every visit of one patient.

    Attributes
    ----------
    scale : ndarray, shape (3,)
        Head size against the template, per axis.
    nodes_mm : ndarray, shape (a, b, c, 3)
        Smooth displacement into template space, every 8 mm.
    patches : ndarray, shape (p, q, r, 6)
        Every 4 mm in template space: weights of fluid and grey matter (folding), then fractions
        of lesion, oedema, tumour core and enhancing rim.
    ventricle_mm, skull_mm, scalp_mm : float
        Growth of the ventricles, thickness of skull and scalp.
    t1_factor : ndarray, shape (14,)
        The patient's T1 against the tables.
    """

    scale: np.ndarray
    nodes_mm: np.ndarray
    patches: np.ndarray
    ventricle_mm: float
    skull_mm: float
    scalp_mm: float
    t1_factor: np.ndarray = field(repr=False)


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
    """Draw one patient.

    Parameters
    ----------
    rng : numpy.random.Generator
        The patient's own.
    age : float, default=50
        Years; ventricles and sulci widen after 40.
    ventricle : float, default=0
        Additional growth of the ventricles in mm.
    lesions, enhancing : int, default=0
        White-matter lesions, and how many of them take up gadolinium.
    tumour : bool, default=False
        One glioma: dark core, rim that enhances, oedema around it.
    sex : str, default="F"
        Male heads are 3 % larger on average.

    Returns
    -------
    Anatomy
        To be rendered at any visit by `render_head`.
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


def _count(step_mm):
    """Nodes needed to cover the template's box."""
    return tuple(int(n) for n in np.ceil(_SPAN_MM / step_mm) + 1)


def _smooth_zoom(knots, shape) -> np.ndarray:
    """Cubic interpolation of coarse knots (a, b, c, 3) onto a finer grid, float32."""
    from scipy.ndimage import map_coordinates, spline_filter1d

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
