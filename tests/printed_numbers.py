"""What printed numbers can have come from, by trying everything: to test what is said of them."""

from itertools import product

import numpy as np
from scipy.stats import chi2

from motionlib.paper.reachable import _margins, counts_that_print, mcnemar_range


def smallest_denominator(percent: float, *, decimals: int = 2, limit: int = 5000) -> tuple:
    """Smallest k/n that prints as this percentage when rounded, as ``(k, n)``."""
    for n in range(1, limit):
        for k, how in counts_that_print(percent, n, decimals=decimals).items():
            if "R" in how:
                return k, n
    raise ValueError(f"Found no k/n below n = {limit} that prints as {percent}: raise the limit.")


def smallest_p_nearby(task: str, width: int = 2) -> float:
    """Smallest p that Table IV allows with each of its four counts moved by up to `width`.

    Over all changes and all overlaps; exact, or chi-square without correction.
    """
    best, margins = 1.0, _margins(task)
    for changes in product(range(-width, width + 1), repeat=4):
        moved = [
            (*(int(np.clip(right + by, 0, n)) for right, by in zip(rights, change, strict=True)), n)
            for (*rights, n), change in zip(margins, (changes[:2], changes[2:]), strict=True)
        ]
        reach = mcnemar_range(moved)
        plain = chi2.sf(reach.difference**2 / max(reach.discordant_low, 1), 1)
        best = min(best, reach.p_low, float(plain))
    return best
