"""A folder goes in; a small prepared manifest with its arrays, and counted trainings, come out."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pandas as pd

SHAPE = (24, 28, 24)


def prepared_set(folder: Path, n_patients: int = 12, shape=SHAPE, seed: int = 0) -> Path:
    """Write two scans a patient, one still and one striped; the last two patients are the test."""
    rng, rows = np.random.default_rng(seed), []
    folder.mkdir(parents=True, exist_ok=True)
    inner = tuple(slice(n // 4, 3 * n // 4) for n in shape)
    for patient in range(n_patients):
        for y_true in (0, 1):
            volume = rng.uniform(0, 0.3, shape)
            volume[inner] += rng.uniform(0.8, 1.2)
            if y_true:
                volume[:, ::3] += 0.6
            name = f"sub-{patient:02d}_{'moved' if y_true else 'still'}"
            np.save(folder / f"{name}.npy", volume.astype(np.float16))
            rows.append(
                {
                    "scan_id": name,
                    "participant_id": f"sub-{patient:02d}",
                    "source_participant_id": f"phantom:{patient:02d}",
                    "cohort": "phantom",
                    "path": f"{name}.npy",
                    "role": "test" if patient >= n_patients - 2 else "train",
                    "fold": patient % 3,
                    "y_true": y_true,
                    "variant": "image_2-4" if y_true else "clean",
                }
            )
    pd.DataFrame(rows).to_csv(folder / "prepared.tsv", sep="\t", index=False)
    return folder / "prepared.tsv"


def counted_fit(spec, *, runs: str) -> str:
    """Train, saving every epoch, and leave a line in ``runs/log`` for the start and every epoch."""
    from motionlib.training import fitting

    fitting.SAVE_EVERY_S = 0.0

    def note(line: str) -> None:
        with open(Path(runs) / "log", "a") as log:
            log.write(f"{spec.key} {line}\n")
        time.sleep(pause_s)

    pause_s = float(os.environ.get("PAUSE_S", "0"))
    note(f"started by {os.getpid()}")
    return fitting.fit(spec, runs, progress=note).name
