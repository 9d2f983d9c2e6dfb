"""A table of measures with labels goes in; a tuned random forest and unseen predictions come out.

The search is the paper's: 300 combinations of four hyper-parameters by five-fold cross-validation
in which a patient stays in one fold. Anything reported as performance comes from
:func:`nested_forest`, where the search never sees the fold it is judged on.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from motionlib.iqms.classifiers import MODELS, fit_model, make_model
from motionlib.iqms.forestsearch import (
    N_FOLDS,
    N_ITER,
    SEARCH_SPACE,
    ForestSearch,
    call_motion,
    check_table,
    draw_combinations,
    fold_rows,
    grouped_folds,
    search_forest,
)
from motionlib.metrics import classification_metrics

__all__ = [
    "MODELS",
    "N_FOLDS",
    "N_ITER",
    "SEARCH_SPACE",
    "ForestSearch",
    "call_motion",
    "cross_validated",
    "draw_combinations",
    "grouped_folds",
    "importance",
    "judge_set",
    "make_model",
    "nested_forest",
    "search_forest",
    "warehouse_rows",
]


def nested_forest(
    X, y, groups, *, n_iter: int = N_ITER, seed: int, n_jobs: int = 1, class_weight=None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Judge the whole search on patients it never saw: an outer loop around the search.

    Parameters
    ----------
    X, y, groups, n_iter, seed, n_jobs, class_weight
        As in :func:`search_forest`.

    Returns
    -------
    predictions : DataFrame
        ``row fold y_true score y_pred``, every row once, from the fold that left its patient out.
    searches : DataFrame
        One row per outer fold: the chosen values, the inner (optimistic) and the outer score.
    """
    from sklearn.metrics import balanced_accuracy_score

    X, y, groups = check_table(X, y, groups)
    folds = grouped_folds(y, groups, seed=seed)
    scores, chosen = {}, []
    for k in np.unique(folds):
        train, test = folds != k, folds == k
        found = search_forest(
            X[train], y[train], groups[train], n_iter=n_iter, seed=seed + 1 + int(k),
            n_jobs=n_jobs, class_weight=class_weight,
        )  # fmt: skip
        scores[k] = found.predict_proba(X[test])[:, 1]
        outer = balanced_accuracy_score(y[test], call_motion(scores[k]))
        chosen.append(
            {"fold": int(k), **found.best_params, "inner": found.best_score, "outer": outer}
        )
    return fold_rows(y, folds, scores), pd.DataFrame(chosen)


def cross_validated(
    X, y, groups, model: str = "forest", *, seed: int, n_iter: int = N_ITER, n_jobs: int = 1
) -> pd.DataFrame:
    """Predict every row by a model that saw no row of its patient.

    Parameters
    ----------
    X, y, groups
        As in :func:`search_forest`.
    model : str, default="forest"
        A name in `MODELS`, or several joined by ``+``, whose scores are averaged; ``search`` nests
        the whole random search.
    seed : int
        Of folds and models.
    n_iter, n_jobs
        As in :func:`search_forest`.

    Returns
    -------
    DataFrame
        ``row fold y_true score y_pred`` in the order of the table.
    """
    if "+" in model:
        parts = [
            cross_validated(X, y, groups, one, seed=seed, n_iter=n_iter, n_jobs=n_jobs)
            for one in model.split("+")
        ]
        score = np.mean([part["score"] for part in parts], axis=0)
        return parts[0].assign(score=score, y_pred=call_motion(score))
    if model == "search":
        return nested_forest(X, y, groups, n_iter=n_iter, seed=seed, n_jobs=n_jobs)[0]
    X, y, groups = check_table(X, y, groups)
    folds = grouped_folds(y, groups, seed=seed)
    scores = {}
    for k in np.unique(folds):
        fitted = fit_model(model, X[folds != k], y[folds != k], seed=seed, n_jobs=n_jobs)
        scores[k] = fitted.predict_proba(X[folds == k])[:, 1]
    return fold_rows(y, folds, scores)


