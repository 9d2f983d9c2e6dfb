"""Grades from a probability: the two limits that agree best with a user's grades.

From the lower limit on a scan gets grade 1, from the higher one grade 2. The pair has the highest
linear weighted kappa on validation scans, and is judged on test scans, which moved nothing.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from motionlib.scoring.model import DIGITS
from motionlib.stats.agreement import GRADES, Kappa, grade_table, weighted_kappa

TIE = 1e-12  # kappas nearer than this are equal
FEW = 15  # scans of a grade; below it a limit follows single scans


@dataclass(frozen=True)
class Grading:
    """Limits for grades, judged on the test patients."""

    limits: tuple[float, float] | None  # grade 1, and 2, from these probabilities on; None: none
    reason: str  # what was chosen and by what, or why there are none
    validation_kappa: float  # linear weighted, which the limits were chosen by; NaN: none
    n_validation: tuple[int, ...]  # validation scans of grade 0, 1 and 2
    kappa: Kappa | None = None  # linear weighted, of the test scans; its interval draws patients
    table: pd.DataFrame | None = None  # test scans: user's grades in rows, model's in columns
    scans: pd.DataFrame | None = None  # scan_id participant_id motion_grade p_motion grade


def choose_limits(task: str, grades, validation_grades, validation_p) -> Grading:
    """Choose limits on the validation scans, or say why there are none.

    `grades` are all that the task uses; the validation scans' grades and probabilities are (n,).
    """
    validation_grades = np.asarray(validation_grades, dtype=int)
    counts = tuple(int((validation_grades == grade).sum()) for grade in GRADES)

    def none(why: str) -> Grading:
        return Grading(None, f"No grades are given: {why}.", float("nan"), counts)

    present = sorted(set(map(int, grades)))
    if set(present) != set(GRADES):
        hint = "; --task mov01vs2 uses all three" if task == "mov0vs1" else ""
        words = " and ".join(map(str, present))
        return none(f"the scans of {task} have grades {words} only, limits need 0, 1 and 2{hint}")
    lacking = [grade for grade, n in zip(GRADES, counts, strict=True) if n == 0]
    if lacking:
        words = " or ".join(map(str, lacking))
        return none(f"the validation patients have no scan of grade {words}")
    levels = len(np.unique(np.round(validation_p, DIGITS)))
    if levels < len(GRADES):
        return none(f"the validation scans have {levels} different probabilities, limits need 3")
    limits, kappa = best_limits(validation_grades, validation_p)
    if kappa <= 0:
        return none("with no limits do they agree with the validation grades better than chance")
    reason = (
        f"Chosen on the validation patients alone: grade 1 from a probability of {limits[0]:.4f} "
        f"on, grade 2 from {limits[1]:.4f} on, the limits with the highest linear weighted kappa "
        f"there ({kappa:.3f})."
    )
    return Grading(limits, reason, kappa, counts)


def best_limits(grades, p) -> tuple[tuple[float, float], float]:
    """Limits with the highest linear weighted kappa, and that kappa; of equal pairs the middle one.

    `grades` are 0, 1 and 2, `p` probabilities of three different values at least, both (n,). Limits
    lie in the middle between two neighbouring probabilities, so that each grade is given to some
    scan. The distance of two grades is the number of limits that they lie on different sides of,
    so the penalties of the two limits, seen and by chance, add up.
    """
    # Limits are told apart by the scans on either side, so only the gaps between levels count.
    p, y = np.round(np.asarray(p, dtype=float), DIGITS), np.asarray(grades, dtype=int)
    levels, place = np.unique(p, return_inverse=True)
    cuts = (levels[1:] + levels[:-1]) / 2
    seen, chance = zip(*(_penalties(y >= grade, place, len(cuts)) for grade in (1, 2)), strict=True)

    def kappas(low: int) -> np.ndarray:
        """Every pair whose lower limit is the one at this place."""
        penalty = seen[0][low] + seen[1][low + 1 :]
        return 1 - penalty / (chance[0][low] + chance[1][low + 1 :])

    lows = range(len(cuts) - 1)
    best = max(kappas(low).max() for low in lows)
    ties = np.array(
        [(low, low + 1 + k) for low in lows for k in np.flatnonzero(kappas(low) >= best - TIE)]
    )
    low, high = ties[np.square(ties - ties.mean(axis=0)).sum(axis=1).argmin()]
    return (float(cuts[low]), float(cuts[high])), float(best)


def _penalties(above: np.ndarray, place: np.ndarray, n_cuts: int) -> tuple[np.ndarray, np.ndarray]:
    """Count scans on the wrong side of every cut, (n_cuts,), and those that chance puts there."""
    n = len(above)
    below = np.cumsum(np.bincount(place, minlength=n_cuts + 1))[:n_cuts]
    missed = np.cumsum(np.bincount(place, above, minlength=n_cuts + 1))[:n_cuts]
    alarms = (n - below) - (above.sum() - missed)
    by_chance = (above.sum() * below + (n - above.sum()) * (n - below)) / n
    return missed + alarms, by_chance


def grades_by(limits: tuple[float, float], p) -> np.ndarray:
    """Grade 0, 1 or 2 of probabilities, (n,); it never falls where the probability rises."""
    p = np.round(np.asarray(p, dtype=float), DIGITS)
    return (p[:, None] >= np.asarray(limits)).sum(axis=1)


def judge_limits(grading: Grading, scans: pd.DataFrame, patients, seed: int) -> Grading:
    """Judge chosen limits on the test scans; without limits there is nothing to judge.

    `scans` has ``scan_id participant_id motion_grade p_motion``; `patients`, (n,), are theirs.
    """
    if grading.limits is None:
        return grading
    scans = scans.assign(grade=grades_by(grading.limits, scans["p_motion"]))
    pair = (scans["motion_grade"].astype(int), scans["grade"])
    kappa = weighted_kappa(*pair, groups=patients, seed=seed)
    table = pd.DataFrame(grade_table(*pair), index=GRADES, columns=GRADES)
    return replace(grading, kappa=kappa, table=table, scans=scans)


def grade_warnings(grading: Grading) -> list[str]:
    """Say what makes the grades doubtful."""
    if grading.kappa is None:
        return []
    lines = []
    if min(grading.n_validation) < FEW:
        counts = ", ".join(map(str, grading.n_validation))
        lines.append(
            f"Few validation scans of a grade: {counts} of 0, 1, 2; the limits rest on them."
        )
    if not grading.kappa.low > 0:
        lines.append(
            "The interval of the grades' kappa reaches 0: the grades may be no use at all."
        )
    mild = grading.table.loc[1]
    if mild.sum() and mild[1] * 2 < mild.sum():
        lines.append(
            f"Mild motion is not graded reliably: {int(mild[1])} of {int(mild.sum())} test scans "
            "that you graded 1 got grade 1."
        )
    return lines
