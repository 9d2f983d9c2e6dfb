"""One still head goes in; the drawings and small measurements of notebook 2 come out."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import torch

from motionlib.motion import sampling, trajectory
from motionlib.motion.image_based import image_motion, resample_once
from motionlib.motion.kspace_based import kspace_motion
from motionlib.motion.recipes import TIMES

POSITIONS = (4, 16, 128)  # the paper times these, §V


def _difference(copy, head) -> float:
    return float(np.linalg.norm(copy - head) / np.linalg.norm(head))


def compare_choices(head, affine, *, amount: float = 3.0, seed: int = 0) -> pd.DataFrame:
    """Measure what interpolation, output and axis do to the same movement.

    Returns
    -------
    DataFrame
        Relative difference from the still head, and share of negative voxels, for each choice.
    """
    rng = np.random.default_rng(seed)
    limits = (amount, amount)
    poses = sampling.sample_segments(4, translation_mm=limits, rotation_deg=limits, rng=rng)
    volume = torch.as_tensor(head, dtype=torch.float32)
    pose = rng.uniform(-amount, amount, (2, 3))
    options = {
        "linear, magnitude, A-P": {"axis": 1},
        "linear, real part, A-P": {"axis": 1, "output": "real"},
        "linear, magnitude, S-I (TorchIO's axis)": {"axis": 2},
        "linear, magnitude, L-R": {"axis": 0},
    }
    copies = {
        name: image_motion(volume, poses, affine=affine, keep_center=False, **how)
        for name, how in options.items()
    }
    copies["sinc, magnitude, A-P (same poses)"] = kspace_motion(
        volume, _held(poses, head.shape[1]), affine=affine, axis=1
    )
    copies["no motion, resampled once (linear)"] = resample_once(
        volume, pose[0], pose[1], affine=affine
    )
    still = trajectory.Trajectory(np.zeros(1), pose[:1], pose[1:])
    back = kspace_motion(volume, still, affine=affine, axis=1)
    copies["no motion, resampled once (sinc)"] = back
    table = {
        name: {
            "relative_difference": _difference(copy.numpy(), head),
            "negative_share": float((copy < -1e-6).float().mean()),
            "high_frequency_share": _sharpness(copy.numpy()) / _sharpness(head),
        }
        for name, copy in copies.items()
    }
    return pd.DataFrame(table).T.rename_axis("choice")


def _held(poses, n_times: int):
    """Hold each pose until the next, as a time course of ``n_times`` points."""
    owner = np.searchsorted(poses.times, np.arange(n_times) / n_times, side="right") - 1
    return trajectory.Trajectory(
        np.arange(n_times) / n_times, poses.translation_mm[owner], poses.rotation_deg[owner]
    )


def _sharpness(volume) -> float:
    """Energy of the voxel-to-voxel differences, relative to all energy."""
    return float(sum((np.diff(volume, axis=a) ** 2).sum() for a in range(3)) / (volume**2).sum())


def single_step_error(head, affine, moment: float, *, step_mm: float = 5.0) -> float:
    """Relative difference that one step at one moment of the scan leaves behind."""
    step = trajectory.Trajectory(
        np.array([0.0, moment]), np.array([[0.0] * 3, [0.0, step_mm, 0.0]]), np.zeros((2, 3))
    )
    volume = torch.as_tensor(head, dtype=torch.float32)
    return _difference(image_motion(volume, step, affine=affine, axis=1).numpy(), head)


def time_simulators(run, spacing_mm: float, *, positions=POSITIONS, seed: int = 0) -> None:
    """Time both simulators on a phantom of the paper's field of view, into ``durations.csv``.

    Parameters
    ----------
    run : motionlib.study.run.Run
        Records the steps ``simulate/image/4`` ... and ``simulate/kspace/200``, and TorchIO's own
        transform as ``simulate/torchio/4`` for comparison.
    spacing_mm : float
        Voxel size; 1 mm is the paper's.  More positions than k-space lines are left out.
    """
    from motionlib.preprocess.grid import study_grid
    from motionlib.preprocess.images import phantom

    grid = study_grid(spacing_mm)
    volume = phantom(grid.shape)
    limits = {"translation_mm": (2, 4), "rotation_deg": (2, 4)}
    for warm in (True, False):
        for n in (4,) if warm else [n for n in positions if n < grid.shape[1]]:
            poses = sampling.sample_segments(n, **limits, rng=seed)
            with _clock() as clock:
                image_motion(volume, poses, affine=grid.matrix, axis=1)
            if not warm:
                run.duration(f"simulate/image/{n}", clock())
        course = sampling.sample_time_course(TIMES, **limits, rng=seed)
        with _clock() as clock:
            kspace_motion(volume, course, affine=grid.matrix, axis=1)
        if not warm:
            run.duration(f"simulate/kspace/{TIMES}", clock())
    run.duration("simulate/torchio/4", _time_torchio(volume, grid, seed))


def _time_torchio(volume, grid, seed: int) -> float:
    import torchio

    torch.manual_seed(seed)
    transform = torchio.RandomMotion(degrees=(2, 4), translation=(2, 4), num_transforms=4)
    image = torchio.ScalarImage(tensor=volume, affine=grid.matrix)
    with _clock() as clock:
        transform(image)
    return clock()


class _clock:  # noqa: N801 (used as a verb: with _clock() as clock)
    """CPU-seconds of all threads inside a ``with`` block."""

    def __enter__(self):
        self.start, self.stop = time.process_time(), None
        return lambda: self.stop - self.start

    def __exit__(self, *_):
        self.stop = time.process_time()
