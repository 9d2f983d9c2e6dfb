"""Split conformal prediction: which scans may be decided, with a promised coverage.

1. The nonconformity of a scan with a label is the score if the label is no motion, and one less
   the score if it is motion.
2. A label stays in the prediction set of a new scan if its nonconformity is at most the k-th
   smallest of the n graded scans with that label, k = ceil(level (n + 1)).
3. A scan with one label in its set is decided; one with both or none is left to a person.

Taking step 2 class by class (Mondrian) keeps the level within motion, too: it is rare, and would
otherwise pay for the rest. The promise holds where graded and new scans are exchangeable: of the
same site and clinic, one scan a patient or patients alike in number. Papadopoulos et al. 2002
(split); Vovk, Gammerman and Shafer 2005 (Mondrian).
"""

import numpy as np
import pandas as pd

from motionlib.predictions import check_labels
from motionlib.stats.calibration import logit

ROUNDING = 1e-12  # equal scores count as equal after a rising map


def prediction_limits(y_true, score, *, level: float = 0.9, by_class: bool = True) -> np.ndarray:
    """Largest nonconformity that keeps a label, (2,): of no motion and of motion.

    `y_true` and `score`, both (n,), are of graded scans that the network was not trained on; any
    rising map of the scores leads to the same decisions where `by_class` is set. Fewer scans than
    a `level` needs (9 for 0.9, in each class where `by_class` is set) are refused.
    """
    if not 0 < level < 1:
        raise ValueError(f"Found level {level:g}, expected a share between 0 and 1, such as 0.9.")
    y, s = check_labels(y_true, score)
    nonconformity = np.where(y == 1, 1 - s, s)
    parts = [nonconformity[y == label] if by_class else nonconformity for label in (0, 1)]
    needed = int(np.ceil(1 / (1 - level) - 1e-9)) - 1
    n_least = min(map(len, parts))
    if n_least < needed:
        where = " in the smaller class" if by_class else ""
        raise ValueError(
            f"Found {n_least} graded scans{where}, expected at least {needed} for a coverage of "
            f"{level:.0%}: grade more scans, or ask for less coverage."
        )
    ranks = [int(np.ceil(level * (len(part) + 1) - 1e-9)) for part in parts]
    return np.array([np.sort(part)[rank - 1] for part, rank in zip(parts, ranks, strict=True)])


def prediction_set(limits: np.ndarray, score) -> np.ndarray:
    """Whether no motion, and motion, are in the set of each score, boolean (n, 2)."""
    score = np.asarray(score, dtype=float)
    return np.column_stack([score, 1 - score]) <= limits + ROUNDING


def resplit_coverage(
    y_true, score, groups=None, *, levels=(0.8, 0.9, 0.95), by_class=True, n_splits=200, seed=0
) -> pd.DataFrame:
    """Measure the coverage: take limits from half of the patients, judge the others, many times.

    `groups` names the patient of each scan; no patient is on both sides. One row a level, over all
    splits: ``coverage`` (the true label is in the set), the same by class, ``abstained`` (both
    labels or none), ``error_decided`` (wrong among the decided), ``coverage_sd`` from split to
    split; ``reason`` where so few scans allow no promise.
    """
    y, s = check_labels(y_true, score)
    code, names = pd.factorize(np.arange(y.size) if groups is None else np.asarray(groups))
    if code.size != y.size or (code < 0).any() or len(names) < 2:
        raise ValueError(
            f"Found {len(names)} patients for {y.size} scans, expected two or more and one named "
            "for each scan: give the participant_id of every scan."
        )
    rows = []
    for level in levels:
        rng, splits, reason = np.random.default_rng(seed), [], ""
        for _ in range(n_splits):
            graded = (rng.permutation(len(names)) < len(names) // 2)[code]
            try:
                limits = prediction_limits(y[graded], s[graded], level=level, by_class=by_class)
            except ValueError as error:
                reason = str(error)
                continue
            kept, truth = prediction_set(limits, s[~graded]), y[~graded]
            right = kept[np.arange(truth.size), truth]
            splits.append(np.stack([truth, right, kept.sum(axis=1) == 1]))
        row = {"level": level, "by_class": by_class, "n_splits": len(splits)}
        rows.append(row | _shares(splits) | {"reason": reason})
    return pd.DataFrame(rows)


def _shares(splits: list[np.ndarray]) -> dict[str, float]:
    """Shares over all splits of (3, n) rows truth, right, decided; NaN where there is nothing."""
    truth, right, decided = np.concatenate([np.empty((3, 0)), *splits], axis=1)
    each = pd.Series([split[1].mean() for split in splits], dtype=float)
    sets = {
        "coverage": right,
        "coverage_still": right[truth == 0],
        "coverage_motion": right[truth == 1],
        "abstained": 1 - decided,
        "error_decided": 1 - right[decided == 1],
    }
    shares = {name: float(part.mean()) if part.size else np.nan for name, part in sets.items()}
    return shares | {"coverage_sd": each.std(ddof=1)}


def coverage_risk(y_true, score, *, threshold: float = 0.5) -> pd.DataFrame:
    """Errors among decided scans when those nearest to the threshold (in log-odds) are left out.

    Columns ``decided`` (share of scans, rising to 1), ``error`` (wrong among them) and
    ``error_at_random`` (wrong among all: what leaving out random scans gives).
    """
    y, s = check_labels(y_true, score)
    order = np.argsort(-np.abs(logit(s) - logit(threshold)), kind="stable")
    wrong = ((s >= threshold) != (y == 1)).astype(float)[order]
    number = np.arange(1, y.size + 1)
    table = pd.DataFrame({"decided": number / y.size, "error": np.cumsum(wrong) / number})
    return table.assign(error_at_random=wrong.mean())
