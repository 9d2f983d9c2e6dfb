"""Predictions of the controls or of the learning curve go in; tables of rates come out."""

from __future__ import annotations

import pandas as pd

from motionlib.stats.intervals import rate_called, summary_intervals


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
