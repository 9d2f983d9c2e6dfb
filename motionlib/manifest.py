"""Tables of scans come in; typed manifests, or a table of every fault in them, go out."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from motionlib.files import (
    sha256_file,
    write_table,
)

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
COHORT_NAMES = (
    *("adni", "msseg", "bite", "aphp", "ixi", "mr-art", "ds000011", "ds002748", "bids", "caps"),
    *("virtual-adni", "virtual-msseg", "virtual-bite", "virtual-warehouse", "ixi-warehouse"),
)
ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.+-]*"
SOURCE_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.:+-]*"  # may name its cohort first
ESCAPE_PATTERN = r"^[/\\~]|^[A-Za-z]:|(?:^|[/\\])\.\.(?:[/\\]|$)"
FAULT_COLUMNS = ["row", "scan_id", "column", "fault"]
WAREHOUSES = ("aphp", "mr-art")
ROW_COLUMNS = ("scan_id", "participant_id", "path")  # a fault here concerns that row alone


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


def cell_faults(table: pd.DataFrame) -> pd.DataFrame:
    """Find columns that are missing and cells that break the rule of their column.

    Parameters
    ----------
    table : pandas.DataFrame
        Typed as by ``manifest.complete``, index 0..n-1.

    Returns
    -------
    pandas.DataFrame
        Columns ``row``, ``scan_id``, ``column``, ``fault``; empty if all is well.
    """
    import pandera.pandas as pa
    from pandera.errors import SchemaErrors

    try:
        _schema(pa, table).validate(table, lazy=True)
    except SchemaErrors as error:
        return _in_words(table, error.failure_cases)
    return pd.DataFrame(columns=FAULT_COLUMNS)


def _schema(pa, table: pd.DataFrame):
    """One row of rules per column; the checks' messages are the faults shown."""

    def rule(test, message):
        return pa.Check(test, error=message, ignore_na=True)

    def one_of(values):
        said = ", ".join(map(str, values))
        return rule(lambda column: column.isin(values), f"is none of {said}")

    def like(pattern, message):
        return rule(lambda column: column.str.fullmatch(pattern), message)

    def within(low, high):
        return rule(lambda column: column.between(low, high), f"is outside {low} to {high}")

    said = "has other characters than ASCII letters, digits and _ . + -"
    identifier, source = like(ID_PATTERN, said), like(SOURCE_PATTERN, said)
    inside = rule(lambda c: ~c.str.contains(ESCAPE_PATTERN), "leaves the manifest's folder")
    once = table[["variant"]] if "variant" in table else table[[]]

    def unique(name):
        repeated = table[[name]].join(once).duplicated(keep=False)
        return rule(lambda column: ~repeated.loc[column.index], "stands in more than one row")

    grade = one_of((0, 1, 2))
    columns = {
        "scan_id": ([identifier, unique("scan_id")] if "scan_id" in table else [], False),
        "participant_id": ([identifier], False),
        "source_participant_id": ([source], False),
        "cohort": ([one_of(COHORT_NAMES)], False),
        "path": ([inside, unique("path")] if "path" in table else [], False),
        "sha256": ([like("[0-9a-f]{64}", "is not 64 lower-case hexadecimal digits")], True),
        "age": ([within(0, 120)], True),
        "sex": ([one_of(("F", "M"))], True),
        "field_strength": ([within(0.01, 15)], True),
        "manufacturer": ([], True),
        "contrast_agent": ([one_of((0, 1))], True),
        "motion_grade": ([grade], True),
        "rater_1": ([grade], True),
        "rater_2": ([grade], True),
        "consensus": ([grade], True),
        "straight_reject": ([one_of((0, 1))], True),
        "role": ([like("[a-z0-9_-]+", "is not one lower-case word")], True),
        "fold": ([within(0, 1000)], True),
    }
    return pa.DataFrameSchema(
        {n: pa.Column(None, checks, nullable=empty) for n, (checks, empty) in columns.items()}
    )


