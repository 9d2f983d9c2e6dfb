"""A volume on the study grid comes in; one small picture with the template's outline goes out."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from motionlib.files import atomic
from motionlib.preprocess.grid import resample, study_grid
from motionlib.preprocess.head import array3
from motionlib.preprocess.targets import load_target

SHARES = (0.35, 0.5, 0.65)  # of each axis


def qc_picture(volume, path: str | os.PathLike) -> Path:
    """Draw nine slices with the outline of the MNI152 brain.

    Parameters
    ----------
    volume : ndarray, shape (169, 208, 179)
        In MNI space, 1 mm.
    path : path-like
        Ends in ``.png``.

    Returns
    -------
    Path
        The path written.
    """
    from matplotlib.image import imsave
    from scipy import ndimage

    array = array3(volume)
    target = load_target("whole-head")
    brain = resample(target.brain.astype(np.float32), target.affine, study_grid(1.0)) > 0.5
    bright = max(float(np.percentile(array, 99.5)), 1e-6)
    rows = []
    for axis in range(3):
        panels = []
        for share in SHARES:
            at = int(share * array.shape[axis])
            grey = np.clip(np.take(array, at, axis=axis).T[::-1] / bright, 0, 1)
            mask = np.take(brain, at, axis=axis).T[::-1]
            panel = np.repeat(grey[..., None], 3, axis=2)
            panel[mask & ~ndimage.binary_erosion(mask)] = (1, 0.2, 0.2)
            tall, wide = 208 - panel.shape[0], 208 - panel.shape[1]
            panels.append(np.pad(panel, ((tall // 2, tall - tall // 2), (0, wide), (0, 0))))
        rows.append(np.concatenate(panels, axis=1))
    picture = np.concatenate(rows)[::2, ::2]
    with atomic(path) as aside:
        imsave(aside, picture.astype(np.float32), format="png")
    return Path(path)
