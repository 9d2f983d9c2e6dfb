"""A clinical data warehouse such as AP-HP: images and one table of grades (§III-A.2)."""

import os
from pathlib import Path

import pandas as pd

from motionlib.cohorts import sources
from motionlib.cohorts.selection import ScanFilter, Selection
from motionlib.preprocess.finder import stem

GRADES = {f"{prefix}{grade}": grade for prefix in ("", "mov") for grade in (0, 1, 2)}
ALIASES = {
    "participant_id": ("participant_id", "participant", "patient_id", "patient"),
    "straight_reject": ("straight_reject", "sr"),
    "contrast_agent": ("contrast_agent", "gadolinium", "contrast"),
}


def read(root: str | os.PathLike, *, table: str | None = None) -> Selection:
    """Read a clinical data warehouse graded by two raters, or by one consensus.

    `root` holds the images and one CSV (`table` names it where there are several) with the columns
    ``image, rater_1, rater_2, straight reject`` or ``image, mov``; ``image`` is relative to the
    folder. Also read if there: participant (or patient), age, sex, manufacturer, field_strength,
    contrast_agent (or gadolinium). Straight rejects stay in the manifest as ``excluded`` and leave
    the flow; the ``consensus`` is the larger of two grades.
    Source: paper §III-A.2 (grades mov0, mov1, mov2; straight reject; consensus).
    """
    root = sources.need_folder(root)
    scans = ScanFilter(_rows(root, table), "rows of the table", "one row an image")
    scans.drop("names an image", scans.table["path"].isna(), "has no image")
    nobody = scans.table["participant_id"].isna()
    scans.drop("names a patient", nobody, "has neither a patient column nor sub- in its path")
    torn = scans.table["path"].duplicated(keep=False)
    scans.drop("one row an image", torn, "stands in rows that contradict each other")
    outside = scans.table["path"].str.contains(r"^[/\\]|(?:^|[/\\])\.\.(?:[/\\]|$)")
    scans.drop("inside the folder", outside, "has a path that leaves the folder")
    sources.drop_unusable(scans, root)
    grades = scans.table[["rater_1", "rater_2", "consensus"]]
    rejected = scans.table["straight_reject"] == 1
    both = rejected & grades.notna().any(axis=1)
    scans.drop("grade or reject", both, "is contradictory: a straight reject with a grade")
    known_reject = (scans.table["straight_reject"] == 1).fillna(False)
    ungraded = ~known_reject & scans.table["consensus"].isna()
    scans.drop("graded", ungraded, "has no grade 0, 1 or 2 by both raters, and is no known reject")
    kept = scans.table
    rejects = kept[kept["straight_reject"] == 1].assign(role="excluded")
    scans.drop("no straight reject", kept["straight_reject"] == 1, "is a straight reject")
    scans.table = pd.concat([scans.table.assign(role="warehouse"), rejects], ignore_index=True)
    scans.table["motion_grade"] = scans.table["consensus"]
    return scans.select(root)


def _rows(root: Path, name: str | None) -> pd.DataFrame:
    """Read the table with the manifest's column names and types."""
    paths = [root / name] if name else sorted(root.glob("*.csv"))
    if len(paths) != 1 or not paths[0].is_file():
        names = ", ".join(path.name for path in paths) or "none"
        raise FileNotFoundError(f"{root} should hold one CSV of grades; it has {names}.")
    given = sources.read_table(paths[0], ("image",))
    given.columns = given.columns.str.replace(" ", "_")
    has_mov = "mov" in given
    missing = [c for c in ("rater_1", "rater_2") if c not in given and not has_mov]
    if missing:
        raise ValueError(f"{paths[0].name} has no column {', '.join(missing)}, nor the column mov.")
    rows = pd.DataFrame({"path": given["image"].str.replace("\\", "/", regex=False)})
    for column, names in ALIASES.items():
        rows[column] = next((given[n] for n in names if n in given), pd.Series(dtype="string"))
    rows["participant_id"] = rows["participant_id"].fillna(
        rows["path"].str.extract(r"(sub-[A-Za-z0-9]+)")[0]
    )
    rows["scan_id"] = rows["path"].fillna("unnamed").map(stem).astype("string")
    for column in ("straight_reject", "contrast_agent"):
        rows[column] = sources.flags(rows[column], f"{paths[0].name}, column {column},")
    for column in ("rater_1", "rater_2"):
        words = given.get(column, pd.Series(pd.NA, given.index, dtype="string"))
        rows[column] = sources.codes(words, GRADES)
    highest = rows[["rater_1", "rater_2"]].max(axis=1, skipna=False).astype("Int64")
    rows["consensus"] = highest.fillna(sources.codes(given["mov"], GRADES)) if has_mov else highest
    for column in ("age", "field_strength"):
        rows[column] = sources.numbers(given[column]) if column in given else None
    sex = given["sex"].str.lower().map(sources.SEXES) if "sex" in given else None
    maker = given.get("manufacturer")
    return rows.assign(cohort="aphp", sex=sex, manufacturer=maker).drop_duplicates()
