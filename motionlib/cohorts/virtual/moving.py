"""A scanner and a wanted severity go in; the motion of a patient in that scanner comes out."""

from __future__ import annotations

import numpy as np

from motionlib.cohorts.virtual.scanners import Scanner
from motionlib.motion.protocols import Acquisition
from motionlib.motion.sampling import sample_realistic
from motionlib.motion.trajectory import Trajectory, pose_distance_mm

MAX_TRANSLATION_MM, MAX_ROTATION_DEG = 18.0, 15.0
N_SEGMENTS = 6
MAX_DRAWS = 20  # of motions that hardly touch the centre of k-space
# Half-width of the weight of a moment against its distance from the centre of k-space, as a
# share of the lines; of 0.004 to 0.3 it follows the error of emulated scans best (rank correlation
# 0.97 over 90 motions, three orders and four pairs of axes).
ENERGY_WIDTH = 0.12


def acquisition_of(scanner: Scanner) -> Acquisition:
    """How a scanner samples k-space over time."""
    return Acquisition(
        phase_axis=scanner.phase_axis,
        slow_axis=scanner.slow_axis,
        order=scanner.order,
        n_segments=N_SEGMENTS if scanner.order == "segmented" else 1,
        partial_fourier=scanner.partial_fourier,
        noise_sd=scanner.noise_sd,
        phase=scanner.partial_fourier < 1,
    )


def severity_mm(trajectory: Trajectory, acquisition: Acquisition, n_lines: int = 72) -> float:
    """Severity of a motion: distance from the mean pose, weighted by what k-space holds.

    Parameters
    ----------
    trajectory : Trajectory
        In RAS mm and degrees.
    acquisition : Acquisition
        Says when each line is acquired; the same motion matters more at the centre of k-space.
    n_lines : int, default=72
        Lines along the slow axis.

    Returns
    -------
    float
        Root mean square displacement in mm of a ball of 64 mm radius.

    Notes
    -----
    Source: Afacan 2016 for the weight of the centre; Jenkinson 1999 for the distance. The weight
    is broader than the energy alone, since readers react to edges (see ``ENERGY_WIDTH``).
    """
    times = acquisition.line_times(n_lines)
    lines = np.flatnonzero(~np.isnan(times))
    shifts, angles = trajectory.at(times[lines])
    weights = 1 / (1 + ((lines - n_lines // 2) / n_lines / ENERGY_WIDTH) ** 2)
    weights /= weights.sum()
    off = pose_distance_mm(shifts, angles, (weights @ shifts)[None], (weights @ angles)[None])
    return float(np.sqrt(weights @ off**2))


def sample_motion(
    severity: float, acquisition: Acquisition, rng: np.random.Generator
) -> tuple[Trajectory, dict]:
    """Draw realistic motion and scale it to a wanted severity.

    Parameters
    ----------
    severity : float
        In mm; 0 means that the head lies perfectly still.
    acquisition : Acquisition
        Says when each line of k-space is acquired.
    rng : numpy.random.Generator
        The scan's own.

    Returns
    -------
    trajectory : Trajectory
        Drift, nods, steps, spikes, or several, over all or part of the scan.
    info : dict
        ``severity_mm`` as realised (smaller than wanted only if 20 draws in a row would have to
        exceed 18 mm or 15 degrees), ``translation_mm`` and ``rotation_deg`` at most.
    """
    if severity <= 0:
        return Trajectory.identity(), {
            "severity_mm": 0.0,
            "translation_mm": 0.0,
            "rotation_deg": 0.0,
        }
    for _ in range(MAX_DRAWS):
        drawn = sample_realistic(
            translation_mm=(1, 3), rotation_deg=(0.7, 3), rng=rng, kind=_kinds(rng)
        )
        factor = severity / max(severity_mm(drawn, acquisition), 1e-6)
        shift, turn = np.abs(drawn.translation_mm).max(), np.abs(drawn.rotation_deg).max()
        if factor * shift <= MAX_TRANSLATION_MM and factor * turn <= MAX_ROTATION_DEG:
            break
    else:
        limits = (MAX_TRANSLATION_MM / max(shift, 1e-6), MAX_ROTATION_DEG / max(turn, 1e-6))
        factor = min(factor, *limits)
    moved = Trajectory(
        drawn.times, drawn.translation_mm * factor, drawn.rotation_deg * factor, "linear"
    )
    return moved, {
        "severity_mm": severity_mm(moved, acquisition),
        "translation_mm": float(shift * factor),
        "rotation_deg": float(turn * factor),
    }


def _kinds(rng) -> list[str]:
    """Kinds of one patient's motion: always something sudden, often a slow drift as well."""
    kinds = [str(rng.choice(["steps", "nod", "spikes"], p=[0.5, 0.3, 0.2]))]
    return kinds + [k for k, p in (("drift", 0.5), ("partial", 0.35)) if rng.random() < p]


def still_noise(volume: np.ndarray, noise_sd: float, rng: np.random.Generator) -> np.ndarray:
    """Add the noise of a magnitude image to a still head.

    Parameters
    ----------
    volume : ndarray, shape (I, J, K)
        Motion-free signal.
    noise_sd : float
        Of each of the two channels, as a fraction of the foreground mean.
    rng : numpy.random.Generator
        The scan's own.

    Returns
    -------
    ndarray, shape (I, J, K), float32
        Rician in the head, Rayleigh in air; foreground mean near 1.
    """
    out = volume / foreground_mean(volume)
    noise = rng.standard_normal((2, *volume.shape), dtype=np.float32) * np.float32(noise_sd)
    return np.hypot(out + noise[0], noise[1])


def foreground_mean(volume: np.ndarray) -> float:
    """Mean above a quarter of the 99th percentile: the unit in which noise is given."""
    top = np.quantile(volume[::2, ::2, ::2], 0.99)
    return float(max(volume[volume > 0.25 * top].mean(), 1e-6)) if top > 0 else 1.0


def reconstruct(
    volume: np.ndarray, affine: np.ndarray, scanner: Scanner, rng: np.random.Generator
) -> np.ndarray:
    """Apply what a scanner's console does after the magnitude.

    Parameters
    ----------
    volume : ndarray, shape (I, J, K)
        Magnitude.
    affine : ndarray, shape (4, 4)
        Voxel indices to mm.
    scanner : Scanner
        Smoothing, grey scale, noise floor.
    rng : numpy.random.Generator
        The scan's own.

    Returns
    -------
    ndarray, shape (I, J, K), float32
        Non-negative, foreground mean near 1.
    """
    from scipy import ndimage

    edges = np.linalg.norm(affine[:3, :3], axis=0)
    # the smoothing is given for 3 mm voxels and scales with the finest edge
    sigma = scanner.blur_mm / 3.0 * edges.min() / 2.355 / edges
    out = ndimage.gaussian_filter(np.maximum(volume, 0), sigma, truncate=3)
    top = float(np.quantile(out[::2, ::2, ::2], 0.99))
    out = top * (out / max(top, 1e-6)) ** np.float32(scanner.gamma)
    if scanner.floor:
        out += scanner.floor * np.abs(rng.standard_normal(out.shape, dtype=np.float32))
    return (out / foreground_mean(out)).astype(np.float32)
