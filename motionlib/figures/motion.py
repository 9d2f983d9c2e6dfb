"""Figures 1 and 2 of the paper: how both simulators move a head, and what severity looks like."""

import numpy as np
import torch

from motionlib.figures.theme import new_figure, styled
from motionlib.motion import image_motion, kspace_motion, sample_segments, sample_time_course
from motionlib.motion.recipes import TIMES

STEPS = {  # of the two simulators, as the paper's Fig. 1 has them
    "image-based": (
        *("1. A still head", "2. Poses (mm, °), each held for a while"),
        *("3. FFT of the head in each pose:\nlines of the time it was held", "4. Inverse FFT"),
    ),
    "k-space": (
        *("1. A still head, and its FFT", "2. A pose (mm, °) for every line"),
        *("3. Each line turned and shifted\nin phase by its pose", "4. Inverse non-uniform FFT"),
    ),
}


@styled
def plot_simulators(head, affine, *, amount: float = 5.0, seed: int = 0):
    """Draw both simulators step by step, from real arrays (paper Fig. 1).

    `head`, (I, J, K), is still, `affine` its voxels in RAS mm; `amount` is in mm and degrees. Above
    image-based, below k-space; from left: still head, movement, who owns k-space, moved head.
    """
    limits, rng = (amount, amount), np.random.default_rng(seed)
    course = sample_time_course(TIMES, translation_mm=limits, rotation_deg=limits, rng=rng)
    poses = sample_segments(4, translation_mm=limits, rotation_deg=limits, rng=rng)
    volume = torch.as_tensor(head, dtype=torch.float32)
    by_kspace = kspace_motion(volume, course, affine=affine, axis=1).numpy()
    by_image = image_motion(volume, poses, affine=affine, axis=1).numpy()
    middle = head.shape[0] // 2
    spectrum = np.log1p(np.abs(np.fft.fftshift(np.fft.fft2(head[middle]))))
    figure, axes = new_figure(12.6, 6.6, 4, 2)
    figure.get_layout_engine().set(wspace=0.14)  # for the arrows
    made = (poses, by_image), (course, by_kspace)
    for line, (name, steps), (movement, result) in zip(axes, STEPS.items(), made, strict=True):
        stepped = movement is poses
        for ax, array in ((line[0], head), (line[3], result)):
            ax.imshow(array[middle].T, origin="lower", cmap="gray", vmin=0)
            ax.set(xticks=[], yticks=[], xlabel="posterior to anterior")
        line[0].set_ylabel(f"{name} simulation", fontsize=12)
        _draw_movement(line[1], movement, stepped=stepped)
        _draw_ownership(line[2], spectrum, movement, head.shape[1], stepped=stepped)
        arrow = {"arrowstyle": "-|>", "linewidth": 2, "color": "#333333"}
        for ax, step in zip(line, steps, strict=True):
            ax.set_title(step, fontsize=10)
            if ax is not line[-1]:
                ax.annotate("", (1.16, 0.5), (1.03, 0.5), "axes fraction", arrowprops=arrow)
    return figure


@styled
def plot_severities(head, affine, *, amounts=(3, 5, 7), seed: int = 0):
    """Draw one head under the same rising motion by both simulators (paper Fig. 2).

    Rows: still, then each amount in mm and degrees; columns A (k-space) and B (image). The four
    positions and their moments are the same in every row and for both, but for their size.
    """
    rows, volume = [("motion free", head, head)], torch.as_tensor(head, dtype=torch.float32)
    simulators = (kspace_motion, image_motion)
    for amount in amounts:
        limits = (amount, amount)
        poses = sample_segments(4, translation_mm=limits, rotation_deg=limits, rng=seed)
        moved = (move(volume, poses, affine=affine, axis=1) for move in simulators)
        rows.append((f"{amount}° and {amount} mm", *(one.numpy() for one in moved)))
    figure, axes = new_figure(8, 2.1 * len(rows), 4, len(rows))
    top = float(np.percentile(head, 99.7))
    for line, (label, *pair) in zip(axes, rows, strict=True):
        panels = []
        for volume in pair:  # a sagittal and an axial slice of each
            panels += [volume[volume.shape[0] // 2], volume[:, :, int(0.55 * volume.shape[2])]]
        for ax, panel in zip(line, panels, strict=True):
            ax.imshow(panel.T, origin="lower", cmap="gray", vmin=0, vmax=top)
            ax.set(xticks=[], yticks=[])
        line[0].set_ylabel(label)
        line[1].text(0.02, 0.92, "L", color="white", transform=line[1].transAxes)
    for ax, title in zip(axes[0], ("A: k-space", "", "B: image", ""), strict=True):
        ax.set_title(title, loc="left")
    return figure


def _draw_movement(ax, movement, *, stepped: bool) -> None:
    """Draw translations and rotations over the time of the scan; `stepped` holds each pose."""
    times = np.append(movement.times, 1.0)
    kinds = (("mm", "-", movement.translation_mm), ("degrees", "--", movement.rotation_deg))
    for unit, dash, values in kinds:
        for axis, letter in enumerate("xyz"):
            style = {"color": f"C{axis}", "linestyle": dash, "label": f"{letter} ({unit})"}
            style |= {"drawstyle": "steps-post"} if stepped else {}
            ax.plot(times, np.append(values[:, axis], values[-1, axis]), **style)
    ax.set(xlabel="time (fraction of the scan)")
    ax.legend(fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.22))


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
    ax.set(xticks=[], yticks=[])
    ax.set(xlabel="k-space line, in the order of time", ylabel="inferior to superior")
