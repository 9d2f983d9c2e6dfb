"""Small heads and what is measured on them, for the tests of the simulators."""

import numpy as np
import torch

from motionlib.motion.trajectory import rotation_matrices

# Relative L2 errors: float32 sums of about 50 terms; the NUFFT, asked for 1e-3 and measured at
# 1.3e-4 on heads; the same on white noise, whose spectrum does not fall, at 4e-4
ROUNDING, NUFFT, NUFFT_NOISE = 1e-6, 3e-4, 1e-3


def distance(one, two) -> float:
    """Relative L2 distance from `two`."""
    one, two = (torch.as_tensor(x).double().flatten() for x in (one, two))
    return float((one - two).norm() / two.norm())


def affine_of(spacing=1.0, origin=(0, 0, 0), tilt=(0, 0, 0), flip=(1, 1, 1)):
    """Affine with a voxel size, an origin in mm, a tilt in degrees and flipped axes."""
    affine = np.eye(4)
    affine[:3, :3] = rotation_matrices([tilt])[0] @ np.diag(np.multiply(spacing, flip))
    affine[:3, 3] = origin
    return affine


def blob(shape=(24, 28, 24), width=3.0, centre=None):
    """Smooth ball with a known centre, (I, J, K) float32."""
    centre = [(n - 1) / 2 for n in shape] if centre is None else centre
    lines = [np.arange(n) - c for n, c in zip(shape, centre, strict=True)]
    axes = np.meshgrid(*lines, indexing="ij")
    return torch.from_numpy(np.exp(-sum(x**2 for x in axes) / (2 * width**2)).astype(np.float32))


def centroid(volume):
    """Centre of mass in voxels."""
    weights = volume.double().reshape(volume.shape[-3:])
    profiles = [weights.sum([e for e in range(3) if e != d]) for d in range(3)]
    return np.array([float((p * torch.arange(len(p))).sum() / p.sum()) for p in profiles])


def texture(shape=(1, 12, 15, 14)):
    """Random positive voxels: nothing smooth to hide an error behind."""
    return torch.from_numpy(np.random.default_rng(3).random(shape, dtype=np.float32))
