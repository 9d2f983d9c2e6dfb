"""Scores of validation and test copies come in; threshold, calibration and comparison come out."""

from __future__ import annotations

import numpy as np
import pandas as pd

from motionlib.calibration import logit
from motionlib.metrics import auc
from motionlib.priorshift import match_quantiles

STILL_CALLED = 0.02  # of the validation copies without motion, at the threshold
STILL, MOVED = ("clean@native", "resampled@native"), "torchio_n4_4-6@native"


def choose(y_true, score) -> dict:
    """Choose calibration, threshold and range of doubt on validation copies.

    Parameters
    ----------
    y_true, score : array-like, shape (n,)
        Labels and scores of copies of patients that neither trained nor are tested.

    Returns
    -------
    dict
        ``calibration`` (``p = sigmoid(logit / temperature + bias)``), ``threshold`` and ``review``
        on the scale of p. At the threshold `STILL_CALLED` of the still copies are called motion;
        in doubt is what lies between one in ten of them and the threshold.
    """
    from sklearn.linear_model import LogisticRegression

    z, y = logit(score), np.asarray(y_true, dtype=int)
    plain = LogisticRegression(C=1e6).fit(z[:, None], y)
    slope, bias = float(plain.coef_[0, 0]), float(plain.intercept_[0])
    if slope <= 0:
        raise ValueError("the validation scores fall with motion; the network has learnt nothing")
    p = 1 / (1 + np.exp(-(slope * z + bias)))
    low, cut = np.quantile(p[y == 0], [0.90, 1 - STILL_CALLED])
    return {
        "calibration": {"temperature": round(1 / slope, 4), "bias": round(bias, 4)},
        "threshold": round(float(cut), 4),
        "review": [round(float(low), 4), round(float(cut) - 1e-4, 4)],
    }


def compared(predictions: pd.DataFrame) -> pd.DataFrame:
    """Judge every recipe at each site, by thresholds that no label of the site has touched.

    Parameters
    ----------
    predictions : DataFrame
        ``recipe site variant y_true score``; the site ``validation`` holds the copies of training
        patients that were kept from the network.

    Returns
    -------
    DataFrame
        ``recipe site auc clean resampled moved balanced_accuracy balanced_accuracy_moved_threshold
        n``: motion of 4-6 mm with four moves against clean and once resampled heads; ``clean``,
        ``resampled`` and ``moved`` are the shares called motion at the validation threshold.
        ``..._moved_threshold``: that threshold carried to the site by its ungraded scores
        (`priorshift.match_quantiles`, told only that two in three did not move).
    """
    rows = []
    for recipe, every in predictions.groupby("recipe", sort=False):
        held = every[every["site"] == "validation"]
        still = held.loc[held["y_true"] == 0, "score"]
        threshold = float(np.quantile(still, 1 - STILL_CALLED))
        for site, part in every[every["site"] != "validation"].groupby("site", sort=False):
            part = part[part["variant"].isin([*STILL, MOVED])]
            shift = match_quantiles(part["score"], still, 2 / 3)
            called = (part["score"] >= threshold).groupby(part["variant"]).mean()
            rows.append(
                {"recipe": recipe, "site": site, "auc": auc(part["y_true"], part["score"])}
                | {"clean": called[STILL[0]], "resampled": called[STILL[1]]}
                | {"moved": called[MOVED], "balanced_accuracy": _accuracy(part, threshold)}
                | {"balanced_accuracy_moved_threshold": _accuracy(part, shift.threshold(threshold))}
                | {"n": part["participant_id"].nunique()}
            )
    return pd.DataFrame(rows)


def _accuracy(rows: pd.DataFrame, threshold: float) -> float:
    """Balanced accuracy at a threshold."""
    right = (rows["score"] >= threshold) == (rows["y_true"] == 1)
    return float(right.groupby(rows["y_true"]).mean().mean())
