"""ADNI: motion-free scans and scans with real motion, by its quality tables (Fig. A.1)."""

import os
import re
from pathlib import Path

import pandas as pd

from motionlib.cohorts import sources
from motionlib.cohorts.bids import add_sidecar_facts
from motionlib.cohorts.selection import ScanFilter, Selection
from motionlib.preprocess.finder import bids_images, stem

CONVERSION = ("viscode", "series_id", "image_id", "field_strength")
MOTION = re.compile(r"\b(motion|mov(e|ed|es|ing|ements?)|ghost\w*|rings?|ringing|blur\w*)\b", re.I)
NEGATION = re.compile(r"\b(no|not|without|free of|absence of|nil|w/o)\b[^.;]*", re.I)
# IPMOTION 1, 2, 3 is mild, moderate, severe; the paper's grade 2 is "difficult to distinguish"
GRADES = {0: 0, 1: 1, 2: 1, 3: 2}
SCORES = {str(score): score for score in GRADES}
KEPT = (
    *("scan_id", "participant_id", "cohort", "path", "age", "sex"),
    *("field_strength", "manufacturer", "motion_grade", "role"),
)


def read(root: str | os.PathLike, *, field_strength: float | None = 1.5) -> Selection:
    """Select motion-free scans and a test set with real motion, as in Fig. A.1.

    `root` holds ``MRIQUALITY.csv``, ``MAYOADIRL_MRI_IMAGEQC*.csv``, Clinica's
    ``conversion_info/v*/t1_paths.tsv`` (or ``ADNI_BIDS.csv``), each up to three folders deep, and
    Clinica's BIDS folder (itself, or as ``BIDS``). Only scans of `field_strength` in tesla are
    taken, with None all. ``role`` is ``research`` (IPMOTION 0, PASS 1, no word of motion in the
    comments) or ``real_motion`` (IPMOTION 2 or 3, or a word of motion in the comments of the same
    image), the latter without the participants of the former.
    Source: paper §III-A.1, Fig. A.1. The thresholds are ours: the figure's are not in the text.
    Series join MRIQUALITY (``LONIUID`` is S and the series), images join IMAGEQC (``loni_image`` is
    I and the image). ADNI-1 images are processed copies whose image id is not in IMAGEQC: comments
    on the same participant and day also keep a scan out of the motion-free set.
    """
    root = sources.need_folder(root)
    base = next((b for b in ("", "BIDS", "bids") if any((root / b).glob("sub-ADNI*"))), "")
    scans = ScanFilter(
        _candidates(root, base), "converted, or in the folder", "t1_paths.tsv and BIDS"
    )
    scans.drop("in the conversion table", scans.table["series_id"].isna(), "on disk, not in table")
    wrong = ~scans.table["scan_id"].str.contains(r"^sub-ADNI\d{3}S\d{4}_ses-M\d{3}_")
    scans.drop("participant and visit", wrong, "PTID or visit code not understood")
    if field_strength is not None:
        tesla = pd.to_numeric(scans.table["field_strength"], errors="coerce")
        other = (tesla - field_strength).abs().fillna(9) > 0.1
        scans.drop(f"{field_strength:g} T", other, "has another field strength")
    sources.drop_unusable(scans, root)
    _join_scores(scans, root)
    _join_comments(scans, root)
    _choose(scans)
    sources.add_people(scans, root / base)
    add_sidecar_facts(scans, root, names=("manufacturer",))
    grades = scans.table["ipmotion"].astype(int).map(GRADES)
    scans.table = scans.table.assign(cohort="adni", motion_grade=grades)[list(KEPT)]
    return scans.select(root)


def session_of(viscode: str) -> str:
    """Session label of a visit code: bl is ses-M000, m06 is ses-M006; others are kept to fail.

    The scan of the screening visit (sc, scmri) is the baseline's, as Clinica has it.
    """
    months = "0" if viscode in ("bl", "sc", "scmri") else viscode.removeprefix("m")
    return f"ses-M{int(months):03d}" if months.isdecimal() else f"ses-{viscode}"


def says_motion(comment: str) -> bool:
    """Tell whether a comment speaks of motion, "no motion" and the like left out."""
    return MOTION.search(NEGATION.sub(" ", comment)) is not None


