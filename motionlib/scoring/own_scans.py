"""The scans that a user graded: labelled for a task, split by patient, prepared as for `score`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from motionlib import compute
from motionlib.experiments.copies import PREPARED
from motionlib.files import atomic, content_key
from motionlib.manifest import complete, locate, read_text, validate
from motionlib.scoring.check import Check
from motionlib.scoring.score import file_key, prepare
from motionlib.splits import assign_splits, check_no_leakage
from motionlib.tasks import grades_of, select_task

PATIENT = "source_participant_id"
PREPARED_COLUMNS = [*PREPARED, "y_true"]


def read_graded(path: str | os.PathLike, task: str) -> pd.DataFrame:
    """Read the scans of a manifest that a task uses, and label them.

    The manifest needs ``scan_id``, ``participant_id``, ``path`` and ``motion_grade`` (0, 1 or 2);
    its other columns are optional. Straight rejects are left out; the result has whole paths and
    ``y_true``. `ManifestError` or `ValueError` if columns or grades are missing, or all grades of
    the task are alike.
    """
    negative, positive = grades_of(task)
    path = Path(path)
    table = read_text(path)
    needed = ("scan_id", "participant_id", "path", "motion_grade")
    missing = [name for name in needed if name not in table]
    if missing:
        raise ValueError(
            f"{path.name} lacks {', '.join(missing)}; expected {', '.join(needed)}, one row a scan"
        )
    if "cohort" not in table:
        table["cohort"] = "bids"
    table = validate(complete(table), anywhere=True)
    if table["motion_grade"].isna().all():
        raise ValueError(f"{path.name} has no motion_grade in any row; expected 0, 1 or 2")
    table = table[~(table["straight_reject"] == 1).fillna(False).to_numpy(bool)]
    table = select_task(table, task)
    if table["y_true"].nunique() < 2:
        grades = ", ".join(map(str, sorted(table["motion_grade"].unique()))) or "none"
        raise ValueError(
            f"the grades of {path.name} are constant for {task}: {len(table)} scans with grade "
            f"{grades}; expected scans of grade {' or '.join(map(str, negative))} and of grade "
            f"{' or '.join(map(str, positive))}"
        )
    paths = [str(locate(given, path.parent)) for given in table["path"]]
    return table.assign(path=paths)


def split_scans(
    table: pd.DataFrame, *, test_fraction: float, n_folds: int, seed: int
) -> pd.DataFrame:
    """Split by patient into train and test, and the training patients into folds.

    Roles ``train`` and ``test`` that the manifest gives are checked and kept; scans of other roles
    are then left out. `ValueError` if a patient is in both, a part lacks a class, or patients are
    too few.
    """
    if n_folds < 2:
        raise ValueError(f"{n_folds} folds are too few; expected at least 2")
    if not 0 < test_fraction < 1:
        raise ValueError(f"the test fraction is {test_fraction}; expected above 0 and below 1")
    given = table["role"].isin(["train", "test"])
    if given.any():
        table = table[given.to_numpy(bool)].reset_index(drop=True)
        check_no_leakage(table.assign(fold=pd.NA))
        train = table[(table["role"] == "train").to_numpy(bool)].assign(role=pd.NA)
        folds = assign_splits(
            train, test_fraction=0.0, n_folds=n_folds, seed=seed, stratify="y_true"
        )
        table["fold"] = folds["fold"].reindex(table.index)
    else:
        table = assign_splits(
            table.assign(role=pd.NA),
            test_fraction=test_fraction,
            n_folds=n_folds,
            seed=seed,
            stratify="y_true",
        )
    for role in ("train", "test"):
        classes = table.loc[table["role"] == role, "y_true"].nunique()
        if classes < 2:
            raise ValueError(
                f"the {role} part has scans of {classes} classes; expected scans with and without "
                "motion in both parts, so bring more graded patients"
            )
    return table


def validation_fold(table: pd.DataFrame) -> int:
    """Choose a fold that, like the rest of the training scans, has both classes.

    Of several, the one with the most different grades, which limits for grades need; then the
    first. `ValueError` if there is none.
    """
    train, usable = table[table["role"] == "train"], {}
    for fold in sorted(train["fold"].dropna().unique()):
        held = train["fold"] == fold
        if train.loc[held, "y_true"].nunique() == 2 == train.loc[~held, "y_true"].nunique():
            usable[int(fold)] = train.loc[held, "motion_grade"].nunique()
    if usable:
        return max(usable, key=usable.get)
    raise ValueError(
        f"none of {train['fold'].nunique()} folds has scans with and without motion; ask for fewer "
        "folds or bring more graded patients"
    )


def prepare_scans(
    table: pd.DataFrame,
    folder: Path,
    *,
    spacing_mm: float,
    slab_mm: float | None = None,
    engine: str = "inline",
    progress: Callable[[str], None] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Check the scans as `score` does and keep their arrays on the model's grid.

    The first table is the prepared manifest of the scans that can be used, and whether each is
    ``stripped``; the second has ``scan_id`` and ``reason`` of the others.
    """
    items = []
    for scan, path in zip(table["scan_id"], table["path"], strict=True):
        key = file_key(path, spacing_mm, slab_mm) or "unreadable"
        name = content_key(scan, key)
        grid = {"spacing_mm": spacing_mm, "slab_mm": slab_mm}
        items.append({"path": path, "out": str(folder / f"{name}.npy")} | grid)
    done = compute.submit(_prepare_one, items, engine=engine, label="prepare", progress=progress)
    checks = [
        Check(check.error.partition(": ")[2] or check.error)
        if isinstance(check, compute.Failure)
        else check
        for check in done
    ]
    reasons = pd.Series([check.fault for check in checks], index=table.index)
    bad = reasons != ""
    left_out = table.loc[bad, ["scan_id"]].assign(reason=reasons[bad])
    stripped = [check.stripped for check in checks]
    kept = table.assign(path=[item["out"] for item in items], stripped=stripped)[~bad]
    return kept.reset_index(drop=True), left_out.reset_index(drop=True)


def _prepare_one(item: dict) -> Check:
    """Check one scan and write its array, unless that was done before (a task)."""
    out = Path(item["out"])
    grid = {"spacing_mm": item["spacing_mm"], "slab_mm": item["slab_mm"]}
    array, check = prepare(item["path"], **grid, knows_stripped=False)
    if array is not None and not out.exists():
        with atomic(out) as aside:
            np.save(aside, array)
    return check
