"""Ratings by several people come in; what a model is taught of each scan goes out.

One rater's verdict is a noisy label. Where others rated the same scan, the share that excludes it,
or the mean of their grades, says how sure the verdict is.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

LESSONS = ("verdict", "votes", "grades within")


def lessons_of(table: pd.DataFrame) -> tuple[str, ...]:
    """Lessons that a table can teach: all three if its raters are in it, else the verdict."""
    return LESSONS if any(name.startswith("rater_") for name in table) else LESSONS[:1]


def taught(table: pd.DataFrame, lesson: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Tell what a model learns from each scan.

    Parameters
    ----------
    table : DataFrame
        ``site y_true`` and, for the lessons of several raters, ``rater_*``: -1 exclude, 0
        doubtful, 1 accept, NaN not rated.
    lesson : {"verdict", "votes", "grades within"}
        ``y_true``; the share of raters who exclude; or the mean grade of the raters, from 0
        (accept) to 1 (exclude), both classes weighing the same within each site.

    Returns
    -------
    share : ndarray of float, shape (n,)
        Motion's share in each scan; a scan without a rating has its ``y_true``.
    strata : ndarray or None
        Sites, or None, as :func:`classifiers.fit_shares` takes them.
    """
    if lesson not in LESSONS:
        raise ValueError(f"lesson is {lesson!r}: expected one of {', '.join(LESSONS)}")
    verdict = table["y_true"].astype(float)
    if lesson == "verdict":
        return verdict.to_numpy(), None
    raters = [name for name in table if name.startswith("rater_")]
    if not raters:
        raise ValueError(f"the table has no column rater_*: {lesson!r} needs it, teach the verdict")
    ratings = table[raters].astype(float)
    if lesson == "votes":
        ratings = ratings.where(ratings.isna(), np.where(ratings == -1, -1.0, 1.0))
    share = ((1 - ratings) / 2).mean(axis=1).fillna(verdict).to_numpy()
    return share, None if lesson == "votes" else table["site"].to_numpy()
