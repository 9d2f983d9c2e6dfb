"""Rows of ``predictions.csv``: one row per scan and model, checked, averaged and paired.

This file is the narrow waist of the study: networks, forests and raters write the same columns, and
every table, curve and test is computed from them alone.
"""

import os
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

PREDICTION_COLUMNS = (
    *("experiment", "task", "model", "fold", "scan_id", "participant_id"),
    *("y_true", "score", "y_pred"),
)
TEXT_COLUMNS = ("experiment", "task", "model", "scan_id", "participant_id")
THRESHOLD = 0.5  # a mean score of at least this is called motion
KEY_COLUMNS = ("experiment", "task", "model", "fold", "scan_id")


def check_predictions(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with the nine columns in order; ValueError says what is wrong with them."""
    missing = [name for name in PREDICTION_COLUMNS if name not in predictions]
    if missing:
        raise ValueError(
            f"predictions lack {', '.join(missing)}; expected {', '.join(PREDICTION_COLUMNS)}"
        )
    rows = predictions.loc[:, list(PREDICTION_COLUMNS)]
    words = [n for n in rows if n not in TEXT_COLUMNS and not is_numeric_dtype(rows[n])]
    if words and len(rows):
        raise ValueError(f"predictions have words in {', '.join(words)}; expected numbers")
    outside = rows.loc[~rows["score"].between(0, 1)]
    if len(outside):
        row = outside.iloc[0]
        raise ValueError(
            f"{len(outside)} scores lie outside 0-1 (first: {row['score']} for {row['scan_id']} of "
            f"{row['experiment']}); expected probabilities of motion"
        )
    twice = rows.loc[rows.duplicated(list(KEY_COLUMNS))]
    if len(twice):
        row = twice.iloc[0]
        raise ValueError(
            f"{len(twice)} predictions stand twice (first: {row['scan_id']} of "
            f"{row['experiment']}, {row['model']}, fold {row['fold']}); expected one row per scan "
            "and model"
        )
    return rows


def load_predictions(folder: str | os.PathLike) -> pd.DataFrame:
    """Read a run's ``predictions.csv``, packed where it was published; else FileNotFoundError."""
    path = Path(folder) / "predictions.csv"
    if not path.is_file():
        path = path.with_suffix(".csv.gz")
    if not path.is_file():
        raise FileNotFoundError(f"no predictions.csv in {Path(folder).name}; run the study first")
    return pd.read_csv(path, dtype=dict.fromkeys(TEXT_COLUMNS, str), keep_default_na=False)


def select(
    rows: pd.DataFrame, experiment: str = "*", *, task: str = "*", model: str = "*"
) -> pd.DataFrame:
    """Rows whose keys match patterns such as ``"warehouse/*"``."""
    keep = pd.Series(True, index=rows.index)
    for column, pattern in (("experiment", experiment), ("task", task), ("model", model)):
        known = {value: fnmatchcase(value, pattern) for value in rows[column].unique()}
        keep &= rows[column].map(known).astype(bool)
    return rows.loc[keep].reset_index(drop=True)


def check_labels(y_true, score=None, *, both_classes: bool = True):
    """Refuse labels and scores that no metric can be computed from, naming the first bad positions.

    `y_true` holds 0 or 1 (motion), `score` probabilities, both of shape (n,). Returns them as int64
    and float64 (None if not given). One class alone is refused unless `both_classes` is False.
    """
    y_true = pd.array(y_true, dtype="Float64").to_numpy(dtype=float, na_value=np.nan)
    if y_true.size == 0:
        raise ValueError("Found no labels, expected at least one scan: check the selection.")
    bad = np.flatnonzero(~np.isin(y_true, (0.0, 1.0)))
    if bad.size:
        raise ValueError(
            f"Found labels other than 0 and 1 at positions {_first_few(bad)} "
            f"(first value {y_true[bad[0]]:g}): map the grades to a task first."
        )
    if both_classes and (y_true == y_true[0]).all():
        raise ValueError(
            f"Found one class only (all {y_true.size} labels are {y_true[0]:g}), expected both 0 "
            "and 1: add scans of the other class, or ask for the rates of one class alone."
        )
    y_true = y_true.astype(np.int64)
    if score is None:
        return y_true, None
    score = np.asarray(score, dtype=float).ravel()
    if score.size != y_true.size:
        raise ValueError(
            f"Found {y_true.size} labels and {score.size} scores, expected one score a label: "
            "join them by scan_id first."
        )
    bad = np.flatnonzero(~((score >= 0) & (score <= 1)))
    if bad.size:
        raise ValueError(
            f"Found scores outside [0, 1] at positions {_first_few(bad)} (first value "
            f"{score[bad[0]]:g}): give probabilities, not logits."
        )
    return y_true, score


def combine_folds(predictions: pd.DataFrame) -> pd.DataFrame:
    """Give each scan of one experiment, task and model one prediction: the models' mean score.

    If there are rows of fold -1, those are the answer; if each scan was predicted by one model only
    (cross-validation), they are pooled. Returns one row per scan, sorted by ``scan_id``, ``fold`` =
    -1; where scores are averaged, motion is called when the mean score is at least 0.5.
    """
    ensemble = predictions[predictions["fold"] == -1]
    if len(ensemble):
        return ensemble.sort_values("scan_id", ignore_index=True)
    if not predictions["scan_id"].duplicated().any():
        return predictions.assign(fold=-1).sort_values("scan_id", ignore_index=True)
    return average_scores(predictions).sort_values("scan_id", ignore_index=True)


def judged_sets(predictions: pd.DataFrame) -> list[pd.DataFrame]:
    """Split rows of one experiment and task into sets that are judged each by itself.

    One a model and fold, ensembles (fold -1) only if they are alone; and one a model where each
    scan was predicted by one fold's network only, the one that had not seen its patient.
    """
    single = predictions[predictions["fold"] >= 0]
    rows = single if len(single) else predictions
    sets = []
    for _, part in rows.groupby("model", sort=True):
        several = part["scan_id"].duplicated().any()
        sets += [each for _, each in part.groupby("fold", sort=True)] if several else [part]
    return sets


def average_scores(predictions: pd.DataFrame) -> pd.DataFrame:
    """Average the scores of several models, scan by scan.

    `predictions` has any number of rows a scan. Returns one row a scan in order of appearance: the
    mean ``score``, ``y_pred`` at one half, ``fold`` = -1, other columns as in the scan's first row.
    """
    mean = predictions.groupby("scan_id", sort=False)["score"].mean()
    rows = predictions.drop_duplicates("scan_id").reset_index(drop=True)
    score = rows["scan_id"].map(mean)
    return rows.assign(fold=-1, score=score, y_pred=(score >= THRESHOLD).astype(np.int64))


def pair_predictions(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Join two models' predictions of the same scans, one row per scan each (see `combine_folds`).

    Returns ``scan_id participant_id y_true score_a score_b pred_a pred_b``, sorted by scan. A scan
    that appears twice, is missing on one side, or carries two labels is a `ValueError`.
    """
    for name, table in (("first", first), ("second", second)):
        twice = table["scan_id"][table["scan_id"].duplicated()]
        if len(twice):
            raise ValueError(
                f"Found duplicate scans in the {name} model's predictions ({_first_few(twice)}), "
                "expected one row a scan: average the folds with combine_folds first."
            )
    apart = sorted(set(first["scan_id"]) ^ set(second["scan_id"]))
    if apart:
        raise ValueError(
            f"Found {len(apart)} scans predicted by one model only ({_first_few(apart)}), expected "
            "the same scans for both: a paired test needs paired predictions."
        )
    columns = ["scan_id", "participant_id", "y_true", "score", "y_pred"]
    names_a = {"score": "score_a", "y_pred": "pred_a"}
    names_b = {"score": "score_b", "y_pred": "pred_b", "y_true": "truth_b"}
    both = first[columns].rename(columns=names_a)
    other = second[["scan_id", "y_true", "score", "y_pred"]].rename(columns=names_b)
    both = both.merge(other, on="scan_id").sort_values("scan_id", ignore_index=True)
    clash = both["y_true"] != both["truth_b"]
    if clash.any():
        raise ValueError(
            f"Found two labels for the same scan ({_first_few(both.loc[clash, 'scan_id'])}), "
            "expected one truth: check that both models were judged on the same task."
        )
    return both[["scan_id", "participant_id", "y_true", "score_a", "score_b", "pred_a", "pred_b"]]


def _first_few(items, limit: int = 3) -> str:
    """Name the first offenders: ``a, b, c and 4 more``."""
    items = [str(item) for item in items]
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more
