"""Severity of motion in mm goes in; the grades of two imperfect raters come out."""

from __future__ import annotations

import numpy as np

MEDIAN_MM = 0.5
LOG_SD = 1.5
CEILING_MM = 10.0
GRADE_SHARES = (2319 / 4045, 1196 / 4045, 530 / 4045)  # §III-A.2
KAPPA = 0.68  # §III-A.2, "weighted Cohen's kappa"; taken as linearly weighted

# `calibrate_raters` finds (0.89, 3.86) and 0.517 for the severities wanted by `severity_quantile`,
# (0.85, 3.59) and 0.502 for those that 4000 emulated motions realised; these lie between.
THRESHOLDS_MM = (0.87, 3.70)
RATER_NOISE = 0.51


def severity_quantile(u):
    """Severity below which a share `u` of the warehouse's scans lies.

    Parameters
    ----------
    u : float or ndarray
        Shares in (0, 1).

    Returns
    -------
    float or ndarray
        Millimetres: log-normal, cut off at 10 mm.

    Notes
    -----
    Not in the paper. Chosen so that the published grade shares fall where the artefact is absent,
    subtle and obvious on a 3 to 4 mm grid; sub-millimetre motion is the commonest.
    """
    from scipy.special import ndtri

    return np.minimum(MEDIAN_MM * np.exp(LOG_SD * ndtri(u)), CEILING_MM)


def rate(severity_mm, rng: np.random.Generator):
    """Grade one scan, or many, as two raters would.

    Parameters
    ----------
    severity_mm : float or ndarray
        Realised severity of the motion.
    rng : numpy.random.Generator
        The scan's own.

    Returns
    -------
    rater_1, rater_2 : int or ndarray of int
        0 (none seen), 1 (structures distinguishable) or 2 (difficult to distinguish). The
        consensus is the larger one.

    Notes
    -----
    Source: paper §III-A.2 for the scale, the rule of the maximum, the shares and kappa. Each rater
    sees the logarithm of the severity with his own normal error and compares it with two
    thresholds.
    """
    seen = _seen_mm(severity_mm, RATER_NOISE, rng)
    grades = np.searchsorted(np.array(THRESHOLDS_MM), seen)
    if np.ndim(severity_mm) == 0:
        return int(grades[0]), int(grades[1])
    return grades[0], grades[1]


def calibrate_raters(
    severity_mm: np.ndarray,
    *,
    shares=GRADE_SHARES,
    kappa: float = KAPPA,
    seed: int = 0,
) -> tuple[tuple[float, float], float]:
    """Find thresholds and error of the raters for a distribution of severities.

    Parameters
    ----------
    severity_mm : ndarray, shape (N,)
        Many severities (some 100 000 for two stable digits).
    shares : tuple of 3 float
        Wanted shares of the consensus grades.
    kappa : float
        Wanted linearly weighted agreement of the two raters.
    seed : int, default=0
        Of the raters' errors.

    Returns
    -------
    thresholds_mm : tuple of 2 float
    noise : float
        Standard deviation of a rater's error in the logarithm.
    """
    from scipy.optimize import brentq

    severity_mm = np.asarray(severity_mm)

    def thresholds(noise):
        seen = _seen_mm(severity_mm, noise, np.random.default_rng(seed))
        # the consensus is a quantile of the larger impression
        return np.quantile(seen.max(axis=0), np.cumsum(shares)[:2]), seen

    def excess(noise):
        cuts, seen = thresholds(noise)
        return linear_kappa(*np.searchsorted(cuts, seen)) - kappa

    noise = float(brentq(excess, 0.02, 2.0, xtol=1e-3))
    cuts, _ = thresholds(noise)
    return (float(cuts[0]), float(cuts[1])), noise


def linear_kappa(grades_1, grades_2) -> float:
    """Linearly weighted Cohen's kappa of two lists of grades 0, 1, 2."""
    table = np.zeros((3, 3))
    np.add.at(table, (np.asarray(grades_1, int), np.asarray(grades_2, int)), 1)
    table /= table.sum()
    distance = np.abs(np.subtract.outer(np.arange(3), np.arange(3)))
    expected = np.outer(table.sum(axis=1), table.sum(axis=0))
    return float(1 - (table * distance).sum() / (expected * distance).sum())


def _seen_mm(severity_mm, noise, rng) -> np.ndarray:
    """Impression of each of two raters, (2, ...): severity with a multiplicative error."""
    severity_mm = np.asarray(severity_mm, float)
    error = rng.normal(0, noise, (2, *severity_mm.shape))
    return severity_mm * np.exp(error)
