"""Grades of several raters go in; weighted kappa and each rater's accuracy come out.

A rater judged against a consensus that contains them is flattered; `raters_against_others`
leaves the rater out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from motionlib.metrics import classification_metrics
from motionlib.stats.intervals import bca_limits, draw_patients, leave_out
from motionlib.tasks import grade_to_task

GRADES = (0, 1, 2)


@dataclass(frozen=True)
class Kappa:
    """Weighted kappa with its interval.

    Attributes
    ----------
    estimate, low, high : float
        Kappa and its interval; NaN limits if kappa is undefined.
    weights : str
        ``linear`` or ``quadratic``.
    n : int
        Scans graded by both.
    """

    estimate: float
    low: float
    high: float
    weights: str
    n: int


def grade_table(grades_a, grades_b, *, grades=GRADES) -> np.ndarray:
    """Count pairs of grades.

    Parameters
    ----------
    grades_a, grades_b : array-like of int, shape (n,)
        Two raters' grades of the same scans; pairs with a missing grade are left out.
    grades : sequence of int, default=(0, 1, 2)
        The ordered scale.

    Returns
    -------
    ndarray, shape (k, k)
        Rows: first rater; columns: second.

    Raises
    ------
    ValueError
        A grade outside the scale, or unequal lengths.
    """
    first, second = (pd.array(x, dtype="Float64") for x in (grades_a, grades_b))
    if len(first) != len(second):
        raise ValueError(
            f"Found {len(first)} and {len(second)} grades, expected equal numbers: join the "
            "raters by scan_id first."
        )
    both = ~(first.isna() | second.isna())
    first, second = (x[both].to_numpy(dtype=float) for x in (first, second))
    strange = sorted(set(np.concatenate([first, second])) - {float(grade) for grade in grades})
    if strange:
        raise ValueError(
            f"Found the grade {strange[0]:g}, expected one of {', '.join(map(str, grades))}: "
            "map the grades to the scale first."
        )
    table = np.zeros((len(grades), len(grades)), dtype=int)
    places = {float(grade): place for place, grade in enumerate(grades)}
    np.add.at(table, ([places[x] for x in first], [places[x] for x in second]), 1)
    return table


def kappa_from_table(table, *, weights: str = "linear", level: float = 0.95) -> Kappa:
    """Weighted kappa of a table of counts, with the large-sample interval.

    Parameters
    ----------
    table : array-like of int, shape (k, k)
        Counts of pairs of grades.
    weights : {'linear', 'quadratic'}
        Penalty of a disagreement: its distance or the square of it.
    level : float, default=0.95
        Coverage of the interval.

    Returns
    -------
    Kappa
        By statsmodels (Fleiss, Cohen and Everitt's variance).
    """
    from scipy.stats import norm
    from statsmodels.stats.inter_rater import cohens_kappa

    if weights not in ("linear", "quadratic"):
        raise ValueError(f"Found weights {weights!r}, expected 'linear' or 'quadratic'.")
    table = np.asarray(table)
    n = int(table.sum())
    if (table.sum(axis=0) > 0).sum() < 2 and (table.sum(axis=1) > 0).sum() < 2:
        return Kappa(float("nan"), float("nan"), float("nan"), weights, n)
    result = cohens_kappa(table, weights=np.arange(len(table)), wt=weights)
    half = norm.ppf((1 + level) / 2) * np.sqrt(max(result.var_kappa, 0.0))
    estimate = float(result.kappa)
    return Kappa(estimate, float(estimate - half), float(estimate + half), weights, n)


def weighted_kappa(
    grades_a,
    grades_b,
    *,
    weights: str = "linear",
    grades=GRADES,
    groups=None,
    level: float = 0.95,
    n_boot: int = 2000,
    seed: int = 0,
) -> Kappa:
    """Agreement of two raters beyond chance, near misses counting less than far ones.

    Parameters
    ----------
    grades_a, grades_b : array-like of int, shape (n,)
        Two raters' grades of the same scans; pairs with a missing grade are left out.
    weights : {'linear', 'quadratic'}
        Penalty of a disagreement: its distance or the square of it.
    grades : sequence of int, default=(0, 1, 2)
        The ordered scale.
    groups : array-like, shape (n,), optional
        Patient of each scan: the interval then draws patients instead of using the
        large-sample formula.
    level : float, default=0.95
        Coverage of the interval.
    n_boot, seed : int
        Draws and their seed, with `groups`.

    Returns
    -------
    Kappa
        Estimate and interval.

    Notes
    -----
    Source: paper §III-A.2 (0.68). Departs from the paper: it does not state the weights, so both
    are offered.
    """
    kappa = kappa_from_table(
        grade_table(grades_a, grades_b, grades=grades), weights=weights, level=level
    )
    if groups is None:
        return kappa
    first, second = (pd.array(x, dtype="Float64") for x in (grades_a, grades_b))
    both = ~(first.isna() | second.isna())
    places = {float(grade): place for place, grade in enumerate(grades)}
    rows, columns = ([places[x] for x in values[both]] for values in (first, second))
    code, names = pd.factorize(np.asarray(groups)[both])
    k = len(grades)
    cells = np.zeros((len(names), k, k))
    np.add.at(cells, (code, rows, columns), 1)
    draws = _kappas(draw_patients(len(names), n_boot, seed), cells, weights)
    draws = draws[np.isfinite(draws)]
    if not draws.size:
        return kappa
    left_out = _kappas(leave_out(len(names)), cells, weights)
    low, high = bca_limits(draws, kappa.estimate, left_out, level, len(names))
    return Kappa(kappa.estimate, low, high, weights, kappa.n)


def _kappas(draws: np.ndarray, cells: np.ndarray, weights: str) -> np.ndarray:
    """Kappa of every draw of patients: draws (n_boot, n), cells (n, k, k) -> (n_boot,)."""
    k = cells.shape[1]
    drawn = (draws @ cells.reshape(len(cells), -1)).reshape(len(draws), k, k)
    distance = np.abs(np.subtract.outer(np.arange(k), np.arange(k))).astype(float)
    penalty = distance if weights == "linear" else distance**2
    chance = np.einsum("bi,bj,ij->b", drawn.sum(2), drawn.sum(1), penalty) / drawn.sum((1, 2))
    seen = np.einsum("bij,ij->b", drawn, penalty)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(chance > 0, 1 - seen / chance, np.nan)


def _judge(rater: pd.Series, reference: pd.Series, task: str) -> dict | None:
    """Metrics of a rater's grades against reference grades, or None without both classes."""
    truth = grade_to_task(reference, task)
    known = truth.notna() & rater.notna()
    called = (rater[known] >= (2 if task == "mov01vs2" else 1)).astype(int)
    truth = truth[known].astype(int)
    if truth.nunique() < 2:
        return None
    return classification_metrics(truth, called)


def raters_against_consensus(grades: pd.DataFrame, task: str) -> pd.DataFrame:
    """Judge each rater against the consensus (maximum) of all, the rater included.

    Parameters
    ----------
    grades : DataFrame
        One column a rater, one row a scan.
    task : {'mov01vs2', 'mov0vs1'}
        Which labels.

    Returns
    -------
    DataFrame
        ``rater`` and the metrics; a rater without both classes gets no row.

    Notes
    -----
    Source: paper §III-A.2 and Table IV. With a maximum a rater can only under-call, so the
    specificity is 1 by construction and the mean balanced accuracy of two raters is at least 0.75.
    """
    consensus = grades.max(axis=1)
    rows = {name: _judge(grades[name], consensus, task) for name in grades}
    return pd.DataFrame([{"rater": name, **row} for name, row in rows.items() if row])


def raters_against_others(grades: pd.DataFrame, task: str) -> pd.DataFrame:
    """Judge each rater against the consensus (maximum) of the *other* raters.

    Parameters
    ----------
    grades : DataFrame
        One column a rater, at least two.
    task : {'mov01vs2', 'mov0vs1'}
        Which labels.

    Returns
    -------
    DataFrame
        As `raters_against_consensus`.
    """
    if grades.shape[1] < 2:
        raise ValueError(
            f"Found {grades.shape[1]} rater, expected at least two: leaving one out needs another."
        )
    rows = {
        name: _judge(grades[name], grades.drop(columns=name).max(axis=1), task) for name in grades
    }
    return pd.DataFrame([{"rater": name, **row} for name, row in rows.items() if row])
