"""Write what ``make chaos`` measured into ``docs/reliability.md``, between its marks.

A test compares the page with the tables in ``benchmarks/results/``: no figure in it is typed.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from motionlib.files import repository, write_text

SUMMED = ("kills", "fuzz", "determinism")
RESULTS = (*SUMMED, "scale", "many_scans")


def cell(value: object) -> str:
    """Write a value: three digits of a fraction, nothing for none."""
    if not isinstance(value, float):
        return str(value)
    return "" if value != value else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def markdown(table: pd.DataFrame) -> str:
    """Write a table for a page."""
    heads = [name.replace("_", " ") for name in table]
    rows = [[cell(value) for value in row] for row in table.astype(object).to_numpy()]
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def table_of(name: str, results: Path) -> pd.DataFrame:
    """Read a result; what can be summed, with its sums and largest fractions in a last row."""
    table = pd.read_csv(results / f"{name}.csv")
    if name not in SUMMED:
        return table
    sums = {column: table[column].sum() for column in table.select_dtypes("integer")}
    most = {column: table[column].max() for column in table.select_dtypes("float")}
    return pd.concat([table, pd.DataFrame([{table.columns[0]: "all", **sums, **most}])])


def filled(page: str, results: Path) -> str:
    """Put the tables between the marks of a page."""
    for name in (name for name in RESULTS if (results / f"{name}.csv").is_file()):
        start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
        block = f"{start}\n{markdown(table_of(name, results))}\n{end}"
        page = re.sub(f"{start}.*?{end}", lambda _, text=block: text, page, flags=re.DOTALL)
    return page


def main() -> None:
    """Fill the page."""
    page = repository() / "docs" / "reliability.md"
    results = repository() / "benchmarks" / "results"
    write_text(page, filled(page.read_text("utf-8"), results))


if __name__ == "__main__":
    main()
