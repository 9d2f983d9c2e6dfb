"""A name or a BIDS sidecar goes in; which k-space lines a scan takes, and when, come out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from motionlib.motion import sidecar

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
