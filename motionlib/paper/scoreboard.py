"""Finished comparison tables go in; every printed cell beside ours, one row each, comes out."""

from __future__ import annotations

import numpy as np
import pandas as pd

from motionlib.paper.beside import KEYS, METRICS_OF, same_order
from motionlib.paper.run_summary import Measured
from motionlib.paper.transcription import in_text

COLUMNS = ["table", "row", "metric", "paper", "ours", "low", "high", "difference", "n"]
COLUMNS += ["same_order", "cohort", "reason"]
GRADE_COUNTS = {"consensus mov0": 0, "consensus mov1": 1, "consensus mov2": 2}
MAKERS = {"Siemens": "siemens", "GE": "ge", "Philips": "philips", "Toshiba": "toshiba|canon"}


def _cells(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """Turn one comparison table into a row per printed cell."""
    rows = []
    recipe = table.get("recipe", pd.Series("paper", index=table.index))
    table = table[recipe.fillna("paper") == "paper"]
    for metric in METRICS_OF[name]:
        part = table[table[f"{metric}_paper"].notna()]
        tasks = part["task"] if "task" in part else pd.Series("", index=part.index)
        for _, place in part.groupby(tasks).groups.items():
            group = part.loc[place]
            order = same_order(group[f"{metric}_paper"], group[f"{metric}_ours"])
            for (_, row), agrees in zip(group.iterrows(), order, strict=True):
                cell = {part: row.get(f"{metric}_{part}", np.nan) for part in COLUMNS[3:8]}
                label = " ".join(str(row[key]) for key in KEYS[name])
                facts = {key: row.get(key) for key in ("n", "cohort", "reason")}
                cell |= {"table": name, "row": label, "metric": metric, "same_order": agrees}
                if pd.notna(cell["ours"]):
                    facts["reason"] = pd.NA
                elif pd.isna(facts["reason"]):
                    facts["reason"] = f"{metric.replace('_', ' ')} was not measured in this run"
                rows.append(cell | facts)
    return pd.DataFrame(rows)


def _counts(run: Measured) -> pd.DataFrame:
    """Rows for the warehouse's counts that stand in the text only."""
    scans = run.warehouse
    grade = pd.to_numeric(scans.get("motion_grade", pd.Series(dtype=float)))
    reject = pd.to_numeric(scans.get("straight_reject", pd.Series(dtype=float))).eq(1)
    ours: dict = {
        "images annotated in the warehouse": len(scans),
        "patients in the warehouse sample": scans["source_participant_id"].nunique(),
        "straight reject images (SR)": int(reject.sum()),
        "labelled images not SR": int(grade.notna().sum()),
    }
    ours |= {name: int((grade == value).sum()) for name, value in GRADE_COUNTS.items()}
    maker = scans.get("manufacturer", pd.Series(dtype="string")).astype("string").str.lower()
    for name, pattern in MAKERS.items():
        ours[f"scanners {name}"] = int(maker.str.match(pattern).fillna(False).sum())
    ours["hospitals"] = np.nan
    rows = []
    for name, value in ours.items():
        row = {"table": "in_text", "row": name, "metric": "count", "paper": in_text(name)}
        row["reason"] = "no warehouse scans in this run"
        if name == "hospitals":
            row["reason"] = "the manifest has no column for the hospital"
        elif len(scans):
            row |= {"ours": value, "difference": value - in_text(name), "reason": pd.NA}
            row |= {"n": len(scans), "cohort": " + ".join(sorted(scans["cohort"].unique()))}
        rows.append(row)
    return pd.DataFrame(rows)


def _others(agreement: pd.DataFrame, mcnemar: pd.DataFrame, timing: pd.DataFrame) -> pd.DataFrame:
    """Rows for kappa, p-values and seconds per scan; what other tables hold is not repeated."""
    kappa = agreement[agreement["quantity"].str.contains("kappa")]
    kappa = kappa.assign(table="agreement", row=kappa["quantity"], metric="weighted kappa")
    tests = mcnemar[mcnemar["p_paper"].notna()]
    tests = tests.assign(
        table="mcnemar",
        row=tests["task"] + " " + tests["first"] + " against " + tests["second"],
        metric="p of McNemar",
        paper=tests["p_paper"],
        ours=tests.get("p_exact", np.nan),
    ).drop(columns=["same_verdict"])
    seconds = timing[timing["key"].str.startswith("simulate")]
    seconds = seconds.assign(
        table="timing",
        row=seconds["quantity"],
        metric="seconds per scan",
        paper=seconds["seconds_paper"],
        ours=seconds["seconds_ours"],
        reason=seconds["reason"].where(seconds["seconds_ours"].isna()),
    )
    parts = [part.reindex(columns=COLUMNS) for part in (kappa, tests, seconds)]
    for part in parts:
        part["difference"] = pd.to_numeric(part["ours"]) - pd.to_numeric(part["paper"])
    return pd.concat([part.astype(object) for part in parts], ignore_index=True)


def scoreboard(run: Measured, tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """List every printed value of the paper beside ours.

    Parameters
    ----------
    run : Measured
        The run's folder.
    tables : dict of DataFrame
        The comparison tables, ``agreement``, ``mcnemar`` and ``timing``.

    Returns
    -------
    DataFrame
        ``table row metric paper ours low high difference n same_order cohort reason``: fractions
        for metrics, counts, minutes or seconds where the metric says so. ``same_order`` tells
        whether the cell ranks as printed among the cells of its column (and task).
    """
    parts = [_cells(name, tables[name]) for name in KEYS]
    parts += [_counts(run), _others(tables["agreement"], tables["mcnemar"], tables["timing"])]
    parts = [part.reindex(columns=COLUMNS).astype(object) for part in parts if len(part)]
    board = pd.concat(parts, ignore_index=True)
    for name in ("paper", "ours", "low", "high", "difference"):
        board[name] = pd.to_numeric(board[name])
    board["n"] = pd.to_numeric(board["n"]).astype("Int64")
    return board.assign(same_order=board["same_order"].astype("boolean"))
