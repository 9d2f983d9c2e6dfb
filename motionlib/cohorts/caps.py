"""A CAPS folder of Clinica: the images that t1-linear has put into MNI space."""

import os

import pandas as pd

from motionlib.cohorts import sources
from motionlib.cohorts.selection import ScanFilter, Selection
from motionlib.preprocess.finder import caps_images


def read(root: str | os.PathLike, *, cohort: str | None = None) -> Selection:
    """Read the t1-linear images of a CAPS folder, as Clinica or ``motionlib preprocess`` writes it.

    `root` holds ``subjects/sub-*/ses-*/t1_linear/``, and perhaps ``participants.tsv``; `cohort` is
    by default ``caps``. One scan a session and acquisition: the cropped image, else the uncropped.
    """
    root = sources.need_folder(root)
    if not (root / "subjects").is_dir():
        raise FileNotFoundError(f"{root} has no folder subjects; expected a CAPS folder.")
    names = ["participant_id", "scan_id", "path", "is_crop", "is_caps"]
    table = pd.DataFrame(caps_images(root), columns=names)
    if table.empty:
        raise FileNotFoundError(f"{root} holds no subjects/sub-*/ses-*/t1_linear/*_T1w.nii.gz.")
    scans = ScanFilter(table, "t1-linear images in the folder", "subjects/sub-*/ses-*/t1_linear")
    scans.drop("Clinica's space", ~scans.table["is_caps"], "not in MNI152NLin2009cSym")
    has_crop = scans.table.groupby("scan_id")["is_crop"].transform("any").astype(bool)
    spare = has_crop & ~scans.table["is_crop"].astype(bool)
    scans.drop("cropped image first", spare, "is the uncropped copy of a cropped image")
    sources.drop_unusable(scans, root)
    sources.add_people(scans, root)
    scans.table = scans.table.drop(columns=["is_crop", "is_caps"]).assign(cohort=cohort or "caps")
    return scans.select(root)
