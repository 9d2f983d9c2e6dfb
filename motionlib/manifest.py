"""Tables of scans come in; typed manifests, or a table of every fault in them, go out."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from motionlib.faults import COHORT_NAMES, FAULT_COLUMNS, cell_faults, faults_where, group_faults
from motionlib.files import sha256_file, write_table

__all__ = [
    "COHORT_NAMES",
    "COLUMNS",
    "ManifestError",
    "complete",
    "find_faults",
    "locate",
    "read_manifest",
    "read_text",
    "validate",
    "write_manifest",
]

TEXT = "text"
INTEGER = "integer"
NUMBER = "number"

# The order is the order in the file.
COLUMNS = {
    "scan_id": TEXT,
    "participant_id": TEXT,
    "source_participant_id": TEXT,
    "cohort": TEXT,
    "path": TEXT,
    "sha256": TEXT,
    "age": NUMBER,
    "sex": TEXT,
    "field_strength": NUMBER,
    "manufacturer": TEXT,
    "contrast_agent": INTEGER,
    "motion_grade": INTEGER,
    "rater_1": INTEGER,
    "rater_2": INTEGER,
    "consensus": INTEGER,
    "straight_reject": INTEGER,
    "role": TEXT,
    "fold": INTEGER,
}


class ManifestError(ValueError):
    """A manifest has faults; ``faults`` holds all of them.

    Attributes
    ----------
    faults : pandas.DataFrame
        Columns ``row`` (0 is the first row below the header), ``scan_id``, ``column``, ``fault``.
    """

    def __init__(self, faults: pd.DataFrame, source: str = "the manifest"):
        self.faults = faults.reset_index(drop=True)
        first = self.faults.iloc[0]
        where = "" if pd.isna(first["row"]) else f"row {first['row']}, "
        count = f"{len(self.faults)} fault{'s' if len(self.faults) > 1 else ''}"
        super().__init__(
            f"{source} has {count}, the first in {where}column {first['column']}: "
            f"{first['fault']}; correct the table and read it again."
        )


def complete(table: pd.DataFrame) -> pd.DataFrame:
    """Give a table every column of the manifest, in order and typed; further columns follow.

    Parameters
    ----------
    table : pandas.DataFrame
        One row per scan. ``source_participant_id`` defaults to ``participant_id``.

    Returns
    -------
    pandas.DataFrame
        Text as ``string``, grades as ``Int64``, other numbers as ``float64``; missing is NA.

    Raises
    ------
    ManifestError
        If a cell cannot be read as the type of its column.
    """
    table = table.copy()
    if "source_participant_id" not in table and "participant_id" in table:
        table["source_participant_id"] = table["participant_id"]
    for name in COLUMNS:
        if name not in table:
            table[name] = None
    typed, faults = _typed(table)
    if len(faults):
        raise ManifestError(faults)
    return typed


def read_manifest(path: str | os.PathLike, *, check_files: bool = False) -> pd.DataFrame:
    """Read a manifest and validate it.

    Parameters
    ----------
    path : path-like
        A tab-separated file (or CSV, by its suffix) with the columns of `COLUMNS`.
    check_files : bool, default=False
        Also look for every image, and compare checksums where the table has them.

    Returns
    -------
    pandas.DataFrame
        Typed as by `complete`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ManifestError
        If the table has faults; all of them are listed.
    """
    path = Path(path)
    table = read_text(path)
    try:
        return validate(table, root=path.parent, check_files=check_files)
    except ManifestError as error:
        raise ManifestError(error.faults, str(path.name)) from None


def write_manifest(table: pd.DataFrame, path: str | os.PathLike) -> Path:
    """Validate a manifest and write it atomically, its columns in the order of `COLUMNS`."""
    return write_table(validate(complete(table)), path)


def locate(path: str, root: str | os.PathLike) -> Path:
    """Find an image: relative to the manifest's folder, else to ``MOTIONLIB_DATA``."""
    here = Path(root) / path
    data = os.environ.get("MOTIONLIB_DATA")
    return Path(data) / path if data and not here.exists() else here


