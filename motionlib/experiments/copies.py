"""A run with a cohort goes in; its prepared manifests (training sets, tests, controls) come out.

A prepared manifest lists volumes on the study grid with their label; each copy is made once.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from motionlib import compute
from motionlib.experiments.cohort import (
    clean_path,
    corrupted_half,
    grid_of,
    manifest_of,
    research_rows,
)
from motionlib.files import atomic, code_key, content_key, read_json, seed_from, write_table
from motionlib.manifest import is_warehouse
from motionlib.motion.recipes import CONTROLS, TEST_RANGE, make_variant
from motionlib.tasks import select_task

# what a copy comes from
CODE = ("motion", "preprocess", "experiments/copies.py")
DRAWS = 3  # moved copies, and still ones, of every training scan in the recommended recipe
PREPARED = ["scan_id", "participant_id", "source_participant_id", "cohort", "path", "role", "fold"]


def make_copies(run, name: str, rows: pd.DataFrame, *, engine: str = "inline") -> Path:
    """Make variants of clean scans and write them as one prepared manifest.

    Parameters
    ----------
    run : motionlib.study.run.Run
        A run whose cohort is prepared.
    name : str
        Name of the prepared manifest.
    rows : DataFrame
        Columns of a manifest plus ``variant`` and ``y_true``; ``scan_id`` is the original's.
        A variant may end in ``#k`` for the k-th independent draw.

    Returns
    -------
    Path
        ``cache/{name}.tsv``.
    """
    code = code_key(*CODE)
    cohort_key = read_json(run.cohort / "cohort.json")["key"]
    folder = run.cache / f"copies-{content_key(cohort_key, code, run.seed)}"
    grid = grid_of(run)
    items, paths = [], []
    for scan, variant in zip(rows["scan_id"], rows["variant"], strict=True):
        source = clean_path(run, scan)
        out = source if variant == "clean" else folder / variant.replace("#", "-") / f"{scan}.npy"
        paths.append(str(out.relative_to(run.cache)))
        item = {"scan_id": scan, "variant": variant, "source": str(source), "out": str(out)}
        if variant != "clean" and not out.exists():
            items.append(item | {"affine": grid.matrix.tolist(), "seed": run.seed})
    done = compute.submit(_copy_one, items, engine=engine, label=f"simulate {name}")
    compute.raise_failures(done)
    originals = [str(clean_path(run, scan).relative_to(run.cache)) for scan in rows["scan_id"]]
    ids = rows["scan_id"].astype(str) + np.where(
        rows["variant"] == "clean", "", "_" + rows["variant"].astype(str)
    )
    table = rows.assign(path=paths, original=originals, scan_id=ids)
    columns = [*PREPARED, "y_true", "variant", "original"]
    write_table(table[columns], run.cache / f"{name}.tsv")
    return run.cache / f"{name}.tsv"


def _copy_one(item: dict) -> str:
    import torch

    if Path(item["out"]).exists():  # written by a worker that died before it could say so
        return item["out"]
    rng = np.random.default_rng(seed_from(item["seed"], item["scan_id"], item["variant"]))
    volume = torch.from_numpy(np.load(item["source"]).astype(np.float32))
    kind = item["variant"].partition("#")[0]
    copy = make_variant(volume, np.asarray(item["affine"]), kind, rng)
    with atomic(item["out"]) as aside:
        np.save(aside, copy.numpy().astype(np.float16))
    return item["out"]


def synthetic_set(run, simulator: str, severity: str, recipe: str, *, engine="inline") -> Path:
    """Prepare the pre-training set of one simulator, severity and recipe.

    In the paper's recipe half of the originals are corrupted and the others stay untouched, no
    scan being in both classes (Table A.I); the test half is corrupted over 2-8 mm and degrees.
    In the recommended recipe every training scan gives `DRAWS` moved and as many still copies; all
    still copies but one were resampled once, so that interpolation tells nothing (and in training
    contrast, sharpness and noise of both classes vary, see `experiments.AUGMENT`); its test scans
    are magnitude images, as a scanner stores them, moved over 2-8 mm with either sign.

    Returns
    -------
    Path
        A prepared manifest with roles ``train`` and ``test``.
    """
    manifest = manifest_of(run)
    research = research_rows(manifest)
    corrupted = corrupted_half(research, seed=run.seed).to_numpy().astype(bool)
    test = research["role"] == "test"
    as_scanned = recipe == "recommended" and simulator == "image"
    tested_motion = f"motion_{TEST_RANGE}" if as_scanned else f"{simulator}_{TEST_RANGE}_paper"
    tested = research[test].assign(
        y_true=corrupted[test].astype(int),
        variant=np.where(corrupted[test], tested_motion, "clean"),
    )
    trained, moved = research[~test], corrupted[~test]
    motion = f"{simulator}_{severity}_{recipe}"
    if recipe == "paper":
        rows = trained.assign(y_true=moved.astype(int), variant=np.where(moved, motion, "clean"))
    else:
        still = "matched" if simulator == "image" else "matched_kspace"
        stills = ["clean", *(f"{still}#{k}" for k in range(1, DRAWS))]
        copies = [(1, f"{motion}#{k}") for k in range(DRAWS)] + [(0, name) for name in stills]
        rows = pd.concat([trained.assign(y_true=y, variant=name) for y, name in copies])
    rows = pd.concat([rows, tested], ignore_index=True)
    return make_copies(run, f"synthetic_{motion}", rows, engine=engine)


def real_motion_set(run) -> Path | None:
    """Prepare the test on real motion, or None where the cohort has no such scans."""
    manifest = manifest_of(run)
    rows = manifest[manifest["role"] == "real_motion"].reset_index(drop=True)
    if rows.empty:
        return None
    rows = rows.assign(y_true=(rows["motion_grade"] > 0).astype(int), variant="clean")
    return make_copies(run, "real_motion", rows)


def warehouse_set(run, task: str) -> Path:
    """Prepare one fine-tuning task of the warehouse.

    Parameters
    ----------
    task : {"mov01vs2", "mov0vs1"}
        Severe motion against the rest, or mild motion against none.

    Returns
    -------
    Path
        A prepared manifest with roles ``train`` (with folds) and ``test``.

    Notes
    -----
    Source: paper §III-D.2, Table A.II.
    """
    manifest = manifest_of(run)
    rows = manifest[is_warehouse(manifest["cohort"]) & manifest["role"].isin(["train", "test"])]
    rows = select_task(rows, task).assign(variant="clean")
    return make_copies(run, f"warehouse_{task}", rows)


def control_set(run, control: str, *, role: str = "test", engine: str = "inline") -> Path:
    """Prepare one control or rung of the ladder on scans that no network has trained on.

    Parameters
    ----------
    control : str
        Any name that `variants.make_variant` knows; those of `variants.CONTROLS` are still.
    role : {"test", "other_site"}
        The research test patients, or the scans of other sites.
    """
    manifest = manifest_of(run)
    rows = research_rows(manifest) if role == "test" else manifest
    rows = rows[rows["role"] == role].reset_index(drop=True)
    rows = rows.assign(y_true=int(control not in CONTROLS), variant=control)
    return make_copies(run, f"control_{role}_{control}", rows, engine=engine)
