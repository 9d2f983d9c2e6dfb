"""Rigid head motion over a scan: a `Trajectory` of poses, and how severe it is in mm.

A head moves by three translations and three rotations::

    nod = Trajectory(times=[0, 0.4], translation_mm=[[0, 0, 0], [0, 1, 0]],
                     rotation_deg=[[0, 0, 0], [3, 0, 0]], interpolation="hold")
    displacement(nod)["mean_mm"]

*The fork* is romainVala's of TorchIO (commit 02aeb2b8): the paper's k-space simulator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

POSE_NAMES = ("times", "translation_mm", "rotation_deg")
HEAD_RADIUS_MM = 64.0  # of the ball that stands for a head
JENKINSON_RADIUS_MM = 80.0  # FSL's
POWER_RADIUS_MM = 50.0  # Power 2012's
ENERGY_WIDTH = 0.004  # k-space energy 1 / (1 + (q / width)^2) at q scans from the centre's time;
# fitted to T1-weighted heads of ds000011
STILL_MM = 0.5  # Afacan 2016: scans moved by more than 0.5 mm were called non-diagnostic


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Poses of the head while k-space is acquired; ValueError if values are not as described.

    Attributes
    ----------
    times : ndarray, shape (T,)
        Moments of the poses as fractions of the scan, 0 to 1, never decreasing.
    translation_mm, rotation_deg : ndarray, shape (T, 3)
        Shifts in mm along, and rotations in degrees about, the RAS axes (right, anterior,
        superior), ``R = Rz Rx Ry``.
    interpolation : {"auto", "hold", "linear"}
        What happens between two poses. ``hold``: a pose stays until the next one (segments);
        ``linear``: it glides to the next one (time courses). ``auto``: each simulator's own rule
        (``image_motion`` holds, ``kspace_motion`` glides).
    frame : {"ras", "voxel"}
        ``voxel`` is the TorchIO fork's frame: `translation_mm` counts voxels along the array axes
        and the centre is voxel ``N // 2``; only :meth:`from_fork` makes it.
    """

    times: np.ndarray
    translation_mm: np.ndarray
    rotation_deg: np.ndarray
    interpolation: Literal["auto", "hold", "linear"] = "auto"
    frame: Literal["ras", "voxel"] = "ras"

    def __post_init__(self) -> None:
        times = np.array(self.times, dtype=np.float64)
        poses = [np.array(a, dtype=np.float64) for a in (self.translation_mm, self.rotation_deg)]
        if times.ndim != 1 or times.size == 0:
            raise ValueError(f"times has shape {times.shape}; give a non-empty vector (T,).")
        for name, pose in zip(POSE_NAMES[1:], poses, strict=True):
            if pose.shape != (times.size, 3):
                raise ValueError(f"{name} has shape {pose.shape}; expected ({times.size}, 3).")
        if not (np.isfinite(times).all() and all(np.isfinite(p).all() for p in poses)):
            raise ValueError("The trajectory holds NaN or infinite values; give finite numbers.")
        if times.min() < 0 or times.max() > 1 or (np.diff(times) < 0).any():
            raise ValueError(
                "times must rise from 0 to 1 as fractions of the scan; sort or rescale."
            )
        if self.interpolation not in ("auto", "hold", "linear"):
            raise ValueError(f"interpolation is {self.interpolation!r}; use auto, hold or linear.")
        if self.frame not in ("ras", "voxel"):
            raise ValueError(f"frame is {self.frame!r}; use ras or voxel.")
        for name, value in zip(POSE_NAMES, (times, *poses), strict=True):
            value.flags.writeable = False
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return self.times.size

    @classmethod
    def identity(cls) -> Trajectory:
        """Return the scan without motion."""
        return cls.constant((0, 0, 0), (0, 0, 0))

    @classmethod
    def constant(cls, translation_mm: Sequence[float], rotation_deg: Sequence[float]) -> Trajectory:
        """Return a scan during which the head lies still in another pose."""
        return cls([0.0], [translation_mm], [rotation_deg], interpolation="hold")

    @classmethod
    def from_torchio(cls, times: Any, translation: Any, degrees: Any) -> Trajectory:
        """Convert the movements of TorchIO 1.2.1's ``Motion``.

        `times` (n,) are the starts of the movements, fractions of the scan; `translation` and
        `degrees` (n, 3) are as given to ``Motion``, mm and degrees about the LPS axes. Returns ``n
        + 1`` held poses: the identity at time 0, then the movements in RAS axes.
        Source: TorchIO 1.2.1, ``random_motion.py``; it works in SimpleITK's LPS world.
        """
        to_ras = np.array([-1.0, -1.0, 1.0])
        times = np.atleast_1d(np.asarray(times, dtype=np.float64))
        shifts = np.atleast_2d(np.asarray(translation, dtype=np.float64)) * to_ras
        angles = np.atleast_2d(np.asarray(degrees, dtype=np.float64)) * to_ras
        return cls(*(np.insert(a, 0, 0, axis=0) for a in (times, shifts, angles)), "hold")

    @classmethod
    def from_fork(cls, params: Any) -> Trajectory:
        """Convert the ``euler_motion_params`` of the TorchIO fork; ValueError if not six rows.

        `params` (6, T) holds the translation in voxels of the array axes in rows 0-2 and the
        rotation in degrees in rows 3-5. Returns T poses spread evenly over the scan, in the fork's
        voxel frame. Source: the fork, which calls its voxels millimetres.
        """
        params = np.asarray(params, dtype=np.float64)
        if params.ndim != 2 or params.shape[0] != 6:
            raise ValueError(f"params has shape {params.shape}; the fork's courses are (6, T).")
        times = np.linspace(0.0, 1.0, params.shape[1])
        return cls(times, params[:3].T, params[3:].T, "linear", "voxel")

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, for JSON."""
        poses = {name: getattr(self, name).tolist() for name in POSE_NAMES}
        return poses | {"interpolation": self.interpolation, "frame": self.frame}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Trajectory:
        """Rebuild a trajectory from :meth:`to_dict`; other keys are ignored."""
        try:
            if missing := [name for name in POSE_NAMES if name not in values]:
                raise ValueError(f"The trajectory lacks {', '.join(missing)}; write it by to_dict.")
            options = {k: values[k] for k in ("interpolation", "frame") if k in values}
            return cls(*(values[name] for name in POSE_NAMES), **options)
        except TypeError as error:
            raise ValueError(f"The trajectory is none ({error}); write it with to_dict.") from error

    def with_centre_kept(self) -> Trajectory:
        """Exchange the first pose with the one held at half time, as TorchIO's ``sort_spectra``."""
        middle = int(np.searchsorted(self.times, 0.5, side="right")) - 1
        order = np.arange(len(self))
        if middle > 0:
            order[[0, middle]] = order[[middle, 0]]
        return replace(
            self, translation_mm=self.translation_mm[order], rotation_deg=self.rotation_deg[order]
        )

    def line_owners(self, n_lines: int) -> np.ndarray:
        """Return the index of the held pose of every line, bounds ``int(n_lines * time)``."""
        bounds = np.floor(n_lines * self.times[1:]).astype(np.int64)
        return np.searchsorted(bounds, np.arange(n_lines), side="right")

    def at_lines(self, n_lines: int, *, rule: str) -> tuple[np.ndarray, np.ndarray]:
        """Return translations and rotations (n_lines, 3) of lines acquired one after the other.

        `rule` is ``hold`` or ``linear``, used where `interpolation` is ``auto``.
        """
        rule = rule if self.interpolation == "auto" else self.interpolation
        if rule == "hold":
            owner = self.line_owners(n_lines)
            return self.translation_mm[owner], self.rotation_deg[owner]
        return self.at(np.linspace(0.0, 1.0, n_lines))

    def at(self, moments: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return translations and rotations, linearly interpolated, at `moments` (M,)."""
        columns = [
            np.stack([np.interp(moments, self.times, values[:, i]) for i in range(3)], axis=-1)
            for values in (self.translation_mm, self.rotation_deg)
        ]
        return columns[0], columns[1]


def displacement(
    trajectory: Trajectory, *, centre_time: float = 0.5, n_frames: int = 200
) -> dict[str, float]:
    """Measure how severe a motion is, for a head that is a ball of 64 mm radius.

    Parameters
    ----------
    trajectory : Trajectory
        In the RAS frame.
    centre_time : float, default=0.5
        Moment at which the centre of k-space is acquired (0 in centric order).
    n_frames : int, default=200
        Evenly spaced moments at which the motion is looked at.

    Returns
    -------
    dict
        ``max_pairwise_mm`` (largest distance of two poses), ``max_pairwise_translation_mm``,
        ``max_pairwise_rotation_deg`` (the simulators' ranges), ``mean_mm`` (mean distance from the
        first pose), ``framewise_power_mm`` (50 mm), ``framewise_jenkinson_mm`` (80 mm; both the
        mean over frames), ``from_centre_mm`` (mean distance from the pose at `centre_time`),
        ``energy_weighted_mm`` (RMS distance from the energy-weighted mean pose, energy-weighted),
        ``motion_free_fraction`` (largest share of the scan within 0.5 mm of one pose).

    Raises
    ------
    ValueError
        If the trajectory is in the fork's voxel frame.

    Notes
    -----
    Source: Jenkinson 1999 and Power 2012 for the distances; Afacan 2016 for what readers react to.
    """
    if trajectory.frame != "ras":
        raise ValueError("Severity in mm needs a trajectory in RAS axes; this one counts voxels.")
    moments = (np.arange(n_frames) + 0.5) / n_frames
    shifts, angles = _frames(trajectory, moments)
    energy = 1 / (1 + ((moments - centre_time) / ENERGY_WIDTH) ** 2)
    weights = energy / energy.sum()
    apart = pose_distance_mm(shifts[:, None], angles[:, None], shifts, angles)
    off_mean = pose_distance_mm(shifts, angles, weights @ shifts, weights @ angles)
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


def rotation_matrices(rotation_deg: Any) -> np.ndarray:
    """Rotation matrices ``Rz(c) Rx(a) Ry(b)``, (..., 3, 3), of ``(a, b, c)`` in degrees, (..., 3).

    Source: ITK's ``Euler3DTransform``, used by TorchIO and by the fork.
    """
    angles = np.deg2rad(np.asarray(rotation_deg, dtype=np.float64))
    (ca, cb, cc), (sa, sb, sc) = (np.moveaxis(f(angles), -1, 0) for f in (np.cos, np.sin))
    rows = [
        [cc * cb - sc * sa * sb, -sc * ca, cc * sb + sc * sa * cb],
        [sc * cb + cc * sa * sb, cc * ca, sc * sb - cc * sa * cb],
        [-ca * sb, sa, ca * cb],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def pose_distance_mm(
    translation_mm: np.ndarray,
    rotation_deg: np.ndarray,
    other_translation_mm: np.ndarray,
    other_rotation_deg: np.ndarray,
    *,
    radius_mm: float = HEAD_RADIUS_MM,
) -> np.ndarray:
    """RMS displacement of a ball between poses, in mm; the last axis (3,) is consumed.

    Source: Jenkinson 1999, ``sqrt(|dt|^2 + r^2/5 ||dR||^2)``, exact for a ball at the centre.
    """
    shift = np.asarray(translation_mm) - np.asarray(other_translation_mm)
    turn = rotation_matrices(rotation_deg) - rotation_matrices(other_rotation_deg)
    return np.sqrt((shift**2).sum(-1) + radius_mm**2 / 5 * (turn**2).sum((-1, -2)))
