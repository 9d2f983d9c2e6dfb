"""The transcribed Table IV goes in; which counts, p-values and raters it allows comes out.

Two readings stand side by side: the rates as labelled, and specificity exchanged with sensitivity.
The integer fits favour the exchange, the printed severe p-value the labels; it stays open.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import chi2

from motionlib.paper.reachable import counts_that_print, mcnemar_range, nearest_count
from motionlib.paper.transcription import METHODS, printed

PRINTED_P = {"mov01vs2": 6.60e-17, "mov0vs1": 1.39e-8}  # §V


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


def rate_fits(percent: float, n_own: int, n_other: int) -> dict[str, str]:
    """Find the counts that print as a rate: of its own class, the other, or five models pooled.

    Parameters
    ----------
    percent : float
        As printed.
    n_own, n_other : int
        Scans of the class the rate is labelled with, and of the other.

    Returns
    -------
    dict
        ``labelled exchanged pooled pooled_exchanged`` to text such as ``19/57 (RT)``, or ''.
    """
    sizes = {"labelled": n_own, "exchanged": n_other}
    sizes |= {"pooled": 5 * n_own, "pooled_exchanged": 5 * n_other}
    return {
        name: ", ".join(f"{k}/{n} ({how})" for k, how in counts_that_print(percent, n).items())
        for name, n in sizes.items()
    }


def exchange_fits() -> pd.DataFrame:
    """Integer fits of every rate of Table IV (finding 5).

    Returns
    -------
    DataFrame
        ``task method rate printed labelled exchanged pooled pooled_exchanged``.
    """
    rows = []
    for (task, method), row in table4_rates().iterrows():
        negatives, positives = set_sizes()[task]
        sizes = {"specificity": (negatives, positives), "sensitivity": (positives, negatives)}
        for rate, (own, other) in sizes.items():
            if pd.notna(row[rate]):
                fits = rate_fits(row[rate], own, other)
                found = {"task": task, "method": method, "rate": rate, "printed": row[rate]}
                rows.append(found | fits)
    return pd.DataFrame(rows)


def margins_of(task: str, *, exchanged=(), copies: int = 1) -> list[tuple]:
    """Right answers of the fine-tuned and the from-scratch model, by class.

    Parameters
    ----------
    task : {'mov01vs2', 'mov0vs1'}
        Which half of Table IV.
    exchanged : collection of str
        Methods whose two rates are exchanged.
    copies : int, default=1
        Models pooled.

    Returns
    -------
    list of tuple
        ``(right_a, right_b, n)`` for negatives, then positives.
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


def called_margins(margins) -> list[tuple]:
    """Turn right answers into calls of motion: the label-free comparison of two models."""
    (neg_a, neg_b, n_neg), positives = margins
    return [(n_neg - neg_a, n_neg - neg_b, n_neg), positives]


def mcnemar_reach() -> pd.DataFrame:
    """Ranges of McNemar's p that Table IV allows, under every reading (section 4 of the audit).

    Returns
    -------
    DataFrame
        ``task reading`` and the fields of `Reach`; ``p_printed``, the ``forms`` of the test that
        reach it, ``possible``.
    """
    both = ("from_scratch", "fine_tuned")
    rows = []
    for task, p_printed in PRINTED_P.items():
        margins = margins_of(task)
        readings = {
            "as labelled": margins,
            "as labelled, five models pooled": margins_of(task, copies=5),
            "as labelled, negatives only": margins[:1],
            "as labelled, positives only": margins[1:],
            "as labelled, calls without labels": called_margins(margins),
            "from scratch exchanged": margins_of(task, exchanged=("from_scratch",)),
            "both exchanged": margins_of(task, exchanged=both),
        }
        for reading, each in readings.items():
            reach = mcnemar_range(each)
            row = {"task": task, "reading": reading, **vars(reach), "p_printed": p_printed}
            forms = reach.forms(p_printed)
            rows.append(row | {"forms": forms, "possible": bool(forms)})
    return pd.DataFrame(rows)


def smallest_p_nearby(task: str, width: int = 2) -> float:
    """Smallest p, exact or chi-square without correction, with every count moved by up to `width`.

    Parameters
    ----------
    task : str
        Which half of Table IV.
    width : int, default=2
        Largest change of each of the four counts.

    Returns
    -------
    float
        Over all changes and all overlaps.
    """
    best, margins = 1.0, margins_of(task)
    changes = range(-width, width + 1)
    for shift in np.stack(np.meshgrid(*[changes] * 4), axis=-1).reshape(-1, 4):
        moved = [
            (*(int(np.clip(right + by, 0, n)) for right, by in zip(rights, change, strict=True)), n)
            for (*rights, n), change in zip(margins, shift.reshape(2, 2), strict=True)
        ]
        reach = mcnemar_range(moved)
        plain = chi2.sf(reach.difference**2 / max(reach.discordant_low, 1), 1)
        best = min(best, reach.p_low, float(plain))
    return best