def faults_where(table: pd.DataFrame, bad: pd.Series, column: str, message) -> pd.DataFrame:
    """Rows of the table of faults for the rows marked `bad`."""
    bad = bad.fillna(False).to_numpy(dtype=bool)
    ids = table["scan_id"] if "scan_id" in table else pd.Series(pd.NA, index=table.index)
    said = message[bad].to_numpy() if isinstance(message, pd.Series) else message
    return pd.DataFrame(
        {"row": table.index[bad], "scan_id": ids[bad].to_numpy(), "column": column, "fault": said},
        columns=FAULT_COLUMNS,
    ).astype({"row": "Int64"})


def _in_words(table: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """Translate pandera's failure cases into words."""
    missing = cases["check"] == "column_in_dataframe"
    lost = pd.DataFrame({"column": cases.loc[missing, "failure_case"]})
    lost["fault"] = "is missing from the table"
    cells = cases[~missing]
    rows = cells["index"].astype("Int64")
    value = cells["failure_case"].astype("string")
    said = (value + " " + cells["check"].astype("string")).where(
        cells["check"] != "not_nullable", "is empty, and every scan needs one"
    )
    ids = table["scan_id"].iloc[rows].to_numpy() if "scan_id" in table else None
    frame = pd.DataFrame({"row": rows, "scan_id": ids, "column": cells["column"], "fault": said})
    return pd.concat([part for part in (lost, frame) if len(part)]).reindex(columns=FAULT_COLUMNS)


def group_faults(table: pd.DataFrame) -> pd.DataFrame:
    """Faults that need several cells: the consensus, and patients on two sides of a split."""
    found = [pd.DataFrame(columns=FAULT_COLUMNS)]
    if {"rater_1", "rater_2", "consensus"} <= set(table):
        highest = table[["rater_1", "rater_2"]].max(axis=1, skipna=False).astype("Int64")
        bad = highest.notna() & ((table["consensus"] != highest).fillna(True))
        said = "is not " + highest.astype("string") + ", the maximum of the two raters"
        found.append(faults_where(table, bad, "consensus", said))
    source = "source_participant_id"
    if {"participant_id", source} <= set(table):
        bad = _disagrees(table, "participant_id", source)
        found.append(faults_where(table, bad, source, "differs between scans of one participant"))
    for name in ("role", "fold"):
        if {source, "role", name} <= set(table):
            used = table[table["role"].fillna("excluded") != "excluded"]
            bad = _disagrees(used, source, name)
            said = table[source] + f" stands in more than one {name}"
            found.append(faults_where(used, bad, name, said.loc[used.index]))
    return pd.concat([part for part in found if len(part)] or found)


def _disagrees(table: pd.DataFrame, group: str, column: str) -> pd.Series:
    """Rows whose group holds several values of the column (missing counts as a value)."""
    pairs = table[[group, column]].drop_duplicates()
    torn = pairs.loc[pairs[group].duplicated(), group].dropna()
    return table[group].isin(torn)


def is_warehouse(cohort: pd.Series) -> pd.Series:
    """Say which cohorts stand in the clinical warehouse's place."""
    return cohort.str.endswith("-warehouse").fillna(False) | cohort.isin(WAREHOUSES)


def usable_rows(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of the manifest, those refused marked, and one fault for each of the latter."""
    text = read_text(path)
    if "source_participant_id" not in text and "participant_id" in text:
        text["source_participant_id"] = text["participant_id"]
    needed = text.reindex(columns=[*text.columns, *(c for c in COLUMNS if c not in text)])
    if missing := [name for name in ROW_COLUMNS if name not in text]:
        raise ValueError(f"{path.name} has no column {', '.join(missing)}; a manifest has them.")
    table, faults = find_faults(needed.assign(cohort=needed["cohort"].fillna("bids")))
    first_of_many = ~table["scan_id"].duplicated() & ~table["path"].duplicated()
    twice = faults["fault"].str.endswith("stands in more than one row")
    faults = faults[~(twice & first_of_many.reindex(faults["row"]).to_numpy(dtype=bool))]
    other = faults[~faults["column"].isin([*ROW_COLUMNS, "source_participant_id"])]
    other = other[~other["fault"].str.contains("stands in more than one")]
    if len(other):
        raise ManifestError(other, path.name)
    faults = faults.drop_duplicates("row")
    table["refused"] = table.index.isin(faults["row"])
    faults = faults.assign(
        scan_id=faults["scan_id"].fillna("row " + faults["row"].astype("string"))
    )
    return table, faults
