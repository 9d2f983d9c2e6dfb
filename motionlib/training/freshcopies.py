"""Still volumes and the names of their variants go in; batches of copies made anew come out.

The prepared copies are one draw of the motion; here every epoch draws again, on the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from motionlib.files import seed_from
from motionlib.motion.recipes import make_variant
from motionlib.preprocess.grid import study_grid
from motionlib.training.augment import augmented, zscored
from motionlib.training.data import VolumeStore


class FreshStore(VolumeStore):
    """A store whose training copies are simulated again in every epoch.

    Parameters
    ----------
    table : DataFrame
        From `datasets.load_prepared`, with ``variant`` and ``original``: which copy, and the still
        array that it is made of.
    spacing_mm : float
        Voxel size of the study grid that the arrays lie on.
    device, augment, seed
        As in `VolumeStore`.

    Raises
    ------
    ValueError
        If the columns are missing, or the arrays are not on that grid.

    Notes
    -----
    Without an epoch, that is in validation and prediction, the prepared copies are given.

    Departs from the paper: it corrupts every scan once (Table A.I).
    """

    def __init__(self, table: pd.DataFrame, spacing_mm: float, **options):
        missing = [name for name in ("variant", "original") if name not in table]
        if missing:
            raise ValueError(
                f"The prepared manifest lacks {missing}, which copies are made anew from; prepare "
                "it again, or leave fresh_mm=None."
            )
        super().__init__(table, **options)
        grid = study_grid(spacing_mm)
        if self.shape != grid.shape:
            raise ValueError(
                f"The prepared volumes have {self.shape} voxels where the study grid of "
                f"{spacing_mm:g} mm has {grid.shape}; give their own voxel size as fresh_mm."
            )
        self.affine = grid.matrix
        self.variants = [str(name).partition("#")[0] for name in table["variant"]]
        originals = table["original"].astype(str)
        names = list(dict.fromkeys(originals))
        stills = VolumeStore(
            table.assign(path=originals).drop_duplicates("path"),
            device=options.get("device", "cpu"),
        )
        self.stills = stills.volumes
        self.still_of = [names.index(name) for name in originals]

    def batch(
        self, indices: Sequence[int], device: str = "cpu", epoch: int | None = None
    ) -> torch.Tensor:
        """Make the copies of some scans for one epoch; z-scored, shape (B, 1, I, J, K), float32.

        The same seed, epoch and scan give the same copy, whatever else is in the batch.
        """
        if epoch is None:
            return super().batch(indices, device)
        copies = []
        for i in indices:
            rng = np.random.default_rng(seed_from(self.seed, "fresh", epoch, self.scan_ids[i]))
            still = self.stills[self.still_of[i]].to(device, non_blocking=True).float()
            copies.append(make_variant(still, self.affine, self.variants[i], rng))
        volumes = torch.stack(copies)[:, None].float()
        if self.augment != "none":
            seeds = [seed_from(self.seed, "augment", epoch, self.scan_ids[i]) for i in indices]
            volumes = augmented(volumes, self.augment, seeds)
        return zscored(volumes)
