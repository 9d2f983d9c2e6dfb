"""The scans that a user graded: labelled for a task, split by patient, prepared as for `score`."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from motionlib import compute
from motionlib.experiments.copies import PREPARED
from motionlib.files import anonymous, atomic, content_key
from motionlib.manifest import complete, locate, read_text, validate
from motionlib.scoring.check import Check
from motionlib.scoring.model import DecisionRule
from motionlib.scoring.score import file_key, prepare
from motionlib.splits import assign_splits, check_no_leakage
from motionlib.tasks import grades_of, select_task

PATIENT = "source_participant_id"
PREPARED_COLUMNS = [*PREPARED, "y_true"]
LEAST_PATIENTS = 3  # of either class: one each to train, to validate and to test


def read_graded(path: str | os.PathLike, task: str) -> pd.DataFrame:
    """Read the scans of a manifest that a task uses, and label them.

    The manifest needs ``scan_id``, ``participant_id``, ``path`` and ``motion_grade`` (0, 1 or 2);
    where that is empty, the larger grade of ``rater_1`` and ``rater_2`` is taken. Straight rejects
    are left out; the result has whole paths and ``y_true``. `ManifestError` or `ValueError` if
    columns or grades are missing, or patients of a class are fewer than `LEAST_PATIENTS`.
    """
    negative, positive = grades_of(task)
    path = Path(path)
    table = read_text(path)
    missing = [name for name in ("scan_id", "participant_id", "path") if name not in table]
    if not {"motion_grade", "rater_1"} & set(table):
        missing.append("motion_grade")
    if missing:
        raise ValueError(
            f"{path.name} lacks {', '.join(missing)}; expected scan_id, participant_id, path and "
            "motion_grade, or the grades of rater_1 and rater_2, one row a scan"
        )
    if "cohort" not in table:
        table["cohort"] = "bids"
    table = validate(complete(table), anywhere=True)
    raters = table[["rater_1", "rater_2"]].max(axis=1).astype("Int64")
    table["motion_grade"] = table["motion_grade"].fillna(table["consensus"]).fillna(raters)
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
    sides = {y: " or ".join(map(str, grades)) for y, grades in ((0, negative), (1, positive))}
    for y, grades in sides.items():
        n_patients = table.loc[table["y_true"] == y, PATIENT].nunique()
        if n_patients < LEAST_PATIENTS:
            raise ValueError(
                f"{n_patients} patients of {path.name} have a scan of grade {grades}; {task} needs "
                f"at least {LEAST_PATIENTS} with grade {sides[0]} and {LEAST_PATIENTS} with grade "
                f"{sides[1]}: one each to train, to validate and to test"
            )
    paths = [str(locate(given, path.parent)) for given in table["path"]]
    return table.assign(path=paths)


def split_scans(
    table: pd.DataFrame, *, test_fraction: float, n_folds: int, seed: int
) -> tuple[pd.DataFrame, int]:
    """Split by patient into train and test, and training into folds; with the fold to validate.

    Roles ``train`` and ``test`` that the manifest gives are checked and kept; scans of other roles
    are then left out. Where patients do not suffice for so many folds, there are fewer.
    `ValueError` if a patient is in train and test, or a part lacks a class.
    """
    if n_folds < 2:
        raise ValueError(f"{n_folds} folds are too few; expected at least 2")
    if not 0 < test_fraction < 1:
        raise ValueError(f"the test fraction is {test_fraction}; expected above 0 and below 1")
    given = table["role"].isin(["train", "test"])
    if given.any():
        table = table[given.to_numpy(bool)].reset_index(drop=True)
        check_no_leakage(table.assign(fold=pd.NA))
    roles = table["role"] if given.any() else None
    for folds in range(n_folds, 1, -1):
        try:
            split = _assigned(table, roles, test_fraction, folds, seed)
        except ValueError:  # fewer patients than folds
            if folds == 2:
                raise
            continue
        fold = _validation_fold(split)
        if fold is not None:
            return split, fold
    raise ValueError(
        "the training patients cannot be parted so that training and validation both have scans "
        "with and without motion; bring more graded patients"
    )


def _assigned(
    table: pd.DataFrame, roles: pd.Series | None, test_fraction: float, n_folds: int, seed: int
) -> pd.DataFrame:
    """Assign roles, unless they are given, and folds; both roles then have both classes."""
    options = {"n_folds": n_folds, "seed": seed, "stratify": "y_true"}
    if roles is None:
        blank = table.assign(role=pd.NA)
        table = assign_splits(blank, test_fraction=test_fraction, **options)
    else:
        train = table[(roles == "train").to_numpy(bool)].assign(role=pd.NA)
        folds = assign_splits(train, test_fraction=0.0, **options)["fold"]
        table = table.assign(fold=folds.reindex(table.index))
    for role in ("train", "test"):
        classes = table.loc[table["role"] == role, "y_true"].nunique()
        if classes < 2:
            raise ValueError(
                f"the {role} part has scans of {classes} classes; expected scans with and without "
                "motion in both parts, so bring more graded patients"
            )
    return table


def _validation_fold(table: pd.DataFrame) -> int | None:
    """Choose a fold that, like the rest of the training scans, has both classes, or None.

    Of several, the first of those with most different grades, which limits for grades need.
    """
    train, usable = table[table["role"] == "train"], {}
    for fold in sorted(train["fold"].dropna().unique()):
        held = train["fold"] == fold
        if train.loc[held, "y_true"].nunique() == 2 == train.loc[~held, "y_true"].nunique():
            usable[int(fold)] = train.loc[held, "motion_grade"].nunique()
    return max(usable, key=usable.get) if usable else None


def prepare_scans(
    table: pd.DataFrame,
    folder: Path,
    rule: DecisionRule,
    *,
    engine: str = "inline",
    progress: Callable[[str], None] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Check the scans as `score` does and keep their arrays on the grid of the model's rule.

    The first table is the prepared manifest of the scans that can be used, and whether each is
    ``stripped`` and ``registered``; the second has ``scan_id`` and ``reason`` of the others.
    """
    items = []
    for scan, path in zip(table["scan_id"], table["path"], strict=True):
        key = file_key(path, rule.spacing_mm, rule.slab_mm, rule.field_mm) or "unreadable"
        items.append((path, folder / f"{content_key(scan, key)}.npy", rule))
    done = compute.submit(_prepare_one, items, engine=engine, label="prepare", progress=progress)
    checks = [
        Check(anonymous(check.error, check.item[0]))
        if isinstance(check, compute.Failure)
        else check
        for check in done
    ]
    reasons = pd.Series([check.fault for check in checks], index=table.index)
    bad = reasons != ""
    left_out = table.loc[bad, ["scan_id"]].assign(reason=reasons[bad])
    seen = {name: [getattr(check, name) for check in checks] for name in ("stripped", "registered")}
    kept = table.assign(path=[str(out) for _, out, _ in items], **seen)[~bad]
    return kept.reset_index(drop=True), left_out.reset_index(drop=True)


def _prepare_one(item: tuple[str, Path, DecisionRule]) -> Check:
    """Check one scan and write its array, unless that was done before (a task)."""
    path, out, rule = item
    array, check, _ = prepare(path, rule)
    if array is not None and not out.exists():
        with atomic(out) as aside:
            np.save(aside, array)
    return replace(check, head=None)  # which a process need not send
