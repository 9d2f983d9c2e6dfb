"""MR-ART (OpenNeuro ds004173): volunteers asked to nod, graded by neuroradiologists."""

import os

import pandas as pd

from motionlib.cohorts import sources
from motionlib.cohorts.selection import ScanFilter, Selection
from motionlib.preprocess.finder import bids_images, stem

GRADES = {"1": 0, "2": 1, "3": 2}  # score 1 / 2 / 3 is the paper's mov0 / mov1 / mov2


def read(root: str | os.PathLike, *, require_images: bool = True) -> Selection:
    """Read MR-ART with the neuroradiologists' scores: one scanner, deliberate motion.

    `root` holds ``derivatives/scores.tsv``, ``participants.tsv`` and ``sub-*/anat``. Scans without
    an image leave, unless `require_images` is False. Scores 1, 2, 3 are ``motion_grade`` 0, 1, 2.
    Source: OpenNeuro ds004173 v1.0.2: Siemens Prisma, 3 T, MPRAGE.
    """
    root = sources.need_folder(root)
    path = root / "derivatives" / "scores.tsv"
    if not path.is_file():
        raise FileNotFoundError(f"{root} has no derivatives/scores.tsv; fetch MR-ART's tables.")
    scores = sources.read_table(path, ("bids_name", "score"))
    scores = scores.rename(columns={"bids_name": "scan_id"})
    scores["motion_grade"] = sources.codes(scores["score"], GRADES)
    scores = scores.drop_duplicates(["scan_id", "motion_grade"])
    on_disk = pd.DataFrame(
        [(stem(image), image) for _, _, image in bids_images(root)[0]],
        columns=["scan_id", "path"],
        dtype="string",
    )
    table = scores.merge(on_disk, on="scan_id", how="outer")
    scans = ScanFilter(
        table.sort_values("scan_id"), "scored, or in the folder", "scores.tsv and images"
    )
    torn = scans.table["scan_id"].duplicated(keep=False)
    scans.drop("one score", torn, "has contradictory scores")
    scans.drop("scored", scans.table["score"].isna(), "is on disk and has no score")
    odd = scans.table["motion_grade"].isna()
    scans.drop("score 1, 2 or 3", odd, "has a score that is none of 1, 2, 3")
    scans.table["participant_id"] = scans.table["scan_id"].str.extract(r"^(sub-[A-Za-z0-9]+)_")[0]
    unnamed = scans.table["participant_id"].isna()
    scans.drop("named after its participant", unnamed, "has a name without sub-")
    table = scans.table
    expected = table["participant_id"] + "/anat/" + table["scan_id"] + ".nii.gz"
    table["path"] = table["path"].fillna(expected)
    if require_images:
        sources.drop_unusable(scans, root)
    else:
        scans.note("images", "not asked for: the tables alone are used")
    sources.add_people(scans, root)
    scans.table = scans.table.assign(
        cohort="mr-art", manufacturer="Siemens", field_strength=3.0, contrast_agent=0
    ).drop(columns="score")
    return scans.select(root)
