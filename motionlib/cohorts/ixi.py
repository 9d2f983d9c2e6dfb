"""IXI: healthy volunteers of three London hospitals, as downloaded or in BIDS form."""

import os
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd

from motionlib.cohorts import bids, sources
from motionlib.cohorts.ratings import read_ixi_ratings
from motionlib.cohorts.selection import ScanFilter, Selection
from motionlib.manifest import complete, validate

IMAGE = re.compile(r"IXI(?P<number>\d{3})-(?P<site>Guys|HH|IOP)-(?P<scan>\d{4})-T1\.nii(\.gz)?")
SITES = {"Guys": ("Philips", 1.5), "HH": ("Philips", 3.0), "IOP": ("GE", 1.5)}


def read(root: str | os.PathLike) -> Selection:
    """Read IXI as downloaded (``IXI002-Guys-0828-T1.nii.gz``, ``IXI.xls``) or in BIDS form.

    Images lie up to two folders below `root`, the table as ``IXI.csv`` or ``IXI.xls``; no images
    are a `FileNotFoundError`. A folder in BIDS form may have another of its scans beside it, named
    like it with ``-suspect``. ``motion_grade`` stays empty; ``motion_votes`` and ``n_verdicts`` are
    what people saw in 150 scans, if the folder of `ratings.read_ixi_ratings` lies beside it.
    """
    root = sources.need_folder(root).absolute()
    files = [p for level in ("*", "*/*", "*/*/*") for p in sorted(root.glob(level))]
    matches = [(path, IMAGE.fullmatch(path.name)) for path in files]
    rows = [
        {
            "participant_id": f"sub-IXI{match['number']}",
            "scan_id": f"sub-IXI{match['number']}_T1w",
            "path": path.relative_to(root).as_posix(),
            "manufacturer": SITES[match["site"]][0],
            "field_strength": SITES[match["site"]][1],
        }
        for path, match in matches
        if match
    ]
    if rows:
        selection = _read_download(root, pd.DataFrame(rows, dtype="string"))
    elif any(path.name.startswith("sub-") for path in files):
        selection = _read_bids(root)
    else:
        raise FileNotFoundError(f"{root} holds no IXI*-T1.nii.gz; `motionlib fetch ixi` gets them.")
    folder = root.parent / "ixi-ratings"
    if not folder.is_dir():
        return selection
    verdicts = read_ixi_ratings(folder).set_index("participant_id")[["motion_votes", "n_verdicts"]]
    rated = selection.manifest.drop(columns=verdicts.columns).join(verdicts, on="participant_id")
    return replace(selection, manifest=validate(complete(rated)))


def _read_bids(root: Path) -> Selection:
    """Read a BIDS folder, with the suspect scans beside it."""
    suspect = root.with_name(f"{root.name}-suspect")
    if not suspect.is_dir():
        return bids.read(root, cohort="ixi")
    parts = (f"{root.name}/", f"{suspect.name}/")
    return bids.read(root.parent, cohort="ixi", parts=parts)


def _read_download(root: Path, table: pd.DataFrame) -> Selection:
    """Read the images as downloaded, with the table of participants."""
    people = _people(root)
    listed = pd.DataFrame({"participant_id": people.index.astype("string")})
    listed["scan_id"] = listed["participant_id"] + "_T1w"
    unseen = listed[~listed["scan_id"].isin(table["scan_id"])]
    table = pd.concat([table, unseen], ignore_index=True)
    scans = ScanFilter(table, "images and rows of the table", "IXI*-T1.nii.gz and IXI.xls")
    scans.drop("image on disk", scans.table["path"].isna(), "is in the table and not on disk")
    sources.drop_unusable(scans, root)
    table = scans.table.join(people, on="participant_id")
    n_unknown = int(table["age"].isna().sum())
    scans.table = table.assign(cohort="ixi", contrast_agent=0)
    scans.note("demographics", f"{n_unknown} without an age (zero, contradictory or no row)")
    return scans.select(root)


def _people(root: Path) -> pd.DataFrame:
    """Age and sex by participant; two rows that contradict each other give missing values."""
    try:
        path = sources.find_table(root, r"IXI\.(csv|tsv)", r"IXI\.xlsx?")
    except FileNotFoundError:
        return sources.demographics(root)
    required = ("ixi_id", "age")
    if path.suffix.lower() in (".csv", ".tsv"):
        table = sources.read_table(path, required)
    else:
        try:
            table = pd.read_excel(path, sheet_name="Table", dtype="string")
        except ImportError:
            raise ValueError(
                f"{path.name} needs a reader of Excel files: pip install xlrd openpyxl, "
                "or save its sheet Table as IXI.csv."
            ) from None
        table.columns = [str(name).strip().lower() for name in table.columns]
        if missing := [name for name in required if name not in table]:
            raise ValueError(f"{path.name} has no column {', '.join(missing)} in sheet Table.")
    sex = next((table[name] for name in table if name.startswith("sex_id")), None)
    number = pd.to_numeric(table["ixi_id"], errors="coerce")
    ids = ("sub-IXI" + number.astype("Int64").astype("string").str.zfill(3)).astype("string")
    return sources.tidy_people(ids, table["age"], sex)
