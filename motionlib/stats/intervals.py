"""Predictions and patients go in; intervals by resampling whole patients come out.

Scans of one patient resemble each other, so the bootstrap draws patients, not scans.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from motionlib.metrics import METRICS, auc, classification_metrics
from motionlib.pairing import check_labels, pair_predictions
from motionlib.stats.draws import CodedSet, bca_limits, draw_patients, leave_out, metric_draws


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval.

    Attributes
    ----------
    estimate, low, high : float
        Fractions, in the metric's unit.
    p_value : float or None
        Two-sided bootstrap p of "no difference"; None where nothing is compared.
    n, n_groups : int
        Scans and patients.
    n_boot : int
        Draws in which the metric was defined.
    level : float
        Nominal coverage.
    """

    estimate: float
    low: float
    high: float
    p_value: float | None
    n: int
    n_groups: int
    n_boot: int
    level: float


def _open_limits(name: str, parts: list[CodedSet], estimate: float, level: float) -> tuple:
    """Limits for a metric that no draw changes: no error seen is not certainty, nor is no hit.

    Rates: exact binomial limit on the patients that hold the class, as if each were one trial.
    The balanced accuracy joins them by square-and-add; an AUC of 1 is at least their product.
    """
    down, up = {}, {}
    for label, rate in ((0, "specificity"), (1, "sensitivity")):
        right = np.concatenate([part.y_pred[part.y_true == label] == label for part in parts])
        mean = right.mean() if right.size else np.nan
        n_groups = len(np.unique(parts[0].code[parts[0].y_true == label]))
        gap = 1 - ((1 - level) / 2) ** (1 / max(n_groups, 1))
        down[rate], up[rate] = gap * (mean == 1), gap * (mean == 0)
    if name in down:
        return estimate - down[name], estimate + up[name]
    if name == "balanced_accuracy":
        lengths = [np.hypot(*sides.values()) / 2 for sides in (down, up)]
        return estimate - lengths[0], estimate + lengths[1]
    if name == "auc" and estimate == 1:
        counts = [len(np.unique(parts[0].code[parts[0].y_true == label])) for label in (0, 1)]
        return ((1 - level) / 2) ** (1 / counts[0] + 1 / counts[1]), 1.0
    return estimate, estimate


def _small(parts: list[CodedSet], name: str) -> int:
    """Patients that the metric rests on: those of its class, or of the smaller one."""
    part = parts[0]
    counts = [len(np.unique(part.code[part.y_true == label])) for label in (0, 1)]
    return {"specificity": counts[0], "sensitivity": counts[1]}.get(name, min(counts))


def _interval(name, estimate, draws, left_out, parts, n_groups, level) -> Interval:
    """Limits from the defined draws, kept open where no error was seen."""
    defined = draws[np.isfinite(draws)]
    low = high = float("nan")
    if defined.size:
        low, high = bca_limits(defined, estimate, left_out, level, _small(parts, name))
        if defined.min() == defined.max() == estimate:
            low, high = map(float, _open_limits(name, parts, float(estimate), level))
    scans = max(len(part.code) for part in parts)
    return Interval(float(estimate), low, high, None, scans, n_groups, defined.size, level)


def _resampled(parts, n_groups, n_boot, seed, metrics) -> tuple[dict, dict]:
    """Metrics of every draw and with every patient left out."""
    weights = draw_patients(n_groups, n_boot, seed)
    return metric_draws(parts, weights, metrics), metric_draws(parts, leave_out(n_groups), metrics)


def _codes(groups, size: int) -> tuple[np.ndarray, int]:
    """Give each patient a number: codes (size,) and how many patients there are."""
    codes, names = pd.factorize(np.arange(size) if groups is None else np.asarray(groups))
    if codes.size != size or (codes < 0).any():
        raise ValueError(
            f"Found {int((codes >= 0).sum())} patients named for {size} scans, expected one each: "
            "give the participant_id of every scan."
        )
    return codes, len(names)


