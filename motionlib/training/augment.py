"""Raw volumes and seeds go in; volumes with other contrast, sharpness, noise or side come out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

AUGMENTATIONS = ("none", "flip", "nuisance")
GAMMA = 0.2  # exponent of the contrast change: exp(U(-0.2, 0.2))
BLUR = 0.12  # largest weight of either neighbour in the three-point blur
NOISE = 0.05  # largest noise standard deviation, as a fraction of the foreground mean


def augmented(volumes: torch.Tensor, kind: str, seeds: Sequence[int]) -> torch.Tensor:
    """Change what motion is not, alike in both classes.

    Parameters
    ----------
    volumes : Tensor, shape (B, 1, I, J, K)
        Raw intensities, not z-scored. Not modified.
    kind : {"flip", "nuisance"}
        ``flip`` mirrors left and right in half of the scans. ``nuisance`` also divides by the
        foreground's mean and changes contrast (gamma), sharpness (a three-point blur in half of
        the scans) and noise (Rician, in half of them).
    seeds : sequence of int
        One a volume: the same seed gives the same change.

    Returns
    -------
    Tensor, shape (B, 1, I, J, K)
        On another scale than the input where ``nuisance``; z-score it afterwards.

    Notes
    -----
    The scale is removed first: noise of a fixed size on scans of different scale would become a
    cue of its own. Changes are small, because careless ones move the threshold on a new site.
    """
    changed = []
    for volume, seed in zip(volumes, seeds, strict=True):
        rng = torch.Generator(volumes.device).manual_seed(int(seed))
        flip, gamma, blur, blurred, noise, noisy = torch.rand(
            6, generator=rng, device=volumes.device
        ).tolist()
        if flip < 0.5:
            volume = volume.flip(1)
        if kind == "nuisance":
            volume = volume / volume[volume > volume.mean()].mean()
            volume = volume.sign() * volume.abs().pow(float(np.exp(GAMMA * (2 * gamma - 1))))
            if blurred < 0.5:
                volume = _blurred(volume, BLUR * blur)
            if noisy < 0.5:
                real, imaginary = torch.randn(
                    (2, *volume.shape), generator=rng, device=volumes.device
                ).mul_(NOISE * noise)
                volume = torch.hypot(volume + real, imaginary)
        changed.append(volume)
    return torch.stack(changed)


def _blurred(volume: torch.Tensor, weight: float) -> torch.Tensor:
    """Average each voxel of (1, I, J, K) with its neighbours, axis by axis, edges repeated."""
    for axis in (1, 2, 3):
        n = volume.shape[axis]
        wide = volume.narrow(axis, 0, 1), volume, volume.narrow(axis, n - 1, 1)
        wide = torch.cat(wide, axis)
        sides = wide.narrow(axis, 0, n) + wide.narrow(axis, 2, n)
        volume = (1 - 2 * weight) * volume + weight * sides
    return volume


def zscored(volumes: torch.Tensor) -> torch.Tensor:
    """Give each volume of (B, 1, I, J, K) mean 0 and standard deviation 1."""
    mean = volumes.mean(dim=(1, 2, 3, 4), keepdim=True)
    sd = volumes.std(dim=(1, 2, 3, 4), keepdim=True, correction=0)
    return (volumes - mean) / sd
