"""A run of profile `open` or `paper` goes in; its whole flow and the paper's test set come out.

What `studycohort.prepare_cohort` does for every profile is left as it is; this room adds what only
cohorts that somebody holds have: reasons of their own readers, and the paper's sizes.
"""

from __future__ import annotations

from itertools import combinations

import pandas as pd

from motionlib.cohorts import read_cohort
from motionlib.cohorts.flow import FLOW, REAL_MOTION
from motionlib.cohorts.selection import Selection
from motionlib.experiments import cohort as studycohort
from motionlib.experiments.assemble import PAPER_IMAGES, data_root
from motionlib.files import code_key, content_key, read_json, write_json, write_table
from motionlib.manifest import validate, write_manifest
from motionlib.paper.run_summary import is_warehouse
from motionlib.splits import PAPER_TEST_SIZES, assign_splits, check_no_leakage

HELD = {"open": ("ixi", "mr-art"), "paper": ("adni", "msseg", "bite", "aphp")}
PAPER_GRADED = 4045  # warehouse scans without the straight rejects, Table A.II
FEW_RESEARCH, FEW_GRADED = 150, 2000  # below, `studycohort` keeps more for the test


def prepare_cohort(run, *, cohort: str, n_folds: int, **options) -> pd.DataFrame:
    """Build or read the cohort of a run; parameters and result as in `studycohort.prepare_cohort`.

    Raises
    ------
    ValueError
        If two cohorts name a participant alike: nobody could tell the patients apart.

    Notes
    -----
    Source: paper Tables A.I and A.II.  The cohort `paper` has the paper's test sizes where it has
    the paper's numbers of scans, else the same shares of every cohort.
    """
    try:
        manifest = studycohort.prepare_cohort(run, cohort=cohort, n_folds=n_folds, **options)
    except ValueError:
        if cohort in HELD:
            check_names(read_held(cohort))
        raise
    record = run.cohort / "held.json"
    made = read_json(run.cohort / "cohort.json")["key"]
    key = content_key(made, code_key("experiments/heldcohorts.py", "cohorts"))
    if cohort not in HELD or (record.is_file() and read_json(record)["key"] == key):
        return manifest
    held = read_held(cohort)
    check_names(held)
    write_flow(run, held)
    if cohort == "paper":
        manifest = split_as_in_paper(manifest, n_folds=n_folds, seed=run.seed)
        write_split(run, manifest)
    write_json(record, {"key": key})
    return manifest


def read_held(cohort: str) -> dict[str, Selection]:
    """Read every cohort of a profile with its own reader."""
    return {name: read_cohort(name, data_root() / name) for name in HELD[cohort]}


def check_names(held: dict[str, Selection]) -> None:
    """Refuse cohorts in which a participant of one is called like one of another."""
    people = {name: set(each.manifest["source_participant_id"]) for name, each in held.items()}
    for first, second in combinations(people, 2):
        if shared := sorted(people[first] & people[second]):
            raise ValueError(
                f"{first} and {second} both have a participant {shared[0]} ({len(shared)} such "
                f"names); rename those of {second}, so that every patient has a name"
            )


def write_flow(run, held: dict[str, Selection]) -> None:
    """Replace the counts of ``cohort/flow.tsv`` by every reader's own steps and reasons."""
    flow = pd.read_csv(run.cohort / "flow.tsv", sep="\t")
    steps = [each.flow.assign(cohort=name) for name, each in held.items()]
    centred = flow[flow["step"] == "centring"]
    centred = centred.assign(cohort=centred["cohort"].str.removesuffix(REAL_MOTION))
    write_table(pd.concat([*steps, centred], ignore_index=True)[FLOW], run.cohort / "flow.tsv")


def split_as_in_paper(manifest: pd.DataFrame, *, n_folds: int, seed: int) -> pd.DataFrame:
    """Give a split manifest the paper's test sizes, or its shares where there are fewer scans.

    Parameters
    ----------
    manifest : DataFrame
        With roles and folds; few research or graded scans keep the split they have.
    n_folds, seed : int
        As in `splits.assign_splits`.

    Returns
    -------
    DataFrame
        The same rows.
    """
    split = manifest["role"].isin(["train", "test"])
    graded = split & is_warehouse(manifest["cohort"])
    parts = {"research": (split & ~graded, FEW_RESEARCH), "warehouse": (graded, FEW_GRADED)}
    for role, (rows, few) in parts.items():
        part = manifest[rows]
        if len(part) <= few:
            continue
        sizes = {name: paper_size(name, n) for name, n in part["cohort"].value_counts().items()}
        new = assign_splits(
            part.assign(role=role),
            test_sizes=sizes,
            n_folds=n_folds,
            seed=seed,
            stratify="motion_grade" if role == "warehouse" else None,
        )
        manifest = manifest.copy()
        for column in ("role", "fold"):
            manifest.loc[rows, column] = new[column]
    return manifest


def paper_size(cohort: str, n: int) -> int:
    """Test scans of a cohort of n scans: the paper's number, or as large a share."""
    whole = {**PAPER_IMAGES, "aphp": PAPER_GRADED}[cohort]
    return round(PAPER_TEST_SIZES[cohort] * n / whole)


def write_split(run, manifest: pd.DataFrame) -> None:
    """Write the manifest and ``splits.csv`` again, as `studycohort.prepare_cohort` does."""
    check_no_leakage(manifest)
    validate(manifest)
    write_manifest(manifest, run.cohort / "manifest.tsv")
    research = studycohort.research_rows(manifest)
    corrupted = studycohort.corrupted_half(research, seed=run.seed)
    labelled = manifest.assign(y_true=manifest["scan_id"].map(corrupted).astype("Int64"))
    write_table(labelled.drop(columns=["path", "sha256"]), run.folder / "splits.csv")
