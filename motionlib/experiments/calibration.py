"""How far the scores of fine-tuned networks can be believed: calibration, conformal abstention.

Maps and thresholds are fitted on validation scans, each scored by the fold's model that has not
trained on it. The test only judges. What too few scans forbid becomes a row with a reason.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from motionlib.experiments.cohort import Cohort
from motionlib.experiments.copies import read_prepared, warehouse_set
from motionlib.experiments.trainings import trained_folds
from motionlib.metrics import classification_metrics
from motionlib.predictions import average_scores
from motionlib.stats.calibration import (
    KINDS,
    best_threshold,
    calibration_error,
    expected_by_chance,
    fit_calibrator,
)
from motionlib.stats.conformal import coverage_risk, resplit_coverage
from motionlib.training.prediction import predict


def validation_scores(run, cohort: Cohort, experiment: str, task: str) -> pd.DataFrame:
    """Score every training scan by the one fold's model that has not trained on it.

    Parameters
    ----------
    run : motionlib.study.run.Run
        A run in which the experiment's networks are fine-tuned.
    cohort : Cohort
        Whose warehouse.
    experiment, task : str
        As in ``predictions.csv``.

    Returns
    -------
    DataFrame
        ``fold scan_id participant_id y_true score y_pred``, one row a scan.
    """
    folders = trained_folds(run, experiment, task, notebook="04")
    prepared = read_prepared(cohort, warehouse_set(cohort, task))
    parts = [
        predict(folder, prepared[prepared["fold"] == fold]).assign(fold=fold)
        for fold, folder in enumerate(folders)
    ]
    return pd.concat(parts, ignore_index=True)


def compare_calibrators(
    validation: pd.DataFrame, tested: pd.DataFrame, *, kinds=KINDS, seed: int = 0
) -> pd.DataFrame:
    """Set the maps side by side on the test, fold by fold and for the folds' mean (fold -1).

    Parameters
    ----------
    validation, tested : DataFrame
        From `validation_scores`, and rows of ``predictions.csv`` of the same experiment and task.
    kinds : sequence of str
        Of `calibration.KINDS`.
    seed : int, default=0
        Of the labels drawn for honest scores.

    Returns
    -------
    DataFrame
        ``kind fold n_validation n_test``; on the test the ``calibration_error``, the one that is
        ``expected_by_chance`` of honest scores, ``brier`` (mean squared gap of score and label);
        the ``threshold`` best on all mapped validation scores, balanced accuracy at it and at one
        half, ``auc``; ``reason`` where a map could not be fitted.
    """
    rows = []
    for kind in kinds:
        try:
            fitted = fit_calibrator(kind, validation["y_true"], validation["score"])
            mapped = calibrated(validation, tested, kind)
            cut = best_threshold(validation["y_true"], fitted(validation["score"]))
            for fold, part in mapped.groupby("fold"):
                row = {"kind": kind, "fold": fold, "n_validation": len(validation)}
                row |= {"n_test": len(part)} | _judge(part, cut, seed)
                rows.append(row | {"reason": ""})
        except ValueError as error:
            rows.append({"kind": kind, "fold": -1, "reason": str(error)})
    return pd.DataFrame(rows)


def before_and_after(validation: pd.DataFrame, tested: pd.DataFrame) -> pd.DataFrame:
    """Rows of the folds' mean score as it is and calibrated, for `figures.plot_calibration`.

    Where the map cannot be fitted it is left out; `compare_calibrators` says why.
    """
    mean = tested[tested["fold"] == -1].assign(experiment="score as it is")
    try:
        mapped = calibrated(validation, tested, "platt").query("fold == -1")
    except ValueError:
        return mean.reset_index(drop=True)
    return pd.concat([mean, mapped.assign(experiment="calibrated (platt)")], ignore_index=True)


def promised_coverage(tested: pd.DataFrame, *, n_splits: int = 200, seed: int = 0) -> pd.DataFrame:
    """Measure what conformal abstention promises, class by class and over all.

    Half of the test patients stand for a site's graded scans, the other half for its next ones;
    the columns are those of `conformal.resplit_coverage`.
    """
    rows = tested[tested["fold"] == -1]
    scores = (rows["y_true"], rows["score"], rows["participant_id"])
    tables = [
        resplit_coverage(*scores, by_class=by_class, n_splits=n_splits, seed=seed)
        for by_class in (True, False)
    ]
    return pd.concat(tables, ignore_index=True)


def risk_curve(validation: pd.DataFrame, tested: pd.DataFrame) -> pd.DataFrame:
    """Errors among the scans that are decided when the most doubtful are left to a person.

    As `conformal.coverage_risk`, of the folds' mean score at the validation's best threshold.
    """
    rows = tested[tested["fold"] == -1]
    cut = best_threshold(validation["y_true"], validation["score"])
    return coverage_risk(rows["y_true"], rows["score"], threshold=cut)


def calibrated(validation: pd.DataFrame, tested: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Map test scores to probabilities by what all validation scans say, as one of `KINDS` does.

    Rows of single folds are mapped, and their mean becomes fold -1, since the map was fitted to
    single models. ValueError, as `calibration.fit_calibrator` has it, if it cannot be fitted.
    """
    fitted = fit_calibrator(kind, validation["y_true"], validation["score"])
    single = tested[tested["fold"] >= 0]
    score = fitted(single["score"])
    single = single.assign(score=score, y_pred=(score >= 0.5).astype(int))
    return pd.concat([single, average_scores(single)], ignore_index=True)


def _judge(part: pd.DataFrame, cut: float, seed: int) -> dict:
    """One model's test scores: calibration error, Brier score, balanced accuracies."""
    y, s = part["y_true"], part["score"]
    at_half, at_cut = (classification_metrics(y, s, threshold=t) for t in (0.5, cut))
    return {
        "calibration_error": calibration_error(y, s),
        "expected_by_chance": expected_by_chance(s, seed=seed),
        "brier": float(np.mean((y - s) ** 2)),
        "threshold": cut,
        "balanced_accuracy_at_threshold": at_cut["balanced_accuracy"],
        "balanced_accuracy_at_half": at_half["balanced_accuracy"],
        "auc": at_half["auc"],
    }
