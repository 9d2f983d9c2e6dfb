"""What a printed number allows: counts behind a percentage, p-values behind margins, SDs.

A percentage must be a count over a size; a p-value must fit the margins of its table. Nothing here
says what was done, only what could have been.

>>> counts_that_print(33.33, 328), counts_that_print(33.33, 57)
({}, {19: 'RT'})
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import binom, chi2

from motionlib.paper.transcription import METHODS, TASKS, in_text, printed


def counts_that_print(percent: float, n: int, *, decimals: int = 2) -> dict[int, str]:
    """Find the counts out of n that print as this percentage of so many decimals, such as 33.33.

    Each with ``R`` (if rounded), ``T`` (if truncated) or ``RT`` (both); empty if none does.
    """
    unit = 10**decimals
    wanted = round(percent * unit)
    near = int(percent * n / 100)
    counts = {}
    for k in range(max(near - 1, 0), min(near + 2, n) + 1):
        # in integers, so that no rounding of floats decides; halves are rounded up
        rounded = (200 * unit * k + n) // (2 * n) == wanted
        cut = 100 * unit * k // n == wanted
        if rounded or cut:
            counts[k] = "R" * rounded + "T" * cut
    return counts


def nearest_count(percent: float, n: int) -> int:
    """Count out of n closest to a percentage."""
    return int(np.floor(percent * n / 100 + 0.5))


def largest_sd(mean: float, n: int = 5, *, top: float = 100.0) -> float:
    """Largest SD (n - 1) of n values that do not exceed `top`: all at the top but one."""
    gap = top - mean
    if n * gap > top:
        raise ValueError(f"Found mean {mean:g}, expected one within {top / n:g} of {top:g}.")
    return float(gap * np.sqrt(n))


def smallest_sd(step: float, n: int = 5) -> float:
    """Smallest non-zero SD (n - 1) of n values on a lattice: one differs by one step."""
    return float(step / np.sqrt(n))


def set_sizes() -> dict[str, tuple[int, int]]:
    """Negatives and positives of both test sets, from Table A.II."""
    table = printed("table_a2").query("set == 'testing'").set_index("label")
    severe = table["mov01vs2"]
    return {
        "mov01vs2": (int(severe["motion 0"] + severe["motion 1"]), int(severe["motion 2"])),
        "mov0vs1": (int(table["mov0vs1"]["motion 0"]), int(table["mov0vs1"]["motion 1"])),
    }


def table4_rates() -> pd.DataFrame:
    """Table IV with the study's method keys, indexed by task and method, percent as printed."""
    table = printed("table_4")
    table["method"] = table["method"].map(METHODS)
    return table.set_index(["task", "method"])


def exchange_fits() -> pd.DataFrame:
    """Integer fits of every rate of Table IV.

    Columns ``task method rate printed``, then the counts that print as the rate, such as ``19/57
    (RT)`` or nothing: ``labelled`` (of the class that the rate is labelled with), ``exchanged`` (of
    the other), ``pooled`` and ``pooled_exchanged`` (five models pooled).
    """
    rows = []
    for (task, method), row in table4_rates().iterrows():
        negatives, positives = set_sizes()[task]
        classes = {"specificity": (negatives, positives), "sensitivity": (positives, negatives)}
        for rate, (own, other) in classes.items():
            if pd.isna(row[rate]):
                continue
            fits = {"task": task, "method": method, "rate": rate, "printed": row[rate]}
            sizes = {"labelled": own, "exchanged": other}
            sizes |= {"pooled": 5 * own, "pooled_exchanged": 5 * other}
            for name, n in sizes.items():
                counts = counts_that_print(row[rate], n)
                fits[name] = ", ".join(f"{k}/{n} ({how})" for k, how in counts.items())
            rows.append(fits)
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Reach:
    """What McNemar's test can give when only the margins are known.

    `correct_a` and `correct_b` of `n` scans are right by each model, so `difference`, b - c, is
    fixed; `discordant_low` and `_high` are the fewest and most discordant scans (b + c) that the
    margins allow, `p_low` and `_high` the range of the exact p, `chi2_p_low` and `_high` that of
    the continuity-corrected chi-square p.
    """

    correct_a: int
    correct_b: int
    n: int
    difference: int
    discordant_low: int
    discordant_high: int
    p_low: float
    p_high: float
    chi2_p_low: float
    chi2_p_high: float

    def forms(self, p: float, *, slack: float = 0.005) -> str:
        """Name the forms in whose range a printed p lies (`slack` for its rounding), or none."""
        exact, corrected = (self.p_low, self.p_high), (self.chi2_p_low, self.chi2_p_high)
        ranges = {"exact": exact, "corrected": corrected}
        fits = [f for f, (a, b) in ranges.items() if a * (1 - slack) <= p <= b * (1 + slack)]
        return ", ".join(fits)


