"""What Table IV allows goes in; findings about the warehouse results come out as rows of the audit.

The integer fits favour an exchange of the two rates, the printed severe p-value the labels: both
clues are shown and the question stays open.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from motionlib.paper.audit_table4 import (
    exchange_fits,
    mcnemar_reach,
    set_sizes,
    smallest_p_nearby,
    table4_rates,
)
from motionlib.paper.findings import finding_row
from motionlib.paper.reachable import counts_that_print
from motionlib.paper.transcription import in_text, printed, published_aucs
from motionlib.stats.power import auc_difference_p, hanley_mcneil_se


def clinical_findings() -> list[dict]:
    """All findings about Table IV: fits, rounding, McNemar, precision, annotators."""
    return [
        *_exchange(),
        *_rounding(),
        *_forest(),
        *_mcnemar(),
        *_precision(),
        *_annotators(),
    ]


def _exchange() -> list[dict]:
    """Which class each rate's denominator is (finding 5)."""
    rows = []
    for row in exchange_fits().to_dict("records"):
        negatives, positives = set_sizes()[row["task"]]
        found = "; ".join(
            f"{name.replace('_', ' ')} {row[name]}"
            for name in ("labelled", "exchanged", "pooled", "pooled_exchanged")
            if row[name]
        )
        own = negatives if row["rate"] == "specificity" else positives
        if row["labelled"] and row["exchanged"]:
            verdict = "fits either way"
        elif row["labelled"]:
            verdict = "fits as labelled"
        elif row["exchanged"]:
            verdict = f"cannot come from {own} scans; fits only if the rates are exchanged"
        else:
            verdict = f"cannot come from {own} scans of one model, nor if exchanged; open"
        where = f"Table IV, {row['method'].replace('_', ' ')} {row['task']}"
        found = found or f"no k/{negatives}, k/{positives}, nor five times these"
        rows.append(finding_row("5", row["rate"], where, row["printed"], found, verdict))
    return rows


def _rounding() -> list[dict]:
    """Rates that are truncated stand beside rates that are rounded (finding 7)."""
    fits = exchange_fits()
    kinds = {"truncated": [], "rounded": []}
    for row in fits.to_dict("records"):
        text = row["labelled"] or row["exchanged"]
        if text.endswith("(T)"):
            kinds["truncated"].append(row["printed"])
        elif text.endswith("(R)"):
            kinds["rounded"].append(row["printed"])
    aphp = printed("table_1").set_index("database").loc["AP-HP"]
    if "T" in counts_that_print(aphp["sex_f_pct"], int(aphp["n_patients"])).values():
        kinds["truncated"].append(float(aphp["sex_f_pct"]))
    said = f"truncated only: {kinds['truncated']}"
    found = f"rounded only: {kinds['rounded']}"
    verdict = "cannot come from one rounding rule"
    return [finding_row("7", "rounding", "Tables I, IV", said, found, verdict)]


def _forest() -> list[dict]:
    """Estimate what another threshold could give the forest (finding 17; binormal model)."""
    rows = []
    for task in set_sizes():
        rate = table4_rates().loc[(task, "forest_clinical")] / 100
        apart = norm.ppf(rate["sensitivity"]) + norm.ppf(rate["specificity"])
        found = (
            f"equal-variance binormal curve through this point: AUC "
            f"{norm.cdf(apart / 2**0.5):.2f}, best BA {norm.cdf(apart / 2):.1%}"
        )
        said = f"BA {rate['ba']:.2%} at specificity {rate['specificity']:.2%}"
        verdict = "an untuned threshold may explain part of the gap; a model assumption, not a fact"
        where = f"Table IV, forest on the warehouse {task}"
        rows.append(finding_row("17", "operating point", where, said, found, verdict))
    return rows


def _mcnemar() -> list[dict]:
    """Set the printed p-values beside what Table IV allows (section 4)."""
    rows = []
    for row in mcnemar_reach().to_dict("records"):
        found = (
            f"right {row['correct_a']} / {row['correct_b']} of {row['n']}, b - c = "
            f"{row['difference']}, b + c = {row['discordant_low']}-{row['discordant_high']}: "
            f"exact p {row['p_low']:.1e} to {row['p_high']:.1e}, corrected "
            f"{row['chi2_p_low']:.1e} to {row['chi2_p_high']:.1e}"
        )
        verdict = "can come from a table with these margins"
        if row["forms"] == "corrected":
            verdict += ", by the corrected chi-square only"
        if not row["possible"]:
            verdict = "cannot come from a table with these margins"
        where = f"V, Table IV, {row['task']}"
        topic = f"McNemar, {row['reading']}"
        rows.append(finding_row("McNemar", topic, where, row["p_printed"], found, verdict))
    nearest = smallest_p_nearby("mov0vs1")
    verdict = "cannot come from counts within 2 of Table IV's"
    found = f"smallest p, every count moved by up to 2: {nearest:.1e}"
    said = rows[-1]["printed"]
    rows.append(
        finding_row("McNemar", "counts moved by 2", "V, Table IV, mov0vs1", said, found, verdict)
    )
    return rows


def half_width(specificity: float, sensitivity: float, negatives: int, positives: int) -> float:
    """Half of a 95 % normal interval of a balanced accuracy, independent scans, fractions."""
    variance = specificity * (1 - specificity) / negatives
    variance += sensitivity * (1 - sensitivity) / positives
    return float(norm.ppf(0.975) * np.sqrt(variance) / 2)


