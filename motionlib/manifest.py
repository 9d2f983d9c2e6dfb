"""Manifests: one row a scan, what each column may hold, and every fault of a table at once."""

import os
from os.path import normpath
from pathlib import Path

import pandas as pd

from motionlib.files import read_table, sha256_file, write_table

TEXT, INTEGER, NUMBER = "text", "integer", "number"
COLUMNS = {  # in the order of the file
    "scan_id": TEXT, "participant_id": TEXT, "source_participant_id": TEXT, "cohort": TEXT,
    "path": TEXT, "sha256": TEXT, "age": NUMBER, "sex": TEXT, "field_strength": NUMBER,
    "manufacturer": TEXT, "contrast_agent": INTEGER, "motion_grade": INTEGER,
    "rater_1": INTEGER, "rater_2": INTEGER, "consensus": INTEGER, "motion_votes": INTEGER,
    "n_verdicts": INTEGER, "straight_reject": INTEGER, "role": TEXT, "fold": INTEGER,
}  # fmt: skip
OPTIONAL = ("motion_votes", "n_verdicts")  # columns that older manifests lack
WAREHOUSES = ("aphp", "mr-art")
COHORT_NAMES = (
    *("adni", "msseg", "bite", "aphp", "ixi", "mr-art", "ds000011", "ds002748", "bids", "caps"),
    *("virtual-adni", "virtual-msseg", "virtual-bite", "virtual-warehouse", "ixi-warehouse"),
)
ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.+-]*"
ABSOLUTE_PATTERN = r"^[/\\~]|^[A-Za-z]:"
CLIMB_PATTERN = r"(?:^|[/\\])\.\.(?:[/\\]|$)"
ID_WORDS = "has other characters than ASCII letters, digits and _ . + -"
PATTERNS = {  # what a cell must be, if not empty, and what is said of it if it is not
    "scan_id": (ID_PATTERN, ID_WORDS),
    "participant_id": (ID_PATTERN, ID_WORDS),
    "source_participant_id": (r"[A-Za-z0-9][A-Za-z0-9_.:+-]*", ID_WORDS),  # may name its cohort
    "sha256": ("[0-9a-f]{64}", "is not 64 lower-case hexadecimal digits"),
    "role": ("[a-z0-9_-]+", "is not one lower-case word"),
}
CHOICES = {
    "cohort": COHORT_NAMES,
    "sex": ("F", "M"),
    **dict.fromkeys(("motion_grade", "rater_1", "rater_2", "consensus"), (0, 1, 2)),
    **dict.fromkeys(("contrast_agent", "straight_reject"), (0, 1)),
}
RANGES = {
    "age": (0, 120),
    "field_strength": (0.01, 15),
    **dict.fromkeys(("motion_votes", "n_verdicts", "fold"), (0, 1000)),
}
NEEDED = ("scan_id", "participant_id", "source_participant_id", "cohort", "path")
ROW_COLUMNS = ("scan_id", "participant_id", "path")  # a fault here concerns that row alone
FAULT_COLUMNS = ["row", "scan_id", "column", "fault"]


class ManifestError(ValueError):
    """A manifest has faults; ``faults`` holds all, by ``row`` (0 is the first below the header)."""

    def __init__(self, faults: pd.DataFrame, source: str = "the manifest"):
        self.faults = faults.reset_index(drop=True)
        first = self.faults.iloc[0]
        where = "" if pd.isna(first["row"]) else f"row {first['row']}, "
        count = f"{len(self.faults)} fault{'s' if len(self.faults) > 1 else ''}"
        super().__init__(
            f"{source} has {count}, the first in {where}column {first['column']}: "
            f"{first['fault']}; correct the table and read it again."
        )


def read_manifest(path: str | os.PathLike, *, check_files: bool = False) -> pd.DataFrame:
    """Read a manifest, tab-separated (or CSV) with the columns of `COLUMNS`, and validate it.

    With `check_files` every image is looked for as well, and checksums are compared if there. No
    such file is a FileNotFoundError; faults are one `ManifestError` that lists all of them.
    """
    path = Path(path)
    table = read_text(path)
    try:
        return validate(table, root=path.parent, check_files=check_files)
    except ManifestError as error:
        raise ManifestError(error.faults, str(path.name)) from None


