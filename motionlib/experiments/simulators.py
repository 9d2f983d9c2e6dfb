"""Small measurements of the two simulators: what each choice does to one head, and its cost."""

import time

import numpy as np
import pandas as pd
import torch

from motionlib.motion import sampling, trajectory
from motionlib.motion.image_based import image_motion, resample_once
from motionlib.motion.kspace_based import kspace_motion
from motionlib.motion.recipes import TIMES
from motionlib.preprocess.grid import study_grid
from motionlib.preprocess.images import phantom

POSITIONS = (4, 16, 128)  # the paper times these, §V


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
    copies["no motion, resampled once (sinc)"] = kspace_motion(volume, still, affine=affine, axis=1)
    table = {
        name: {
            "relative_difference": _difference(copy.numpy(), head),
            "negative_share": float((copy < -1e-6).float().mean()),
            "high_frequency_share": _sharpness(copy.numpy()) / _sharpness(head),
        }
        for name, copy in copies.items()
    }
    return pd.DataFrame(table).T.rename_axis("choice")


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
        Records CPU-seconds of the steps ``simulate/image/4`` ... and ``simulate/kspace/200``, and
        of TorchIO's own transform as ``simulate/torchio/4`` for comparison.
    spacing_mm : float
        Voxel size; 1 mm is the paper's. More positions than k-space lines are left out.
    positions, seed : sequence of int, int
        Numbers of positions of the image-based simulator, and seed of the movements.
    """
    import torchio  # takes seconds to open, and nothing else here needs it

    grid = study_grid(spacing_mm)
    volume, how = phantom(grid.shape), {"affine": grid.matrix, "axis": 1}
    limits = {"translation_mm": (2, 4), "rotation_deg": (2, 4)}
    course = sampling.sample_time_course(TIMES, **limits, rng=seed)
    # the first calls compile and plan, and are not timed
    image_motion(volume, sampling.sample_segments(4, **limits, rng=seed), **how)
    kspace_motion(volume, course, **how)
    for n in positions:
        if n < grid.shape[1]:
            poses = sampling.sample_segments(n, **limits, rng=seed)
            run.duration(f"simulate/image/{n}", _cpu_seconds(image_motion, volume, poses, **how))
    run.duration(f"simulate/kspace/{TIMES}", _cpu_seconds(kspace_motion, volume, course, **how))
    torch.manual_seed(seed)
    transform = torchio.RandomMotion(degrees=(2, 4), translation=(2, 4), num_transforms=4)
    image = torchio.ScalarImage(tensor=volume, affine=grid.matrix)
    run.duration("simulate/torchio/4", _cpu_seconds(transform, image))


def _cpu_seconds(function, *values, **options) -> float:
    """CPU-seconds of all threads that a call takes."""
    start = time.process_time()
    function(*values, **options)
    return time.process_time() - start


def _difference(copy, head) -> float:
    """Norm of the difference from the still head, relative to the head's own."""
    return float(np.linalg.norm(copy - head) / np.linalg.norm(head))


def _held(poses, n_times: int):
    """Hold each pose until the next, as a time course of ``n_times`` points."""
    owner = np.searchsorted(poses.times, np.arange(n_times) / n_times, side="right") - 1
    return trajectory.Trajectory(
        np.arange(n_times) / n_times, poses.translation_mm[owner], poses.rotation_deg[owner]
    )


def _sharpness(volume) -> float:
    """Energy of the voxel-to-voxel differences, relative to all energy."""
    return float(sum((np.diff(volume, axis=a) ** 2).sum() for a in range(3)) / (volume**2).sum())
