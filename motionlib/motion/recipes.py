"""Copies of a still head by name: the paper's recipe, the recommended one, and still controls.

``image_2-4_paper`` is a head moved by the image-based simulator at 2 to 4 mm and degrees as the
paper does it; ``kspace_`` and ``drift_`` are the two readings of its k-space range. In the
recommended recipe (``acquired_0.5-8_recommended``) a head moves as patients do while it is
acquired, and its negatives (``still``) were acquired by the same simulator in a pose that does not
change. The controls (`CONTROLS`) did not move either, and are changed in every way that is not
motion; the ladder (`LADDER`) is motion of rising severity.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from motionlib.motion import sampling
from motionlib.motion.acquisition import Acquisition, acquire
from motionlib.motion.image_based import image_motion, resample_once
from motionlib.motion.kspace_based import kspace_motion
from motionlib.motion.trajectory import Trajectory, displacement

TIMES = 200  # time points of the k-space course, §III-C.1
SEVERITIES = ("2-4", "4-6", "6-8")  # mm and degrees, Table II
SIMULATORS = ("image", "kspace")
TEST_RANGE = "2-8"  # the independent test set mixes every severity, §III-D.1
CONTROLS = ("clean", "resampled", "shifted", "blurred", "noisier", "contrast")
LADDER = ("motion_0.5-1", "motion_1-2", "motion_2-4", "motion_4-6", "motion_6-8")
LEAST_MOTION_VOX = 0.25  # mean displacement; with less, still heads are mistaken for moved ones
LPS = np.array([-1.0, -1.0, 1.0])  # turns LPS vectors and rotations into RAS


def make_variant(volume, affine, variant: str, rng: np.random.Generator) -> torch.Tensor:
    """Make one named variant of a clean volume (I, J, K) on the study grid, not negative; float32.

    `variant` is a control, the recommended recipe's negative (``still``), a rung of the ladder
    (``motion_2-4``), or ``{simulator}_{severity}_{recipe}`` such as ``image_2-4_paper``; ValueError
    if it is unknown. `rng` is the source of everything random.
    """
    if variant in _CONTROL:
        return _CONTROL[variant](volume, affine, rng)
    if variant.startswith("motion_"):
        return _signed_image(volume, affine, bounds(variant.removeprefix("motion_")), rng)
    parts = variant.split("_")
    if len(parts) == 3 and (parts[0], parts[2]) in MOTION:
        return MOTION[parts[0], parts[2]](volume, affine, bounds(parts[1]), rng)
    raise ValueError(
        f"variant {variant!r} is unknown; use a control ({', '.join(CONTROLS)}), "
        "a rung such as motion_2-4, or simulator_severity_recipe such as image_2-4_paper"
    )


def bounds(severity: str) -> tuple[float, float]:
    """Turn ``"2-4"`` into ``(2.0, 4.0)``, or say what was expected."""
    low, dash, high = severity.partition("-")
    try:
        pair = (float(low), float(high))
    except ValueError:
        pair = (1.0, 0.0)
    if not dash or pair[0] > pair[1]:
        raise ValueError(f'severity is {severity!r}; expected a range such as "2-4" (mm, degrees)')
    return pair


def _paper_image(volume, affine, limits, rng):
    """TorchIO's RandomMotion as the paper calls it: world centre, last axis, real part."""
    drawn = sampling.sample_segments(
        4, translation_mm=limits, rotation_deg=limits, signed=False, rng=rng
    )
    trajectory = replace(  # TorchIO's positive numbers are in LPS
        drawn, translation_mm=drawn.translation_mm * LPS, rotation_deg=drawn.rotation_deg * LPS
    )
    return image_motion(
        volume, trajectory, affine=affine, axis=2, center="world", direction="pull", output="real"
    )


def _kspace(volume, affine, limits, rng, *, reading):
    """Move by the fork's time course along the second axis, magnitude.

    The authors' code reads the range as the largest distance between two positions, ``pairwise``;
    by the other reading courses are three times as large: up to 9 mm apart for 2-4 mm.
    """
    trajectory = sampling.sample_time_course(
        TIMES, translation_mm=limits, rotation_deg=limits, reading=reading, rng=rng
    )
    return kspace_motion(volume, trajectory, affine=affine, axis=1)


