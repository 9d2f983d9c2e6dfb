"""Predictions on control copies go in; the share of each called motion comes out.

A motion detector calls none of the still copies motion, however they were changed.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

STILL = ("clean", "resampled", "shifted", "blurred", "noisier", "contrast")


def controls_table(predictions: pd.DataFrame, *, n_boot: int = 1000, seed: int = 0):
    """Share of each control called motion, by recipe and site, with patient intervals.

    Parameters
    ----------
    predictions : DataFrame
        Rows of ``predictions.csv`` whose experiment is ``control/{recipe}/{control}[/{site}]``.
    n_boot : int, default=1000
        Draws of patients.
    seed : int, default=0
        Seed of the draws.

    Returns
    -------
    DataFrame
        ``recipe site control still called_motion low high n n_patients``; the mean over folds.

    Raises
    ------
    ValueError
        If there are no such rows.

    Notes
    -----
    Departs from the paper: it reports no controls.
    """
    rows = predictions[predictions["experiment"].str.startswith("control/")]
    if rows.empty:
        raise ValueError("found no control/ rows in the predictions; run notebook 02 first")
    parts = rows["experiment"].str.split("/", expand=True).reindex(columns=range(4))
    rows = rows.assign(recipe=parts[1], control=parts[2], site=parts[3].fillna("same site"))
    order = {name: place for place, name in enumerate(rows["control"].drop_duplicates())}
    table = []
    for (recipe, site, control), group in rows.groupby(["recipe", "site", "control"], sort=False):
        by_patient = group.groupby("participant_id")["y_pred"].agg(["sum", "count"]).to_numpy()
        rng = np.random.default_rng(seed)
        drawn = rng.multinomial(len(by_patient), [1 / len(by_patient)] * len(by_patient), n_boot)
        sums = drawn @ by_patient
        low, high = np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975])
        share = by_patient[:, 0].sum() / by_patient[:, 1].sum()
        bound = 1 - 0.025 ** (1 / len(by_patient))  # exact limit where nothing was seen
        table.append(
            {
                "recipe": recipe,
                "site": site,
                "control": control,
                "still": control in STILL,
                "called_motion": share,
                "low": 1 - bound if share == 1 else low,
                "high": bound if share == 0 else high,
                "n": group["scan_id"].nunique(),
                "n_patients": len(by_patient),
            }
        )
    result = pd.DataFrame(table)
    return result.sort_values(
        ["site", "recipe", "control"], key=lambda c: c.map(order) if c.name == "control" else c
    ).reset_index(drop=True)
