"""The paper's rows with ``paper | ours | difference``.

Every published row stays, whatever was measured: an empty cell has a reason, and is never zero.
"""

import numpy as np
import pandas as pd

from motionlib.paper.transcription import published

KEYS = {
    "table_1": ["database"],
    "table_2": ["simulator", "severity"],
    "table_3": ["model"],
    "table_4": ["task", "method"],
    "table_a1": ["set", "label"],
    "table_a2": ["set", "label"],
    "table_a3": ["model"],
    "table_a4": ["task", "method"],
}
METRICS_OF = {
    "table_1": ["n_patients", "n_images", "age_mean", "age_sd", "age_min", "age_max", "sex_f"],
    "table_2": ["balanced_accuracy", "specificity", "sensitivity", "real_motion_accuracy"],
    "table_3": ["balanced_accuracy", "specificity", "sensitivity", "training_minutes"],
    "table_4": ["balanced_accuracy", "specificity", "sensitivity", "auc"],
    "table_a1": ["ADNI", "MSSEG", "MNI BITE", "total"],
    "table_a2": ["mov0vs1", "mov01vs2"],
    "table_a3": ["balanced_accuracy", "specificity", "sensitivity"],
    "table_a4": ["balanced_accuracy"],
}
LABELS = ("database_group", "architecture", "label")
PARTS = ("mean", "sd", "low", "high")
FACTS = ["n", "n_patients", "n_positive", "n_folds", "cohort", "reason"]


def same_order(paper, ours) -> pd.Series:
    """Tell for every row (n,) whether it stands in the same order to all others as in the paper.

    Missing where there is nothing to compare. Where the paper ties, any order agrees; a tie of ours
    where the paper has an order does not.

    >>> same_order([0.9, 0.8, 0.7], [0.6, 0.5, 0.55]).tolist()
    [True, False, False]
    """
    paper = np.asarray(paper, dtype=float)
    ours = np.asarray(ours, dtype=float)
    known = np.isfinite(paper) & np.isfinite(ours)
    agrees = pd.array([pd.NA] * len(paper), dtype="boolean")
    if known.sum() > 1:
        # order of every pair of rows: 1, 0 or -1
        printed = np.sign(np.subtract.outer(paper[known], paper[known]))
        measured = np.sign(np.subtract.outer(ours[known], ours[known]))
        agrees[known] = ~((printed != 0) & (printed != measured)).any(axis=1)
    return pd.Series(agrees)


def beside_paper(ours: pd.DataFrame, table: str) -> pd.DataFrame:
    """Put our values beside the published ones.

    Parameters
    ----------
    ours : DataFrame
        The key columns of the published table (`KEYS`) and, per metric, ``<metric>`` or
        ``<metric>_mean``, optionally ``_sd _low _high``; ``n cohort reason`` if there are.
    table : str
        ``table_1`` ... ``table_a4``.

    Returns
    -------
    DataFrame
        All published rows in their order, then rows that only we have. Per metric
        ``_paper _ours _difference``, then what was given of ``_mean _sd _low _high``. The last
        column, ``same_order``, ranks the first metric (within a task where there are tasks).

    Raises
    ------
    ValueError
        Unknown table, missing key columns, or two rows of ours with the same key.
    """
    if table not in KEYS:
        raise ValueError(f"Found table {table!r}, expected one of {', '.join(KEYS)}.")
    keys, paper = KEYS[table], published(table)
    missing = [key for key in keys if key not in ours]
    if missing:
        raise ValueError(
            f"Found no column {', '.join(missing)}, expected {' and '.join(keys)} to match the "
            f"rows of {table}: name our rows as motionlib.paper.transcription.published does."
        )
    extra_keys = [key for key in ("recipe", "set") if key in ours and key not in keys]
    if ours.duplicated(keys + extra_keys).any():
        twice = ours.loc[ours.duplicated(keys + extra_keys), keys].iloc[0].tolist()
        raise ValueError(f"Found two rows of ours for {twice}, expected one: keep one of them.")
    shown = [name for name in LABELS if name in paper and name not in keys]
    matched = _match(paper, ours, keys, extra_keys)
    result = matched[keys + extra_keys + shown].copy()
    metrics = METRICS_OF[table]
    for metric in metrics:
        result = _add_metric(result, matched, metric)
    used = {f"{metric}_{part}" for metric in metrics for part in (*PARTS, "ours")}
    for name in ours:
        if name not in {*used, *result, *metrics, *FACTS}:
            result[name] = matched[f"{name}_o" if f"{name}_o" in matched else name]
    for name in FACTS:
        if name not in metrics and (name in ours or name in ("n", "cohort", "reason")):
            result[name] = matched.get(name, pd.NA)
    first = metrics[0]
    groups = result["task"] if "task" in result else pd.Series("all", index=result.index)
    result["same_order"] = pd.array([pd.NA] * len(result), dtype="boolean")
    for _, place in result.groupby(groups).groups.items():
        part = result.loc[place]
        agrees = same_order(part[f"{first}_paper"], part[f"{first}_ours"])
        result.loc[place, "same_order"] = agrees.to_numpy()
    return result


def _match(paper, ours, keys, extra_keys) -> pd.DataFrame:
    """Join by key: published rows with our first of each key, then the rest of ours."""
    first = ours.drop_duplicates(keys)
    rest = ours[~ours.index.isin(first.index)]
    both = paper.merge(first, on=keys, how="left", suffixes=("", "_o"))
    known = set(map(tuple, paper[keys].to_numpy()))
    own = first[[tuple(row) not in known for row in first[keys].to_numpy()]]
    more = pd.concat([rest, own])
    more = more.rename(columns={name: f"{name}_o" for name in ours if f"{name}_o" in both})
    return pd.concat([both, more], ignore_index=True) if len(more) else both


def _add_metric(result: pd.DataFrame, matched: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Add ``paper ours difference`` and what belongs to them."""
    blank = pd.Series(np.nan, index=matched.index)
    mean = matched.get(f"{metric}_mean")
    ours = matched.get(f"{metric}_ours", mean)
    ours = matched.get(f"{metric}_o") if ours is None else ours
    ours = pd.to_numeric(blank if ours is None else ours)
    paper = pd.to_numeric(matched.get(metric, blank))
    columns = {f"{metric}_paper": paper, f"{metric}_ours": ours}
    columns[f"{metric}_difference"] = (ours - paper).round(10)
    if f"{metric}_sd" in matched and f"{metric}_sd_o" in matched:
        columns[f"{metric}_sd_paper"] = matched[f"{metric}_sd"]
    for part in PARTS:
        name = f"{metric}_{part}"
        values = matched.get(f"{name}_o", matched.get(name))
        if values is not None:
            columns[name] = pd.to_numeric(values)
    return pd.concat([result, pd.DataFrame(columns)], axis=1)