def validate(
    table: pd.DataFrame, *, root: str | os.PathLike | None = None, check_files: bool = False
) -> pd.DataFrame:
    """Check a manifest and return it typed.

    Parameters
    ----------
    table : pandas.DataFrame
        One row per scan; a prepared manifest may hold a scan once per ``variant``.
    root : path-like, optional
        Folder the paths are relative to; needed to check files.
    check_files : bool, default=False
        Also look for every image, and compare checksums where the table has them.

    Returns
    -------
    pandas.DataFrame
        The same rows, typed, index 0..n-1.

    Raises
    ------
    ManifestError
        With the table of every fault, not just the first.

    Notes
    -----
    Source: paper §III-A.2 (grades 0, 1, 2; the consensus is the maximum of the two raters).
    """
    table, faults = find_faults(table, root=root, check_files=check_files)
    if len(faults):
        raise ManifestError(faults)
    return table


def find_faults(
    table: pd.DataFrame, *, root: str | os.PathLike | None = None, check_files: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Do as `validate`, and return the faults instead of raising.

    Returns
    -------
    table : pandas.DataFrame
        Typed; cells that could not be read as their type are NA.
    faults : pandas.DataFrame
        Columns ``row``, ``scan_id``, ``column``, ``fault``; no rows if there are none.
    """
    table, faults = _typed(table.reset_index(drop=True))
    found = [faults, cell_faults(table), group_faults(table)]
    if check_files:
        if root is None:
            raise ValueError("Checking files needs root, the folder that the paths start from.")
        found.append(_file_faults(table, root))
    found = [part for part in found if len(part)] or [faults]
    return table, pd.concat(found).sort_values(["row", "column"], na_position="first")


def read_text(path: str | os.PathLike) -> pd.DataFrame:
    """Read a manifest's cells as text, without any check but that the file is there.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"No manifest at {path}; make one with `motionlib manifest COHORT ROOT --out {path}`."
        )
    separator = "," if path.suffix == ".csv" else "\t"
    missing = ["", "n/a"]
    try:
        return pd.read_csv(
            path, sep=separator, dtype="string", keep_default_na=False, na_values=missing
        )
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        said = str(error).splitlines()[0].rstrip(".")
        raise ValueError(f"{path.name} is no table that can be read: {said}.") from error


def _typed(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Columns in order and typed, and the cells that could not be; such cells become NA."""
    order = [name for name in COLUMNS if name in table]
    typed = table[[*order, *(name for name in table if name not in COLUMNS)]].copy()
    found = []
    for name in order:
        column = typed[name]
        if COLUMNS[name] == TEXT:
            typed[name] = column.astype("string")
            continue
        number = pd.to_numeric(column, errors="coerce").astype("float64")
        bad = number.isna() & column.notna()
        if COLUMNS[name] == INTEGER:
            bad |= number.notna() & (number % 1 != 0)
            number = number.mask(bad).astype("Int64")
        typed[name] = number
        found.append(
            faults_where(typed, bad, name, column.astype("string") + f" is no {COLUMNS[name]}")
        )
    return typed, pd.concat(found or [pd.DataFrame(columns=FAULT_COLUMNS)])


def _file_faults(table: pd.DataFrame, root: str | os.PathLike) -> pd.DataFrame:
    """Images that are not there, or whose bytes are not those of the checksum."""
    said = pd.Series(pd.NA, index=table.index, dtype="string")
    paths = table["path"] if "path" in table else pd.Series(dtype="string")
    sums = table.get("sha256", said)
    for row, path in paths.dropna().items():
        image = locate(path, root)
        if not image.is_file():
            said[row] = f"{path} is no file"
        elif not os.access(image, os.R_OK):
            said[row] = f"{path} cannot be read"
        elif pd.notna(sums[row]) and sha256_file(image) != sums[row]:
            said[row] = f"{path} has another checksum than the table"
    return faults_where(table, said.notna(), "path", said)
