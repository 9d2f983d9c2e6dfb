"""Paired tests of two models on the same scans: McNemar, DeLong, their power.

McNemar's test (1947) asks whether two models are right equally often. It compares accuracies, not
balanced accuracies, and takes scans for independent; `mcnemar_by_patient` does not do the second,
`intervals.bootstrap_difference` neither.
DeLong, DeLong and Clarke-Pearson (1988) compare two areas under the curve, here with Obuchowski's
(1997) covariance for scans of one patient.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats as sps

from motionlib.predictions import check_labels
from motionlib.stats.intervals import LEVEL

ALPHA, POWER = 0.05, 0.8  # two-sided level, and wanted share of studies below it


@dataclass(frozen=True)
class McNemar:
    """Result of McNemar's test on n scans.

    `b` counts the scans that only A, `c` those that only B gets right, beside `both_right` and
    `both_wrong`. `statistic` is min(b, c), whose exact binomial distribution gives the two-sided
    `p_value`; `chi2` is ``max(|b - c| - 1, 0)**2 / (b + c)`` and `p_corrected` its p (0 and 1
    without discordant pairs); `difference` is the accuracy of A minus that of B.
    """

    both_right: int
    b: int
    c: int
    both_wrong: int
    n: int
    statistic: float
    p_value: float
    chi2: float
    p_corrected: float
    difference: float


def mcnemar_counts(b: int, c: int) -> tuple[float, float, float]:
    """Exact p, corrected chi-square and its p, from the scans that only one of two got right."""
    if b + c == 0:
        return 1.0, 0.0, 1.0
    p_exact = min(1.0, 2 * float(sps.binom.cdf(min(b, c), b + c, 0.5)))
    chi2 = max(abs(b - c) - 1, 0) ** 2 / (b + c)
    return p_exact, chi2, float(sps.chi2.sf(chi2, 1))


def mcnemar(y_true, pred_a, pred_b) -> McNemar:
    """Ask whether two models are right equally often on the same scans.

    Parameters
    ----------
    y_true, pred_a, pred_b : array-like of 0 and 1, shape (n,)
        Truth and both models' decisions, in the same order of scans.

    Returns
    -------
    McNemar
        Defined also when the models never disagree (p = 1).

    Raises
    ------
    ValueError
        Unequal lengths, or values other than 0 and 1.

    Notes
    -----
    Source: paper §V (p-values). The exact form is the binomial tail, also used by statsmodels.
    Departs from the paper: which form it used, and on which model's predictions, is not stated.
    """
    arrays = [check_labels(x, both_classes=False)[0] for x in (y_true, pred_a, pred_b)]
    if len({array.size for array in arrays}) != 1:
        sizes = " and ".join(str(array.size) for array in arrays)
        raise ValueError(
            f"Found {sizes} labels and decisions, expected equal numbers: pair the two models' "
            "predictions by scan_id first."
        )
    right_a, right_b = arrays[1] == arrays[0], arrays[2] == arrays[0]
    b, c = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    p_exact, chi2, p_corrected = mcnemar_counts(b, c)
    n = arrays[0].size
    return McNemar(
        both_right=int((right_a & right_b).sum()),
        b=b,
        c=c,
        both_wrong=int((~right_a & ~right_b).sum()),
        n=n,
        statistic=float(min(b, c)),
        p_value=p_exact,
        chi2=chi2,
        p_corrected=p_corrected,
        difference=(b - c) / n,
    )


def mcnemar_by_patient(y_true, pred_a, pred_b, groups) -> float:
    """Two-sided exact p of McNemar's question where scans of one patient go together.

    If the models are equally good, a patient's net count (scans that only A got right, less those
    that only B did) has either sign with equal chance, whatever ties his scans together. The sum
    over patients has an exact distribution; with one scan a patient it is the binomial one.

    Arguments as for `mcnemar`, and `groups` (n,), the patient of each scan.
    """
    y_true, _ = check_labels(y_true, both_classes=False)
    right_a, right_b = np.asarray(pred_a) == y_true, np.asarray(pred_b) == y_true
    net = pd.Series(right_a.astype(int) - right_b).groupby(np.asarray(groups)).sum()
    ways = np.ones(1)  # chances of the sums -reach, ..., reach
    for size in net[net != 0].abs():
        ways = 0.5 * (np.pad(ways, (2 * size, 0)) + np.pad(ways, (0, 2 * size)))
    sums = np.arange(ways.size) - ways.size // 2
    return min(1.0, float(ways[np.abs(sums) >= abs(net.sum())].sum()))


def holm(p_values) -> np.ndarray:
    """Correct p-values (n,) by Holm's step-down method; NaN stay NaN and are not counted."""
    from statsmodels.stats.multitest import multipletests  # a second that only tables need

    p_values = np.asarray(p_values, dtype=float)
    corrected = np.full(p_values.shape, np.nan)
    known = np.isfinite(p_values)
    if known.any():
        corrected[known] = multipletests(p_values[known], method="holm")[1]
    return corrected


