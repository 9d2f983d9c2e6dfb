"""Calibration of scores: maps to probabilities, their error, and the best threshold.

A score is calibrated if motion is there in the share of scans that it says. The maps are
temperature scaling (Guo et al. 2017), Platt's logistic map (1999) and isotonic regression
(Zadrozny and Elkan 2002). Maps and thresholds are fitted on validation scans, never on test scans.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit

from motionlib.predictions import check_labels

KINDS = ("none", "temperature", "platt", "isotonic")
FEWEST_FITTED = 5  # validation scans of either class; two numbers cannot be fitted to fewer
COLDEST, HOTTEST = 0.05, 20  # temperatures; beyond, scores are all but 0 and 1, or all one half
STEEPEST = 20.0  # slope of Platt's map; classes without overlap would ask for more and more
BINS = 10


@dataclass(frozen=True)
class Calibrator:
    """A fitted map from scores (n,) to probabilities (n,); call it with scores.

    `slope` and `bias` are of the log-odds, for every kind but isotonic; that one has straight lines
    between its corners, `knots` and `values`.
    """

    kind: str
    slope: float = 1.0
    bias: float = 0.0
    knots: tuple[float, ...] = ()
    values: tuple[float, ...] = ()

    def __call__(self, score) -> np.ndarray:
        """Probabilities of motion."""
        score = np.asarray(score, dtype=float)
        if self.kind == "none":
            return score
        if self.kind == "isotonic":
            return np.interp(score, self.knots, self.values)
        return expit(self.slope * logit(score) + self.bias)


def fit_calibrator(kind: str, y_true, score) -> Calibrator:
    """Fit a map from scores in [0, 1] to probabilities on validation scans, both shape (n,).

    ``temperature`` divides the log-odds by a number: it cures a network that is too sure, and
    cannot cure one that calls motion too often, since a score of 0.5 stays 0.5. ``platt`` adds a
    bias (vector scaling of two logits comes to the same). ``isotonic`` is any rising curve, which
    stays 1 / (n + 2) away from 0 and 1, because n scans cannot show certainty. Training with
    balanced classes, as the paper does, gives scores for a world in which every second scan moved:
    that is a bias, and the reason why a temperature alone does not suffice.
    ValueError for an unknown kind, one class only, or fewer than five scans of a class.
    Source: Guo et al. 2017 (temperature); Platt 1999, with his targets (k + 1) / (k + 2) in place
    of 1, so that separated classes give finite numbers; Zadrozny and Elkan 2002 (isotonic).

    >>> score = [0.5, 0.6, 0.7, 0.8, 0.9] * 10
    >>> y_true = [0, 0, 0, 0, 1] * 10
    >>> round(float(fit_calibrator("platt", y_true, score)([0.9])[0]), 1)
    0.8
    """
    if kind not in KINDS:
        raise ValueError(f"Found calibration {kind!r}, expected one of {', '.join(KINDS)}.")
    y, s = check_labels(y_true, score)
    counts = (int((y == 0).sum()), int((y == 1).sum()))
    if kind != "none" and min(counts) < FEWEST_FITTED:
        raise ValueError(
            f"Found {counts[1]} validation scans with motion and {counts[0]} without, expected at "
            f"least {FEWEST_FITTED} of each: calibrate on more graded scans, or use the score as "
            "it is."
        )
    if kind == "none":
        return Calibrator(kind)
    if kind == "temperature":
        return Calibrator(kind, slope=1 / temperature(y, s))
    if kind == "platt":
        slope, bias = _platt(y, s, counts)
        return Calibrator(kind, slope=slope, bias=bias)
    from sklearn.isotonic import IsotonicRegression  # half a second that no other map needs

    edge = 1 / (y.size + 2)
    curve = IsotonicRegression(y_min=edge, y_max=1 - edge, out_of_bounds="clip").fit(s, y)
    corners = (tuple(map(float, each)) for each in (curve.X_thresholds_, curve.y_thresholds_))
    return Calibrator(kind, 1.0, 0.0, *corners)


def _platt(y: np.ndarray, s: np.ndarray, counts: tuple[int, int]) -> tuple[float, float]:
    """Slope and bias with the lowest cross-entropy to Platt's targets; the slope is not falling."""
    z = logit(s)
    target = np.where(y == 1, (counts[1] + 1) / (counts[1] + 2), 1 / (counts[0] + 2))

    def loss(both):
        scaled = both[0] * z + both[1]
        gap = expit(scaled) - target
        value = np.mean(np.logaddexp(0, scaled) - target * scaled)
        return value, np.array([np.mean(gap * z), np.mean(gap)])

    limits = [(0.0, STEEPEST), (None, None)]
    start = np.array([1.0, 0.0])
    fitted = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=limits, tol=1e-12)
    return float(fitted.x[0]), float(fitted.x[1])


