"""Predictions of the controls or of the learning curve go in; tables of rates come out."""

from __future__ import annotations

import numpy as np
import pandas as pd

from motionlib.stats.intervals import rate_called, summary_intervals

STILL = ("clean", "resampled", "shifted", "blurred", "noisier", "contrast")


def control_rates(predictions: pd.DataFrame, *, n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
    """How often each control is called motion.

    Parameters
    ----------
    predictions : DataFrame
        Rows ``control/{recipe}/{control}`` and ``control/{recipe}/{control}/{site}``.
    n_boot, seed : int
        Draws of patients for the intervals.

    Returns
    -------
    DataFrame
        ``recipe control site rate low high n``.

    Raises
    ------
    ValueError
        No such rows.
    """
    rows = []
    chosen = predictions[predictions["experiment"].str.startswith("control/")]
    if chosen.empty:
        raise ValueError(
            "Found no experiment named control/..., expected control/{recipe}/{control}: "
            "run the controls of notebook 02 first."
        )
    for experiment, part in chosen.groupby("experiment", sort=False):
        recipe, control, *site = experiment.split("/")[1:]
        found = rate_called(part, n_boot=n_boot, seed=seed)
        rows.append(
            (recipe, control, "/".join(site), found.estimate, found.low, found.high, found.n)
        )
    return pd.DataFrame(rows, columns=["recipe", "control", "site", "rate", "low", "high", "n"])


def learning_curve(predictions: pd.DataFrame, *, n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Metrics against the number of graded patients.

    Parameters
    ----------
    predictions : DataFrame
        Rows ``labels/{n}`` or ``labels/{method}/{n}``.
    n_boot, seed : int
        Draws of patients for the intervals.

    Returns
    -------
    DataFrame
        ``task method n_patients metric mean low high``.

    Raises
    ------
    ValueError
        No such rows.
    """
    chosen = predictions[predictions["experiment"].str.startswith("labels/")]
    if chosen.empty:
        raise ValueError(
            "Found no experiment named labels/..., expected labels/{method}/{n}: run the learning "
            "curve of notebook 04 first."
        )
    rows = []
    for (experiment, task), part in chosen.groupby(["experiment", "task"], sort=False):
        *method, n_patients = experiment.split("/")[1:]
        for metric, found in summary_intervals(part, n_boot=n_boot, seed=seed).items():
            name = "/".join(method) or "fine_tuned"
            limits = (found.estimate, found.low, found.high)
            rows.append((task, name, int(n_patients), metric, *limits))
    columns = ["task", "method", "n_patients", "metric", "mean", "low", "high"]
    return pd.DataFrame(rows, columns=columns).sort_values(
        ["task", "method", "metric", "n_patients"], ignore_index=True
    )


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