def bootstrap_ci(
    y_true,
    score,
    groups=None,
    *,
    metric: str = "balanced_accuracy",
    threshold: float = 0.5,
    y_pred=None,
    n_boot: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Give an interval to a metric by drawing patients with replacement.

    Parameters
    ----------
    y_true : array-like of 0 and 1, shape (n,)
        1 is motion.
    score : array-like, shape (n,)
        Probability of motion in [0, 1].
    groups : array-like, shape (n,), optional
        Patient of each scan; without it every scan is its own patient.
    metric : {'balanced_accuracy', 'specificity', 'sensitivity', 'auc'}
        What is estimated.
    threshold : float, default=0.5
        A scan is called motion when its score is at least this.
    y_pred : array-like of 0 and 1, optional
        Decisions made elsewhere; they replace `threshold`.
    n_boot : int, default=2000
        Draws.
    level : float, default=0.95
        Nominal coverage.
    seed : int or Generator, default=0
        Seed of the draws.

    Returns
    -------
    Interval
        Bias-corrected and accelerated limits (`draws.bca_limits`). Where the metric is exactly 1
        the lower limit is the exact binomial one on patients, because resampling perfect
        predictions shows no spread.

    Raises
    ------
    ValueError
        Unknown metric, one class only, scores outside [0, 1], fewer groups than scans.
    """
    if metric not in METRICS:
        raise ValueError(f"Found metric {metric!r}, expected one of {', '.join(METRICS)}.")
    estimate = classification_metrics(y_true, score, threshold=threshold, y_pred=y_pred)[metric]
    y_true, score = check_labels(y_true, score)
    decisions = score >= threshold if y_pred is None else np.asarray(y_pred)
    code, n_groups = _codes(groups, y_true.size)
    parts = [CodedSet(y_true, score, decisions.astype(int), code)]
    draws, left_out = _resampled(parts, n_groups, n_boot, seed, (metric,))
    return _interval(metric, estimate, draws[metric], left_out[metric], parts, n_groups, level)


def _sets(predictions: pd.DataFrame) -> tuple[list[CodedSet], int]:
    """Split predictions into one coded set a fold's model; ensembles only if alone."""
    single = predictions[predictions["fold"] >= 0]
    rows = single if len(single) else predictions
    code, n_groups = _codes(rows["participant_id"], len(rows))
    rows = rows.assign(code=code)
    parts = [
        CodedSet(*(part[name].to_numpy() for name in ("y_true", "score", "y_pred", "code")))
        for _, part in rows.groupby(["model", "fold"], sort=True)
    ]
    return parts, n_groups


def summary_intervals(
    predictions: pd.DataFrame, *, n_boot: int = 2000, level: float = 0.95, seed: int = 0
) -> dict[str, Interval]:
    """Intervals of the mean over the folds' models, for every metric.

    Parameters
    ----------
    predictions : DataFrame
        Rows of one experiment and task: several folds, or several raters.
    n_boot, level, seed
        As for `bootstrap_ci`.

    Returns
    -------
    dict of Interval
        One per metric. The patients are drawn once and judged by every model, so the interval
        speaks of the patients, not of the models' spread.
    """
    parts, n_groups = _sets(predictions)
    draws, left_out = _resampled(parts, n_groups, n_boot, seed, METRICS)
    one_class = any(len(np.unique(part.y_true)) < 2 for part in parts)
    judged = [
        classification_metrics(p.y_true, p.score, y_pred=p.y_pred, allow_one_class=one_class)
        for p in parts
    ]
    means = {name: np.mean([row[name] for row in judged]) for name in METRICS}
    return {
        name: _interval(name, means[name], draws[name], left_out[name], parts, n_groups, level)
        for name in METRICS
    }


def bootstrap_difference(
    first: pd.DataFrame,
    second: pd.DataFrame,
    *,
    metric: str = "balanced_accuracy",
    n_boot: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of a paired difference, first model minus second, on the same patients.

    Parameters
    ----------
    first, second : DataFrame
        One prediction per scan each, of the same scans (see `pairing.combine_folds`).
    metric : str
        As for `bootstrap_ci`.
    n_boot, level, seed
        As for `bootstrap_ci`.

    Returns
    -------
    Interval
        Both models are judged on every draw of patients. ``p_value`` is twice the smaller tail
        beyond zero, ``(k + 1) / (n_boot + 1)``, so it is never below ``2 / (n_boot + 1)``.
    """
    if metric not in METRICS:
        raise ValueError(f"Found metric {metric!r}, expected one of {', '.join(METRICS)}.")
    both = pair_predictions(first, second)
    y_true, _ = check_labels(both["y_true"])
    code, n_groups = _codes(both["participant_id"], len(both))
    parts = [
        CodedSet(y_true, both[f"score_{x}"].to_numpy(), both[f"pred_{x}"].to_numpy(), code)
        for x in "ab"
    ]
    values = [
        auc(y_true, p.score)
        if metric == "auc"
        else classification_metrics(y_true, p.score, y_pred=p.y_pred)[metric]
        for p in parts
    ]
    estimate = values[0] - values[1]
    sides = [_resampled([part], n_groups, n_boot, seed, (metric,)) for part in parts]
    draws, left_out = (sides[0][k][metric] - sides[1][k][metric] for k in (0, 1))
    defined = draws[np.isfinite(draws)]
    low = high = float("nan")
    p_value = None
    if defined.size:
        low, high = bca_limits(defined, estimate, left_out, level, _small(parts, metric))
        tail = min((defined <= 0).sum(), (defined >= 0).sum())
        p_value = float(min(1.0, 2 * (tail + 1) / (defined.size + 1)))
    return Interval(estimate, low, high, p_value, len(both), n_groups, defined.size, level)


def rate_called(
    predictions: pd.DataFrame, *, n_boot: int = 2000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Fraction of scans called motion, whatever their label, mean over the folds' models.

    Parameters
    ----------
    predictions : DataFrame
        Rows of one set of scans; ``y_true`` is not looked at.
    n_boot, level, seed
        As for `bootstrap_ci`.

    Returns
    -------
    Interval
        On scans without motion this is the false-alarm rate, on scans with it the sensitivity.
    """
    parts, n_groups = _sets(predictions.assign(y_true=1))
    name = "sensitivity"
    draws, left_out = _resampled(parts, n_groups, n_boot, seed, (name,))
    estimate = np.mean([part.y_pred.mean() for part in parts])
    return _interval(name, estimate, draws[name], left_out[name], parts, n_groups, level)
