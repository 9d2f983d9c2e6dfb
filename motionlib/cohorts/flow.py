"""A manifest goes in; how many scans of each cohort came and left, with reasons, come out."""

from __future__ import annotations

import numpy as np
import pandas as pd

FLOW = ["step", "cohort", "n_in", "n_out", "reason"]
REAL_MOTION = ", real-motion test"
REJECTED = "straight reject: truncated, or not a three-dimensional T1w image"


def branch(cohort: str, role: str) -> str:
    """Name under which a scan is counted: a real-motion test is no part of its cohort's flow."""
    return f"{cohort}{REAL_MOTION}" if role == "real_motion" else str(cohort)


def count_scans(manifest: pd.DataFrame, step: str, reason: str, failed=()) -> pd.DataFrame:
    """Count what came of each cohort, and what of it is a straight reject.

    Parameters
    ----------
    manifest : DataFrame
        With ``cohort role straight_reject``.
    step : str
        How the scans came, such as ``read`` or ``generated``.
    reason : str
        What to say about them.
    failed : list of dict
        Rows ``cohort reason`` of scans that should have come.

    Returns
    -------
    DataFrame
        ``step cohort n_in n_out reason``: a row for what came, a row for every failure, a row
        for the straight rejects where there are any, cohort by cohort.
    """
    pairs = zip(manifest["cohort"], manifest["role"].astype(str), strict=True)
    names = np.array([branch(*pair) for pair in pairs], dtype=object)
    rejected = manifest["straight_reject"].fillna(0).to_numpy(int) == 1
    rows = []
    for name in dict.fromkeys([*names, *(one["cohort"] for one in failed)]):
        n, n_rejects = (names == name).sum(), (rejected & (names == name)).sum()
        rows.append((step, name, n, n, reason))
        rows += [(step, name, 1, 0, one["reason"]) for one in failed if one["cohort"] == name]
        if n_rejects:
            rows.append(("straight rejects removed", name, n, n - n_rejects, REJECTED))
    return pd.DataFrame(rows, columns=FLOW)
