"""A 3-D Cartesian acquisition of a moving head: the order of its lines, gaps, phase and noise.

The two simulators of the paper fill k-space from one end to the other. A scanner need not: it may
begin with the centre, take interleaved shots, leave out lines at one end (partial Fourier), and
move along another axis than the one it leaves lines out along::

    acquisition = Acquisition(phase_axis=1, slow_axis=0, order="centric", noise_sd=0.02)
    scan = acquire(volume, trajectory, acquisition, affine=affine, rng=0)

The virtual hospital's scans are made so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from motionlib.motion.kspace_based import moving_spectrum
from motionlib.motion.resampling import (
    check_affine,
    check_axis,
    check_volume,
    one_thread_if_small,
    sampling_maps,
)
from motionlib.motion.trajectory import Trajectory

NUFFT_EPS = 1e-3  # relative accuracy; the noise of any scan lies far above it


@one_thread_if_small
def acquire(
    volume: torch.Tensor,
    trajectory: Trajectory,
    acquisition: Acquisition,
    *,
    affine: Any,
    rng: np.random.Generator | int,
    sensitivity: np.ndarray | None = None,
) -> torch.Tensor:
    """Scan a moving head.

    Parameters
    ----------
    volume : Tensor, shape (1, I, J, K) or (I, J, K)
        The head at rest, float32, not negative. Not modified. On the CPU.
    trajectory, acquisition : Trajectory, Acquisition
        How the head moves, and how k-space is sampled along the array axes of `volume`.
    affine : array-like, shape (4, 4)
        From voxel indices to RAS mm.
    rng : Generator or int
        Source of the noise and of the image phase.
    sensitivity : ndarray, shape (I, J, K), optional
        Of the receive coil, float32. It stays where it is while the head moves.

    Returns
    -------
    Tensor
        Magnitude image, shape and dtype of `volume`.

    Raises
    ------
    ValueError
        If the volume, the affine or the acquisition cannot give a scan.

    Notes
    -----
    Departs from the paper: order of the lines, partial Fourier, phase and noise are modelled. With
    none of them it is the paper's k-space simulator without padding. The sensitivity multiplies the
    image of the moved head, which is exact for a head at rest and mixes neighbouring lines, so it
    is least exact for interleaved shots, whose neighbours are acquired far apart (a test holds both
    beside two poses done exactly). Not modelled: several coils, motion within one repetition, spin
    history, field changes, the neck.
    """
    grid, affine = check_volume(volume, "magnitude"), check_affine(affine)
    if grid.device.type != "cpu":
        raise ValueError("acquire works on the CPU; move the volume there (volume.cpu()).")
    rng = np.random.default_rng(rng)
    shape, slow, phase = tuple(grid.shape), acquisition.slow_axis, acquisition.phase_axis
    n_slow = shape[slow]
    lines = acquisition.slow_lines(n_slow)
    if trajectory.interpolation == "hold" and len(trajectory) > lines.size:
        raise ValueError(f"{len(trajectory)} segments do not fit into {lines.size} acquired lines.")
    # 1. The poses follow each other in the order in which the lines are acquired. A line that is
    #    left out has no pose of its own; it is computed with the first one, for the coil.
    line_poses = []
    for acquired in trajectory.at_lines(lines.size, rule="linear"):
        every_line = np.repeat(acquired[:1], n_slow, axis=0)
        every_line[lines] = acquired
        line_poses.append(every_line)
    maps = sampling_maps(*line_poses, affine, shape, frame=trajectory.frame)
    # 2. K-space of the head, each plane across the slow axis in its own pose.
    head = grid * _smooth_phase(shape, rng) if acquisition.phase else grid
    samples = moving_spectrum(head, np.linalg.inv(maps), shape, slow, eps=NUFFT_EPS)
    # 3. Only the acquired planes are kept: k-space along the slow axis, from -kmax to +kmax, and
    #    image along the two others, so that noise is added to as few numbers as possible. The
    #    leading axis is the receive channel; without it torch rolls and transforms in another
    #    memory layout, and the last bit of a scan would change.
    others = [d for d in range(3) if d != slow]
    if sensitivity is None:
        planes = torch.fft.ifftn(samples, dim=others)
    else:
        image = torch.fft.ifftn(samples).mul_(torch.from_numpy(sensitivity))
        planes = torch.fft.fft(image, dim=slow)
    planes = planes.movedim(slow, 0)
    order = torch.as_tensor(lines)
    hybrid = torch.zeros((1, n_slow, *(shape[d] for d in others)), dtype=torch.complex64)
    hybrid[0, order] = planes[(order - n_slow // 2) % n_slow].to(hybrid.dtype)
    # 4. White noise. The inverse transform along n lines divides its SD by the root of n.
    foreground = float(grid[grid > grid.mean()].mean())
    noise_sd = acquisition.noise_sd * foreground * np.sqrt(n_slow)
    if noise_sd > 0:
        hybrid[0, order] += _noise((lines.size, *hybrid.shape[2:]), noise_sd, rng)
    # 5. Lines that partial Fourier leaves out along another axis than the slow one become zero.
    if phase != slow:
        hybrid = _to_image(hybrid).movedim(1, 1 + slow).movedim(1 + phase, 1)
        hybrid = torch.fft.fftshift(torch.fft.fft(hybrid, dim=1), dim=1)
        hybrid[:, torch.as_tensor(~acquisition.sampled(shape[phase]))] = 0
    # 6. The scanner stores the magnitude.
    scan = _to_image(hybrid).movedim(1, 1 + phase)[0].abs()
    return scan.to(volume.dtype).reshape(volume.shape)


@dataclass(frozen=True)
class Acquisition:
    """How a 3-D scan samples k-space over time; ValueError if a value lies outside its limits.

    Attributes
    ----------
    phase_axis : int
        Array axis of the in-plane phase encoding, along which partial Fourier acts. In RAS arrays 1
        is anterior-posterior, usual for sagittal MPRAGE.
    slow_axis : int, optional
        Array axis of the outer loop, along which motion acts; default `phase_axis` (MPRAGE). The
        inner loop and the readout are instantaneous.
    order : {"linear", "centric", "segmented"}
        Order of the slow lines: bottom to top, from the centre outwards, or interleaved shots.
    n_segments : int
        Shots of the segmented order; shot s takes lines s, s + n, s + 2n, ...
    partial_fourier : float
        Share of the phase lines acquired, above 0.5 up to 1; the rest is filled with zeros.
    noise_sd : float
        SD of the complex noise per channel, as a fraction of the foreground mean.
    phase : bool
        Give the head a smooth phase that moves with it.
    """

    phase_axis: int = 1
    slow_axis: int | None = None
    order: Literal["linear", "centric", "segmented"] = "linear"
    n_segments: int = 1
    partial_fourier: float = 1.0
    noise_sd: float = 0.0
    phase: bool = False

    def __post_init__(self) -> None:
        slow = self.phase_axis if self.slow_axis is None else self.slow_axis
        object.__setattr__(self, "phase_axis", check_axis(self.phase_axis))
        object.__setattr__(self, "slow_axis", check_axis(slow))
        checks = {
            "order": self.order in ("linear", "centric", "segmented"),
            "n_segments": self.n_segments >= 1,
            "partial_fourier": 0.5 < self.partial_fourier <= 1,
            "noise_sd": 0 <= self.noise_sd < 10,
        }
        if bad := [f"{name}={getattr(self, name)!r}" for name, good in checks.items() if not good]:
            raise ValueError(f"The acquisition has {', '.join(bad)}; see the class for the limits.")

    def sampled(self, n_lines: int) -> np.ndarray:
        """Return which of `n_lines` phase lines, from -kmax to +kmax, are acquired; bool (N,)."""
        return np.arange(n_lines) >= n_lines - round(self.partial_fourier * n_lines)

    def slow_lines(self, n_lines: int) -> np.ndarray:
        """Return the slow lines in the order of their acquisition, as indices from -kmax on."""
        lines = np.arange(n_lines)
        if self.slow_axis == self.phase_axis:
            lines = np.flatnonzero(self.sampled(n_lines))
        if self.order == "centric":
            distance = np.abs(lines - n_lines // 2)
            return lines[np.argsort(distance, kind="stable")]
        if self.order == "segmented":
            return np.concatenate([lines[s :: self.n_segments] for s in range(self.n_segments)])
        return lines

    def line_times(self, n_lines: int) -> np.ndarray:
        """Return when each slow line is acquired, a fraction of the scan; NaN if it is not."""
        times = np.full(n_lines, np.nan)
        lines = self.slow_lines(n_lines)
        times[lines] = np.linspace(0, 1, lines.size)
        return times


def _smooth_phase(shape: tuple[int, ...], rng: np.random.Generator) -> torch.Tensor:
    """Draw a smooth image phase, a random paraboloid of about one turn; (I, J, K) complex64."""
    factors = []
    for n in shape:
        x = np.linspace(-1, 1, n)
        slope, bend = rng.uniform(-1.5, 1.5), rng.uniform(-1.5, 1.5)
        factors.append(torch.as_tensor(np.exp(1j * (slope * x + bend * x**2))).to(torch.complex64))
    x, y, z = factors
    return (x[:, None] * y)[:, :, None] * z


def _noise(shape: tuple[int, ...], sd: float, rng: np.random.Generator) -> torch.Tensor:
    """Complex white noise, `sd` per channel."""
    pair = rng.standard_normal((*shape, 2), dtype=np.float32) * np.float32(sd)
    return torch.view_as_complex(torch.from_numpy(pair))


def _to_image(hybrid: torch.Tensor) -> torch.Tensor:
    """Inverse FFT along axis 1, whose lines are in rising order."""
    return torch.fft.ifft(torch.fft.ifftshift(hybrid, dim=1), dim=1)