def read_text(path: str | os.PathLike) -> pd.DataFrame:
    """Read a manifest's cells as text, checking only that the file is there (FileNotFoundError)."""
    path = Path(path)
    if path.is_dir():
        raise FileNotFoundError(
            f"{path} is a folder; expected a manifest, which `motionlib manifest COHORT {path} "
            "--out FILE.tsv` makes of it."
        )
    if not path.is_file():
        raise FileNotFoundError(
            f"No manifest at {path}; make one with `motionlib manifest COHORT ROOT --out {path}`."
        )
    return read_table(path)


def write_manifest(table: pd.DataFrame, path: str | os.PathLike) -> Path:
    """Validate a manifest and write it atomically, its columns in the order of `COLUMNS`."""
    return write_table(validate(complete(table)), path)


def complete(table: pd.DataFrame) -> pd.DataFrame:
    """Give a table every column of the manifest, in order and typed; further columns follow.

    ``source_participant_id`` defaults to ``participant_id``. Text becomes ``string``, grades
    ``Int64``, other numbers ``float64``, missing NA; a cell of another type is a `ManifestError`.
    """
    faults = _Faults()
    table = _typed(_with_all_columns(table), faults)
    faults.refuse()
    return table


def validate(
    table: pd.DataFrame,
    *,
    root: str | os.PathLike | None = None,
    check_files: bool = False,
    anywhere: bool = False,
) -> pd.DataFrame:
    """Check a manifest and return the same rows typed, index 0..n-1.

    A scan has one row, or one per ``variant`` in a prepared manifest. `root` is the folder that
    paths are relative to, needed for `check_files`, which looks for every image and compares
    checksums where there are some. `anywhere` allows absolute paths, which a table for one's own
    use may have. A `ManifestError` has the table of every fault, not just the first.
    Source: paper §III-A.2 (grades 0, 1, 2; the consensus is the maximum of the two raters).
    """
    if check_files and root is None:
        raise ValueError("Checking files needs root, the folder that the paths start from.")
    faults = _Faults()
    table = _checked(table, faults, anywhere=anywhere)
    if check_files:
        _check_files(table, root, faults)
    faults.refuse()
    return table


