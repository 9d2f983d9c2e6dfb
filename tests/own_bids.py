"""A small BIDS folder of virtual heads, as somebody's own scans: still ones and moved ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from motionlib.files import write_json
from motionlib.preprocess.grid import Grid, resample_to_grid
from motionlib.preprocess.images import save_volume
from motionlib.preprocess.registration import load_target

SHAPE, VOXEL_MM = (84, 104, 96), 2.0
N_PATIENTS = 12


def write_bids(folder: Path, n_patients: int = N_PATIENTS) -> Path:
    """Write two sessions a patient, the second moved between two positions; return the folder."""
    target = load_target("whole-head")
    affine = np.diag([VOXEL_MM] * 3 + [1.0])
    affine[:3, 3] = (-82.0, -120.0, -96.0)
    grid = Grid(SHAPE, tuple(map(tuple, affine.tolist())))
    still = resample_to_grid(target.array.astype(np.float32), target.affine, grid)
    moved = 0.5 * (still + np.roll(still, 5, axis=1))
    for number in range(n_patients):
        rng = np.random.default_rng(number)
        for session, head in ((1, still), (2, moved)):
            name = f"sub-{number + 1:02d}_ses-{session}_T1w.nii.gz"
            noise = rng.normal(0, 8, (2, *SHAPE))
            array = np.hypot(900 * rng.uniform(0.9, 1.1) * head / head.max() + noise[0], noise[1])
            path = folder / name[:6] / name[7:12] / "anat" / name
            save_volume(array.astype(np.float32), affine, path, dtype="int16")
    facts = {"Name": "own scans", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    write_json(folder / "dataset_description.json", facts)
    return folder


def write_grades(manifest: Path, target: Path) -> Path:
    """Grade the scans of a manifest as a person would: 2 where the head moved, else 0."""
    table = pd.read_csv(manifest, sep="\t")
    table["motion_grade"] = 2 * table["scan_id"].str.contains("ses-2")
    columns = ["scan_id", "participant_id", "path", "motion_grade"]
    table[columns].to_csv(target, sep="\t", index=False)
    return target
