"""A virtual head as it lies in a scanner, and its motion-free contrast."""

from dataclasses import dataclass, field

import numpy as np
from scipy.fft import next_fast_len
from scipy.spatial.transform import Rotation

from motionlib.cohorts.virtual.anatomy import (
    LOW_MM,
    NODE_MM,
    PATCH_MM,
    Anatomy,
    compose,
    sample_maps,
)
from motionlib.cohorts.virtual.atlas import build_atlas
from motionlib.cohorts.virtual.signal import Protocol, tissue_signal

FIELD_OF_VIEW_MM = (186.0, 240.0, 240.0)
CROWN_MM = 84.0  # height of the brain's top in MNI space


@dataclass(frozen=True)
class Head:
    """One head in one scanner: tissue fractions where there is not only air."""

    shape: tuple[int, int, int]  # the scanner's grid
    affine: np.ndarray  # (4, 4) voxel indices to mm, axes R, A, S
    index: np.ndarray  # (M,) flat voxels in or near the head
    fractions: np.ndarray = field(repr=False)  # (14, M) float32, sums to 1; `signal.TISSUES`
    texture: np.ndarray = field(repr=False)  # (M,) float32, brightness within a tissue, near 1
    t1_factor: np.ndarray = field(repr=False)  # (14,) the patient's


def render_head(
    anatomy: Anatomy,
    *,
    spacing_mm,
    rng: np.random.Generator,
    resected: bool = False,
    growth_mm: float = 0.0,
) -> Head:
    """Lay a patient into the scanner, with this visit's pose and field of view.

    `spacing_mm` is the voxel edge, or the three on the axes R, A, S. `resected`: the tumour's core
    has become a cavity filled with fluid; `growth_mm`: of the ventricles since the first visit.
    """
    # 1. the scanner's grid, with 8 to 22 mm of air above the head
    atlas = build_atlas()
    spacing = np.broadcast_to(np.asarray(spacing_mm, float), (3,))
    shape = tuple(int(next_fast_len(round(n))) for n in np.array(FIELD_OF_VIEW_MM) / spacing)
    top_margin_mm = rng.uniform(8, 22)
    crown_mm = CROWN_MM + anatomy.skull_mm + anatomy.scalp_mm
    extent = np.array(shape) * spacing
    centre = np.array([0, -10.0, crown_mm * anatomy.scale[2] + top_margin_mm - extent[2] / 2])
    # 2. the pose: a turn of the head, a shift of the grid
    angles = np.deg2rad(rng.normal(0, (3.9, 2.5, 2.5)))
    shift = rng.normal(0, (2.5, 4.0, 0.0))
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = centre + shift - (np.array(shape) - 1) / 2 * spacing
    # 3. voxel -> scanner -> the patient's own axes at template size
    turn = Rotation.from_euler("xyz", angles).as_matrix() / anatomy.scale[:, None]
    index, sampled = sample_maps(
        np.array(shape), turn @ affine[:3, :3], turn @ affine[:3, 3],
        anatomy.nodes_mm, LOW_MM, NODE_MM,
        atlas.maps, atlas.origin_mm.astype(float), atlas.spacing_mm,
        anatomy.patches, PATCH_MM,
    )  # fmt: skip
    tissue, texture = compose(sampled, anatomy, float(spacing.max()), resected, growth_mm)
    return Head(shape, affine, index, tissue, texture, anatomy.t1_factor)


def acquire_contrast(head: Head, protocol: Protocol, *, gadolinium: float = 0.0) -> np.ndarray:
    """Give every tissue its signal: (I, J, K), float32, white matter near 1, no motion, no noise.

    `gadolinium` is a multiple of the usual dose. The coil's `bias_field` is no part of it.
    """
    signal = tissue_signal(protocol, gadolinium=gadolinium, t1_factor=head.t1_factor)
    volume = np.zeros(head.shape, np.float32)
    volume.reshape(-1)[head.index] = (signal.astype(np.float32) @ head.fractions) * head.texture
    volume *= lower_end(head.shape, head.affine)
    return volume


def lower_end(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """Fade of the signal towards the lower end of the coil; (K,) float32, upwards.

    It goes with the head: a fade that stays in the scanner would let the neck, which the field of
    view cuts, fold over to the top.
    """
    z_mm = affine[2, 2] * np.arange(shape[2]) + affine[2, 3]
    return (1 / (1 + np.exp(-(z_mm - z_mm[0] - 22) / 9))).astype(np.float32)


def bias_field(shape: tuple[int, ...], strength: float, rng: np.random.Generator) -> np.ndarray:
    """Draw the sensitivity of a coil: (I, J, K), float32, smooth, near 1.

    `strength` is about the standard deviation of its logarithm.
    """
    # a sum of 27 products of low cosines, the higher ones weaker
    waves = [
        np.cos(np.outer(np.linspace(0, np.pi, n), np.arange(3))).astype(np.float32) for n in shape
    ]
    weights = rng.normal(0, 1, (3, 3, 3))
    weights /= 1 + np.add.outer(np.add.outer(np.arange(3), np.arange(3)), np.arange(3))
    weights[0, 0, 0] = 0
    weights *= strength / max(1e-6, np.sqrt((weights**2).sum() / 4))
    log = np.einsum("abc,ia->ibc", weights.astype(np.float32), waves[0])
    log = np.einsum("ibc,jb->ijc", log, waves[1])
    return np.exp(np.einsum("ijc,kc->ijk", log, waves[2]))