def importance(
    X, y, groups, names, *, seed: int, n_repeats: int = 10, n_jobs: int = 1, model: str = "forest"
) -> pd.DataFrame:
    """Loss of AUC on unseen patients when one measure is shuffled.

    Parameters
    ----------
    X, y, groups
        As in :func:`search_forest`.
    names : sequence of str, length p
        Names of the columns of X.
    seed : int
        Of folds, models and shuffles.
    n_repeats : int, default=10
        Shuffles per fold.
    n_jobs : int, default=1
        Trees grown at a time.
    model : str, default="forest"
        A name of :func:`make_model`.

    Returns
    -------
    DataFrame
        ``measure auc_loss low high``, largest first: mean and 2.5 to 97.5 percentiles over folds
        and shuffles. Measures that carry the same information share their loss.
    """
    from sklearn.inspection import permutation_importance

    X, y, groups = check_table(X, y, groups)
    folds = grouped_folds(y, groups, seed=seed)
    losses = []
    for k in np.unique(folds):
        fitted = fit_model(model, X[folds != k], y[folds != k], seed=seed, n_jobs=n_jobs)
        found = permutation_importance(
            fitted, X[folds == k], y[folds == k], scoring="roc_auc", n_repeats=n_repeats,
            random_state=seed,
        )  # fmt: skip
        losses.append(found.importances)
    losses = np.concatenate(losses, axis=1)
    low, high = np.percentile(losses, (2.5, 97.5), axis=1)
    table = pd.DataFrame(
        {"measure": list(names), "auc_loss": losses.mean(axis=1), "low": low, "high": high}
    )
    return table.sort_values("auc_loss", ascending=False, kind="stable", ignore_index=True)


def warehouse_rows(
    train: pd.DataFrame,
    test: pd.DataFrame,
    columns,
    *,
    kind: str,
    task: str,
    seed: int,
    n_iter: int = N_ITER,
    n_jobs: int = 1,
) -> tuple[pd.DataFrame, ForestSearch]:
    """Train the paper's forest on one cohort and predict the warehouse's test scans.

    Parameters
    ----------
    train : DataFrame
        ``source_participant_id y_true fold`` and the measures; the folds are the networks' folds.
    test : DataFrame
        ``scan_id participant_id y_true`` and the measures.
    columns : sequence of str
        The measures used. One that is undefined in all of `train` is left out.
    kind : {"research", "clinical"}
        Which cohort `train` is.
    task : {"mov01vs2", "mov0vs1"}
        Which question `test` is labelled for.
    seed, n_iter, n_jobs
        As in :func:`search_forest`.

    Returns
    -------
    predictions : DataFrame
        Rows of ``predictions.csv``: every test scan by the forest of each fold, and by their mean
        (fold -1).
    search : ForestSearch
        The search behind them.

    Notes
    -----
    Source: paper Table IV, rows "Random forest trained on research dataset" and "... on CDW".
    """
    usable = [name for name in columns if train[name].notna().any()]
    if not usable:
        raise ValueError(
            f"none of the measures {', '.join(columns)} is defined in the {len(train)} training "
            "scans: expected heads with air around them"
        )
    X = finite(train[usable])
    groups = train["source_participant_id"].to_numpy()
    y, folds = (train[name].to_numpy(dtype=int) for name in ("y_true", "fold"))
    search = search_forest(
        X, y, groups, n_iter=n_iter, seed=seed, n_jobs=n_jobs, folds=folds
    )  # fmt: skip
    seen = finite(test[usable])
    scores = {
        int(k): forest.predict_proba(seen)[:, 1]
        for k, forest in zip(np.unique(folds), search.fold_estimators, strict=True)
    }
    scores[-1] = np.mean(list(scores.values()), axis=0)
    parts = [
        pd.DataFrame(
            {
                "experiment": f"warehouse/forest_{kind}",
                "task": task,
                "model": "RandomForest",
                "fold": fold,
                "scan_id": test["scan_id"].to_numpy(),
                "participant_id": test["participant_id"].to_numpy(),
                "y_true": test["y_true"].to_numpy(dtype=int),
                "score": np.round(score, 12),
                "y_pred": call_motion(score),
            }
        )
        for fold, score in sorted(scores.items())
    ]
    return pd.concat(parts, ignore_index=True), search


def judge_set(
    train: pd.DataFrame, test: pd.DataFrame, columns, *, seed: int, n_iter: int, n_jobs: int = 1
) -> dict:
    """Judge a set of measures: the search on `train`, the mean forest on `test`.

    Returns
    -------
    dict
        :func:`motionlib.metrics.classification_metrics` of the mean over folds.
    """
    rows, _ = warehouse_rows(
        train, test, columns, kind="clinical", task="mov01vs2", seed=seed, n_iter=n_iter,
        n_jobs=n_jobs,
    )  # fmt: skip
    mean = rows[rows["fold"] == -1]
    return classification_metrics(mean["y_true"], mean["score"], y_pred=mean["y_pred"])


def finite(measures: pd.DataFrame) -> np.ndarray:
    """Measures as float32 with NaN for what a float32 cannot hold, shape (n, p)."""
    with np.errstate(over="ignore"):
        values = measures.to_numpy(dtype=np.float32)
    return np.where(np.isfinite(values), values, np.float32(np.nan))
