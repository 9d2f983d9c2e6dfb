"""Prepared manifests: which copies of which scans a network trains on or is tested on.

A prepared manifest lists volumes on the study grid with their label, paths relative to the cache.
Every copy is made once and kept; its bits depend on the seed, the scan and the variant alone.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from motionlib import compute
from motionlib.cohorts.ratings import MOVED_VOTES
from motionlib.experiments.cohort import Cohort, corrupted_half
from motionlib.files import atomic, code_key, content_key, seed_from, write_table
from motionlib.manifest import is_warehouse
from motionlib.motion.recipes import CONTROLS, TEST_RANGE, make_variant
from motionlib.tasks import select_task

# what a copy comes from
CODE = ("motion", "preprocess", "experiments/copies.py")
FEW = 100  # scans to train and validate on
FEW_DRAWS = 6  # moved copies of each where there are fewer
DRAWS = 3  # moved copies, and still ones, of every training scan in the recommended recipe
PREPARED = ["scan_id", "participant_id", "source_participant_id", "cohort", "path", "role", "fold"]


def synthetic_set(
    cohort: Cohort, simulator: str, severity: str, recipe: str, *, whole: bool = False
) -> Path:
    """Prepare the pre-training set of one simulator, severity and recipe.

    In the paper's recipe half of the originals are corrupted and the others stay untouched, no scan
    being in both classes (Table A.I); the test half is corrupted over 2-8 mm and degrees. Where
    there are fewer than `FEW` to train on, each of the corrupted half is moved `FEW_DRAWS` times,
    which the paper does not do. In the recommended recipe every training scan gives `DRAWS` moved
    and as many still copies, all by the same simulator, so that interpolation tells nothing (and in
    training contrast, sharpness and noise of both classes vary, see `pretraining.recipe_of`); its
    test scans are magnitude images, as a scanner stores them, moved over 2-8 mm with either sign.

    Parameters
    ----------
    cohort, severity : Cohort, str
        Whose research scans, and range of the motion in mm and degrees, such as ``2-4``.
    simulator : {"image", "kspace", "drift", "acquired"}
        How motion is made; ``acquired`` is the recommended recipe's.
    recipe : {"paper", "recommended"}
        How both classes are made.
    whole : bool, default=False
        Keep whole heads, for measures that need the air around them, and not the networks' slab.

    Returns
    -------
    Path
        A prepared manifest with roles ``train`` and ``test``.
    """
    research = cohort.research
    corrupted = corrupted_half(research, seed=cohort.seed).to_numpy().astype(bool)
    test = research["role"] == "test"
    recommended = recipe == "recommended"
    tested_motion = f"motion_{TEST_RANGE}" if recommended else f"{simulator}_{TEST_RANGE}_paper"
    tested = research[test].assign(
        y_true=corrupted[test].astype(int),
        variant=np.where(corrupted[test], tested_motion, "clean"),
    )
    trained, moved = research[~test], corrupted[~test]
    motion = f"{simulator}_{severity}_{recipe}"
    if recommended:
        copies = [
            (y, f"{name}#{k}") for y, name in ((1, motion), (0, "still")) for k in range(DRAWS)
        ]
        rows = pd.concat([trained.assign(y_true=y, variant=name) for y, name in copies])
    else:
        draws = [f"{motion}#{k}" for k in range(FEW_DRAWS)] if has_few(cohort) else [motion]
        copies = [trained[moved].assign(y_true=1, variant=name) for name in draws]
        rows = pd.concat([trained[~moved].assign(y_true=0, variant="clean"), *copies])
    rows = pd.concat([rows, tested], ignore_index=True)
    return _make_copies(cohort, f"synthetic_{motion}", rows, whole=whole)


def has_few(cohort: Cohort) -> bool:
    """Whether the paper's recipe has too few research scans to train on."""
    return (cohort.research["role"] == "train").sum() < FEW


def motion_set(cohort: Cohort, *, emulated: bool = False) -> Path | None:
    """Prepare the test on real motion, or on emulated motion; None where there are no such scans.

    No network has seen a scan of these patients. Real motion is graded motion, or at least
    `MOVED_VOTES` of a scan's verdicts, against scans without a vote; those between are left out.
    """
    rows = cohort.manifest[cohort.manifest["role"] == "real_motion"]
    made = rows["cohort"].str.startswith("virtual-") | rows["cohort"].str.endswith("-warehouse")
    grade, votes = rows["motion_grade"], rows["motion_votes"]
    moved = grade.gt(0).fillna(False) | votes.ge(MOVED_VOTES).fillna(False)
    known = grade.notna() | moved | votes.eq(0).fillna(False)
    rows = rows.assign(y_true=moved.astype(int), variant="clean")[known & (made == emulated)]
    if rows.empty:
        return None
    name = "emulated_motion" if emulated else "real_motion"
    return _make_copies(cohort, name, rows.reset_index(drop=True))


