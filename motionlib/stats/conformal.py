"""Graded scans' scores go in; which new scans may be decided, and how often rightly, comes out.

Split conformal prediction: a label stays possible for a new scan unless graded scans of that
label hardly ever scored as strangely. A scan with one possible label is decided, any other is
left to a person.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from motionlib.predictions import check_labels
from motionlib.stats.calibration import logit

ABSTAINED = -1


@dataclass(frozen=True)
class Conformal:
    """Strangeness of graded scans, against which new scans are held.

    Attributes
    ----------
    level : float
        Share of scans whose true label stays possible.
    by_class : bool
        Whether the level holds within motion and within no motion, or only over all scans.
    still, moved : ndarray
        Sorted strangeness of the graded scans of either class: the score of those without motion,
        one less the score of those with.
    """

    level: float
    by_class: bool
    still: np.ndarray
    moved: np.ndarray


def calibrate(y_true, score, *, level: float = 0.9, by_class: bool = True) -> Conformal:
    """Keep how strangely graded scans scored.

    Parameters
    ----------
    y_true : array-like of 0 and 1, shape (n,)
        Labels of graded scans that the network was not trained on.
    score : array-like, shape (n,)
        Their scores, within [0, 1]; any rising map of the scores gives the same decisions where
        ``by_class`` is set.
    level : float, default=0.9
        Coverage to keep, between 0 and 1.
    by_class : bool, default=True
        Keep it within each class (Mondrian). Without it a rare class pays for the common one: all
        severe scans may be wrong while the coverage is kept.

    Returns
    -------
    Conformal
        For `possible` and `decide`.

    Raises
    ------
    ValueError
        One class only, a level outside (0, 1), or too few scans: nothing can be excluded at 90 %
        with fewer than 9 graded scans (of each class, where ``by_class`` is set).

    Notes
    -----
    Source: Vovk, Gammerman and Shafer 2005 (Mondrian, smoothed); Papadopoulos et al. 2002 (split).
    The promise: graded and new scans are exchangeable, that is from the same site and clinic, one
    scan a patient or patients alike in number. A new site breaks it; see `priorshift`.
    """
    if not 0 < level < 1:
        raise ValueError(f"Found level {level:g}, expected a share between 0 and 1, such as 0.9.")
    y, s = check_labels(y_true, score)
    strange = np.where(y == 1, 1 - s, s)
    parts = [np.sort(strange[y == label]) for label in (0, 1)]
    needed = int(np.ceil(1 / (1 - level) - 1e-9)) - 1
    found = min(map(len, parts)) if by_class else y.size
    if found < needed:
        where = " in the smaller class" if by_class else ""
        raise ValueError(
            f"Found {found} graded scans{where}, expected at least {needed} for a coverage of "
            f"{level:.0%}: grade more scans, or ask for less coverage."
        )
    return Conformal(level, by_class, *parts)


def possible(fitted: Conformal, score, *, smooth_seed: int | None = None) -> np.ndarray:
    """Say which labels stay possible for new scans.

    Parameters
    ----------
    fitted : Conformal
        From `calibrate`.
    score : array-like, shape (n,)
        Scores of new scans.
    smooth_seed : int, optional
        Decide ties and the last graded scan by lot, with this seed: the coverage is then the
        level exactly, where it is otherwise at least the level and at most 1 / (n + 1) more. For
        measuring; a clinic wants the same answer twice.

    Returns
    -------
    ndarray of bool, shape (n, 2)
        Whether no motion, and motion, are possible.
    """
    score = np.asarray(score, dtype=float)
    lot = None if smooth_seed is None else np.random.default_rng(smooth_seed)
    both = np.sort(np.concatenate([fitted.still, fitted.moved]))
    columns = []
    for strange, own in ((score, fitted.still), (1 - score, fitted.moved)):
        held = own if fitted.by_class else both
        reached = len(held) - np.searchsorted(held, strange - 1e-12, side="left")
        beyond = len(held) - np.searchsorted(held, strange + 1e-12, side="right")
        if lot is None:
            p_value = (reached + 1) / (len(held) + 1)
        else:
            ties = reached - beyond + 1
            p_value = (beyond + lot.random(score.size) * ties) / (len(held) + 1)
        columns.append(p_value > 1 - fitted.level + 1e-12)
    return np.column_stack(columns)


def decide(fitted: Conformal, score) -> np.ndarray:
    """Call new scans 0 or 1, or -1 where both labels or none are possible, shape (n,)."""
    kept = possible(fitted, score)
    return np.where(kept.sum(axis=1) == 1, kept[:, 1].astype(int), ABSTAINED)


def abstention(y_true, kept: np.ndarray) -> dict[str, float]:
    """Judge possible labels against the truth.

    Parameters
    ----------
    y_true : array-like of 0 and 1, shape (n,)
        True labels; one class alone is allowed, its rates of the other are NaN.
    kept : ndarray of bool, shape (n, 2)
        From `possible`.

    Returns
    -------
    dict
        ``coverage`` (the true label is possible), ``coverage_still``, ``coverage_motion``,
        ``abstained`` (both labels or none), ``error_decided`` (wrong among the decided; NaN if
        none is), ``n``.
    """
    y, _ = check_labels(y_true, both_classes=False)
    right = kept[np.arange(y.size), y]
    decided = kept.sum(axis=1) == 1

    def share(values) -> float:
        return float(values.mean()) if values.size else float("nan")

    return {
        "coverage": share(right),
        "coverage_still": share(right[y == 0]),
        "coverage_motion": share(right[y == 1]),
        "abstained": share(~decided),
        "error_decided": share(~right[decided]),
        "n": int(y.size),
    }


def resplit(
    y_true,
    score,
    groups=None,
    *,
    levels=(0.8, 0.9, 0.95),
    by_class: bool = True,
    n_splits: int = 200,
    smooth: bool = False,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure the coverage: calibrate on half of the patients, look at the others, many times.

    Parameters
    ----------
    y_true, score, by_class
        As for `calibrate`.
    groups : array-like, shape (n,), optional
        Patient of each scan; no patient is on both sides.
    levels : sequence of float
        Coverages asked for.
    n_splits : int, default=200
        Random halves.
    smooth : bool, default=False
        Decide ties by lot, see `possible`.
    seed : int, default=0
        Seed of the halves.

    Returns
    -------
    DataFrame
        One row a level: ``level by_class n_splits``, the shares of `abstention` over all scans in
        all splits, and ``coverage_sd``, its standard deviation from one split to the next. Where a
        level cannot be promised with so few scans, the row holds the ``reason``.
    """
    y, s = check_labels(y_true, score)
    code, names = pd.factorize(np.arange(y.size) if groups is None else np.asarray(groups))
    if code.size != y.size or (code < 0).any() or len(names) < 2:
        raise ValueError(
            f"Found {len(names)} patients for {y.size} scans, expected two or more and one named "
            "for each scan: give the participant_id of every scan."
        )
    rows = []
    for level in levels:
        rng, found, reason = np.random.default_rng(seed), [], ""
        for number in range(n_splits):
            held = (rng.permutation(len(names)) < len(names) // 2)[code]
            try:
                fitted = calibrate(y[held], s[held], level=level, by_class=by_class)
            except ValueError as error:
                reason = str(error)
                continue
            lot = number if smooth else None
            kept = possible(fitted, s[~held], smooth_seed=lot)
            found.append(_counts(y[~held], kept))
        row = {"level": level, "by_class": by_class, "n_splits": len(found)}
        rows.append(row | _shares(found) | {"reason": reason})
    return pd.DataFrame(rows)


def _counts(y, kept) -> np.ndarray:
    """Count one split: scans and covered ones of each class, abstained, decided, wrong."""
    right, decided = kept[np.arange(y.size), y], kept.sum(axis=1) == 1
    still, moved = y == 0, y == 1
    parts = (still, moved, right & still, right & moved, ~decided, decided, decided & ~right)
    return np.array([part.sum() for part in parts])


def _shares(found: list[np.ndarray]) -> dict[str, float]:
    """Shares over all splits and the spread of the coverage; NaN where there is nothing."""
    counts = np.array(found, dtype=float).reshape(-1, 7)
    still, moved, right_still, right_moved, left, decided, wrong = counts.sum(axis=0)
    each = (counts[:, 2] + counts[:, 3]) / (counts[:, 0] + counts[:, 1])
    pairs = {
        "coverage": (right_still + right_moved, still + moved),
        "coverage_still": (right_still, still),
        "coverage_motion": (right_moved, moved),
        "abstained": (left, still + moved),
        "error_decided": (wrong, decided),
    }
    spread = float(each.std(ddof=1)) if len(each) > 1 else float("nan")
    shares = {name: float(a / b) if b else float("nan") for name, (a, b) in pairs.items()}
    return shares | {"coverage_sd": spread}


def coverage_risk(y_true, score, *, threshold: float = 0.5) -> pd.DataFrame:
    """Draw up what leaving the most doubtful scans to a person buys.

    Parameters
    ----------
    y_true : array-like of 0 and 1, shape (n,)
        Both classes are needed.
    score : array-like, shape (n,)
        Probability of motion in [0, 1].
    threshold : float, default=0.5
        A scan is called motion at or above it; those nearest to it, in log-odds, are the most
        doubtful.

    Returns
    -------
    DataFrame
        ``decided`` (share of scans, rising to 1), ``error`` (wrong among them) and
        ``error_at_random`` (wrong among all: what leaving out random scans gives).
    """
    y, s = check_labels(y_true, score)
    called = s >= threshold
    order = np.argsort(-np.abs(logit(s) - logit(threshold)), kind="stable")
    wrong = (called != (y == 1)).astype(float)[order]
    number = np.arange(1, y.size + 1)
    table = pd.DataFrame({"decided": number / y.size, "error": np.cumsum(wrong) / number})
    return table.assign(error_at_random=wrong.mean())
