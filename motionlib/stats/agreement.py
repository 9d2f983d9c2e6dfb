"""Agreement of raters: weighted kappa, and each rater's accuracy against the others.

Weighted kappa (Cohen 1968) is the agreement beyond chance, near misses counting less than far ones.
A rater judged against a consensus that holds him is flattered, so `judge_raters` can leave him out.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from motionlib.metrics import classification_metrics
from motionlib.stats.intervals import bca_limits, draw_patients, leave_out
from motionlib.tasks import grade_to_task, rater_calls

GRADES = (0, 1, 2)
WEIGHTS = ("linear", "quadratic")


@dataclass(frozen=True)
class Kappa:
    """Kappa, its weights and interval (NaN if it is undefined), and scans graded by both."""

    estimate: float
    low: float
    high: float
    weights: str
    n: int


def weighted_kappa(
    grades_a, grades_b, *, weights: str = "linear", groups=None, n_boot: int = 2000, seed: int = 0
) -> Kappa:
    """Agreement of two raters beyond chance, with a 95 % interval by drawing patients.

    Parameters
    ----------
    grades_a, grades_b : array-like of int, shape (n,)
        Two raters' grades, 0 to 2, of the same scans; pairs with a missing one are left out.
    weights : {'linear', 'quadratic'}
        Penalty of a disagreement: its distance or the square of it.
    groups : array-like, shape (n,), optional
        Patient of each scan; without it every scan is its own patient.
    n_boot, seed : int
        Draws and their seed.

    Returns
    -------
    Kappa
        Estimate and interval (`intervals.bca_limits`); NaN where both raters gave one grade only.

    Raises
    ------
    ValueError
        A grade outside the scale, unequal lengths, unknown weights.

    Notes
    -----
    Source: paper §III-A.2 (0.68). Departs from the paper: both weights, as it does not state them.
    """
    first, second, both = _paired(grades_a, grades_b)
    patients = np.arange(len(both)) if groups is None else np.asarray(groups)
    code, names = pd.factorize(patients[both])
    cells = np.zeros((len(names), len(GRADES), len(GRADES)))
    np.add.at(cells, (code, first, second), 1)
    estimate, n = float(kappa_of(cells.sum(axis=0), weights)), len(first)
    low = high = float("nan")
    if np.isfinite(estimate):
        draws, left_out = (
            kappa_of(np.tensordot(drawn, cells, 1), weights)
            for drawn in (draw_patients(len(names), n_boot, seed), leave_out(len(names)))
        )
        draws = draws[np.isfinite(draws)]
        if draws.size:
            low, high = bca_limits(draws, estimate, left_out, len(names))
    return Kappa(estimate, low, high, weights, n)


def grade_table(grades_a, grades_b) -> np.ndarray:
    """Count pairs of grades, (3, 3): rows are the first rater's; pairs with a gap are left out."""
    first, second, _ = _paired(grades_a, grades_b)
    table = np.zeros((len(GRADES), len(GRADES)), dtype=int)
    np.add.at(table, (first, second), 1)
    return table


def kappa_of(tables, weights: str = "linear") -> np.ndarray:
    """Weighted kappa of tables of counts, (..., k, k) -> (...); NaN where chance explains all."""
    if weights not in WEIGHTS:
        raise ValueError(f"Found weights {weights!r}, expected {' or '.join(map(repr, WEIGHTS))}.")
    tables = np.asarray(tables, dtype=float)
    k = tables.shape[-1]
    distance = np.abs(np.subtract.outer(np.arange(k), np.arange(k))).astype(float)
    penalty = distance if weights == "linear" else distance**2
    by_chance = np.einsum("...i,...j,ij->...", tables.sum(-1), tables.sum(-2), penalty)
    seen = np.einsum("...ij,ij->...", tables, penalty)
    with np.errstate(invalid="ignore", divide="ignore"):
        chance = by_chance / tables.sum((-1, -2))
        return np.where(chance > 0, 1 - seen / chance, np.nan)


def _paired(grades_a, grades_b) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Grades of the scans that both graded, (m,) each, and which of the n scans these are."""
    first, second = (pd.array(x, dtype="Float64") for x in (grades_a, grades_b))
    if len(first) != len(second):
        raise ValueError(
            f"Found {len(first)} and {len(second)} grades, expected equal numbers: join the "
            "raters by scan_id first."
        )
    both = np.asarray(~(first.isna() | second.isna()))
    first, second = (x[both].to_numpy(dtype=float) for x in (first, second))
    outside = np.setdiff1d(np.concatenate([first, second]), GRADES)
    if outside.size:
        raise ValueError(
            f"Found the grade {outside[0]:g}, expected one of {', '.join(map(str, GRADES))}: "
            "map the grades to the scale first."
        )
    return first.astype(int), second.astype(int), both


def judge_raters(grades: pd.DataFrame, task: str, *, against: str = "others") -> pd.DataFrame:
    """Judge each rater against the consensus, which is the highest grade.

    Parameters
    ----------
    grades, task : DataFrame, {'mov01vs2', 'mov0vs1'}
        One column a rater, one row a scan, and which labels.
    against : {'others', 'all'}
        Whose consensus: that of the other raters, or the paper's, which holds the judged one too.

    Returns
    -------
    DataFrame
        ``rater`` and the metrics; a rater without both classes gets no row.

    Raises
    ------
    ValueError
        Fewer than two raters where they are judged against the others.

    Notes
    -----
    Source: paper §III-A.2 and Table IV (``all``). With a maximum a rater can only under-call, so
    the specificity is 1 by construction and the mean balanced accuracy of two raters is at least
    0.75. Departs from the paper: ``others`` leaves the rater out.
    """
    if against == "others" and grades.shape[1] < 2:
        raise ValueError(
            f"Found {grades.shape[1]} rater, expected at least two: leaving one out needs another."
        )
    rows = []
    for name in grades:
        judges = grades.drop(columns=name) if against == "others" else grades
        truth = grade_to_task(judges.max(axis=1), task)
        known = truth.notna() & grades[name].notna()
        truth = truth[known].astype(int)
        if truth.nunique() == 2:
            called = rater_calls(grades.loc[known, name], task)
            rows.append({"rater": name} | classification_metrics(truth, called))
    return pd.DataFrame(rows)
