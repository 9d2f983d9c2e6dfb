"""Rows of ``predictions.csv``: what trained networks say about scans."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from motionlib.compute.engines import default_device
from motionlib.predictions import PREDICTION_COLUMNS, average_scores
from motionlib.training.checkpoints import read_model
from motionlib.training.prediction import predict_all

COLUMNS = list(PREDICTION_COLUMNS)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scans, a prepared manifest, that the network in a folder shall score."""

    experiment: str  # named in the rows, as are the task and the model's network
    task: str
    folder: Path
    scans: Path | pd.DataFrame
    fold: int | None = None  # named in the rows; by default the model's own


def evaluate(evaluations: Iterable[Evaluation], *, engine: str) -> pd.DataFrame:
    """Predict on an engine and gather the rows of ``predictions.csv``, in the order asked for."""
    evaluations = list(evaluations)
    pairs = [(each.folder, each.scans) for each in evaluations]
    scored = predict_all(pairs, device=default_device(), engine=engine)
    parts = []
    for each, scores in zip(evaluations, scored, strict=True):
        facts = read_model(each.folder)
        fold = facts["fold"] if each.fold is None else each.fold
        parts.append(prediction_rows(scores, each.experiment, each.task, facts["network"], fold))
    return pd.concat(parts, ignore_index=True)


def evaluate_with_mean(evaluations: Iterable[Evaluation], *, engine: str) -> pd.DataFrame:
    """As `evaluate`, every model's folds of an experiment followed by their mean (fold -1)."""
    scored = evaluate(evaluations, engine=engine)
    parts = []
    for names, rows in scored.groupby(["experiment", "task", "model"], sort=False):
        parts += [rows, prediction_rows(average_scores(rows), *names, fold=-1)]
    return pd.concat(parts, ignore_index=True)


def prediction_rows(
    scores: pd.DataFrame, experiment: str, task: str, model: str, fold: int
) -> pd.DataFrame:
    """Turn one model's scores into rows of ``predictions.csv``."""
    return scores.assign(experiment=experiment, task=task, model=model, fold=fold)[COLUMNS]
