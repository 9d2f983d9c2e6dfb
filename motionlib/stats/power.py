"""Rates of disagreement go in; the power of a paired test and the scans it needs come out."""

from __future__ import annotations

import numpy as np
from scipy import stats as sps


def power_mcnemar(rate_b: float, rate_c: float, n: int, *, alpha: float = 0.05) -> float:
    """Exact power of the exact McNemar test.

    Parameters
    ----------
    rate_b, rate_c : float
        Fraction of scans that only A, or only B, gets right.
    n : int
        Scans.
    alpha : float, default=0.05
        Two-sided level.

    Returns
    -------
    float
        Probability that the test comes out below `alpha`.

    Raises
    ------
    ValueError
        Rates below 0 or above 1 in sum.
    """
    total = rate_b + rate_c
    if min(rate_b, rate_c) < 0 or total > 1:
        raise ValueError(
            f"Found rates {rate_b:g} and {rate_c:g}, expected two fractions that sum to at most "
            "1: divide the discordant counts by the number of scans."
        )
    if total == 0:
        return 0.0
    low, high = (int(x) for x in sps.binom.ppf([1e-9, 1 - 1e-9], n, total))
    discordant = np.arange(max(low, 1), high + 1)
    critical = sps.binom.ppf(alpha / 2, discordant, 0.5).astype(int)
    critical -= sps.binom.cdf(critical, discordant, 0.5) > alpha / 2
    share = rate_b / total
    reject = sps.binom.cdf(critical, discordant, share)
    reject += sps.binom.sf(discordant - critical - 1, discordant, share)
    return float((sps.binom.pmf(discordant, n, total) * np.minimum(reject, 1)).sum())


def scans_needed(
    rate_b: float, rate_c: float, *, power: float = 0.8, alpha: float = 0.05, limit: int = 200_000
) -> int:
    """Find how many scans would show this difference.

    Parameters
    ----------
    rate_b, rate_c : float
        Fraction of scans that only A, or only B, gets right.
    power : float, default=0.8
        Wanted probability of a p below `alpha`.
    alpha : float, default=0.05
        Two-sided level of the exact McNemar test.
    limit : int, default=200_000
        Largest number tried.

    Returns
    -------
    int
        The smallest number from which on (to the resolution of bisection) the exact power
        reaches `power`.

    Raises
    ------
    ValueError
        Equal rates, or more than `limit` scans.
    """
    if rate_b == rate_c:
        raise ValueError(
            f"Found equal rates {rate_b:g}, expected a difference: no number of scans shows none."
        )
    low, high = 4, 8
    while power_mcnemar(rate_b, rate_c, high, alpha=alpha) < power:
        low, high = high, high * 2
        if low > limit:
            raise ValueError(
                f"Found no power of {power:g} with {limit} scans for rates {rate_b:g} and "
                f"{rate_c:g}, expected a larger difference: raise the limit if you mean it."
            )
    while high - low > 1:
        middle = (low + high) // 2
        if power_mcnemar(rate_b, rate_c, middle, alpha=alpha) < power:
            low = middle
        else:
            high = middle
    return high


def hanley_mcneil_se(auc: float, n_positive: int, n_negative: int) -> float:
    """Compute the standard error of an AUC from its value and the two counts alone.

    Parameters
    ----------
    auc : float
        Area under the curve.
    n_positive, n_negative : int
        Scans with and without motion.

    Returns
    -------
    float
        Hanley and McNeil (1982).
    """
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (n_positive - 1) * (q1 - auc**2) + (n_negative - 1) * (q2 - auc**2)
    return float(np.sqrt(variance / (n_positive * n_negative)))


def auc_difference_p(
    auc_a: float, auc_b: float, n_positive: int, n_negative: int, correlation: float
) -> float:
    """Two-sided p of an AUC difference, for an assumed correlation of the two areas.

    Parameters
    ----------
    auc_a, auc_b : float
        Printed areas.
    n_positive, n_negative : int
        Scans with and without motion.
    correlation : float
        Between the two estimates; 0 for independent scans, up to about 0.9 for like models.

    Returns
    -------
    float
        Normal p-value with Hanley and McNeil's standard errors.
    """
    se_a, se_b = (hanley_mcneil_se(area, n_positive, n_negative) for area in (auc_a, auc_b))
    se = np.sqrt(se_a**2 + se_b**2 - 2 * correlation * se_a * se_b)
    return 2 * float(sps.norm.sf(abs(auc_a - auc_b) / se))