def usable_rows(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of a manifest that a person wrote, those refused marked; one fault for each of these.

    It needs ``scan_id participant_id path``; paths may be absolute. Faults of more rows refuse it.
    """
    text = read_text(path)
    if missing := [name for name in ROW_COLUMNS if name not in text]:
        raise ValueError(f"{path.name} has no column {', '.join(missing)}; a manifest has them.")
    text = _with_all_columns(text)
    found = _Faults()
    text["cohort"] = text["cohort"].fillna("bids")
    table = _checked(text, found, anywhere=True)
    faults = found.table()
    # of several rows with one id or one path the first is usable
    first_of_many = ~table["scan_id"].duplicated() & ~table["path"].duplicated()
    twice = faults["fault"].str.endswith("stands in more than one row")
    faults = faults[~(twice & first_of_many.reindex(faults["row"]).to_numpy(dtype=bool))]
    other = faults[~faults["column"].isin([*ROW_COLUMNS, "source_participant_id"])]
    other = other[~other["fault"].str.contains("stands in more than one")]
    if len(other):
        raise ManifestError(other, path.name)
    faults = faults.drop_duplicates("row")
    table["refused"] = table.index.isin(faults["row"])
    row_name = "row " + faults["row"].astype("string")
    return table, faults.assign(scan_id=faults["scan_id"].fillna(row_name))


def locate(path: str, root: str | os.PathLike) -> Path:
    """Find an image: relative to the manifest's folder, else to ``MOTIONLIB_DATA``."""
    here = Path(root) / path
    data = os.environ.get("MOTIONLIB_DATA")
    return Path(data) / path if data and not os.path.lexists(here) else here


def check_still(table: pd.DataFrame, *, most_votes: int = 0) -> None:
    """Refuse scans that are about to be taken for still although people saw head motion in them.

    Those are rows of the manifest with more than `most_votes` in ``motion_votes``; without that
    column nothing is known, and nothing refused. The ValueError says how many, and the first.
    """
    if "motion_votes" not in table:
        return
    moving = table[(table["motion_votes"] > most_votes).fillna(False).to_numpy(dtype=bool)]
    if len(moving):
        first = moving.iloc[0]
        raise ValueError(
            f"{len(moving)} scans would be called still though people saw head motion in them, the "
            f"first is {first['scan_id']} ({first['motion_votes']:g} of {first['n_verdicts']:g} "
            "verdicts); leave them out, or grade them."
        )


def is_warehouse(cohort: pd.Series) -> pd.Series:
    """Say which cohorts stand in the clinical warehouse's place."""
    return cohort.str.endswith("-warehouse").fillna(False) | cohort.isin(WAREHOUSES)


class _Faults:
    """Faults of one table, collected rule by rule."""

    def __init__(self):
        self.parts = [pd.DataFrame(columns=FAULT_COLUMNS).astype({"row": "Int64"})]

    def add(self, table: pd.DataFrame, bad: pd.Series, column: str, words) -> None:
        """Note the rows marked `bad`; `words` is one text for all or a column of them."""
        bad = bad.fillna(False).to_numpy(dtype=bool)
        if not bad.any():
            return
        part = pd.DataFrame({"row": table.index[bad].astype("Int64"), "column": column})
        part["scan_id"] = table["scan_id"][bad].to_numpy() if "scan_id" in table else None
        part["fault"] = words[bad].to_numpy() if isinstance(words, pd.Series) else words
        self.parts.append(part)

    def table(self) -> pd.DataFrame:
        """All faults, those of the whole table first, then row by row."""
        parts = [part for part in self.parts if len(part)] or self.parts
        faults = pd.concat(parts).reindex(columns=FAULT_COLUMNS).astype({"row": "Int64"})
        return faults.sort_values(["row", "column"], na_position="first", kind="stable")

    def refuse(self) -> None:
        """Raise if there are any."""
        if len(self.parts) > 1:
            raise ManifestError(self.table())


def _with_all_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Add the columns that are not there, empty; a patient is his own source."""
    table = table.copy()
    if "source_participant_id" not in table and "participant_id" in table:
        table["source_participant_id"] = table["participant_id"]
    return table.reindex(columns=[*table.columns, *(c for c in COLUMNS if c not in table)])


def _typed(table: pd.DataFrame, faults: _Faults) -> pd.DataFrame:
    """Columns in order and typed; cells that cannot be become NA, with a fault."""
    order = [name for name in COLUMNS if name in table]
    typed = table[[*order, *(name for name in table if name not in COLUMNS)]].copy()
    for name in order:
        column, kind = typed[name], COLUMNS[name]
        if kind == TEXT:
            typed[name] = column.astype("string")
            continue
        number = pd.to_numeric(column, errors="coerce").astype("float64")
        bad = number.isna() & column.notna()
        if kind == INTEGER:
            bad |= number.notna() & ((number % 1 != 0) | (number.abs() > 2**53))
            number = number.mask(bad).astype("Int64")
        typed[name] = number
        faults.add(typed, bad, name, column.astype("string") + f" is no {kind}")
    return typed


def _checked(table: pd.DataFrame, faults: _Faults, *, anywhere: bool = False) -> pd.DataFrame:
    """Apply every rule to a table; its rows typed, index 0..n-1."""
    table = table.reset_index(drop=True)
    table = _typed(table.assign(**{c: None for c in OPTIONAL if c not in table}), faults)
    # 1. columns and single cells
    for name in COLUMNS:
        if name not in table:
            absent = {"column": [name], "fault": "is missing from the table"}
            faults.parts.append(pd.DataFrame(absent))
            continue
        column, words = table[name], table[name].astype("string")
        if name in NEEDED:
            faults.add(table, column.isna(), name, "is empty, and every scan needs one")
        if name in PATTERNS:
            pattern, fault = PATTERNS[name]
            faults.add(table, ~column.str.fullmatch(pattern), name, words + " " + fault)
        elif name in CHOICES:
            bad = column.notna() & ~column.isin(CHOICES[name])
            choices = ", ".join(map(str, CHOICES[name]))
            faults.add(table, bad, name, words + f" is none of {choices}")
        elif name in RANGES:
            low, high = RANGES[name]
            bad = column.notna() & ~column.between(low, high)
            faults.add(table, bad, name, words + f" is outside {low} to {high}")
    if "path" in table:
        pattern = CLIMB_PATTERN if anywhere else f"{ABSOLUTE_PATTERN}|{CLIMB_PATTERN}"
        leaves = table["path"].str.contains(pattern)
        faults.add(table, leaves, "path", table["path"] + " leaves the manifest's folder")
    # 2. a scan, and an image, once (in prepared manifests once a variant)
    same = table.assign(path=table["path"].map(normpath, "ignore")) if "path" in table else table
    for name in ("scan_id", "path"):
        if name in table:
            key = [name, "variant"] if "variant" in table else [name]
            twice = table[name].notna() & same.duplicated(key, keep=False)
            faults.add(table, twice, name, table[name] + " stands in more than one row")
    # 3. the consensus is the larger grade, and follows where it is not given
    if {"rater_1", "rater_2", "consensus"} <= set(table):
        highest = table[["rater_1", "rater_2"]].max(axis=1, skipna=False).astype("Int64")
        table["consensus"] = table["consensus"].fillna(highest)
        bad = highest.notna() & (table["consensus"] != highest)
        words = "is not " + highest.astype("string") + ", the maximum of the two raters"
        faults.add(table, bad, "consensus", words)
    # 4. nothing is called still in which a person saw motion
    votes = table["motion_votes"].astype("string") + " of " + table["n_verdicts"].astype("string")
    if {"motion_grade", "role"} <= set(table):
        fault = "is called still, and " + votes + " verdicts saw head motion"
        grade, research = table["motion_grade"], (table["role"] == "research").fillna(False)
        still = (grade == 0).fillna(False) | (research & grade.isna())  # taken for it, if ungraded
        faults.add(table, still & (table["motion_votes"] > 0), "motion_votes", fault)
    too_many = table["motion_votes"] > table["n_verdicts"]
    faults.add(table, too_many, "motion_votes", "is " + votes + " verdicts")
    # 5. one source a participant, and no source on two sides of a split
    source = "source_participant_id"
    if {"participant_id", source} <= set(table):
        bad = _disagrees(table, "participant_id", source)
        faults.add(table, bad, source, "differs between scans of one participant")
    for name in ("role", "fold"):
        if {source, "role", name} <= set(table):
            used = table[table["role"].fillna("excluded") != "excluded"]
            words = used[source] + f" stands in more than one {name}"
            faults.add(used, _disagrees(used, source, name), name, words)
    return table


def _disagrees(table: pd.DataFrame, group: str, column: str) -> pd.Series:
    """Rows whose group holds several values of the column (missing counts as a value)."""
    pairs = table[[group, column]].drop_duplicates()
    torn = pairs.loc[pairs[group].duplicated(), group].dropna()
    return table[group].isin(torn)


def _check_files(table: pd.DataFrame, root: str | os.PathLike, faults: _Faults) -> None:
    """Note images that are not there, or whose bytes are not those of the checksum."""
    words = pd.Series(pd.NA, index=table.index, dtype="string")
    paths = table["path"] if "path" in table else pd.Series(dtype="string")
    sums = table.get("sha256", words)
    for row, path in paths.dropna().items():
        image = locate(path, root)
        if not image.is_file():
            words[row] = f"{path} is no file"
        elif not os.access(image, os.R_OK):
            words[row] = f"{path} cannot be read"
        elif pd.notna(sums[row]) and sha256_file(image) != sums[row]:
            words[row] = f"{path} has another checksum than the table"
    faults.add(table, words.notna(), "path", words)
