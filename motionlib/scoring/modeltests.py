"""Still heads come in; test copies that no network trains on go out: TorchIO's motion, controls."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from motionlib import compute
from motionlib.files import atomic, seed_from, write_table
from motionlib.motion.recipes import CONTROLS, make_variant
from motionlib.preprocess.grid import centre_on_grid, study_grid
from motionlib.preprocess.images import read_array
from motionlib.scoring.modelinput import model_input

LADDER = ((0.5, 1), (1, 2), (2, 4), (4, 6), (6, 8))  # mm and degrees
MOVES = ((2, "native"), (4, "native"), (4, "4mm"))  # TorchIO's default, and the paper's four
COARSE_MM = 4.0


def judged_copies(
    heads: pd.DataFrame, out: Path, *, shape: tuple, seed: int = 7, engine: str = "inline"
) -> Path:
    """Make the controls of every head, and TorchIO's own `RandomMotion` at every severity.

    Parameters
    ----------
    heads : DataFrame
        Columns of `modelbuild.still_heads`.
    out : Path
        Prepared manifest to write; the copies lie in a folder of the same name.
    shape : (float, float or None)
        `spacing_mm` and `slab_mm` of `modelinput.model_input`.
    seed : int
        Of the copies; not that of the training.
    engine : str
        Where the work is done.

    Returns
    -------
    Path
        `out`; ``variant`` is a control or ``torchio_n{moves}_{low}-{high}``, ``@native`` where it
        was made at the scan's own voxel size, ``@4mm`` where at 4 mm.

    Notes
    -----
    Source: TorchIO 1.2.1 ``RandomMotion(degrees, translation, num_transforms)``, real part.
    """
    folder = out.with_suffix("")
    items = [
        head | {"folder": str(folder), "seed": seed, "shape": shape}
        for head in heads.to_dict(orient="records")
    ]
    made = compute.submit(_copies_of_one, items, engine=engine, label=f"test copies {out.stem}")
    rows = [row for rows in compute.raise_failures(made) for row in rows]
    return write_table(pd.DataFrame(rows), out)


def _copies_of_one(head: dict) -> list[dict]:
    """Make all copies of one head that are not there yet; return their rows."""
    folder, seed, scan = Path(head.pop("folder")), head.pop("seed"), head["scan_id"]
    spacing_mm, slab_mm = head.pop("shape")
    volume, affine = read_array(head["path"])
    volume, coarse = np.clip(volume, 0, None), study_grid(COARSE_MM)
    frames = {
        "native": (torch.from_numpy(volume), affine),
        "4mm": (torch.from_numpy(centre_on_grid(volume, affine, coarse)), coarse.matrix),
    }
    names = [(name, place) for name in CONTROLS for place in frames]
    names += [(f"torchio_n{n}_{lo}-{hi}", place) for lo, hi in LADDER for n, place in MOVES]
    rows = []
    for name, place in names:
        variant = f"{name}@{place}"
        path = folder / scan / f"{variant}.npy"
        if not path.exists():
            still, matrix = frames[place]
            copy = _copy(still, matrix, name, seed_from(seed, scan, variant))
            with atomic(path) as aside:
                np.save(aside, model_input(copy, matrix, spacing_mm, slab_mm))
        rows.append(
            head
            | {"scan_id": f"{scan}_{variant}", "path": str(path.resolve()), "variant": variant}
            | {"y_true": int(name.startswith("torchio"))}
        )
    return rows


def _copy(still: torch.Tensor, affine: np.ndarray, name: str, seed: int) -> np.ndarray:
    if not name.startswith("torchio"):
        return make_variant(still, affine, name, np.random.default_rng(seed)).numpy()
    import torchio as tio

    _, moves, limits = name.split("_")
    low, high = (float(word) for word in limits.split("-"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**31)
        motion = tio.RandomMotion(
            degrees=(low, high), translation=(low, high), num_transforms=int(moves[1:])
        )
        return motion(tio.ScalarImage(tensor=still[None], affine=affine)).data[0].numpy()
