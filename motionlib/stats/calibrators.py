"""Scores and labels of validation scans go in; a map from score to probability comes out.

The map is a few numbers, so that it can stand in a ``model.json``. It is never fitted on test
scans, and it never turns the order of two scans round.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from motionlib.pairing import check_labels
from motionlib.stats.calibration import logit, temperature

KINDS = ("none", "temperature", "platt", "isotonic")
FEWEST = 5  # validation scans of either class; two numbers cannot be fitted to fewer
STEEPEST = 20.0


@dataclass(frozen=True)
class Calibrator:
    """A fitted map from scores to probabilities; call it with scores.

    Attributes
    ----------
    kind : {"none", "temperature", "platt", "isotonic"}
        How it was fitted.
    slope, bias : float
        Of the log-odds, for every kind but isotonic.
    knots, values : tuple of float
        Corners of the isotonic map, straight lines between them.
    n, n_positive : int
        Scans it was fitted to.
    """

    kind: str
    slope: float = 1.0
    bias: float = 0.0
    knots: tuple[float, ...] = ()
    values: tuple[float, ...] = ()
    n: int = 0
    n_positive: int = 0

    def __call__(self, score) -> np.ndarray:
        """Probabilities of motion of scores, shape (n,)."""
        score = np.asarray(score, dtype=float)
        if self.kind == "none":
            return score
        if self.kind == "isotonic":
            return np.interp(score, self.knots, self.values)
        return 1 / (1 + np.exp(-(self.slope * logit(score) + self.bias)))

    def as_dict(self) -> dict:
        """Plain values for JSON; ``Calibrator(**values)`` reads them back."""
        return asdict(self)


def fit_calibrator(kind: str, y_true, score) -> Calibrator:
    """Fit a map from scores to probabilities on validation scans.

    Parameters
    ----------
    kind : {"none", "temperature", "platt", "isotonic"}
        ``temperature`` divides the log-odds by a number: it cures a network that is too sure, and
        cannot cure one that calls motion too often, since a score of 0.5 stays 0.5. ``platt`` adds
        a bias (vector scaling of two logits comes to the same). ``isotonic`` is any rising curve.
    y_true : array-like of 0 and 1, shape (n,)
        Labels of validation scans.
    score : array-like, shape (n,)
        Their scores, within [0, 1].

    Returns
    -------
    Calibrator
        Call it with the scores of other scans.

    Raises
    ------
    ValueError
        Unknown kind, one class only, or fewer than five scans of a class.

    Notes
    -----
    Source: Guo et al. 2017 (temperature); Platt 1999, with his targets (k + 1) / (k + 2) in place
    of 1, so that separated classes give finite numbers; Zadrozny and Elkan 2002 (isotonic).
    The isotonic map stays 1 / (n + 2) away from 0 and 1, because n scans cannot show certainty.
    Training with balanced classes, as the paper does, gives scores for a world in which every
    second scan moved: that is a bias, and the reason why a temperature alone does not suffice.

    Examples
    --------
    >>> score = [0.5, 0.6, 0.7, 0.8, 0.9] * 10
    >>> y_true = [0, 0, 0, 0, 1] * 10
    >>> round(float(fit_calibrator("platt", y_true, score)([0.9])[0]), 1)
    0.8
    """
    if kind not in KINDS:
        raise ValueError(f"Found calibration {kind!r}, expected one of {', '.join(KINDS)}.")
    y, s = check_labels(y_true, score)
    counts = (int((y == 0).sum()), int((y == 1).sum()))
    if kind != "none" and min(counts) < FEWEST:
        raise ValueError(
            f"Found {counts[1]} validation scans with motion and {counts[0]} without, expected at "
            f"least {FEWEST} of each: calibrate on more graded scans, or use the score as it is."
        )
    sizes = {"n": y.size, "n_positive": counts[1]}
    if kind == "none":
        return Calibrator(kind, **sizes)
    if kind == "temperature":
        return Calibrator(kind, slope=1 / temperature(y, s), **sizes)
    if kind == "platt":
        slope, bias = _platt(y, s, counts)
        return Calibrator(kind, slope=slope, bias=bias, **sizes)
    from sklearn.isotonic import IsotonicRegression

    edge = 1 / (y.size + 2)
    curve = IsotonicRegression(y_min=edge, y_max=1 - edge, out_of_bounds="clip").fit(s, y)
    knots, values = curve.X_thresholds_, curve.y_thresholds_
    return Calibrator(kind, knots=tuple(map(float, knots)), values=tuple(map(float, values)),
                      **sizes)  # fmt: skip


def _platt(y: np.ndarray, s: np.ndarray, counts: tuple[int, int]) -> tuple[float, float]:
    """Slope and bias with the lowest cross-entropy to Platt's targets; the slope is not falling."""
    from scipy.optimize import minimize

    z = logit(s)
    target = np.where(y == 1, (counts[1] + 1) / (counts[1] + 2), 1 / (counts[0] + 2))

    def loss(both):
        scaled = both[0] * z + both[1]
        wrong = 1 / (1 + np.exp(-scaled)) - target
        value = np.mean(np.logaddexp(0, scaled) - target * scaled)
        return value, np.array([np.mean(wrong * z), np.mean(wrong)])

    limits = [(0.0, STEEPEST), (None, None)]
    start = np.array([1.0, 0.0])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=limits, tol=1e-12)
    return float(found.x[0]), float(found.x[1])
