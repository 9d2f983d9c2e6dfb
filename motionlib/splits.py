"""Patient-level splits: a test set and cross-validation folds of equal make-up."""

import hashlib
import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

PAPER_TEST_SIZES = {"adni": 171, "msseg": 7, "bite": 4, "aphp": 385}  # Tables A.I and A.II
KEPT_ROLES = ("real_motion", "other_site", "excluded")
PATIENT = "source_participant_id"  # whom a scan was made from


def assign_splits(
    table: pd.DataFrame,
    *,
    test_fraction: float | None = None,
    test_sizes: Mapping[str, int] | None = None,
    n_folds: int = 5,
    seed: int,
    stratify: str | None = "motion_grade",
) -> pd.DataFrame:
    """Put every patient either into the test set or into one cross-validation fold.

    Rows of the manifest whose role is one of `KEPT_ROLES` keep it and get no fold; rows with
    ``straight_reject`` 1 become ``excluded``. The test set holds `test_fraction` of the scans of
    each cohort and grade, in [0, 1), or `test_sizes` scans per cohort (`PAPER_TEST_SIZES`; others
    have none). The values of `stratify` are spread evenly within each cohort, a patient is never on
    two sides, and `seed` says which of the equally good splits is taken.

    Returns the same rows in the same order; ``role`` is ``train`` or ``test``, ``fold`` (training
    rows only) is the fold in which the scan is a validation scan. ValueError if both or neither
    test size is given, or there are fewer patients than folds.

    Source: paper §III-D.1 and §III-D.2, Tables A.I and A.II. Patients with equal counts of scans
    per class are dealt out in equal numbers; those left over go, largest first, to the fold that
    holds least of what they bring. Bound: a fold's count of a class differs from the mean over
    folds by at most the root of the summed squared counts of the patients left over (one scan a
    patient: by less than one scan). The test set's total misses the wanted size by less than the
    scans of the largest patient, for each cohort and grade with patients of one grade, as long as
    as many patients as folds are left.
    """
    if (test_fraction is None) == (test_sizes is None):
        raise ValueError("Give either test_fraction or test_sizes, and not both.")
    if test_fraction is not None and not 0 <= test_fraction < 1:
        raise ValueError(f"test_fraction is {test_fraction}; it must be in [0, 1).")
    table = table.copy()
    role = table["role"].astype("string")
    if "straight_reject" in table:
        role = role.mask((table["straight_reject"] == 1).fillna(False), "excluded")
    used = ~role.isin(KEPT_ROLES).to_numpy(dtype=bool)
    patients = _patients(table[used], stratify, seed)
    wanted = _wanted(patients, test_fraction, test_sizes)
    test = _choose_test(patients, wanted, spare=len(patients.type_of) - n_folds)
    remaining = len(test) - int(test.sum())
    if remaining < n_folds:
        raise ValueError(
            f"{remaining} patients are left for {n_folds} folds; "
            "ask for fewer folds, a smaller test set, or bring more patients."
        )
    fold = _deal_folds(patients, test, n_folds)
    row = patients.row_patient
    table["role"] = role
    table.loc[used, "role"] = np.where(test[row], "test", "train")
    table["fold"] = pd.array([pd.NA] * len(table), dtype="Int64")
    table.loc[used, "fold"] = pd.array(fold[row], dtype="Int64")
    table["fold"] = table["fold"].mask((table["role"] != "train").fillna(True))
    check_no_leakage(table)
    return table


def check_no_leakage(table: pd.DataFrame) -> None:
    """Raise ValueError if a patient, or one image under two names, is on two sides of a split.

    It names how many patients or images leak, and the first of them. The manifest has ``role`` and
    ``fold``; rows with role ``excluded`` or none are left out.
    """
    used = table[table["role"].fillna("excluded") != "excluded"]
    for column, noun in ((PATIENT, "patient"), ("sha256", "image")):
        if column not in used:
            continue
        sides = used[[column, "role", "fold"]].drop_duplicates()
        torn = sides.loc[sides[column].duplicated(), column].dropna().unique()
        if len(torn):
            raise ValueError(
                f"{len(torn)} {noun}s stand in more than one role or fold, the first is "
                f"{torn[0]}; assign splits again with motionlib.splits.assign_splits."
            )


