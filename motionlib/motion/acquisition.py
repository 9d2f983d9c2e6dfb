"""A volume, a trajectory and a protocol go in; the scan this scanner would store comes out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from motionlib.motion import sidecar
from motionlib.motion.coils import fill_missing, sensitivities, smooth_phase
from motionlib.motion.image_based import partial_dft
from motionlib.motion.kspace_based import moving_spectrum
from motionlib.motion.resampling import (
    check_affine,
    check_volume,
    one_thread_if_small,
    sampling_maps,
)
from motionlib.motion.trajectory import Trajectory

POSE_TOLERANCE_VOX = 0.05  # poses closer than this share one resampling (image route)
FEW_POSES, MAX_POSES = 16, 48
NAMED = {
    # the paper's two simulators as acquisitions
    "image_simulator": {"phase_axis": 2, "interpolation": "linear"},
    "kspace_simulator": {"phase_axis": 1, "interpolation": "sinc"},
    # vendors: axis, acceleration after public protocols (MR-ART, ADNI); orders after vendor habit
    "siemens_mprage": {"acceleration": 2, "reference_lines": 24, "n_coils": 4, "noise_sd": 0.02},
    "siemens_mprage_full": {"noise_sd": 0.02},
    "siemens_mprage_pf": {"partial_fourier": 7 / 8, "phase": True, "noise_sd": 0.02},
    "ge_fspgr": {"order": "centric", "noise_sd": 0.02},
    "ge_fspgr_segmented": {"order": "segmented", "n_segments": 4, "noise_sd": 0.02},
    "philips_tfe": {"order": "centric", "oversampling": 0.2, "noise_sd": 0.02},
    "philips_tfe_partition": {"phase_axis": 1, "slow_axis": 0, "noise_sd": 0.02},
}


@one_thread_if_small
def acquire(
    volume: torch.Tensor,
    trajectory: Trajectory,
    acquisition: Acquisition,
    *,
    affine: Any,
    rng: np.random.Generator | int,
    center: Literal["image", "world"] = "image",
    direction: Literal["push", "pull"] = "push",
    eps: float = 1e-3,
) -> torch.Tensor:
    """Scan a moving head.

    Parameters
    ----------
    volume : Tensor, shape (1, I, J, K) or (I, J, K)
        The head at rest, float32, not negative. Not modified. On the CPU.
    trajectory : Trajectory
        Its motion over the scan.
    acquisition : Acquisition
        The protocol; its axes are array axes of `volume`.
    affine : array-like, shape (4, 4)
        From voxel indices to RAS mm.
    rng : Generator or int
        Source of the noise and of the image phase.
    center, direction : str
        As in ``simulate.image_motion``.
    eps : float
        Accuracy of the non-uniform FFT.

    Returns
    -------
    Tensor
        Magnitude image, shape and dtype of `volume`.

    Raises
    ------
    ValueError
        If the volume, the affine or the protocol cannot give a scan.

    Notes
    -----
    Departs from the paper: order of the lines, partial Fourier, parallel imaging, coils, phase and
    noise are modelled. With none of them it is the paper's simulators (``NAMED``).
    Not modelled: motion within one repetition, spin history, field changes, the neck.
    """
    grid, affine = check_volume(volume, "magnitude"), check_affine(affine)
    if grid.device.type != "cpu":
        raise ValueError("acquire works on the CPU; move the volume there (volume.cpu()).")
    rng = np.random.default_rng(rng)
    foreground = float(grid[grid > grid.mean()].mean())
    phase_axis, slow_axis = acquisition.phase_axis, acquisition.slow_axis
    before = round(grid.shape[phase_axis] * acquisition.oversampling / 2)
    head = _pad(grid, phase_axis, before)
    shape = tuple(head.shape)
    n_slow = shape[slow_axis]
    lines = acquisition.slow_lines(n_slow)
    if trajectory.interpolation == "hold" and len(trajectory) > lines.size:
        raise ValueError(f"{len(trajectory)} segments do not fit into {lines.size} acquired lines.")
    poses = trajectory.at_lines(lines.size, rule="linear", interval=acquisition.interval)
    line_poses = [np.repeat(p[:1], n_slow, axis=0) for p in poses]
    for all_lines, acquired in zip(line_poses, poses, strict=True):
        all_lines[lines] = acquired
    offset = np.zeros(3)
    offset[phase_axis] = before
    shifted = affine.copy()
    shifted[:3, 3] -= affine[:3, :3] @ offset
    maps = sampling_maps(
        *line_poses, shifted, shape,
        frame=trajectory.frame, center=center, direction=direction,
    )  # fmt: skip
    if acquisition.phase:
        head = head * smooth_phase(shape, rng)
    coils = sensitivities(shape, acquisition.n_coils)
    hybrid = _signal(head, maps, lines, coils, slow_axis, acquisition, eps)
    noise_sd = acquisition.noise_sd * foreground * np.sqrt(n_slow)
    if noise_sd > 0:
        hybrid[:, lines] += _noise((len(coils), lines.size, *hybrid.shape[2:]), noise_sd, rng)
    scan = _reconstruct(hybrid, coils, acquisition)
    scan = scan.narrow(phase_axis, before, grid.shape[phase_axis])
    return scan.to(volume.dtype).reshape(volume.shape)


def _pad(grid: torch.Tensor, axis: int, vox: int) -> torch.Tensor:
    """Add `vox` planes of air on both sides along `axis`."""
    pads = [0, 0, 0, 0, 0, 0]
    pads[2 * (2 - axis)] = pads[2 * (2 - axis) + 1] = vox
    return torch.nn.functional.pad(grid, pads, value=float(grid.min())) if vox else grid


def _noise(shape: tuple[int, ...], sd: float, rng: np.random.Generator) -> torch.Tensor:
    """Complex white noise, `sd` per channel."""
    pair = rng.standard_normal((*shape, 2), dtype=np.float32) * np.float32(sd)
    return torch.view_as_complex(torch.from_numpy(pair))


def _signal(head, maps, lines, coils, slow, acquisition, eps) -> torch.Tensor:
    """Coil data (C, N, ., .): k-space along the slow axis (rising), image along the others."""
    n = head.shape[slow]
    others = [d for d in range(3) if d != slow]
    hybrid = torch.zeros((len(coils), n, *(head.shape[d] for d in others)), dtype=torch.complex64)
    if len(coils) == 1 and acquisition.interpolation == "sinc":
        samples = moving_spectrum(head, np.linalg.inv(maps), tuple(head.shape), slow, eps=eps)
        planes = torch.fft.ifftn(samples, dim=others).movedim(slow, 0)
        order = torch.as_tensor(lines)
        hybrid[0, order] = planes[(order - n // 2) % n].to(hybrid.dtype)
        return hybrid
    from motionlib.motion.resampling import fine_grid, resample

    parts = [head.real.contiguous(), head.imag.contiguous()] if head.is_complex() else [head]
    fill = 0.0 if head.is_complex() else float(head.min())
    scale = np.eye(4)
    if acquisition.interpolation == "sinc":
        parts, scale = [fine_grid(part) for part in parts], np.diag([2.0, 2.0, 2.0, 1.0])
    leaders, owner = group_poses(maps[lines], head.shape)
    for pose, leader in enumerate(leaders):
        moved = [
            resample(part, scale @ maps[lines[leader]], fill=fill, out=torch.empty(head.shape))
            for part in parts
        ]
        image = torch.complex(*moved) if len(moved) == 2 else moved[0]
        own = lines[owner == pose]
        for coil, sensitivity in enumerate(coils):
            seen = image if len(coils) == 1 else image * sensitivity
            hybrid[coil, torch.as_tensor(own)] = partial_dft(seen, own - n // 2, slow)
    return hybrid


def group_poses(maps: np.ndarray, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Let nearly equal poses share one image.

    Parameters
    ----------
    maps : ndarray, shape (L, 4, 4)
        Maps of the lines, in the order of their acquisition.
    shape : sequence of int
        Size of the volume.

    Returns
    -------
    tuple of ndarray
        Indices of the leading lines (P,), and the leader of every line (L,). Up to 16 different
        poses are all kept; above, poses that move the box's corners by less than 0.05 voxel apart
        are merged, or by as much as it takes to need no more than 48.
    """
    size = np.asarray(shape, dtype=np.float64)
    corners = np.array(np.meshgrid(*[(0.15, 0.85)] * 3, indexing="ij")).reshape(3, -1)
    points = maps[:, :3, :3] @ (corners * size[:, None]) + maps[:, :3, 3:]
    points = points.reshape(len(maps), -1)
    tolerance = 0.0 if len(np.unique(points, axis=0)) <= FEW_POSES else POSE_TOLERANCE_VOX
    while True:
        leaders: list[int] = []
        owner = np.zeros(len(maps), dtype=int)
        for line, point in enumerate(points):
            apart = np.abs(points[leaders] - point).max(axis=1) if leaders else np.array([np.inf])
            nearest = int(np.argmin(apart))
            if apart[nearest] > tolerance:
                nearest = len(leaders)
                leaders.append(line)
            owner[line] = nearest
        if len(leaders) <= MAX_POSES:
            return np.array(leaders), owner
        tolerance *= 1.5


