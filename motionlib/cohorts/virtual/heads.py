"""A seed, an age and a pathology go in; a virtual head and its motion-free contrast come out."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from motionlib.cohorts.virtual.anatomy import (
    LOW_MM,
    NODE_MM,
    PATCH_MM,
    Anatomy,
    compose,
    draw_anatomy,
    sample_maps,
)
from motionlib.cohorts.virtual.atlas import Atlas, build_atlas
from motionlib.cohorts.virtual.signal import Protocol, tissue_signal

__all__ = [
    "Anatomy",
    "Atlas",
    "Head",
    "acquire_contrast",
    "build_atlas",
    "draw_anatomy",
    "make_head",
    "render_head",
]

FIELD_OF_VIEW_MM = (186.0, 240.0, 240.0)


@dataclass(frozen=True)
class Head:
    """One head as it lies in one scanner.

    Attributes
    ----------
    shape : tuple of 3 int
        The scanner's grid.
    affine : ndarray, shape (4, 4)
        Voxel indices to mm, axes R, A, S.
    index : ndarray, shape (M,)
        Flat voxels in or near the head; the others are air.
    fractions : ndarray, shape (14, M), float32
        Share of each of `signal.TISSUES` in those voxels; sums to 1.
    texture : ndarray, shape (M,), float32
        Brightness within a tissue, near 1.
    t1_factor : ndarray, shape (14,)
        Passed on from the anatomy.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    index: np.ndarray
    fractions: np.ndarray = field(repr=False)
    texture: np.ndarray = field(repr=False)
    t1_factor: np.ndarray = field(repr=False)

    @property
    def tissue(self) -> np.ndarray:
        """Fractions of every voxel, (14, I, J, K), float32."""
        maps = np.zeros((len(self.fractions), int(np.prod(self.shape))), np.float32)
        maps[0] = 1
        maps[:, self.index] = self.fractions
        return maps.reshape(-1, *self.shape)

    @property
    def labels(self) -> np.ndarray:
        """Index of the commonest tissue, (I, J, K), uint8."""
        return self.tissue.argmax(axis=0).astype(np.uint8)


def render_head(
    anatomy: Anatomy,
    *,
    spacing_mm,
    rng: np.random.Generator,
    resected: bool = False,
    growth_mm: float = 0.0,
    top_margin_mm: float | None = None,
) -> Head:
    """Lay a patient into the scanner, with a new pose and field of view.

    Parameters
    ----------
    anatomy : Anatomy
        From `draw_anatomy`.
    spacing_mm : float or sequence of 3
        Voxel edges on the axes R, A, S.
    rng : numpy.random.Generator
        The visit's own.
    resected : bool, default=False
        The tumour's core has become a cavity filled with fluid.
    growth_mm : float, default=0
        Growth of the ventricles since the first visit.
    top_margin_mm : float, optional
        Air above the head; a negative value cuts the head off. Default: 8 to 22 mm.

    Returns
    -------
    Head
        Field of view about 186 x 240 x 240 mm.
    """
    from scipy.fft import next_fast_len

    atlas = build_atlas()
    spacing = np.broadcast_to(np.asarray(spacing_mm, float), (3,))
    shape = tuple(int(next_fast_len(round(n))) for n in np.array(FIELD_OF_VIEW_MM) / spacing)
    if top_margin_mm is None:
        top_margin_mm = rng.uniform(8, 22)
    crown_mm = 84 + anatomy.skull_mm + anatomy.scalp_mm
    angles = np.deg2rad(rng.normal(0, (3.9, 2.5, 2.5)))
    shift = rng.normal(0, (2.5, 4.0, 0.0))
    rotation = _rotation(angles)
    extent = np.array(shape) * spacing
    centre = np.array([0, -10.0, crown_mm * anatomy.scale[2] + top_margin_mm - extent[2] / 2])
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = centre + shift - (np.array(shape) - 1) / 2 * spacing
    # voxel -> scanner -> the patient's own axes at template size
    to_patient = (rotation / anatomy.scale[:, None]) @ affine[:3, :3]
    offset = (rotation / anatomy.scale[:, None]) @ affine[:3, 3]
    index, sampled = sample_maps(
        np.array(shape), to_patient, offset, anatomy.nodes_mm, LOW_MM, NODE_MM,
        atlas.maps, atlas.origin_mm.astype(float), atlas.spacing_mm,
        anatomy.patches, PATCH_MM,
    )  # fmt: skip
    tissue, texture = compose(sampled, anatomy, float(spacing.max()), resected, growth_mm)
    return Head(shape, affine, index, tissue, texture, anatomy.t1_factor)


def make_head(
    rng: np.random.Generator,
    *,
    spacing_mm=3.0,
    age: float = 50.0,
    ventricle: float = 0.0,
    lesions: int = 0,
    tumour: bool = False,
) -> Head:
    """Draw a patient and lay it into the scanner: `draw_anatomy`, then `render_head`."""
    anatomy = draw_anatomy(rng, age=age, ventricle=ventricle, lesions=lesions, tumour=tumour)
    return render_head(anatomy, spacing_mm=spacing_mm, rng=rng)


def acquire_contrast(
    head: Head,
    protocol: Protocol,
    rng: np.random.Generator,
    *,
    gadolinium: float = 0.0,
    bias: float = 0.15,
) -> np.ndarray:
    """Give every tissue its signal: no motion, no noise yet.

    Parameters
    ----------
    head : Head
        Tissue fractions.
    protocol : Protocol
        Sequence and field strength.
    rng : numpy.random.Generator
        Draws the coil's bias field.
    gadolinium : float, default=0
        Dose as a multiple of the usual one.
    bias : float, default=0.15
        Standard deviation of the logarithm of the bias field.

    Returns
    -------
    ndarray, shape (I, J, K), float32
        Non-negative; white matter near 1.
    """
    signal = tissue_signal(protocol, gadolinium=gadolinium, t1_factor=head.t1_factor)
    volume = np.zeros(head.shape, np.float32)
    volume.reshape(-1)[head.index] = (signal.astype(np.float32) @ head.fractions) * head.texture
    volume *= bias_field(head.shape, head.affine, bias, rng)
    return volume


def bias_field(
    shape: tuple[int, ...], affine: np.ndarray, strength: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw the sensitivity of a coil.

    Parameters
    ----------
    shape : tuple of 3 int
    affine : ndarray, shape (4, 4)
        Voxel indices to mm, third axis upwards.
    strength : float
        Standard deviation of its logarithm, about.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (I, J, K), float32
        Smooth, near 1, falling off below the coil.
    """
    waves = [
        np.cos(np.outer(np.linspace(0, np.pi, n), np.arange(3))).astype(np.float32) for n in shape
    ]
    weights = rng.normal(0, 1, (3, 3, 3))
    weights /= 1 + np.add.outer(np.add.outer(np.arange(3), np.arange(3)), np.arange(3))
    weights[0, 0, 0] = 0
    weights *= strength / max(1e-6, np.sqrt((weights**2).sum() / 4))
    log = np.einsum("abc,ia->ibc", weights.astype(np.float32), waves[0])
    log = np.einsum("ibc,jb->ijc", log, waves[1])
    log = np.einsum("ijc,kc->ijk", log, waves[2])
    z_mm = affine[2, 2] * np.arange(shape[2]) + affine[2, 3]
    falloff = 1 / (1 + np.exp(-(z_mm - z_mm[0] - 22) / 9))
    return np.exp(log) * falloff.astype(np.float32)


def _rotation(angles) -> np.ndarray:
    """Rotation about x, then y, then z, (3, 3)."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_euler("xyz", angles).as_matrix()
