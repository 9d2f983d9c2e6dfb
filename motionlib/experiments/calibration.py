"""How far the scores of fine-tuned networks can be believed: calibration, conformal abstention.

Maps and thresholds are fitted on validation scans, each scored by the fold's model that has not
trained on it. The test only judges. What too few scans forbid becomes a row with a reason.
"""

import numpy as np
import pandas as pd
from scipy.special import expit

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
    logit,
)
from motionlib.stats.conformal import coverage_risk, resplit_coverage
from motionlib.training.checkpoints import read_model
from motionlib.training.prediction import predict_all


def validation_scores(run, cohort: Cohort, experiment: str, task: str) -> pd.DataFrame:
    """Score every graded scan that trains by the fold's model that it validates.

    Parameters
    ----------
    run, cohort : motionlib.study.run.Run, Cohort
        A run in which the experiment's networks are fine-tuned, and whose warehouse.
    experiment, task : str
        As in ``predictions.csv``.

    Returns
    -------
    DataFrame
        ``fold scan_id participant_id y_true score y_pred``, one row a scan; the fold is by which
        the model's rows are called.
    """
    folders = trained_folds(run, experiment, task, notebook="04")
    prepared = read_prepared(cohort, warehouse_set(cohort, task))
    validated = [prepared[prepared["fold"] == read_model(folder)["fold"]] for folder in folders]
    scored = predict_all(zip(folders, validated, strict=True), engine=cohort.engine)
    return pd.concat([rows.assign(fold=k) for k, rows in enumerate(scored)], ignore_index=True)


def compare_calibrators(
    validation: pd.DataFrame, tested: pd.DataFrame, *, kinds=KINDS, seed: int = 0
) -> pd.DataFrame:
    """Set the maps side by side on the test, fold by fold and for the folds' mean (fold -1).

    Where every scan is judged once, out of fold, there is only the row of all (fold -1).

    Parameters
    ----------
    validation, tested : DataFrame
        From `validation_scores`, and rows of ``predictions.csv`` of the same experiment and task.
    kinds, seed : sequence of str, int
        Of `calibration.KINDS`, and of the labels drawn for honest scores.

    Returns
    -------
    DataFrame
        ``kind fold n_validation n_test``; on the test the ``calibration_error``, the one that is
        ``expected_by_chance`` of honest scores, ``brier`` (mean squared gap of score and label);
        the ``threshold`` best on mapped validation scores (mean over folds), balanced accuracy at
        it and at one half, ``auc``; ``reason`` where a map could not be fitted.
    """
    rows = []
    for kind in kinds:
        try:
            mapped = calibrated(validation, tested, kind)
            if len(_outer_folds(validation, tested)) > 1:
                mapped = mapped[mapped["fold"] == -1]
            for fold, part in mapped.groupby("fold"):
                row = {"kind": kind, "fold": fold, "n_validation": len(validation)}
                row |= {"n_test": len(part)} | _judge(part, seed)
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
    the columns are those of `conformal.resplit_coverage`, and ``kept``: whether what is promised,
    by class or over all, was covered, within twice the error of the mean over splits.
    """
    rows = tested[tested["fold"] == -1]
    scores = (rows["y_true"], rows["score"], rows["participant_id"])
    tables = [
        resplit_coverage(*scores, by_class=by_class, n_splits=n_splits, seed=seed)
        for by_class in (True, False)
    ]
    table = pd.concat(tables, ignore_index=True)
    worst = table[["coverage_still", "coverage_motion"]].min(axis=1, skipna=False)
    reached = worst.where(table["by_class"], table["coverage"])
    error = 2 * table["coverage_sd"] / n_splits**0.5  # of the mean over the splits
    return table.assign(kept=(reached >= table["level"] - error).where(reached.notna()))


def risk_curve(validation: pd.DataFrame, tested: pd.DataFrame) -> pd.DataFrame:
    """Errors among the scans that are decided when the most doubtful are left to a person.

    As `conformal.coverage_risk`, of the folds' mean score at the validation's best threshold.
    """
    rows = tested[tested["fold"] == -1]
    folds = tested[tested["fold"] >= 0].drop_duplicates("scan_id").set_index("scan_id")["fold"]
    cut = pd.Series(0.0, index=rows.index)
    for fold, held in _outer_folds(validation, tested):
        here = rows["scan_id"].map(folds).eq(fold) if fold is not None else slice(None)
        cut.loc[here] = best_threshold(held["y_true"], held["score"])
    # log-odds are shifted so that every fold's own threshold becomes one half
    shifted = expit(logit(rows["score"]) - logit(cut))
    return coverage_risk(rows["y_true"], shifted, threshold=0.5)


def calibrated(validation: pd.DataFrame, tested: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Map test scores to probabilities by what the validation scans say, as one of `KINDS` does.

    Rows of single folds are mapped, and their mean becomes fold -1, since the map was fitted to
    single models. Where every scan is judged once, a fold's map comes from the scans that its own
    model validates, so that no scan's grade has a say in its own probability. The column
    ``threshold`` is the one best on the mapped validation scores. ValueError, as
    `calibration.fit_calibrator` has it, if a map cannot be fitted.
    """
    single = tested[tested["fold"] >= 0]
    parts = []
    for fold, held in _outer_folds(validation, tested):
        fitted = fit_calibrator(kind, held["y_true"], held["score"])
        part = single if fold is None else single[single["fold"] == fold]
        cut = best_threshold(held["y_true"], fitted(held["score"]))
        parts.append(part.assign(score=fitted(part["score"]), threshold=cut))
    mapped = pd.concat(parts)
    mapped = mapped.assign(y_pred=(mapped["score"] >= 0.5).astype(int))
    return pd.concat([mapped, average_scores(mapped)], ignore_index=True)


def _outer_folds(validation: pd.DataFrame, tested: pd.DataFrame) -> list[tuple]:
    """Folds that judge scans of their own, each with its model's validation scans.

    Of a fixed test set that all folds judge, None with the validation scans of all.
    """
    single = tested[tested["fold"] >= 0]
    if single["fold"].nunique() < 2 or single["scan_id"].duplicated().any():
        return [(None, validation)]
    folds = sorted(single["fold"].unique())
    return [(fold, validation[validation["fold"] == fold]) for fold in folds]


def _judge(part: pd.DataFrame, seed: int) -> dict:
    """One model's test scores: calibration error, Brier score, balanced accuracies."""
    y, s, cut = part["y_true"], part["score"], part["threshold"]
    at_half = classification_metrics(y, s, threshold=0.5)
    at_cut = classification_metrics(y, s, y_pred=(s >= cut).astype(int))
    return {
        "calibration_error": calibration_error(y, s),
        "expected_by_chance": expected_by_chance(s, seed=seed),
        "brier": float(np.mean((y - s) ** 2)),
        "threshold": cut.mean(),
        "balanced_accuracy_at_threshold": at_cut["balanced_accuracy"],
        "balanced_accuracy_at_half": at_half["balanced_accuracy"],
        "auc": at_half["auc"],
    }
