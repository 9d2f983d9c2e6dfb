"""One still head goes in; the drawings and small measurements of notebook 2 come out."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import torch

from motionlib.figures.theme import new_figure, styled
from motionlib.motion import sampling, trajectory
from motionlib.motion.image_based import image_motion, kspace_motion, resample_once

POSITIONS = (4, 16, 128)  # the paper times these, §V
TIMES = 200  # time points of the k-space course, §III-C.1


def as_tensor(array) -> torch.Tensor:
    """Return an array (I, J, K) as the float32 tensor that the simulators take."""
    return torch.as_tensor(np.asarray(array), dtype=torch.float32)


def _moved(head, affine, amount: float, seed: int):
    """Move a head by the same amount with both simulators: (k-space, image) arrays."""
    limits = (amount, amount)
    rng = np.random.default_rng(seed)
    course = sampling.sample_time_course(TIMES, translation_mm=limits, rotation_deg=limits, rng=rng)
    poses = sampling.sample_segments(4, translation_mm=limits, rotation_deg=limits, rng=rng)
    volume = as_tensor(head)
    return (
        kspace_motion(volume, course, affine=affine, axis=1).numpy(),
        image_motion(volume, poses, affine=affine, axis=1).numpy(),
        course,
        poses,
    )


@styled
def plot_simulators(head, affine, *, amount: float = 5.0, seed: int = 0):
    """Draw how both simulators work, from real arrays.

    Parameters
    ----------
    head : ndarray, shape (I, J, K)
        A still head.
    affine : ndarray, shape (4, 4)
        Voxel indices to RAS millimetres.
    amount : float, default=5.0
        Translation in mm and rotation in degrees.
    seed : int, default=0
        Seed of the movement.

    Returns
    -------
    Figure
        Left: image-based; right: k-space; rows: movement, who owns k-space, result.

    Notes
    -----
    Source: paper Fig. 1.
    """
    by_kspace, by_image, course, poses = _moved(head, affine, amount, seed)
    middle = head.shape[0] // 2
    spectrum = np.log1p(np.abs(np.fft.fftshift(np.fft.fft2(head[middle]))))
    figure, axes = new_figure(9, 9.6, 2, 3)
    columns = ((poses, by_image, "image-based"), (course, by_kspace, "k-space"))
    for column, (movement, result, title) in enumerate(columns):
        top, centre, bottom = axes[:, column]
        _draw_movement(top, movement, stepped=column == 0)
        top.set_title(title)
        _draw_ownership(centre, spectrum, movement, head.shape[1], stepped=column == 0)
        bottom.imshow(result[middle].T, origin="lower", cmap="gray", vmin=0)
        bottom.set(
            xticks=[], yticks=[], xlabel="posterior to anterior", ylabel="inferior to superior"
        )
    return figure


def _draw_movement(ax, movement, *, stepped: bool) -> None:
    style = {"drawstyle": "steps-post"} if stepped else {}
    times = np.append(movement.times, 1.0)
    for row, (name, values) in enumerate(
        (("mm", movement.translation_mm), ("degrees", movement.rotation_deg))
    ):
        for axis, label in enumerate("xyz"):
            ax.plot(
                times,
                np.append(values[:, axis], values[-1, axis]),
                color=f"C{axis}",
                linestyle=("-", "--")[row],
                label=f"{label} ({name})",
                **style,
            )
    ax.set(xlabel="time (fraction of the scan)", ylabel="translation (mm), rotation (°)")
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.3 * (high - low))  # room for the legend above the lines
    ax.legend(fontsize="x-small", ncols=3, loc="upper center")


def _draw_ownership(ax, spectrum, movement, n_lines: int, *, stepped: bool) -> None:
    """Colour each line of k-space by the pose that the head had when it was acquired."""
    line_times = np.arange(n_lines) / n_lines
    if stepped:
        owner = np.searchsorted(movement.times, line_times, side="right") - 1
        centre = owner[n_lines // 2]  # TorchIO's rule: the centre goes to the first, still pose
        owner = np.select([owner == centre, owner == 0], [0, centre], owner)
    else:
        owner = np.interp(line_times, movement.times, np.arange(len(movement.times)))
    ax.imshow(spectrum.T, origin="lower", cmap="gray", aspect="auto")
    shade = np.broadcast_to(owner[None, :], (spectrum.shape[1], n_lines))
    ax.imshow(shade, origin="lower", cmap="viridis", alpha=0.45, aspect="auto")
    ax.set(xticks=[], yticks=[], xlabel="k-space line, in the order of time", ylabel="k (S-I)")


@styled
def plot_severities(head, affine, *, amounts=(3, 5, 7), seed: int = 0):
    """Draw one head under rising motion by both simulators.

    Returns
    -------
    Figure
        Rows: still, then each amount in mm and degrees; columns A (k-space) and B (image).

    Notes
    -----
    Source: paper Fig. 2.
    """
    rows = [("motion free", head, head)]
    for amount in amounts:
        by_kspace, by_image, *_ = _moved(head, affine, amount, seed)
        rows.append((f"{amount}° and {amount} mm", by_kspace, by_image))
    figure, axes = new_figure(8, 2.1 * len(rows), 4, len(rows))
    top = float(np.percentile(head, 99.7))
    for line, (label, *pair) in zip(axes, rows, strict=True):
        panels = [one for volume in pair for one in (_sagittal(volume), _axial(volume))]
        for ax, panel in zip(line, panels, strict=True):
            ax.imshow(panel.T, origin="lower", cmap="gray", vmin=0, vmax=top)
            ax.set(xticks=[], yticks=[])
        line[0].set_ylabel(label)
        line[1].text(0.02, 0.92, "L", color="white", transform=line[1].transAxes)
    for ax, title in zip(axes[0], ("A: k-space", "", "B: image", ""), strict=True):
        ax.set_title(title, loc="left")
    return figure


def _sagittal(volume):
    return volume[volume.shape[0] // 2]


def _axial(volume):
    return volume[:, :, int(0.55 * volume.shape[2])]


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
    volume = as_tensor(head)
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
    volume = as_tensor(head)
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
    from motionlib.preprocess.volumes import phantom

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
