"""The transcribed tables go in; what adds up in them and what does not, recomputed, comes out.

Nothing is asserted: every number below is computed from ``data_manifests/paper``. A verdict says
what a printed value can or cannot come from, never what is right.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import norm

from motionlib.paper.audit_clinical import clinical_findings
from motionlib.paper.audit_rates import balanced_accuracies, denominators, standard_deviations
from motionlib.paper.audit_table4 import table4_rates
from motionlib.paper.findings import COLUMNS, finding_row
from motionlib.paper.reachable import (
    counts_that_print,
    mcnemar_range,
    nearest_count,
    smallest_denominator,
)
from motionlib.paper.transcription import in_text, printed


def totals() -> list[dict]:
    """Recompute the sums that hold and the sizes that do not (findings 1 and 2)."""
    rows = []
    a1, a2, one = printed("table_a1"), printed("table_a2"), printed("table_1")
    columns = ["ADNI", "MSSEG", "MNI BITE"]
    sums = a1[columns].sum().tolist()
    said = one.set_index("database").loc[columns, "n_images"].tolist()
    rows.append(_same("Table A.I columns against Table I", "A.I, I", said, sums))
    grades = [f"consensus mov{g}" for g in (0, 1, 2)]
    said = [int(in_text(name)) for name in grades]
    by_label = a2.groupby("label")["mov01vs2"].sum().astype(int).tolist()
    rows.append(_same("Table A.II against the grades in the text", "A.II, III-A.2", said, by_label))
    labelled = in_text("images annotated in the warehouse")
    labelled = int(labelled - in_text("straight reject images (SR)"))
    rows.append(_same("graded = annotated - rejected", "III-A.2", sum(said), labelled))
    makers = [int(in_text(f"scanners {name}")) for name in ("Siemens", "GE", "Philips", "Toshiba")]
    images = int(in_text("images annotated in the warehouse"))
    rows.append(_same("scanners sum to the images", "III-A.2", images, sum(makers)))
    size = a1.groupby("set", sort=False)["total"].sum()
    test_text = int(in_text("independent synthetic test set (text)"))
    images = int(one.loc[one["database_group"] == "research", "n_images"].sum())
    cv = int(in_text("remaining images for CV"))
    said = f"{test_text} test images"
    found = f"{size['testing']} in Table A.I; {images} - {cv} = {images - cv}"
    also = (
        f"; {size['validation']} is the validation set" if size["validation"] == test_text else ""
    )
    verdict = f"{test_text} cannot come from Table A.I{also}"
    rows.append(finding_row("1", "size of the test set", "III-D.1, A.I", said, found, verdict))
    folds = int(in_text("CV folds"))
    found = f"{cv} / {folds} = {cv / folds:.0f} on average; the table has {size['validation']}"
    share = size["validation"] / cv
    verdict = f"a fold of {size['validation']} ({share:.1%}) cannot be the average of {folds} folds"
    said = f"{folds}-fold CV of {cv}"
    rows.append(finding_row("2", "size of a fold", "III-D.1, A.I", said, found, verdict))
    pairs = a1.groupby("set", sort=False)[columns].agg(list)
    equal = all(v[0] == v[1] for v in pairs.loc["training"])
    verdict = "a partition, half corrupted and half clean; no image can be in both classes"
    found = f"motion = no motion in training: {equal}; all rows sum to {int(a1['total'].sum())}"
    rows.append(
        finding_row("-", "corrupted and clean images", "A.I", f"{images} images", found, verdict)
    )
    return rows


def _same(topic, where, said, recomputed) -> dict:
    """Make a line for a sum that is expected to hold."""
    verdict = "adds up" if said == recomputed else "cannot come from these parts"
    return finding_row("-", topic, where, said, recomputed, verdict)


def demographics() -> list[dict]:
    """Images per subject, sex percentages, the age SD (findings 3, 4, 15)."""
    table = printed("table_1").set_index("database")
    rows = []
    adni = table.loc["ADNI"]
    each = adni["n_images"] / adni["n_patients"]
    fits = [f"{k}/{n}" for n in (70, 700) for k in counts_that_print(adni["sex_f_pct"], n)]
    said = f"{adni['n_images']} images, {adni['n_patients']} subjects, {adni['sex_f_pct']} % F"
    found = f"{each:.1f} images a subject ({adni['n_images'] / 700:.1f} if 700); {' = '.join(fits)}"
    verdict = "cannot come from one T1w a visit unless visits are many; 700 subjects fit; open"
    rows.append(finding_row("3", "ADNI images per subject", "Table I", said, found, verdict))
    for name in ("MSSEG", "MNI BITE", "AP-HP"):
        n, percent = int(table.loc[name, "n_patients"]), float(table.loc[name, "sex_f_pct"])
        rows.append(_sex(name, n, percent))
    aphp = table.loc["AP-HP"]
    reach = [(aphp[end] - aphp["age_mean"]) / aphp["age_sd"] for end in ("age_min", "age_max")]
    usual = norm.ppf(1 - 1 / aphp["n_patients"])
    said = f"{aphp['age_mean']} ± {aphp['age_sd']} [{aphp['age_min']}, {aphp['age_max']}]"
    found = f"range = {reach[0]:.1f} to +{reach[1]:.1f} SD; a normal sample this size: ±{usual:.1f}"
    verdict = "strikingly small SD for this range; not resolvable from the table"
    rows.append(finding_row("15", "spread of age, AP-HP", "Table I", said, found, verdict))
    return rows


def _sex(name: str, n: int, percent: float) -> dict:
    """Whether a percentage of women can come from the number of patients."""
    fits = counts_that_print(percent, n)
    near = nearest_count(percent, n)
    found = ", ".join(f"{k}/{n} = {100 * k / n:.4f} ({how})" for k, how in fits.items())
    verdict = "fits" if any("R" in how for how in fits.values()) else "fits only if truncated"
    if not fits:
        k, other = smallest_denominator(percent)
        found = f"{near}/{n} = {100 * near / n:.2f}; {k}/{other} = {100 * k / other:.2f}"
        verdict = f"cannot come from {n} patients; {k} of {other} would fit"
    return finding_row(
        "4", f"percentage of women, {name}", "Table I", f"{percent} %", found, verdict
    )


def claims() -> list[dict]:
    """Sentences against tables (findings 11, 12, 14, 16)."""
    rows = []
    two, four = printed("table_2"), table4_rates()
    below = sorted(two.loc[two["ba"] < 98, "ba"], reverse=True)
    verdict = f"cannot come from all rows of Table II: {len(below)} of {len(two)} are below"
    rows.append(finding_row("11", "claim", "V, II", "BA over 98 % for both", below, verdict))
    ba = four["ba"]
    for task, said, rival in (
        ("mov0vs1", "almost 5 points", "from_scratch"),
        ("mov01vs2", "10 points", "from_scratch"),
        ("mov01vs2", "23 points", "forest_clinical"),
        ("mov0vs1", "8 points", "forest_clinical"),
    ):
        gain = ba[task, "fine_tuned"] - ba[task, rival]
        fits = abs(gain - float("".join(c for c in said if c.isdigit()))) < 1
        found = f"{ba[task, 'fine_tuned']} - {ba[task, rival]} = {gain:.2f}"
        verdict = "fits" if fits else f"cannot come from Table IV ({gain:.2f})"
        topic = f"gain over {rival.replace('_', ' ')}, {task}"
        rows.append(
            finding_row("11" if not fits else "-", topic, "IV-B, V, IV", said, found, verdict)
        )
    three, best = printed("table_3"), printed("table_a3")
    found = f"{three['ba'].tolist()} are means over folds, {best['ba'].tolist()} best folds"
    verdict = "cannot be compared: the best of five exceeds their mean by construction"
    rows.append(
        finding_row("12", "Table III beside A.III", "III, A.III", "same conclusion", found, verdict)
    )
    research = four.loc[("mov01vs2", "research_only")]
    said = f"real-motion accuracy {sorted(set(two['real_motion_accuracy']))}"
    found = "positives only: a constant answer gets 100; on the warehouse the same network's "
    found += f"specificity is {research['specificity']}"
    verdict = "no specificity can come from a set without negatives"
    rows.append(finding_row("14", "real-motion test", "Table II", said, found, verdict))
    return [*rows, *_architectures()]


def _architectures() -> list[dict]:
    """Find the smallest p that differences at the ceiling can reach (finding 16)."""
    table, sizes = printed("table_3").set_index("architecture"), printed("table_a1")
    sizes = sizes[sizes["set"] == "testing"].set_index("label")["total"]
    rights = {
        name: [
            nearest_count(row["specificity"], sizes["no motion"]),
            nearest_count(row["sensitivity"], sizes["motion"]),
        ]
        for name, row in table.iterrows()
    }
    names, best = list(rights), 1.0
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            n = sizes[["no motion", "motion"]]
            margins = list(zip(rights[first], rights[second], n, strict=True))
            best = min(best, mcnemar_range(margins).p_low)
    wrong = {name: int(sizes.sum() - sum(right)) for name, right in rights.items()}
    errors = ", ".join(f"{name} {count}" for name, count in wrong.items())
    found = f"errors of {sizes.sum()}: {errors}; smallest exact p of any pair {best:.3f}"
    verdict = "a small p cannot come from so few misses, so 'not different' proves little"
    return [
        finding_row(
            "16", "McNemar between architectures", "V, Table III", "p > 0.05", found, verdict
        )
    ]


def paper_audit() -> pd.DataFrame:
    """Recompute every finding about the printed numbers.

    Returns
    -------
    DataFrame
        ``finding topic where printed recomputed verdict``, all text; ``finding`` is ``-`` where
        the numbers add up.

    Notes
    -----
    Source: paper Tables I-IV, A.I-A.III and the numbers in the text, as transcribed.
    """
    rows = [
        *totals(),
        *demographics(),
        *clinical_findings(),
        *balanced_accuracies(),
        *standard_deviations(),
        *denominators(),
        *claims(),
    ]
    table = pd.DataFrame(rows, columns=COLUMNS)
    order = pd.to_numeric(table["finding"].replace("-", "0"), errors="coerce").fillna(np.inf)
    return table.iloc[np.argsort(order, kind="stable")].reset_index(drop=True)
