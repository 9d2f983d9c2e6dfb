"""Two imperfect raters of the virtual hospital: where a warehouse scan's grade comes from.

1. A plan wants a severity in mm of every scan (`severity_quantile`); the motion made for the scan
   realises one near it, and that one is graded.
2. Each rater sees it with an error of his own and compares it with two thresholds (`rate`).
3. The consensus is the larger grade.

Shares of the grades and the raters' kappa are those of the paper's §III-A.2.
"""

import numpy as np
from scipy.special import ndtri

MEDIAN_MM, LOG_SD, CEILING_MM = 0.5, 1.5, 10.0  # of severities; see `severity_quantile`
# The published grades (2319, 1196, 530) and kappa (0.68, taken as linearly weighted) ask for
# (0.89, 3.86) and 0.517 with the severities wanted by `severity_quantile`, for (0.85, 3.59) and
# 0.502 with those that 4000 emulated motions realised; these lie between. A test finds them again.
THRESHOLDS_MM = (0.87, 3.70)
RATER_NOISE = 0.51


def severity_quantile(u):
    """Severity in mm below which a share `u`, in (0, 1), of the warehouse's scans lies.

    Log-normal, cut off at 10 mm. Not in the paper: chosen so that the published grade shares fall
    where the artefact is absent, subtle and obvious at 3 to 4 mm; most motion is sub-millimetre.
    """
    return np.minimum(MEDIAN_MM * np.exp(LOG_SD * ndtri(u)), CEILING_MM)


def rate(severity_mm, rng: np.random.Generator):
    """Grade one scan, or many, as two raters would: two grades 0, 1 or 2 (or arrays of them).

    Each rater sees the severity with a log-normal error of his own and compares it with two
    thresholds; the consensus is the larger grade (§III-A.2). Grades are none seen, structures
    distinguishable, structures difficult to distinguish.
    """
    error = rng.normal(0, RATER_NOISE, (2, *np.shape(severity_mm)))
    seen_mm = np.asarray(severity_mm, float) * np.exp(error)
    grades = np.searchsorted(np.array(THRESHOLDS_MM), seen_mm)
    if np.ndim(severity_mm) == 0:
        return int(grades[0]), int(grades[1])
    return grades[0], grades[1]
