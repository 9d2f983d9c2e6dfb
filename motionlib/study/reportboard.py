"""The scoreboard and Table IV go in; the first section of the report comes out.

First the answer to the study's question, then how each of the paper's tables fared in one line,
then every printed number beside ours, folded by table.
"""

from __future__ import annotations

from html import escape

import pandas as pd

from motionlib.reporttables import is_fraction, label, number, table_html

NAMES = {
    "table_1": "Table I", "table_2": "Table II", "table_3": "Table III", "table_4": "Table IV",
    "table_a1": "Table A.I", "table_a2": "Table A.II", "table_a3": "Table A.III",
    "table_a4": "Table A.IV", "in_text": "Counts in the text", "agreement": "Agreement of raters",
    "mcnemar": "McNemar's tests", "timing": "Seconds per scan",
}  # fmt: skip
OWN = {  # ways that the paper's table has no label for
    "fine_tuned_recommended": "Conv5FC3 fine-tuned on CDW, recommended recipe",
    "research_only_recommended": "Conv5FC3 trained on research dataset, recommended recipe",
    "fine_tuned_kspace": "Conv5FC3 fine-tuned on CDW, pre-trained on k-space motion",
}
LINES = (("row", "row"), ("metric", "measure"), ("paper", "paper"), ("ours", "ours [95 %]"),
         ("difference", "difference"), ("n", "n"), ("same_order", "same order?"),
         ("cohort", "cohort"), ("reason", "note"))  # fmt: skip


def scoreboard_html(tables: dict[str, pd.DataFrame]) -> str:
    """Write the section that the report opens with, from the tables that are there."""
    html = ""
    if "table_4" in tables:
        caption = "Detection of motion in routine scans, by method; intervals over patients (95 %)."
        html += table_html(answer(tables["table_4"]), caption)
    if "scoreboard" in tables and len(tables["scoreboard"]):
        board = tables["scoreboard"]
        html += table_html(in_short(board), "Every table of the paper in one line.")
        html += (
            '<p class="more">Other patients, other scanners: agreement of numbers is no proof and '
            "disagreement no refutation; the order of the methods is what can be compared. "
            '<a href="tables/scoreboard.csv">scoreboard.csv</a></p>'
        )
        for name, part in board.groupby("table", sort=False):
            title = NAMES.get(name, label(name))
            inside = table_html(lines(part), f"{title}: every printed number beside ours.")
            html += f"<details><summary>{escape(title)}, cell by cell</summary>{inside}</details>"
    return html


def answer(whole: pd.DataFrame) -> pd.DataFrame:
    """Keep of Table IV what answers the study's question: severe and mild motion by method."""
    method = whole["method"].replace(OWN).str.replace("_", " ")
    method = whole["label"].fillna(method) if "label" in whole else method
    parts = [n for n in whole if n.startswith(("balanced_accuracy_", "auc_"))]
    shown = whole[["task", *parts, *[n for n in ("n", "cohort") if n in whole]]].copy()
    shown.insert(1, "method", method)
    return shown


def in_short(board: pd.DataFrame) -> pd.DataFrame:
    """Count, for each table of the paper, the cells measured, met and ranked as printed.

    Parameters
    ----------
    board : DataFrame
        From `scoreboard.scoreboard`.

    Returns
    -------
    DataFrame
        A row a table, as text: ``3 of 6`` says how many of how many cells; empty where no cell
        of the table has an interval or an order.
    """
    rows = []
    for name, part in board.groupby("table", sort=False):
        ours, known = part["ours"].notna(), part["low"].notna() & part["high"].notna()
        inside = part["paper"].between(part["low"], part["high"])[known]
        ordered = part["same_order"].dropna().astype(bool)
        rows.append(
            {
                "table": NAMES.get(name, label(name)),
                "numbers printed": len(part),
                "measured here": int(ours.sum()),
                "paper's value within our 95 % interval": _of(inside),
                "same order as printed": _of(ordered),
            }
        )
    return pd.DataFrame(rows)


def lines(board: pd.DataFrame) -> pd.DataFrame:
    """Write the rows of one table of the scoreboard for reading, units and intervals included."""
    found = pd.DataFrame({title: board[name] for name, title in LINES})
    found["row"] = [label(str(row)).replace("_", " ") for row in board["row"]]
    found["measure"] = [
        label(metric) + (" (%)" if is_fraction(metric) else "") for metric in board["metric"]
    ]
    for name, title in (("paper", "paper"), ("ours", "ours [95 %]"), ("difference", "difference")):
        found[title] = [
            _written(value, _unit(metric), signed=name == "difference")
            for value, metric in zip(board[name], board["metric"], strict=True)
        ]
    for place, (low, high, metric) in enumerate(
        zip(board["low"], board["high"], board["metric"], strict=True)
    ):
        if pd.notna(low) and pd.notna(high):
            ends = f" [{number(low, _unit(metric))} to {number(high, _unit(metric))}]"
            found.iloc[place, found.columns.get_loc("ours [95 %]")] += ends
    return found


def _written(value: float, unit: str, *, signed: bool) -> str | None:
    """Write a number; None where there is none, and for how far two p-values lie apart."""
    return (
        None if pd.isna(value) or (signed and unit == "p") else number(value, unit, signed=signed)
    )


def _unit(metric: str) -> str:
    return "p" if metric.startswith("p of") else metric


def _of(flags: pd.Series) -> str | None:
    """Write how many flags of how many are set."""
    return f"{int(flags.sum())} of {len(flags)}" if len(flags) else None
