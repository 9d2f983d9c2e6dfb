"""One row per scan and model goes in; checked, selected and joined rows come out.

``predictions.csv`` is the narrow waist of the study: networks, forests and raters write the same
columns, and every table, curve and test is computed from them alone.
"""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path

import pandas as pd

PREDICTION_COLUMNS = (
    *("experiment", "task", "model", "fold", "scan_id", "participant_id"),
    *("y_true", "score", "y_pred"),
)
TEXT_COLUMNS = ("experiment", "task", "model", "scan_id", "participant_id")
KEY_COLUMNS = ("experiment", "task", "model", "fold", "scan_id")


def check_predictions(predictions: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with the nine columns in their order, or say what is wrong with them.

    Raises
    ------
    ValueError
        If a column is missing, a score lies outside 0-1, or a scan has two rows for a model.
    """
    missing = [name for name in PREDICTION_COLUMNS if name not in predictions]
    if missing:
        raise ValueError(
            f"predictions lack {', '.join(missing)}; expected {', '.join(PREDICTION_COLUMNS)}"
        )
    rows = predictions.loc[:, list(PREDICTION_COLUMNS)]
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
    """Read ``predictions.csv`` of a run folder, with its columns in their types.

    Raises
    ------
    FileNotFoundError
        If the study has not written it yet.
    """
    path = Path(folder) / "predictions.csv"
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
