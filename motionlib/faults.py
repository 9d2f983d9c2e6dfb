"""Typed tables of scans come in; tables of the faults in them go out."""

from __future__ import annotations

import pandas as pd

COHORT_NAMES = (
    *("adni", "msseg", "bite", "aphp", "ixi", "mr-art", "ds000011", "ds002748", "bids", "caps"),
    *("virtual-adni", "virtual-msseg", "virtual-bite", "virtual-warehouse", "ixi-warehouse"),
)

ID_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.+-]*"
SOURCE_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.:+-]*"  # may name its cohort first
ESCAPE_PATTERN = r"^[/\\~]|^[A-Za-z]:|(?:^|[/\\])\.\.(?:[/\\]|$)"
FAULT_COLUMNS = ["row", "scan_id", "column", "fault"]


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
