"""Scores of a new site's ungraded scans go in; its share of motion and its threshold come out.

Two ways to carry a detector to a site without a single grade there, each with an assumption that
the data cannot check. Where they disagree, grade scans.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from motionlib.stats.calibration import logit

FEWEST = 20  # scans; a share of fewer cannot be told from luck
AGREE = 1e-10
MOST_ROUNDS = 100_000
QUANTILES = np.linspace(0.05, 0.5, 19)  # of the still scans; above, motion mixes in


@dataclass(frozen=True)
class PriorShift:
    """Share of motion at a new site, if nothing but that share has changed.

    Attributes
    ----------
    source, target : float
        Share of motion where the score was calibrated, and at the new site.
    n, n_rounds : int
        Scans of the new site, and rounds until the share stood still.
    """

    source: float
    target: float
    n: int
    n_rounds: int

    @property
    def bias(self) -> float:
        """What is added to the log-odds of the score."""
        return float(logit(self.target) - logit(self.source))

    def adjust(self, score) -> np.ndarray:
        """Probabilities of motion at the new site, from calibrated scores."""
        return _expit(logit(score) + self.bias)

    def threshold(self, wanted: float = 0.5) -> float:
        """Give the unadjusted score at which the adjusted one is ``wanted``."""
        return float(_expit(logit(wanted) - self.bias))


def estimate_prior(score, source_prior: float) -> PriorShift:
    """Estimate a new site's share of motion from its scores alone.

    Parameters
    ----------
    score : array-like, shape (n,)
        *Calibrated* scores of the new site's ungraded scans, within [0, 1].
    source_prior : float
        Share of motion among the scans that the score was calibrated on.

    Returns
    -------
    PriorShift
        Use ``adjust`` for probabilities, ``threshold`` for a limit on the scores as they are.

    Raises
    ------
    ValueError
        Fewer than 20 scans, scores outside [0, 1] or all alike, a prior outside (0, 1).

    Notes
    -----
    Source: Saerens, Latinne and Decaestecker 2002, expectation-maximisation; the likelihood has
    one maximum.

    Assumes that scans with motion score there as they do here, and scans without it too: only
    their shares differ. It fails, and quietly, when the scanner or protocol shifts all scores (a
    blurrier sequence is read as more motion), when the kind of motion differs, when the score is
    not calibrated at the source, or when it hardly ranks (then any share fits; draw scans with
    replacement to see how much it wanders).

    The share matters for a threshold on the probability, such as "more likely than not" or a ratio
    of costs. The threshold of the best balanced accuracy does not move with it: under this
    assumption it is the source's.
    """
    if not 0 < source_prior < 1:
        raise ValueError(
            f"Found a source share of {source_prior:g}, expected one between 0 and 1: give the "
            "share of motion among the calibration scans."
        )
    s = _checked(score, "new site")
    low, high = logit(s), logit(source_prior)
    share, rounds = source_prior, 0
    while rounds < MOST_ROUNDS:
        rounds += 1
        new = float(np.mean(_expit(low + logit(share) - high)))
        done = abs(new - share) < AGREE
        share = new
        if done:
            break
    return PriorShift(float(source_prior), share, s.size, rounds)


@dataclass(frozen=True)
class ScoreShift:
    """A move and stretch of log-odds that lays a new site's still scans on the source's.

    Attributes
    ----------
    slope, bias : float
        Source log-odds are ``slope * log-odds + bias``.
    still_share : float
        Share of the new site's scans that was taken to be without motion.
    n : int
        Scans of the new site.
    """

    slope: float
    bias: float
    still_share: float
    n: int

    def adjust(self, score) -> np.ndarray:
        """Scores as the source would have given them."""
        return _expit(self.slope * logit(score) + self.bias)

    def threshold(self, at_source: float) -> float:
        """Give the new site's score that stands where ``at_source`` stands at the source."""
        return float(_expit((logit(at_source) - self.bias) / self.slope))


def match_quantiles(score, source_still, still_share: float, *, stretch: bool = False):
    """Lay a new site's lower scores on the source's scores without motion.

    Parameters
    ----------
    score : array-like, shape (n,)
        Scores of the new site's ungraded scans, within [0, 1]; they need no calibration.
    source_still : array-like, shape (m,)
        Scores of the source's scans without motion, of the same network.
    still_share : float
        Share of the new site's scans thought to be without motion, in (0, 1].
    stretch : bool, default=False
        Also match the spread, where both sites have hundreds of scans.

    Returns
    -------
    ScoreShift
        Use ``threshold`` with the source's threshold, or ``adjust`` before its calibration.

    Raises
    ------
    ValueError
        Fewer than 20 scans on a side, scores outside [0, 1] or all alike, an impossible share.

    Notes
    -----
    Assumes that the site moves (or stretches) all log-odds alike, and that its lowest scans have
    no motion: the q-quantile of the source's still scans is matched to the site's
    ``q * still_share``-quantile for q up to one half, and the median of the differences taken.

    It holds where `estimate_prior` fails, namely for a scanner that shifts all scores, and fails
    where that one holds: a share given wrongly is read as a shift. It also fails where the classes
    overlap so much that the lowest scores hold motion, and where a site changes only scans with
    motion. Give it several shares and see whether the threshold stays.
    """
    if not 0 < still_share <= 1:
        raise ValueError(
            f"Found a share of {still_share:g} still scans, expected one above 0 and at most 1: "
            "give the share of scans thought to be without motion."
        )
    here, there = _checked(score, "new site"), _checked(source_still, "source's still scans")
    low = np.quantile(logit(here), QUANTILES * still_share)
    goal = np.quantile(logit(there), QUANTILES)
    slope = 1.0
    if stretch:
        slope = float(np.subtract(*np.quantile(goal, [0.75, 0.25])))
        slope /= max(float(np.subtract(*np.quantile(low, [0.75, 0.25]))), 1e-9)
    bias = float(np.median(goal - slope * low))
    return ScoreShift(slope, bias, float(still_share), here.size)


def _expit(z) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(z, dtype=float)))


def _checked(score, what: str) -> np.ndarray:
    """Scores as an array, or one sentence that says why they cannot be used."""
    s = np.asarray(score, dtype=float).ravel()
    if s.size < FEWEST:
        raise ValueError(
            f"Found {s.size} scans of the {what}, expected at least {FEWEST}: collect more before "
            "moving a threshold."
        )
    if not ((s >= 0) & (s <= 1)).all():
        bad = int(np.flatnonzero(~((s >= 0) & (s <= 1)))[0])
        raise ValueError(
            f"Found a score outside [0, 1] in the {what} (position {bad}, value {s[bad]:g}): give "
            "probabilities, not logits."
        )
    if s.min() == s.max():
        raise ValueError(
            f"Found the same score, {s[0]:g}, for all {s.size} scans of the {what}, expected "
            "different ones: check the network."
        )
    return s