def _candidates(root: Path, base: str) -> pd.DataFrame:
    """Rows of the conversion table and images of the BIDS folder, joined by scan."""
    images = bids_images(root / base)[0]
    on_disk = pd.DataFrame(
        {
            "scan_id": [  # older conversions wrote ses-M00 for ses-M000
                re.sub(r"_ses-M(\d+)_", lambda m: f"_ses-M{int(m[1]):03d}_", stem(image))
                for _, _, image in images
            ],
            "path": [f"{base}/{image}" if base else image for _, _, image in images],
            "on_disk_id": [subject for subject, _, _ in images],
        },
        dtype="string",
    )
    path = sources.find_table(root, r"t1_paths\.tsv", r"ADNI_BIDS\.(csv|tsv)")
    table = sources.read_table(path, CONVERSION)
    if "subject_id" in table:
        table["rid"] = pd.to_numeric(table["subject_id"].str[-4:], errors="coerce").astype("Int64")
        table["participant_id"] = "sub-ADNI" + table["subject_id"].str.replace("_", "", regex=False)
    elif "rid" in table:  # the number at the end of a participant's name
        table["rid"] = sources.numbers(table["rid"]).astype("Int64")
        names = {int(n[-4:]): n for n in on_disk["on_disk_id"] if n[-4:].isdecimal()}
        table["participant_id"] = table["rid"].map(names).astype("string")
    else:
        raise ValueError(f"{path.name} has no column subject_id, nor rid.")
    table["participant_id"] = table["participant_id"].fillna("sub-unknown")
    session = table["viscode"].fillna("").str.lower().map(session_of)
    table["scan_id"] = table["participant_id"] + "_" + session + "_T1w"
    table["day"] = _day(table["scan_date"]) if "scan_date" in table else pd.NA
    both = table.merge(on_disk, on="scan_id", how="outer")
    both["participant_id"] = both["participant_id"].fillna(both["on_disk_id"])
    folder = both["scan_id"].str.replace(r"^(sub-\w+?)_(ses-[^_]+)_.*", r"\1/\2/anat/", regex=True)
    expected = (f"{base}/" if base else "") + folder + both["scan_id"] + ".nii.gz"
    both["path"] = both["path"].fillna(expected)
    return both.drop(columns="on_disk_id").sort_values("scan_id")


def _bare_id(column: pd.Series, letter: str) -> pd.Series:
    """Numbers of series (S123) or images (I123), also where a table has them as 123 or 123.0."""
    return column.str.upper().str.removeprefix(letter).str.replace(r"\.0$", "", regex=True)


def _day(column: pd.Series) -> pd.Series:
    """Dates as eight digits, from yyyymmdd or yyyy-mm-dd."""
    return column.astype("string").str.replace("-", "", regex=False).str[:8]


def _join_scores(scans: ScanFilter, root: Path) -> None:
    """Bring PASS and IPMOTION by series; scans without one clear row leave."""
    path = sources.find_table(root, r"MRIQUALITY.*\.csv")
    scores = sources.read_table(path, ("loniuid", "pass", "ipmotion"))
    key = _bare_id(scores["loniuid"], "S")
    scores = scores[["pass", "ipmotion"]].apply(sources.codes, meanings=SCORES)
    scores = scores.assign(series_key=key).dropna(subset="series_key").drop_duplicates()
    torn = set(scores.loc[scores["series_key"].duplicated(), "series_key"])
    scans.table["series_key"] = _bare_id(scans.table["series_id"], "S")
    bad = scans.table["series_key"].isin(torn)
    scans.drop("one quality row", bad, "has contradictory rows in MRIQUALITY")
    scores = scores[~scores["series_key"].isin(torn)]
    scans.table = scans.table.merge(scores, on="series_key", how="left", indicator="scored")
    scans.drop("quality row", scans.table["scored"] == "left_only", "has no row in MRIQUALITY")
    scans.drop("IPMOTION 0 to 3", scans.table["ipmotion"].isna(), "has no IPMOTION")


def _join_comments(scans: ScanFilter, root: Path) -> None:
    """Mark scans whose comments speak of motion: of the same image, or of the same day."""
    path = sources.find_table(root, r"MAYOADIRL_MRI_IMAGEQC.*\.csv")
    notes = sources.read_table(path, ("rid", "loni_image"))
    if "series_type" in notes:
        notes = notes[notes["series_type"].str.upper().fillna("T1") == "T1"]
    columns = [name for name in notes if "comment" in name]
    texts = [" ".join(row) for row in notes[columns].fillna("").itertuples(index=False)]
    notes = notes[[says_motion(text) for text in texts]]
    images = set(_bare_id(notes["loni_image"], "I").dropna())
    rid = pd.to_numeric(notes["rid"], errors="coerce").astype("Int64").astype("string")
    days = set()
    if "series_date" in notes:
        days = set((rid + ":" + _day(notes["series_date"])).dropna())
    table = scans.table
    table["image_moves"] = _bare_id(table["image_id"], "I").isin(images)
    table["day_moves"] = (table["rid"].astype("string") + ":" + table["day"]).isin(days)
    said = f"searched {', '.join(columns)}" if columns else f"{path.name} has no comment column"
    scans.note("comments", said)


def _choose(scans: ScanFilter) -> None:
    """Keep motion-free scans and, of other participants, scans with real motion."""
    table = scans.table
    score = table["ipmotion"].astype(int)
    any_word = table["image_moves"] | table["day_moves"]
    reason = pd.Series(pd.NA, index=table.index, dtype="string")
    passed = (table["pass"] == 1).fillna(False)
    reason[(score == 0) & ~passed] = "failed its quality control, IPMOTION 0"
    reason[(score == 0) & any_word] = "is contradictory: IPMOTION 0, and comments on motion"
    reason[(score == 1) & ~table["image_moves"]] = "is mild: neither motion-free nor clear motion"
    scans.drop("motion-free or clear motion", reason.notna(), reason)
    table = scans.table
    clean = table["ipmotion"].astype(int) == 0
    table["role"] = clean.map({True: "research", False: "real_motion"})
    elsewhere = ~clean & table["participant_id"].isin(table.loc[clean, "participant_id"])
    scans.drop(
        "participants apart",
        elsewhere,
        "has real motion, and its participant is in the motion-free set",
    )