def mcnemar_by_class(y_true, pred_a, pred_b) -> pd.DataFrame:
    """Run McNemar on all scans, on those with motion (sensitivity) and without (specificity).

    Arguments as for `mcnemar`. Returns rows ``all positives negatives`` with the fields of
    `McNemar` and ``p_holm`` (the two classes are corrected for each other; ``all`` stands alone).
    """
    y_true, _ = check_labels(y_true, both_classes=False)
    pred_a, pred_b = np.asarray(pred_a), np.asarray(pred_b)
    rows = []
    sets = {"all": y_true >= 0, "positives": y_true == 1, "negatives": y_true == 0}
    for name, chosen in sets.items():
        if chosen.any():
            result = mcnemar(y_true[chosen], pred_a[chosen], pred_b[chosen])
            rows.append({"scans": name, **vars(result)})
    table = pd.DataFrame(rows)
    classes = table["scans"] != "all"
    table["p_holm"] = table["p_value"]
    table.loc[classes, "p_holm"] = holm(table.loc[classes, "p_value"])
    return table


@dataclass(frozen=True)
class DeLong:
    """DeLong's comparison of two AUCs on the same scans; `difference` is A minus B.

    `se`, `low` and `high` are the standard error of the difference and its normal 95 % interval;
    `p_value` is two-sided, 1 where the two scores rank the scans alike.
    """

    auc_a: float
    auc_b: float
    difference: float
    se: float
    low: float
    high: float
    se_a: float
    se_b: float
    p_value: float


def delong(y_true, score_a, score_b, groups=None) -> DeLong:
    """Compare two AUCs measured on the same scans: areas, difference, its standard error and p.

    Parameters
    ----------
    y_true : array-like of 0 and 1, shape (n,)
        1 is motion; at least two scans of each class.
    score_a, score_b : array-like, shape (n,)
        Both models' probabilities of motion.
    groups : array-like, shape (n,), optional
        Patient of each scan; scans of one patient are then not counted as independent
        (Obuchowski 1997). Without it, DeLong, DeLong and Clarke-Pearson (1988).

    Raises
    ------
    ValueError
        One class only, fewer than two scans of a class, unequal lengths.
    """
    y_true, score_a = check_labels(y_true, score_a)
    _, score_b = check_labels(y_true, score_b)
    if min((y_true == 1).sum(), (y_true == 0).sum()) < 2:
        raise ValueError(
            f"Found {int(y_true.sum())} positives and {int((y_true == 0).sum())} negatives, "
            "expected at least two of each: a variance needs two."
        )
    groups = np.arange(y_true.size) if groups is None else groups
    components = [_placements(y_true, score) for score in (score_a, score_b)]
    covariance = _covariance(y_true, components, groups)
    auc_a, auc_b = components[0][2], components[1][2]
    difference = auc_a - auc_b
    variance = max(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1], 0.0)
    se = float(np.sqrt(variance)) if variance > 1e-15 else 0.0
    z = difference / se if se else 0.0
    se_a, se_b = (float(np.sqrt(max(covariance[i, i], 0.0))) for i in (0, 1))
    half = float(sps.norm.ppf((1 + LEVEL) / 2)) * se
    return DeLong(
        auc_a=auc_a,
        auc_b=auc_b,
        difference=difference,
        se=se,
        low=difference - half,
        high=difference + half,
        se_a=se_a,
        se_b=se_b,
        p_value=2 * float(sps.norm.sf(abs(z))) if se else float(difference == 0),
    )