def _signed_image(volume, affine, limits, rng):
    """Four signed positions within the range, magnitude, about the image centre."""
    trajectory = sampling.sample_segments(
        4, translation_mm=limits, rotation_deg=limits, signed=True, rng=rng
    )
    return image_motion(volume, trajectory, affine=affine, axis=1)


def _acquired(volume, affine, limits, rng):
    """Scan a head that moves as patients do, enough to leave a trace on this grid."""
    least = LEAST_MOTION_VOX * float(np.linalg.norm(np.asarray(affine)[:3, 0]))
    while True:
        trajectory = sampling.sample_realistic(translation_mm=limits, rotation_deg=limits, rng=rng)
        if displacement(trajectory, n_frames=40)["from_centre_mm"] >= least:
            return _scan(volume, affine, trajectory, rng)


def _acquired_still(volume, affine, rng):
    """Scan a head that lies still: the negative that is matched to `_acquired`."""
    return _scan(volume, affine, Trajectory.identity(), rng)


def _scan(volume, affine, course, rng):
    """Scan a head in any pose and by any protocol, its course of motion, if any, on top of it.

    Still and moved copies go through this alike: the same interpolation, filters and orders of the
    lines, so that nothing but a pose that changes during the scan tells them apart.
    """
    translation_mm, rotation_deg = _any_pose(rng)
    course = replace(
        course,
        translation_mm=course.translation_mm + translation_mm,
        rotation_deg=course.rotation_deg + rotation_deg,
    )
    order = str(rng.choice(["linear", "linear", "centric", "segmented"]))
    protocol = Acquisition(
        phase_axis=int(rng.integers(3)),
        order=order,
        n_segments=int(rng.integers(2, 7)) if order == "segmented" else 1,
        partial_fourier=7 / 8 if rng.random() < 0.15 else 1.0,
    )
    return acquire(volume, course, protocol, affine=affine, rng=rng)


def _pose(rng, size: float = 4.0):
    """Draw translation and rotation of up to `size` mm and degrees an axis."""
    return rng.uniform(-size, size, 3), rng.uniform(-size, size, 3)


def _resampled(volume, affine, rng):
    """Move a still head once by a random rigid pose, up to 4 mm and 4 degrees an axis."""
    translation_mm, rotation_deg = _pose(rng)
    return resample_once(volume, translation_mm, rotation_deg, affine=affine)


def _any_pose(rng):
    """Draw a pose of any size, a third of them without rotation: interpolation of every kind."""
    translation_mm, rotation_deg = _pose(rng, size=rng.uniform(0.5, 4.0))
    return translation_mm, rotation_deg * (rng.random() > 1 / 3)


def _shifted(volume, affine, rng):
    """Shift by 3 mm along a random direction, by linear interpolation."""
    direction = rng.normal(size=3)
    return resample_once(
        volume, 3.0 * direction / np.linalg.norm(direction), np.zeros(3), affine=affine
    )


def _blurred(volume, affine, rng):
    """Smooth by a Gaussian of 0.4 to 0.8 voxels."""
    smooth = gaussian_filter(volume.cpu().numpy(), rng.uniform(0.4, 0.8))
    return torch.from_numpy(smooth).to(volume.device)


def _noisier(volume, affine, rng):
    """Add Rician noise of 2 to 5 % of the head's mean intensity."""
    array = volume.cpu().numpy()
    head = array[array > array.mean()]
    sd = rng.uniform(0.02, 0.05) * (head.mean() if head.size else 1.0)
    real = array + rng.normal(0, sd, array.shape)
    noisy = np.hypot(real, rng.normal(0, sd, array.shape)).astype(np.float32)
    return torch.from_numpy(noisy).to(volume.device)


def _contrast(volume, affine, rng):
    """Bend the intensities by a gamma between 0.7 and 1.4."""
    top = float(volume.max()) or 1.0
    return (volume.clamp(min=0) / top) ** float(rng.uniform(0.7, 1.4)) * top


_CONTROL = {
    "clean": lambda volume, affine, rng: volume.clone(),
    "resampled": _resampled,
    "still": _acquired_still,
    "shifted": _shifted,
    "blurred": _blurred,
    "noisier": _noisier,
    "contrast": _contrast,
}
MOTION = {  # simulator and recipe
    ("image", "paper"): _paper_image,
    ("kspace", "paper"): partial(_kspace, reading="pairwise"),
    ("drift", "paper"): partial(_kspace, reading="peak_to_peak"),
    ("acquired", "recommended"): _acquired,
}
