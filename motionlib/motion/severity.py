"""A trajectory goes in; measures of how severe the motion is, in mm, come out."""

from __future__ import annotations

from typing import Any

import numpy as np

from motionlib.motion.trajectory import HEAD_RADIUS_MM, Trajectory, pose_distance_mm

JENKINSON_RADIUS_MM = 80.0
POWER_RADIUS_MM = 50.0
STILL_MM = 0.5  # Afacan 2016: scans moved by more than 0.5 mm were called non-diagnostic


def displacement(
    trajectory: Trajectory,
    *,
    radius_mm: float = HEAD_RADIUS_MM,
    centre_time: float = 0.5,
    energy: Any = None,
    n_frames: int = 200,
) -> dict[str, float]:
    """Measure how severe a motion is.

    Parameters
    ----------
    trajectory : Trajectory
        In the RAS frame.
    radius_mm : float, default=64
        Radius of the ball that stands for the head.
    centre_time : float, default=0.5
        Moment at which the centre of k-space is acquired (0 in centric order).
    energy : array-like, shape (n_frames,), optional
        K-space energy acquired in each frame. Default: ``1 / (1 + (q / 0.004)^2)`` with q the
        distance in time from `centre_time`, fitted to T1-weighted heads of ds000011.
    n_frames : int, default=200
        Evenly spaced moments at which the motion is looked at.

    Returns
    -------
    dict
        ``max_pairwise_mm`` (largest distance of two poses), ``max_pairwise_translation_mm``,
        ``max_pairwise_rotation_deg`` (the simulators' ranges), ``mean_mm`` (mean distance from
        the first pose), ``framewise_power_mm`` (50 mm), ``framewise_jenkinson_mm`` (80 mm; both the
        mean over frames), ``from_centre_mm`` (mean distance from the pose at `centre_time`),
        ``energy_weighted_mm`` (RMS distance from the energy-weighted mean pose, energy-weighted),
        ``motion_free_fraction`` (largest share of the scan within 0.5 mm of one pose).

    Raises
    ------
    ValueError
        If the trajectory is in the fork's voxel frame, or `energy` has the wrong length.

    Notes
    -----
    Source: Jenkinson 1999 and Power 2012 for the distances; Afacan 2016 for what readers react to.
    """
    if trajectory.frame != "ras":
        raise ValueError("Severity in mm needs a trajectory in RAS axes; this one counts voxels.")
    moments = (np.arange(n_frames) + 0.5) / n_frames
    shifts, angles = _frames(trajectory, moments)
    weights = (
        1 / (1 + ((moments - centre_time) / 0.004) ** 2) if energy is None else np.asarray(energy)
    )
    if weights.shape != (n_frames,):
        raise ValueError(f"energy has shape {weights.shape}; expected ({n_frames},).")
    weights = weights / weights.sum()
    apart = pose_distance_mm(
        shifts[:, None],
        angles[:, None],
        shifts[None],
        angles[None],
        radius_mm=radius_mm,
    )
    mean_pose = weights @ shifts, weights @ angles
    off_mean = pose_distance_mm(
        shifts, angles, mean_pose[0][None], mean_pose[1][None], radius_mm=radius_mm
    )
    centre = int(np.clip(np.floor(centre_time * n_frames), 0, n_frames - 1))
    step_mm, step_rad = np.abs(np.diff(shifts, axis=0)), np.deg2rad(np.abs(np.diff(angles, axis=0)))
    jenkinson = pose_distance_mm(
        shifts[1:], angles[1:], shifts[:-1], angles[:-1], radius_mm=JENKINSON_RADIUS_MM
    )
    return {
        "max_pairwise_mm": float(apart.max()),
        "max_pairwise_translation_mm": float(_largest_distance(trajectory.translation_mm)),
        "max_pairwise_rotation_deg": float(_largest_distance(trajectory.rotation_deg)),
        "mean_mm": float(apart[0].mean()),
        "framewise_power_mm": float((step_mm.sum(1) + POWER_RADIUS_MM * step_rad.sum(1)).mean()),
        "framewise_jenkinson_mm": float(jenkinson.mean()),
        "from_centre_mm": float(apart[centre].mean()),
        "energy_weighted_mm": float(np.sqrt(weights @ off_mean**2)),
        "motion_free_fraction": float((apart <= STILL_MM).mean(axis=1).max()),
    }


def _largest_distance(points: np.ndarray) -> float:
    """Largest distance between two of the points (T, 3)."""
    return np.linalg.norm(points[:, None] - points[None], axis=-1).max()


def _frames(trajectory: Trajectory, moments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Poses at `moments`; held unless the trajectory glides."""
    if trajectory.interpolation == "linear":
        return trajectory.at(moments)
    owner = np.clip(np.searchsorted(trajectory.times, moments, side="right") - 1, 0, None)
    return trajectory.translation_mm[owner], trajectory.rotation_deg[owner]
