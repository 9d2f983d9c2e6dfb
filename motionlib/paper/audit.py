"""The transcribed tables go in; what adds up in them and what does not, recomputed, comes out.

Nothing is asserted: every number below is computed from ``data_manifests/paper``. A verdict says
what a printed value can or cannot come from, never what is right.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import norm

from motionlib.paper.reachable import (
    counts_that_print,
    exchange_fits,
    largest_sd,
    mcnemar_range,
    mcnemar_reach,
    nearest_count,
    rate_fits,
    set_sizes,
    smallest_denominator,
    smallest_p_nearby,
    smallest_sd,
    table4_rates,
)
from motionlib.paper.transcription import in_text, printed, published_aucs
from motionlib.stats.paired import auc_difference_p, hanley_mcneil_se

SLACK = 1e-9
TABLE_NAMES = {"table_2": "Table II", "table_3": "Table III", "table_4": "Table IV"}
TABLE_NAMES["table_a3"] = "Table A.III"
COLUMNS = ["finding", "topic", "where", "printed", "recomputed", "verdict"]


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


def _severity(row: dict) -> str:
    """Name a row of Table II."""
    return f"{row['simulation']} [{row['rotation_min_deg']}, {row['rotation_max_deg']}]"


def balanced_accuracies() -> list[dict]:
    """Balanced accuracy against the mean of its two rates (findings 6 and 8)."""
    rows, triples = [], set()
    for name in ("table_2", "table_3", "table_4", "table_a3"):
        for row in printed(name).to_dict("records"):
            triple = tuple(row[key] for key in ("ba", "specificity", "sensitivity"))
            if not np.isfinite(triple).all():
                continue
            triples.add(triple)
            gap = (triple[1] + triple[2]) / 2 - triple[0]
            if abs(gap) < 0.0075 + SLACK:
                continue
            label = row.get("method") or row.get("architecture") or ""
            if "simulation" in row:
                label = (
                    f"{row['simulation']} [{row['rotation_min_deg']}, {row['rotation_max_deg']}]"
                )
            where = f"{TABLE_NAMES[name]}, {label} {row.get('task', '')}".rstrip()
            verdict = "differs by a last digit; fits if the rates were rounded before printing"
            if abs(gap) > 0.01 + SLACK:
                verdict = f"{triple[0]} cannot come from the two printed rates (off by {gap:+.3f})"
            finding = "6" if "0vs1" in where else "8"
            found = f"({triple[1]} + {triple[2]}) / 2 = {(triple[1] + triple[2]) / 2:.3f}"
            rows.append(
                finding_row(finding, "BA = mean of the rates", where, triple[0], found, verdict)
            )
    gaps = [abs((t[1] + t[2]) / 2 - t[0]) for t in triples]
    good = sum(gap <= 0.01 + SLACK for gap in gaps)
    found = f"{good} of {len(triples)} distinct triples agree within 0.01"
    where = "Tables II, III, IV, A.III"
    rows.insert(
        0, finding_row("-", "BA = mean of the rates", where, "all rows", found, "adds up, but")
    )
    return [*rows, _misprint()]


def _misprint() -> dict:
    """Show which number of the research-only mild row could be the odd one."""
    row = table4_rates().loc[("mov0vs1", "research_only")]
    needed = round(2 * row["ba"] - row["sensitivity"], 2)
    fits = rate_fits(needed, *set_sizes()["mov0vs1"])["exchanged"]
    pooled = rate_fits(row["specificity"], *set_sizes()["mov0vs1"])["pooled_exchanged"]
    found = f"BA needs {needed} = {fits}; {row['specificity']} = {pooled}, five models pooled"
    verdict = "one of the two cannot come from the other; which one is left open"
    where = "Table IV, research-only mov0vs1"
    return finding_row("6", "which one is misprinted", where, row["specificity"], found, verdict)


def standard_deviations() -> list[dict]:
    """SDs that are no percentage points and no fractions (finding 9)."""
    rows = []
    step = 100 / printed("table_a1").query("set == 'validation'")["total"].max()
    for name, kind in (("table_2", "simulation"), ("table_3", "architecture")):
        for row in printed(name).to_dict("records"):
            for metric in ("specificity", "sensitivity"):
                mean, sd = row[metric], row[f"{metric}_sd"]
                if not 0 < sd < 0.5:
                    continue
                most, least = largest_sd(mean), smallest_sd(step)
                label = row[kind]
                if kind == "simulation":
                    label = _severity(row)
                found = (
                    f"as points the least for steps of {step:.2f} is {least:.2f}; as a fraction it "
                    f"is {100 * sd:.0f} points, the most for five values <= 100 is {most:.2f}"
                )
                where = f"{TABLE_NAMES[name]}, {label}, {metric}"
                verdict, said = _sd_verdict(sd, least, most), f"{mean} ± {sd}"
                rows.append(finding_row("9", "standard deviation", where, said, found, verdict))
    return rows


def _sd_verdict(sd: float, least: float, most: float) -> str:
    """Say which readings of an SD are excluded."""
    as_points, as_fraction = sd >= least, 100 * sd <= most
    if not as_points and not as_fraction:
        return "cannot come from five folds of this size, in points or as a fraction"
    return "fits as a fraction only" if as_fraction else "fits as points only"


def denominators() -> list[dict]:
    """Percentages that no count out of 90 or 92 prints (finding 10)."""
    rows = []
    wanted = {
        "table_2": ["specificity", "sensitivity", "real_motion_accuracy"],
        "table_3": ["specificity", "sensitivity"],
        "table_a3": ["specificity", "sensitivity"],
    }
    seen = {}
    for name, columns in wanted.items():
        table = printed(name)
        for column in columns:
            for value in table.loc[table[column] < 100, column]:
                seen.setdefault(float(value), []).append(f"{TABLE_NAMES[name]} {column}")
    for value, where in sorted(seen.items()):
        sizes = (90, 92, 450, 460)
        fits = [f"{k}/{n} ({how})" for n in sizes for k, how in counts_that_print(value, n).items()]
        k, n = smallest_denominator(value)
        found = f"{', '.join(fits) or 'no k/90, k/92, k/450, k/460'}; smallest {k}/{n}"
        verdict = "can come from these set sizes" if fits else "cannot come from sets of 90 or 92"
        rows.append(
            finding_row("10", "denominator", "; ".join(sorted(set(where))), value, found, verdict)
        )
    return rows


def finding_row(finding, topic: str, where: str, said, recomputed, verdict: str) -> dict:
    """Make one row of the audit, all text.

    Parameters
    ----------
    finding : str
        Number of the finding; ``-`` where the numbers add up.
    topic, where : str
        What is looked at, and the section or table that prints it.
    said, recomputed : object
        The printed value and what the transcribed tables give.
    verdict : str
        What the printed value can or cannot come from.

    Returns
    -------
    dict
        The keys `COLUMNS`.
    """
    values = (finding, topic, where, said, recomputed, verdict)
    return dict(zip(COLUMNS, map(str, values), strict=True))
