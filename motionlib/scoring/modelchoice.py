"""Scores of validation and test copies come in; threshold, calibration and comparison come out."""

from __future__ import annotations

import numpy as np
import pandas as pd

from motionlib.metrics import auc
from motionlib.scoring.model import DIGITS
from motionlib.stats.calibration import best_threshold, logit
from motionlib.stats.calibrators import fit_calibrator
from motionlib.stats.prior_shift import FEWEST, match_quantiles

STILL_CALLED = 0.02  # of the validation copies without motion, at the threshold
MOVED_MM = ("_2-4", "_4-6", "_6-8")  # mm and degrees
STILL, MOVED = ("clean@native", "resampled@native"), "torchio_n4_4-6@native"


def choose(validation: pd.DataFrame) -> dict:
    """Choose calibration, threshold and range of doubt on copies of validation patients.

    Parameters
    ----------
    validation : DataFrame
        ``variant y_true score participant_id`` of `modeltests.judged_copies`, of patients that
        neither trained nor are tested. Copies at the scans' own voxels count: every still one, and
        the moved ones of `MOVED_MM`.

    Returns
    -------
    dict
        ``calibration`` (``p = sigmoid(logit / temperature + bias)``), ``threshold`` and ``review``
        on the scale of p, and what the card says of them. The threshold is the one of the best
        balanced accuracy, but at most `STILL_CALLED` of the still copies are called motion; in
        doubt is what lies between one in ten of them and the threshold.

    Raises
    ------
    ValueError
        If the scores do not rise with motion.
    """
    rows = validation[validation["variant"].str.endswith("@native")]
    moved = rows["variant"].str.contains("|".join(MOVED_MM))
    rows = rows[(rows["y_true"] == 0) | moved]
    map_ = fit_calibrator("platt", rows["y_true"], rows["score"])
    if map_.slope <= 0:
        raise ValueError("the validation scores fall with motion; the network has learnt nothing")
    p = map_(rows["score"])
    still = p[rows["y_true"].to_numpy() == 0]
    low, most = np.quantile(still, [0.90, 1 - STILL_CALLED])
    cut = round(max(float(most), best_threshold(rows["y_true"], p)), DIGITS)
    return {
        "calibration": {"temperature": round(1 / map_.slope, 6), "bias": round(map_.bias, 6)},
        "threshold": cut,
        "review": [round(min(float(low), cut), DIGITS), cut],
        "still_called": float((still >= cut).mean()),
        "n_still": len(still),
        "n_held": int(rows["participant_id"].nunique()),
    }


def compared(predictions: pd.DataFrame) -> pd.DataFrame:
    """Judge every recipe at each site, by thresholds that no label of the site has touched.

    Parameters
    ----------
    predictions : DataFrame
        ``recipe site variant y_true score participant_id``; the site ``validation`` holds copies
        of patients that were kept from the network.

    Returns
    -------
    DataFrame
        ``recipe site auc clean resampled moved balanced_accuracy balanced_accuracy_moved_threshold
        n``: motion of 4-6 mm with four moves against clean and once resampled heads; ``clean``,
        ``resampled`` and ``moved`` are the shares called motion at the validation threshold.
        ``..._moved_threshold``: that threshold carried to the site by its ungraded scores
        (`priorshift.match_quantiles`, told only that two in three did not move); NaN where a site
        has too few.
    """
    rows = []
    for recipe, every in predictions.groupby("recipe", sort=False):
        held = every[every["site"] == "validation"]
        chosen = choose(held)
        every = every.assign(score=calibrated(every["score"], chosen))
        still = every.loc[held.index[held["variant"].isin(STILL)], "score"]
        threshold = chosen["threshold"]
        for site, part in every[every["site"] != "validation"].groupby("site", sort=False):
            part = part[part["variant"].isin([*STILL, MOVED])]
            called = (part["score"] >= threshold).groupby(part["variant"]).mean()
            rows.append(
                {"recipe": recipe, "site": site, "auc": auc(part["y_true"], part["score"])}
                | {"clean": called[STILL[0]], "resampled": called[STILL[1]]}
                | {"moved": called[MOVED], "balanced_accuracy": _accuracy(part, threshold)}
                | {"balanced_accuracy_moved_threshold": _carried(part, still, threshold)}
                | {"n": part["participant_id"].nunique()}
            )
    return pd.DataFrame(rows)


def calibrated(score, chosen: dict) -> np.ndarray:
    """Probabilities of motion by what `choose` found."""
    z = logit(np.asarray(score)) / chosen["calibration"]["temperature"]
    return 1 / (1 + np.exp(-(z + chosen["calibration"]["bias"])))


def _carried(rows: pd.DataFrame, still, threshold: float) -> float:
    """Balanced accuracy at a threshold carried by ungraded scores; NaN where they are too few."""
    if len(rows) < FEWEST:
        return float("nan")
    shift = match_quantiles(rows["score"], still, 2 / 3)
    return _accuracy(rows, shift.threshold(threshold))


def _accuracy(rows: pd.DataFrame, threshold: float) -> float:
    """Balanced accuracy at a threshold."""
    right = (rows["score"] >= threshold) == (rows["y_true"] == 1)
    return float(right.groupby(rows["y_true"]).mean().mean())