def _placements(y_true: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """DeLong's structural components by midranks: (n_positive,), (n_negative,), AUC."""
    positive, negative = score[y_true == 1], score[y_true == 0]
    ranks = sps.rankdata(np.concatenate([positive, negative]))
    m, n = positive.size, negative.size
    # share of negatives below each positive, and of positives above each negative
    v10 = (ranks[:m] - sps.rankdata(positive)) / n
    v01 = 1 - (ranks[m:] - sps.rankdata(negative)) / m
    return v10, v01, float(v10.mean())


def _covariance(y_true, components, groups) -> np.ndarray:
    """Covariance (2, 2) of the areas, summing the components within patients (Obuchowski)."""
    m, n = int((y_true == 1).sum()), int((y_true == 0).sum())
    code, names = pd.factorize(np.asarray(groups))
    n_groups = len(names)
    # sum of each patient's centred components, by class: (2 models, n_groups)
    sums = []
    for label, which in ((1, 0), (0, 1)):
        rows = code[y_true == label]
        centred = [c[which] - c[2] for c in components]
        sums.append(np.stack([np.bincount(rows, x, minlength=n_groups) for x in centred]))
    # variance among positives, among negatives, and what patients with both have in common
    holds = [len(np.unique(code[y_true == label])) for label in (1, 0)]
    within = [k / (k - 1) if k > 1 else np.nan for k in holds]
    across = n_groups / (n_groups - 1) * (sums[0] @ sums[1].T)
    own = within[0] * (sums[0] @ sums[0].T) / m**2 + within[1] * (sums[1] @ sums[1].T) / n**2
    return own + (across + across.T) / (m * n)


def power_mcnemar(rate_b: float, rate_c: float, n: int) -> float:
    """Exact power of the exact McNemar test with n scans, at the two-sided level 0.05.

    `rate_b` and `rate_c` are the fractions of scans that only A, or only B, gets right.
    """
    total = rate_b + rate_c
    if min(rate_b, rate_c) < 0 or total > 1:
        raise ValueError(
            f"Found rates {rate_b:g} and {rate_c:g}, expected two fractions that sum to at most "
            "1: divide the discordant counts by the number of scans."
        )
    if total == 0:
        return 0.0
    # every number of discordant scans that can be met, and the largest min(b, c) that is
    # significant for it
    low, high = (int(x) for x in sps.binom.ppf([1e-9, 1 - 1e-9], n, total))
    discordant = np.arange(max(low, 1), high + 1)
    critical = sps.binom.ppf(ALPHA / 2, discordant, 0.5).astype(int)
    critical -= sps.binom.cdf(critical, discordant, 0.5) > ALPHA / 2
    # probability that b or c falls so low, weighted by how likely the number is
    share = rate_b / total
    reject = sps.binom.cdf(critical, discordant, share)
    reject += sps.binom.sf(discordant - critical - 1, discordant, share)
    return float((sps.binom.pmf(discordant, n, total) * np.minimum(reject, 1)).sum())


def scans_needed(rate_b: float, rate_c: float, *, limit: int = 200_000) -> int:
    """Find how many scans would show this difference in four of five studies.

    The smallest number from which on (to the resolution of bisection) the exact McNemar test at the
    two-sided level 0.05 has a power of 0.8; rates as for `power_mcnemar`. ValueError for equal
    rates, or more than `limit` scans.
    """
    if rate_b == rate_c:
        raise ValueError(
            f"Found equal rates {rate_b:g}, expected a difference: no number of scans shows none."
        )
    low, high = 4, 8
    while power_mcnemar(rate_b, rate_c, high) < POWER:
        low, high = high, high * 2
        if low > limit:
            raise ValueError(
                f"Found no power of {POWER:g} with {limit} scans for rates {rate_b:g} and "
                f"{rate_c:g}, expected a larger difference: raise the limit if you mean it."
            )
    while high - low > 1:
        middle = (low + high) // 2
        if power_mcnemar(rate_b, rate_c, middle) < POWER:
            low = middle
        else:
            high = middle
    return high


def hanley_mcneil_se(auc: float, n_positive: int, n_negative: int) -> float:
    """Compute the standard error of an AUC from its value and counts (Hanley, McNeil 1982)."""
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (n_positive - 1) * (q1 - auc**2) + (n_negative - 1) * (q2 - auc**2)
    return float(np.sqrt(variance / (n_positive * n_negative)))


def auc_difference_p(
    auc_a: float, auc_b: float, n_positive: int, n_negative: int, correlation: float
) -> float:
    """Two-sided normal p of a difference between two printed AUCs, by `hanley_mcneil_se`.

    The `correlation` of the two is assumed: 0 for independent scans, up to 0.9 for like models.
    """
    se_a, se_b = (hanley_mcneil_se(area, n_positive, n_negative) for area in (auc_a, auc_b))
    se = np.sqrt(se_a**2 + se_b**2 - 2 * correlation * se_a * se_b)
    return 2 * float(sps.norm.sf(abs(auc_a - auc_b) / se))