def _reconstruct(
    hybrid: torch.Tensor, coils: torch.Tensor, acquisition: Acquisition
) -> torch.Tensor:
    """Fill what was skipped, transform back, combine the coils; magnitude (I, J, K)."""
    slow, phase = acquisition.slow_axis, acquisition.phase_axis
    if phase != slow:
        hybrid = _to_image(hybrid).movedim(1, 1 + slow).movedim(1 + phase, 1)
        hybrid = torch.fft.fftshift(torch.fft.fft(hybrid, dim=1), dim=1)
        hybrid[:, torch.as_tensor(~acquisition.sampled(hybrid.shape[1]))] = 0
    n = hybrid.shape[1]
    if acquisition.acceleration > 1:
        hybrid = fill_missing(
            hybrid, acquisition.sampled(n), acquisition.reference(n), acquisition.acceleration
        )
    image = _to_image(hybrid).movedim(1, 1 + phase)
    return image[0].abs() if len(coils) == 1 else (image * coils.conj()).sum(0).abs()


def _to_image(hybrid: torch.Tensor) -> torch.Tensor:
    """Inverse FFT along the lines, which are in rising order."""
    return torch.fft.ifft(torch.fft.ifftshift(hybrid, dim=1), dim=1)


@dataclass(frozen=True)
class Acquisition:
    """How a 3-D scan samples k-space over time.

    Attributes
    ----------
    phase_axis : int
        Array axis of the in-plane phase encoding: acceleration, partial Fourier and oversampling
        act along it. In RAS arrays 1 is anterior-posterior, usual for sagittal MPRAGE.
    slow_axis : int, optional
        Array axis of the outer loop, along which motion acts; default `phase_axis` (MPRAGE). The
        inner loop and the readout are instantaneous.
    order : {"linear", "centric", "segmented"}
        Order of the slow lines: bottom to top, from the centre outwards, or interleaved shots.
    n_segments : int
        Shots of the segmented order; shot s takes lines s, s + n, s + 2n, ...
    partial_fourier : float
        Share of the phase lines acquired, above 0.5 up to 1; the rest is filled with zeros.
    acceleration : int
        Every so many phase lines are acquired; the others are estimated from the coils (GRAPPA).
    reference_lines : int
        Fully sampled lines in the middle, acquired in the same run.
    n_coils : int
        Receive coils with smooth sensitivities that do not move with the head.
    oversampling : float
        Extra field of view along the phase axis, as a fraction, cut off at the end.
    noise_sd : float
        SD of the complex noise per channel, as a fraction of the foreground mean.
    phase : bool
        Give the head a smooth phase that moves with it.
    interval : (float, float)
        Part of the trajectory's time in which the lines are acquired.
    interpolation : {"sinc", "linear"}
        How the moved head is evaluated: exactly by non-uniform FFT (one coil) or on a twofold finer
        grid (several), or trilinearly as the paper's first simulator does.
    """

    phase_axis: int = 1
    slow_axis: int | None = None
    order: Literal["linear", "centric", "segmented"] = "linear"
    n_segments: int = 1
    partial_fourier: float = 1.0
    acceleration: int = 1
    reference_lines: int = 0
    n_coils: int = 1
    oversampling: float = 0.0
    noise_sd: float = 0.0
    phase: bool = False
    interval: tuple[float, float] = (0.0, 1.0)
    interpolation: Literal["sinc", "linear"] = "sinc"

    def __post_init__(self) -> None:
        slow = self.phase_axis if self.slow_axis is None else self.slow_axis
        object.__setattr__(self, "phase_axis", _axis(self.phase_axis))
        object.__setattr__(self, "slow_axis", _axis(slow))
        checks = {
            "order": self.order in ("linear", "centric", "segmented"),
            "n_segments": self.n_segments >= 1,
            "partial_fourier": 0.5 < self.partial_fourier <= 1,
            "acceleration": self.acceleration >= 1,
            "reference_lines": self.reference_lines >= 0,
            "n_coils": self.n_coils >= 1,
            "oversampling": 0 <= self.oversampling <= 2,
            "noise_sd": 0 <= self.noise_sd < 10,
            "interval": 0 <= self.interval[0] < self.interval[1] <= 1,
            "interpolation": self.interpolation in ("sinc", "linear"),
        }
        if bad := [f"{name}={getattr(self, name)!r}" for name, good in checks.items() if not good]:
            raise ValueError(f"The acquisition has {', '.join(bad)}; see the class for the limits.")
        if self.acceleration > 1 and self.n_coils < self.acceleration:
            raise ValueError(
                f"Acceleration {self.acceleration} needs as many coils; there are {self.n_coils}."
            )

    @classmethod
    def named(cls, name: str) -> Acquisition:
        """Return a protocol by name (the keys of ``NAMED``), for arrays in RAS order.

        Raises
        ------
        ValueError
            If the name is unknown.
        """
        if name not in NAMED:
            raise ValueError(f"No acquisition is called {name!r}; use one of {', '.join(NAMED)}.")
        return cls(**NAMED[name])

    @classmethod
    def from_sidecar(cls, source: str | os.PathLike | Mapping[str, Any]) -> Acquisition:
        """Read what a BIDS sidecar says about the acquisition.

        Parameters
        ----------
        source : path-like or mapping
            The JSON file beside a T1-weighted NIfTI, or its content.

        Returns
        -------
        Acquisition
            Axes refer to the volume in RAS order where the sidecar gives the DICOM orientation, and
            to the stored array where it only gives ``PhaseEncodingDirection`` (i, j, k).

        Raises
        ------
        ValueError
            If the sidecar does not say which axis is phase encoded, or is not of a 3-D scan.

        Notes
        -----
        Source: BIDS and dcm2niix field names. Sidecars never tell the order of the lines: linear
        for Siemens, centric for GE and Philips, after vendor habit.
        """
        return cls(**sidecar.acquisition_fields(source))

    def sampled(self, n_lines: int) -> np.ndarray:
        """Return which of `n_lines` phase lines, from -kmax to +kmax, are acquired; bool (N,)."""
        line = np.arange(n_lines)
        wanted = np.zeros(n_lines, dtype=bool)
        wanted[self.reference(n_lines)] = True
        first = int(self.reference(n_lines)[0]) if self.acceleration > 1 else 0
        wanted |= (line - first) % self.acceleration == 0
        return wanted & (line >= n_lines - round(self.partial_fourier * n_lines))

    def reference(self, n_lines: int) -> np.ndarray:
        """Return the indices of the fully sampled lines around the centre of k-space."""
        count = min(self.reference_lines, n_lines) if self.acceleration > 1 else 0
        start = max(n_lines // 2 - count // 2, 0)
        return np.arange(start, start + count)

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
        times[lines] = np.linspace(*self.interval, lines.size)
        return times


def _axis(axis: int) -> int:
    """Return the array axis as 0, 1 or 2."""
    if axis not in (0, 1, 2, -1, -2, -3):
        raise ValueError(f"axis is {axis!r}; use 0, 1 or 2 of the array (I, J, K).")
    return int(axis) % 3
