"""Metrics of a detector: balanced accuracy, specificity, sensitivity, area under the ROC curve.

Positive means motion. Every metric is a fraction.
"""

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from motionlib.predictions import check_labels, judged_sets

METRICS = ("balanced_accuracy", "specificity", "sensitivity", "auc")


def auc(y_true, score) -> float:
    """Area under the ROC curve by midranks (ties count one half).

    `y_true` (n,) holds both classes, `score` (n,) is larger for what is more like motion. It is the
    probability that a scan with motion scores higher than one without.
    """
    y_true, _ = check_labels(y_true)
    ranks = rankdata(np.asarray(score, dtype=float))
    n_positive = int(y_true.sum())
    n_negative = y_true.size - n_positive
    above = ranks[y_true == 1].sum() - n_positive * (n_positive + 1) / 2
    return float(above / (n_positive * n_negative))


def classification_metrics(
    y_true, score, *, threshold: float = 0.5, y_pred=None, allow_one_class: bool = False
) -> dict:
    """Judge scores against labels.

    Parameters
    ----------
    y_true, score : array-like, shape (n,)
        1 is motion, else 0, and probability of motion in [0, 1].
    threshold : float, default=0.5
        A scan is called motion when its score is at least this.
    y_pred : array-like of 0 and 1, shape (n,), optional
        Decisions made elsewhere (a tuned threshold, a rater); they replace `threshold`.
    allow_one_class : bool, default=False
        With a single class, return NaN for what cannot be computed instead of refusing.

    Returns
    -------
    dict
        ``balanced_accuracy specificity sensitivity auc`` (fractions), ``n``, ``n_positive``.

    Raises
    ------
    ValueError
        One class only, labels other than 0 and 1, scores outside [0, 1], unequal lengths.

    Notes
    -----
    Source: paper §IV (balanced accuracy, specificity, sensitivity; Fig. 3 for the AUC).

    Examples
    --------
    >>> classification_metrics([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9])["balanced_accuracy"]
    0.5
    """
    y_true, score = check_labels(y_true, score, both_classes=not allow_one_class)
    if y_pred is None:
        y_pred = score >= threshold
    else:
        y_pred, _ = check_labels(y_pred, both_classes=False)
        if y_pred.size != y_true.size:
            raise ValueError(
                f"Found {y_true.size} labels and {y_pred.size} decisions, expected one a label: "
                "join them by scan_id first."
            )
    positive = y_true == 1
    called = np.asarray(y_pred, dtype=bool)
    sensitivity = float(called[positive].mean()) if positive.any() else float("nan")
    specificity = float((~called[~positive]).mean()) if (~positive).any() else float("nan")
    both = positive.any() and (~positive).any()
    return {
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "specificity": specificity,
        "sensitivity": sensitivity,
        "auc": auc(y_true, score) if both else float("nan"),
        "n": int(y_true.size),
        "n_positive": int(positive.sum()),
    }


def per_fold(predictions: pd.DataFrame, *, allow_one_class: bool = False) -> pd.DataFrame:
    """Judge each fold's model, one row a model and fold: the keys of `classification_metrics`.

    `predictions` are rows of one experiment, task and model. Ensembles (fold -1) are left out when
    there are single models beside them.
    """
    single = predictions[predictions["fold"] >= 0]
    rows = single if len(single) else predictions
    return pd.DataFrame(
        [
            {
                "model": model,
                "fold": fold,
                **classification_metrics(
                    part["y_true"],
                    part["score"],
                    y_pred=part["y_pred"],
                    allow_one_class=allow_one_class,
                ),
            }
            for (model, fold), part in rows.groupby(["model", "fold"], sort=True)
        ]
    )


def fold_summary(predictions: pd.DataFrame, *, allow_one_class: bool = False) -> dict:
    """Mean and standard deviation of each metric over the folds' models.

    From rows of one experiment, task and model. Where every scan was predicted by one fold's model
    only, out of fold, the scans are one set: the "mean" is its metric, the standard deviation still
    that of the folds. Returns ``<metric>_mean`` and ``<metric>_sd`` (n - 1 in the denominator; NaN
    for one fold), ``n_folds``, ``n`` (distinct scans), ``n_patients`` and ``n_positive``;
    `allow_one_class` as for `classification_metrics`.
    Source: paper Table II, "mean and empirical standard deviation over the five folds". The SD
    tells how the models differ; it is not an interval for the metric.
    """
    sets = judged_sets(predictions)
    folds = per_fold(predictions, allow_one_class=allow_one_class or len(sets) == 1)
    judged = pd.DataFrame(
        classification_metrics(
            part["y_true"], part["score"], y_pred=part["y_pred"], allow_one_class=allow_one_class
        )
        for part in sets
    )
    scans = predictions.drop_duplicates("scan_id")
    summary: dict = {}
    for name in METRICS:
        summary[f"{name}_mean"] = float(judged[name].mean())
        summary[f"{name}_sd"] = float(folds[name].std(ddof=1)) if len(folds) > 1 else float("nan")
    summary["n_folds"] = len(folds)
    summary["n"] = len(scans)
    summary["n_patients"] = scans["participant_id"].nunique()
    summary["n_positive"] = int(scans["y_true"].sum())
    return summary


def roc(y_true, score) -> pd.DataFrame:
    """ROC curve of `auc`'s arguments, with scores in [0, 1], every corner kept.

    Returns ``threshold`` (falling, first infinite), ``false_positive_rate``, ``sensitivity``.
    """
    y_true, score = check_labels(y_true, score)
    order = np.argsort(-score, kind="stable")
    last_of_tie = np.append(np.diff(score[order]) != 0, True)
    hits = np.cumsum(y_true[order])[last_of_tie]
    alarms = np.cumsum(1 - y_true[order])[last_of_tie]
    return pd.DataFrame(
        {
            "threshold": np.append(np.inf, score[order][last_of_tie]),
            "false_positive_rate": np.append(0.0, alarms / alarms[-1]),
            "sensitivity": np.append(0.0, hits / hits[-1]),
        }
    )
