"""The folder of a run goes in; every table of the paper beside ours comes out, without torch.

A table is a pure function of ``predictions.csv``, ``splits.csv`` and ``durations.csv``: nothing is
typed, and a cell that a run cannot fill is empty and carries its reason.
"""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from motionlib.files import write_text
from motionlib.paper.audit import paper_audit
from motionlib.paper.beside import beside_paper, same_order
from motionlib.paper.comparisons import agreement, mcnemar_table
from motionlib.paper.run_summary import Measured
from motionlib.paper.scoreboard import scoreboard
from motionlib.paper.tables_counts import table_1, table_a1, table_a2, timing
from motionlib.paper.tables_results import table_2, table_3, table_4, table_a3, table_a4
from motionlib.typeset import to_html, to_latex

__all__ = [
    "TABLES",
    "beside_paper",
    "build",
    "build_all",
    "headline",
    "same_order",
    "to_html",
    "to_latex",
    "typeset_all",
]
_MAKERS = {
    "table_1": table_1,
    "table_2": table_2,
    "table_3": table_3,
    "table_4": table_4,
    "table_a1": table_a1,
    "table_a2": table_a2,
    "table_a3": table_a3,
    "table_a4": table_a4,
    "timing": timing,
    "agreement": agreement,
    "mcnemar": mcnemar_table,
}
TABLES = (*_MAKERS, "scoreboard", "paper_audit")


def build(
    name: str, folder: str | os.PathLike, *, n_boot: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Make one table from what a run has written.

    Parameters
    ----------
    name : str
        One of `TABLES`.
    folder : path-like
        ``runs/<profile>`` (``Run.folder``).
    n_boot : int, default=2000
        Draws of patients for every interval.
    seed : int, default=0
        Seed of the draws.

    Returns
    -------
    DataFrame
        All rows of the paper's table at every profile.

    Raises
    ------
    ValueError
        Unknown table, or predictions that are not in order.
    FileNotFoundError
        The folder is no run's.
    """
    if name not in TABLES:
        raise ValueError(f"Found table {name!r}, expected one of {', '.join(TABLES)}.")
    if name == "paper_audit":
        return paper_audit()
    run = Measured(folder, n_boot=n_boot, seed=seed)
    if name == "scoreboard":
        return scoreboard(run, {each: make(run) for each, make in _MAKERS.items()})
    return _MAKERS[name](run)


def build_all(
    folder: str | os.PathLike, *, n_boot: int = 2000, seed: int = 0
) -> dict[str, pd.DataFrame]:
    """Make every table, measuring nothing twice.

    Parameters
    ----------
    folder, n_boot, seed
        As for `build`.

    Returns
    -------
    dict of DataFrame
        The keys are `TABLES`.
    """
    run = Measured(folder, n_boot=n_boot, seed=seed)
    tables = {name: make(run) for name, make in _MAKERS.items()}
    return tables | {"scoreboard": scoreboard(run, tables), "paper_audit": paper_audit()}


def typeset_all(folder: str | os.PathLike, made: dict[str, pd.DataFrame], *, caption: str) -> int:
    """Write tables as ``.html`` and ``.tex`` beside the ``.csv`` of a run.

    Parameters
    ----------
    folder : path-like
        Of the run.
    made : dict of DataFrame
        Of `build_all`.
    caption : str
        The cohort's sentence, below every table.

    Returns
    -------
    int
        Number of files.
    """
    for name, table in made.items():
        path = Path(folder) / "tables" / name
        title, label = name.replace("_", " "), f"tab:{name}"
        html = to_html(table, title=title, caption=caption)
        latex = to_latex(table, caption=f"{title}. {caption}", label=label)
        for suffix, text in ((".html", html), (".tex", latex)):
            write_text(path.with_suffix(suffix), text.rstrip() + "\n")
    return 2 * len(made)


def headline(folder: str | os.PathLike) -> pd.DataFrame:
    """Make the small table for the README: severe and mild motion by method.

    Parameters
    ----------
    folder : path-like
        Of a finished run or a published one; its ``tables/table_4.csv`` is read, so that the
        same intervals stand everywhere.

    Returns
    -------
    DataFrame
        ``task method ba_paper ba_ours auc_paper auc_ours n cohort``, as text: percent for the
        balanced accuracy, two decimals for the AUC, ours with its 95 % interval.
    """
    table = pd.read_csv(Path(folder) / "tables" / "table_4.csv")
    rows = []
    for row in table.to_dict("records"):
        cells = {"task": row["task"], "method": row["method"]}
        for short, metric, scale, digits in (
            ("ba", "balanced_accuracy", 100, 1),
            ("auc", "auc", 1, 2),
        ):
            cells[f"{short}_paper"] = _number(scale * row[f"{metric}_paper"], digits)
            ends = [row.get(f"{metric}_{part}", float("nan")) for part in ("ours", "low", "high")]
            ours, low, high = (_number(scale * value, digits) for value in ends)
            cells[f"{short}_ours"] = f"{ours} [{low}, {high}]" if ours else ""
        cells["n"] = "" if pd.isna(row.get("n")) else str(int(row["n"]))
        cells["cohort"] = "" if pd.isna(row.get("cohort")) else row["cohort"]
        rows.append(cells)
    return pd.DataFrame(rows)


def _number(value: float, digits: int) -> str:
    """Write a number with fixed decimals, nothing where there is none."""
    return "" if pd.isna(value) else f"{value:.{digits}f}"