def _precision() -> list[dict]:
    """How well Table IV's numbers are known (section 4.5)."""
    rows = []
    for task, (negatives, positives) in set_sizes().items():
        widths = []
        for method in ("fine_tuned", "from_scratch", "forest_clinical"):
            rate = table4_rates().loc[(task, method)]
            half = 100 * half_width(
                rate["specificity"] / 100, rate["sensitivity"] / 100, negatives, positives
            )
            widths.append(f"{method.replace('_', ' ')} {rate['ba']} ± {half:.1f}")
        where = f"Table IV, {task}"
        verdict = "printed without intervals; scans of one patient would widen them"
        rows.append(finding_row("precision", "BA, 95 %", where, "-", "; ".join(widths), verdict))
        areas = [published_aucs()[task, method] for method in ("fine_tuned", "from_scratch")]
        errors = [hanley_mcneil_se(area, positives, negatives) for area in areas]
        ps = {r: auc_difference_p(*areas, positives, negatives, r) for r in (0, 0.5, 0.7, 0.9)}
        found = f"SE {errors[0]:.3f} / {errors[1]:.3f}; p = " + ", ".join(
            f"{p:.2g} (r = {r})" for r, p in ps.items()
        )
        verdict = "a small p can come only from very correlated scores"
        rows.append(
            finding_row(
                "precision",
                "AUC gain",
                f"IV-B, {task}",
                f"{areas[0]} vs {areas[1]}",
                found,
                verdict,
            )
        )
    return rows


def _annotators() -> list[dict]:
    """Show what a consensus by maximum implies for the raters (section 5)."""
    rows = []
    for task in set_sizes():
        ba = table4_rates().loc[(task, "annotators"), "ba"]
        sensitivity = 2 * ba / 100 - 1
        agree = 2 * sensitivity - 1
        found = (
            f"floor 75; mean sensitivity {sensitivity:.1%}, both agree on {agree:.0%} of positives"
        )
        verdict = "can come from a consensus by maximum"
        if ba < 75:
            found = f"floor 75, one rater at the maximum each; {ba} needs agreement on {agree:.0%}"
            verdict = "cannot come from two raters and a consensus that is their maximum"
        where = f"Table IV, annotators {task}"
        rows.append(
            finding_row("annotators", "BA against the consensus", where, ba, found, verdict)
        )
    for weights in ("linear", "quadratic"):
        low, high = implied_mild_ba(weights)
        kappa = in_text("weighted Cohen kappa between annotators")
        ba = table4_rates().loc[("mov0vs1", "annotators"), "ba"]
        widest = implied_mild_ba(weights, most_none=1.0)[1]
        found = (
            f"mild BA {100 * low:.1f} to {100 * high:.1f} if at most a quarter of the severe "
            f"disagreements are 2 against 0 (up to {100 * widest:.1f} for any share)"
        )
        verdict = f"{ba} cannot come from {weights} weights under this model"
        where = "III-A.2, Table IV"
        topic = f"kappa {kappa}, {weights} weights"
        rows.append(finding_row("annotators", topic, where, ba, found, verdict))
    return rows


def implied_mild_ba(weights: str, *, most_none: float = 0.25) -> tuple[float, float]:
    """Mild balanced accuracy that the printed kappa implies, smallest and largest.

    Parameters
    ----------
    weights : {'linear', 'quadratic'}
        Weights of the kappa, which the paper does not state.
    most_none : float, default=0.25
        Largest share of the severe disagreements in which the second grade is 0, not 1.

    Returns
    -------
    tuple of float
        Fractions, over every share from 0 to `most_none`.

    Notes
    -----
    Assumes symmetric raters, the consensus counts of the whole warehouse and the severe agreement
    that the printed annotators' BA implies.
    """
    counts = [in_text(f"consensus mov{grade}") for grade in (0, 1, 2)]
    severe = table4_rates().loc[("mov01vs2", "annotators"), "ba"] / 100
    agree_severe = 4 * severe - 3
    kappa = in_text("weighted Cohen kappa between annotators")

    def gap(agree_mild: float, share_none: float) -> float:
        off_severe = counts[2] * (1 - agree_severe) / 2
        off_mild = counts[1] * (1 - agree_mild) / 2
        table = np.diag([counts[0], counts[1] * agree_mild, counts[2] * agree_severe])
        table += _symmetric(0, 1, off_mild)
        table += _symmetric(1, 2, off_severe * (1 - share_none))
        table += _symmetric(0, 2, off_severe * share_none)
        return _kappa(table, weights) - kappa

    found = []
    for share in np.linspace(0, most_none, 51):
        if gap(0, share) < 0 < gap(1, share):
            agree = brentq(gap, 0, 1, args=(share,))
            found.append((3 + agree) / 4)
    return min(found), max(found)


def _symmetric(i: int, j: int, value: float) -> np.ndarray:
    """Make a 3 x 3 table with a value at (i, j) and (j, i)."""
    table = np.zeros((3, 3))
    table[i, j] = table[j, i] = value
    return table


def _kappa(table: np.ndarray, weights: str) -> float:
    """Weighted kappa of a table of expected counts, which need not be integers."""
    distance = np.abs(np.subtract.outer(np.arange(3), np.arange(3)))
    penalty = distance if weights == "linear" else distance**2
    chance = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    return float(1 - (penalty * table).sum() / (penalty * chance).sum())