def partition_clean_corrupted(table: pd.DataFrame, *, seed: int) -> pd.Series:
    """Choose the half of the originals that is corrupted (True); the other half stays clean.

    Only rows of the manifest with role ``train`` or ``test`` take part; `seed` says which half.
    Corrupted and clean differ by at most one scan in every cohort's test set, in its training set
    and in every fold, and within a patient by at most one scan of the patient. Source: Table A.I,
    which is a partition: no scan is in both classes, and an odd number leaves one clean scan more.
    """
    used = table[table["role"].isin(["train", "test"]).to_numpy(dtype=bool)]
    order = pd.DataFrame(
        {
            "cohort": used["cohort"].astype(object),
            "role": used["role"].astype(object),
            "fold": used["fold"].fillna(-1).astype(int),
            "patient": _shuffled_rank(used[PATIENT], seed),
            "scan": _shuffled_rank(used["scan_id"], seed),
        }
    ).sort_values(["cohort", "role", "fold", "patient", "scan"])
    corrupted = order.groupby(["cohort", "role"]).cumcount() % 2 == 1
    return corrupted.reindex(table.index, fill_value=False).rename("corrupted")


class _Patients:
    """Patients in a seeded order: counts (patients, classes), the cohort of each class."""

    def __init__(self, row_patient, types, type_of, class_cohort):
        self.row_patient = row_patient  # (rows,) patient of each row
        self.types = types  # (types, classes) distinct rows of counts
        self.type_of = type_of  # (patients,) row of `types`
        self.class_cohort = class_cohort  # (classes,) cohort of each class
        self.number = np.bincount(type_of, minlength=len(types))  # patients of each type
        self.total = self.number @ types  # (classes,) scans of each class


def _patients(table: pd.DataFrame, stratify: str | None, seed: int) -> _Patients:
    """Count every patient's scans by class (cohort and grade), patients in seeded order."""
    if n_nameless := int(table[PATIENT].isna().sum()):
        raise ValueError(f"{n_nameless} scans have no {PATIENT}; fill it in.")
    row_patient = _shuffled_rank(table[PATIENT], seed)
    cohort = table["cohort"].astype("string").fillna("")
    label = table[stratify].astype("string").fillna("") if stratify else ""
    names = cohort + "\t" + label
    class_of, classes = pd.factorize(names, sort=True)
    pair = row_patient.astype(np.int64) * max(len(classes), 1) + class_of
    pair, n_scans = np.unique(pair, return_counts=True)
    owner, which = np.divmod(pair, max(len(classes), 1))
    # a patient's type: its sorted (class, count) pairs, written as bytes
    base = int(n_scans.max(initial=1)) + 1
    cell = which.astype(np.int64) * base + n_scans
    starts = np.flatnonzero(np.r_[True, owner[1:] != owner[:-1]]) if len(owner) else []
    texts = [part.tobytes() for part in np.split(cell, starts[1:])] if len(owner) else []
    type_of, kinds = pd.factorize(np.array(texts, dtype=object), sort=True)
    types = np.zeros((len(kinds), len(classes)), dtype=np.int64)
    for kind, text in enumerate(kinds):
        index, count = np.divmod(np.frombuffer(text, dtype=np.int64), base)
        types[kind, index] = count
    return _Patients(row_patient, types, type_of, [name.split("\t")[0] for name in classes])


