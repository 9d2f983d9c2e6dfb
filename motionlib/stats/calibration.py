"""Scores and labels of validation scans go in; temperatures, thresholds and their errors come out.

Nothing here is ever chosen on test scans.
"""

from __future__ import annotations

import numpy as np

BINS = 10


def logit(score) -> np.ndarray:
    """Log-odds of probabilities, kept finite."""
    score = np.clip(np.asarray(score, dtype=float), 1e-6, 1 - 1e-6)
    return np.log(score / (1 - score))


def temperature(y_true, score) -> float:
    """Temperature that minimises the cross-entropy of ``sigmoid(logit / T)``.

    Parameters
    ----------
    y_true : array-like of 0 and 1, shape (n,)
        Labels of validation scans.
    score : array-like, shape (n,)
        Their scores.

    Returns
    -------
    float
        Above 1: the scores were too sure of themselves.  Between 0.05 and 20.

    Notes
    -----
    Source: Guo et al. 2017, temperature scaling.
    """
    from scipy.optimize import minimize_scalar

    z, y = logit(score), np.asarray(y_true, dtype=float)

    def loss(log_t):
        scaled = z / np.exp(log_t)
        return float(np.mean(np.logaddexp(0, scaled) - y * scaled))

    found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
    return float(np.exp(found.x))


def tempered(score, t: float) -> np.ndarray:
    """Scores at temperature ``t``; order and the decision at 0.5 are kept."""
    return 1 / (1 + np.exp(-logit(score) / t))


def bin_of(score, bins: int = BINS) -> np.ndarray:
    """Give the bin of every score, (n,): bins of equally many scans, equal scores together."""
    score = np.asarray(score, dtype=float)
    first = np.searchsorted(np.sort(score), score)
    parts = np.array_split(np.arange(len(score)), bins)
    starts = [part[0] for part in parts if len(part)]
    _, part = np.unique(np.searchsorted(starts, first, side="right"), return_inverse=True)
    return part


def calibration_error(y_true, score, *, bins: int = BINS) -> float:
    """Measure the expected calibration error over bins that hold equally many scans.

    Returns
    -------
    float
        Mean gap between the score and the share of motion, weighted by scans, in [0, 1]. Scans of
        equal score share a bin, so their order does not matter.
    """
    gap = np.asarray(y_true, dtype=float) - np.asarray(score, dtype=float)
    return float(np.abs(np.bincount(bin_of(score, bins), gap)).sum() / len(gap))


def best_threshold(y_true, score) -> float:
    """Threshold with the highest balanced accuracy; the middle of the gap where there is one."""
    levels = np.unique(np.asarray(score, dtype=float))
    cuts = np.concatenate([[levels[0]], (levels[1:] + levels[:-1]) / 2])
    y = np.asarray(y_true)
    called = np.asarray(score, dtype=float)[None, :] >= cuts[:, None]
    sensitivity = called[:, y == 1].mean(axis=1)
    specificity = 1 - called[:, y == 0].mean(axis=1)
    return float(cuts[np.argmax(sensitivity + specificity)])
