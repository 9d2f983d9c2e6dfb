"""Predictions on a user's test patients go in; figures with intervals, and warnings, come out."""

from __future__ import annotations

import pandas as pd

from motionlib.metrics import classification_metrics
from motionlib.scoring.own_scans import PATIENT
from motionlib.stats.intervals import bootstrap_ci

METRICS = ("balanced_accuracy", "sensitivity", "specificity", "auc")
FEW = 15  # patients of a class; below it an interval spans most of what matters
BEFORE, AFTER = "own_grades/before", "own_grades/fine_tuned"


def test_figures(
    predictions: pd.DataFrame, test: pd.DataFrame, threshold: float, seed: int
) -> pd.DataFrame:
    """Judge the test scans before and after, with intervals that draw patients.

    Parameters
    ----------
    predictions : DataFrame
        Rows of `BEFORE` and `AFTER`, in the order of `test`.
    test : DataFrame
        The test scans with their patients.
    threshold : float
        Chosen on the validation patients.
    seed : int
        Of the bootstrap.

    Returns
    -------
    DataFrame
        One row a model and threshold: ``model n n_positive`` and every metric with ``_low`` and
        ``_high``.
    """
    rows = []
    cases = (
        (BEFORE, "before fine-tuning, its own threshold", None),
        (AFTER, "fine-tuned, threshold 0.5", 0.5),
        (AFTER, f"fine-tuned, chosen threshold {threshold:.3f}", threshold),
    )
    for experiment, words, cut in cases:
        part = predictions[predictions["experiment"] == experiment]
        y_pred = part["y_pred"] if cut is None else (part["score"] >= cut).astype(int)
        values = classification_metrics(part["y_true"], part["score"], y_pred=y_pred)
        row = {"model": words, "n": values["n"], "n_positive": values["n_positive"]}
        for name in METRICS:
            ci = bootstrap_ci(
                part["y_true"],
                part["score"],
                test[PATIENT].to_numpy(),
                metric=name,
                y_pred=y_pred,
                seed=seed,
            )
            row |= {name: ci.estimate, f"{name}_low": ci.low, f"{name}_high": ci.high}
        rows.append(row)
    return pd.DataFrame(rows)


def part_counts(parts: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Count scans and patients of every part."""
    return pd.DataFrame(
        {
            "part": name,
            "scans": len(part),
            "patients": part[PATIENT].nunique(),
            "with motion": int((part["y_true"] == 1).sum()),
        }
        for name, part in parts.items()
    )


def warn(parts: dict, left_out: pd.DataFrame, metrics: pd.DataFrame) -> list[str]:
    """Say what makes the figures uncertain."""
    said = []
    for name, use in (
        ("validation", "threshold and calibration rest on them"),
        ("test", "the intervals are wide and one scan moves every figure"),
    ):
        part = parts[name]
        least = part.groupby("y_true")[PATIENT].nunique().min()
        if least < FEW:
            said.append(f"Few {name} scans: {least} patients in the smaller class; {use}.")
    if len(left_out):
        said.append(f"{len(left_out)} graded scans could not be used; the reasons are listed.")
    if metrics["balanced_accuracy_low"].iloc[-1] <= 0.5:
        said.append("The interval of the balanced accuracy reaches 0.5: it may be no use at all.")
    if metrics["auc"].iloc[-1] < metrics["auc"].iloc[0]:
        said.append("The AUC was higher before fine-tuning: keep the model you had.")
    return said