def mcnemar_range(margins) -> Reach:
    """Enumerate every overlap of two models' right answers: ranges over all of them.

    `margins` are (correct_a, correct_b, n), one a class (negatives, positives): overlaps are free
    within each class only. ValueError for a count outside 0 ... n.

    >>> reach = mcnemar_range([(280, 163, 328), (48, 56, 57)])
    >>> (reach.difference, reach.discordant_low, reach.discordant_high)
    (109, 125, 223)
    """
    low = high = difference = 0
    for right_a, right_b, n in margins:
        if not (0 <= right_a <= n and 0 <= right_b <= n):
            raise ValueError(
                f"Found {right_a} and {right_b} right of {n}, expected counts from 0 to {n}."
            )
        # most overlap: one model's right answers hold the other's; least: as few as n allows
        difference += right_a - right_b
        low += abs(right_a - right_b)
        high += right_a + right_b - 2 * max(0, right_a + right_b - n)
    exact, corrected = _p_values(np.arange(low, high + 1, 2), abs(difference))
    return Reach(
        correct_a=sum(m[0] for m in margins),
        correct_b=sum(m[1] for m in margins),
        n=sum(m[2] for m in margins),
        difference=difference,
        discordant_low=low,
        discordant_high=high,
        p_low=float(exact.min()),
        p_high=float(exact.max()),
        chi2_p_low=float(corrected.min()),
        chi2_p_high=float(corrected.max()),
    )


def _p_values(totals: np.ndarray, difference: int) -> tuple[np.ndarray, np.ndarray]:
    """Exact and corrected p for discordant totals (n,) and one difference; as `mcnemar_counts`."""
    exact = np.minimum(1.0, 2 * binom.cdf((totals - difference) // 2, totals, 0.5))
    statistic = max(difference - 1, 0) ** 2 / np.maximum(totals, 1)
    return exact, np.where(totals > 0, chi2.sf(statistic, 1), 1.0)


def mcnemar_reach() -> pd.DataFrame:
    """Ranges of McNemar's p that Table IV allows, fine-tuned against from scratch.

    Columns ``task reading``, the fields of `Reach`, ``p_printed``, the ``forms`` of the test that
    reach it, and whether that is ``possible``.
    """
    both = ("from_scratch", "fine_tuned")
    rows = []
    for task in TASKS:
        p_printed = in_text(f"McNemar p proposed vs scratch {task}")
        margins = _margins(task)
        (neg_a, neg_b, n_neg), positives = margins
        readings = {
            "as labelled": margins,
            "as labelled, five models pooled": _margins(task, copies=5),
            "as labelled, negatives only": margins[:1],
            "as labelled, positives only": margins[1:],
            "as labelled, calls without labels": [(n_neg - neg_a, n_neg - neg_b, n_neg), positives],
            "from scratch exchanged": _margins(task, exchanged=("from_scratch",)),
            "both exchanged": _margins(task, exchanged=both),
        }
        for reading, each in readings.items():
            reach = mcnemar_range(each)
            row = {"task": task, "reading": reading, **vars(reach), "p_printed": p_printed}
            forms = reach.forms(p_printed)
            rows.append(row | {"forms": forms, "possible": bool(forms)})
    return pd.DataFrame(rows)


def _margins(task: str, *, exchanged=(), copies: int = 1) -> list[tuple]:
    """Right answers of the fine-tuned and the from-scratch model, (right_a, right_b, n) a class.

    Negatives first. Rates of the methods in `exchanged` are exchanged; `copies` models are pooled.
    """
    rates, sizes = table4_rates(), set_sizes()[task]
    margins = []
    labels = (("specificity", "sensitivity"), ("sensitivity", "specificity"))
    for n, names in zip(sizes, labels, strict=True):
        rights = []
        for method in ("fine_tuned", "from_scratch"):
            rate = rates.loc[(task, method), names[method in exchanged]]
            rights.append(nearest_count(rate, copies * n))
        margins.append((*rights, copies * n))
    return margins