def temperature(y_true, score) -> float:
    """Temperature T that minimises the cross-entropy of ``sigmoid(logit / T)``, 0.05 to 20.

    Above 1 the scores of the validation scans, (n,), were too sure of themselves.
    """
    z, y = logit(score), np.asarray(y_true, dtype=float)

    def loss(log_t):
        scaled = z / np.exp(log_t)
        return float(np.mean(np.logaddexp(0, scaled) - y * scaled))

    bounds = (np.log(COLDEST), np.log(HOTTEST))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def tempered(score, t: float) -> np.ndarray:
    """Scores at temperature ``t``; order and the decision at 0.5 are kept."""
    return expit(logit(score) / t)


def logit(score) -> np.ndarray:
    """Log-odds of probabilities, kept finite."""
    score = np.clip(np.asarray(score, dtype=float), 1e-6, 1 - 1e-6)
    return np.log(score / (1 - score))


def calibration_error(y_true, score) -> float:
    """Measure the expected calibration error: mean gap of score and share of motion, in [0, 1].

    The gap is taken in bins of equally many scans and weighted by scans. Scans of equal score share
    a bin, so their order does not matter.
    """
    gap = np.asarray(y_true, dtype=float) - np.asarray(score, dtype=float)
    return float(np.abs(np.bincount(_bin_of(score), gap)).sum() / len(gap))


def expected_by_chance(score, *, n_draws: int = 2000, seed: int = 0) -> float:
    """Calibration error that honest scores would have on average on as many scans.

    Few scans scatter about the best probabilities, so an error says something only where it is
    larger than this (Broecker 2012). Labels are drawn scan by scan as the scores say.
    """
    score = np.asarray(score, dtype=float)
    labels = np.random.default_rng(seed).random((n_draws, score.size)) < score
    member = np.eye(BINS)[_bin_of(score)]
    return float(np.abs((labels - score) @ member).sum(axis=1).mean() / score.size)


def _bin_of(score) -> np.ndarray:
    """Bin of every score, (n,): bins of equally many scans, equal scores together."""
    score = np.asarray(score, dtype=float)
    first = np.searchsorted(np.sort(score), score)
    parts = np.array_split(np.arange(len(score)), BINS)
    starts = [part[0] for part in parts if len(part)]
    _, part = np.unique(np.searchsorted(starts, first, side="right"), return_inverse=True)
    return part


def best_threshold(y_true, score) -> float:
    """Find the threshold with the highest balanced accuracy.

    Parameters
    ----------
    y_true, score : array-like, shape (n,)
        Both classes, 0 and 1, and probability of motion, which is called at or above the threshold.

    Returns
    -------
    float
        Half-way between two scores, or the lowest score; the lowest of several as good ones.
    """
    levels = np.unique(np.asarray(score, dtype=float))
    cuts = np.concatenate([[levels[0]], (levels[1:] + levels[:-1]) / 2])
    y = np.asarray(y_true)
    called = np.asarray(score, dtype=float)[None, :] >= cuts[:, None]
    sensitivity = called[:, y == 1].mean(axis=1)
    specificity = 1 - called[:, y == 0].mean(axis=1)
    return float(cuts[np.argmax(sensitivity + specificity)])
