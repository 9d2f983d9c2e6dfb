"""Robustness of the measures: what harmless changes of a file do to them, and what motion does."""

import numpy as np
import pandas as pd

from motionlib.iqms.measures import MEASURES, measure

DEFINITIONS = {"MRQy": True, "corrected": False}


def noisy_template(*, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Make a head-like volume without any download: MNI152 brain at 3 mm, Rician noise in the air.

    Returns the volume, float32 with a brain up to about 1000 and noise of 20, and its affine (RAS).
    """
    from nilearn.datasets import load_mni152_template  # seconds to import

    image = load_mni152_template(resolution=3)
    clean = np.asarray(image.dataobj, dtype=np.float64)
    clean = np.where(clean > 1e-4, clean * 1000 / clean.max(), 0)
    rng = np.random.default_rng(seed)
    real, imaginary = rng.normal(0, 20, (2, *clean.shape))
    return np.hypot(clean + real, imaginary).astype(np.float32), np.asarray(image.affine)


def move(volume: np.ndarray, affine: np.ndarray, *, seed: int) -> np.ndarray:
    """Give a volume the paper's image-based motion of 2 to 4 mm and degrees, four positions."""
    import torch  # measures need none, motion does

    from motionlib.motion.image_based import image_motion
    from motionlib.motion.sampling import sample_segments

    trajectory = sample_segments(rng=np.random.default_rng(seed))
    moved = image_motion(torch.from_numpy(volume), trajectory, affine=affine, axis=1)
    return moved.numpy().reshape(volume.shape)


def fragility(volume: np.ndarray, affine: np.ndarray, *, moved=None) -> pd.DataFrame:
    """Measure a volume before and after each harmless change.

    `volume`, (I, J, K), is non-negative; `moved` is the same head with motion: the change that a
    measure should show. Returns ``definitions`` (MRQy, corrected), ``change``, ``measure``,
    ``before``, ``after``, ``percent`` (NaN where one of them is undefined or zero).
    """
    changes = _harmless_changes(volume, affine)
    if moved is not None:
        changes["simulated motion"] = (np.asarray(moved), affine)
    rows = []
    for name, compat in DEFINITIONS.items():
        before = measure(volume, compat=compat, affine=affine).values
        for change, (changed, at) in changes.items():
            after = measure(changed, compat=compat, affine=at).values
            rows += [
                {"definitions": name, "change": change, "measure": m, "before": before[m],
                 "after": after[m], "percent": _percent(before[m], after[m])}
                for m in MEASURES
            ]  # fmt: skip
    return pd.DataFrame(rows)


def _harmless_changes(volume: np.ndarray, affine: np.ndarray) -> dict:
    """Volume and affine after each change that says nothing about motion, by its name."""
    crop = tuple(slice(n // 12, n - n // 12) for n in volume.shape)
    cropped = affine.copy()
    cropped[:3, 3] += affine[:3, :3] @ [s.start for s in crop]
    padded = affine.copy()
    padded[:3, 3] -= affine[:3, :3] @ [8, 8, 8]
    turned = affine[:, [1, 2, 0, 3]]
    return {
        "intensities × 10": (volume * np.float32(10), affine),
        "intensities × 0.001": (volume * np.float32(1e-3), affine),
        "z-scored (as the networks' input)": ((volume - volume.mean()) / volume.std(), affine),
        "1/12 cropped off each side": (volume[crop], cropped),
        "8 voxels of zeros around": (np.pad(volume, 8), padded),
        "sagittal slices stored last": (np.ascontiguousarray(volume.transpose(1, 2, 0)), turned),
        "stored as int16": (np.round(volume).astype(np.int16), affine),
    }


def _percent(before: float, after: float) -> float:
    """Change in percent; NaN where a value is undefined or there is nothing to compare with."""
    if not np.isfinite([before, after]).all() or abs(before) < 1e-9:
        return np.nan
    return 100 * (after - before) / abs(before)