def _shuffled_rank(values: pd.Series, seed: int) -> np.ndarray:
    """Rank of each row's value in a seeded order that does not depend on the rows' order."""
    code, names = pd.factorize(values.astype(object), sort=True)
    digest = [hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8] for name in names]
    order = np.argsort(np.frombuffer(b"".join(digest), dtype=">u8"), kind="stable")
    rank = np.empty(len(names), dtype=np.int64)
    rank[order] = np.arange(len(names))
    return rank[code]


def _wanted(patients: _Patients, fraction: float | None, sizes: Mapping | None) -> np.ndarray:
    """Count the scans of each class wanted in the test set; sums are right per cohort."""
    cohort = np.array(patients.class_cohort, dtype=object)
    wanted = np.zeros(len(cohort), dtype=np.int64)
    if sizes and (unknown := set(sizes) - set(cohort)):
        raise ValueError(f"test_sizes names {sorted(unknown)}, which are no cohorts of the table.")
    for name in sorted(set(cohort)):
        here = np.flatnonzero(cohort == name)
        n_scans = patients.total[here].sum()
        n_test = round(fraction * n_scans) if sizes is None else sizes.get(name, 0)
        if not 0 <= n_test < n_scans:
            raise ValueError(f"The test set asks for {n_test} of {n_scans} scans of {name}.")
        exact = n_test * patients.total[here] / n_scans
        wanted[here] = np.floor(exact)
        most = np.argsort(np.floor(exact) - exact, kind="stable")
        wanted[here[most[: n_test - int(wanted[here].sum())]]] += 1
    return wanted


def _choose_test(patients: _Patients, wanted: np.ndarray, *, spare: int) -> np.ndarray:
    """Mark test patients: each type its share, then singly what brings the counts closer."""
    share = np.divide(wanted, patients.total, out=np.zeros(len(wanted)), where=patients.total > 0)
    own = np.where(patients.types > 0, share, math.inf).min(axis=1, initial=math.inf)
    taken = np.floor(own * patients.number + 1e-9).astype(np.int64)
    left = wanted - taken @ patients.types
    largest = np.argsort(-patients.types.sum(axis=1), kind="stable")
    for kind in largest:  # whole patients that still fit
        counts = patients.types[kind]
        has = counts > 0
        room = min(patients.number[kind] - taken[kind], spare - taken.sum())
        fits = min(int((left[has] // counts[has]).min()), room)
        if fits > 0:
            taken[kind] += fits
            left = left - fits * counts
    for kind in largest[::-1]:  # then one of a kind, where that brings the counts closer
        counts = patients.types[kind]
        closer = np.abs(left - counts).sum() < np.abs(left).sum()
        if closer and taken[kind] < patients.number[kind] and taken.sum() < spare:
            taken[kind] += 1
            left = left - counts
    return _rank_in_type(patients.type_of) < taken[patients.type_of]


def _rank_in_type(type_of: np.ndarray) -> np.ndarray:
    """How many patients of the same type come before each patient."""
    return pd.Series(type_of).groupby(type_of).cumcount().to_numpy()


def _deal_folds(patients: _Patients, test: np.ndarray, n_folds: int) -> np.ndarray:
    """Fold of each patient, -1 in the test set."""
    fold = np.full(len(test), -1, dtype=np.int64)
    train = np.flatnonzero(~test)
    kind = patients.type_of[train]
    rank = _rank_in_type(kind)
    number = np.bincount(kind, minlength=len(patients.types))
    even = rank < (number[kind] // n_folds) * n_folds
    fold[train[even]] = rank[even] % n_folds
    held = np.zeros((n_folds, patients.types.shape[1]), dtype=np.int64)
    scans = np.zeros(n_folds, dtype=np.int64)
    left = train[~even]
    size = patients.types.sum(axis=1)
    for patient in left[np.argsort(-size[patients.type_of[left]], kind="stable")]:
        counts = patients.types[patients.type_of[patient]]
        best = np.lexsort((scans, held @ counts))[0]
        fold[patient] = best
        held[best] += counts
        scans[best] += counts.sum()
    return fold