def warehouse_set(cohort: Cohort, task: str, *, whole: bool = False) -> Path:
    """Prepare one fine-tuning task of the warehouse: ``mov01vs2`` or ``mov0vs1``.

    The prepared manifest has the roles ``train`` (with folds) and ``test``, the latter only where
    the cohort has a fixed test set; `whole` as in `synthetic_set`.
    Source: paper §III-D.2, Table A.II.
    """
    rows = cohort.manifest
    rows = rows[is_warehouse(rows["cohort"]) & rows["role"].isin(["train", "test"])]
    rows = select_task(rows, task).assign(variant="clean")
    return _make_copies(cohort, f"warehouse_{task}", rows, whole=whole)


def control_set(cohort: Cohort, control: str, *, role: str = "test") -> Path:
    """Prepare one control or rung of the ladder on scans that no network has trained on.

    `control` is any name that `recipes.make_variant` knows; those of `recipes.CONTROLS` are still.
    `role` is ``test``, the research test patients, or ``other_site``.
    """
    rows = cohort.research if role == "test" else cohort.manifest
    rows = rows[rows["role"] == role].reset_index(drop=True)
    rows = rows.assign(y_true=int(control not in CONTROLS), variant=control)
    return _make_copies(cohort, f"control_{role}_{control}", rows)


def _make_copies(cohort: Cohort, name: str, rows: pd.DataFrame, *, whole: bool = False) -> Path:
    """Make variants of clean scans and write them as one prepared manifest, ``{name}.tsv``.

    The rows have the columns of a manifest plus ``variant`` and ``y_true``; ``scan_id`` is the
    original's. A variant may end in ``#k`` for the k-th independent draw. Motion is made on the
    whole head; of the copy only the planes that networks see are kept, unless `whole`.
    """
    cut = cohort.slab_mm is not None and not whole
    kept = f"{cohort.slab_mm:g}mm" if cut else "whole"
    key = content_key(cohort.key, code_key(*CODE), cohort.seed)
    folder, affine = cohort.cache / f"copies-{key}" / kept, cohort.grid.matrix.tolist()
    originals = [cohort.volume_path(scan) for scan in rows["scan_id"]]
    planes = (cohort.planes.start, cohort.planes.stop) if cut else None
    items, paths = [], []
    for scan, variant, original in zip(rows["scan_id"], rows["variant"], originals, strict=True):
        if variant == "clean" and not cut:
            paths.append(original)
            continue
        path = folder / variant.replace("#", "-") / f"{scan}.npy"
        paths.append(path)
        if not path.exists():
            item = {"scan_id": scan, "variant": variant, "source": str(original), "out": str(path)}
            items.append(item | {"affine": affine, "seed": cohort.seed, "planes": planes})
    done = compute.submit(_copy_one, items, engine=cohort.engine, label=f"simulate {name}")
    compute.raise_failures(done)
    # a copy has a name of its own, a clean scan keeps that of the original
    variants = rows["variant"].astype(str)
    ids = rows["scan_id"].astype(str) + np.where(variants == "clean", "", "_" + variants)
    table = rows.assign(
        path=[str(path.relative_to(cohort.cache)) for path in paths],
        original=[str(path.relative_to(cohort.cache)) for path in originals],
        scan_id=ids,
    )
    columns = [*PREPARED, "y_true", "variant", "original"]
    stem = name if cut or cohort.slab_mm is None else f"{name}_whole"
    return write_table(table[columns], cohort.cache / f"{stem}.tsv")


def read_prepared(cohort: Cohort, prepared: Path) -> pd.DataFrame:
    """Read a prepared manifest with absolute paths."""
    table = pd.read_csv(prepared, sep="\t")
    return table.assign(path=[str(cohort.cache / path) for path in table["path"]])


def _copy_one(item: dict) -> str:
    """Make one copy, unless a worker that died had written it before it could say so."""
    if Path(item["out"]).exists():
        return item["out"]
    rng = np.random.default_rng(seed_from(item["seed"], item["scan_id"], item["variant"]))
    planes = slice(*(item["planes"] or (None,)))
    volume = torch.from_numpy(np.load(item["source"]).astype(np.float32))
    kind = item["variant"].partition("#")[0]
    copy = make_variant(volume, np.asarray(item["affine"]), kind, rng)
    with atomic(item["out"]) as aside:
        np.save(aside, copy.numpy()[planes].astype(np.float16))
    return item["out"]
