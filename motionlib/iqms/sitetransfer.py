"""A recipe and rated scans of two data sets go in; what arrives at the second comes out."""

from __future__ import annotations

import numpy as np
import pandas as pd

from motionlib.iqms.classifiers import fit_shares
from motionlib.iqms.forestsearch import call_motion
from motionlib.iqms.lessons import taught
from motionlib.iqms.sites import Recipe, site_auc, site_features
from motionlib.metrics import auc, classification_metrics
from motionlib.stats.intervals import bootstrap_ci


def transfer(
    source: pd.DataFrame, target: pd.DataFrame, names, recipe: Recipe, *, seed: int, n_jobs: int = 1
) -> pd.DataFrame:
    """Train a recipe on one data set and score another; the target's labels are not used.

    Parameters
    ----------
    source, target : DataFrame
        ``site y_true`` and the measures; the source also what the recipe's lesson needs.
    names, seed, n_jobs
        As in :func:`leave_one_site_out`.
    recipe : Recipe
        Features, models and lesson.

    Returns
    -------
    DataFrame
        ``row fold site y_true score y_pred`` of the target; fold is -1.
    """
    X = site_features(source, names, recipe.features)
    share, strata = taught(source, recipe.lesson)
    seen = site_features(target, names, recipe.features)
    scores = [
        fit_shares(model, X, share, strata, seed=seed, n_jobs=n_jobs).predict_proba(seen)
        for model in recipe.models
    ]
    score = np.mean(scores, axis=0)[:, 1]
    return pd.DataFrame(
        {
            "row": np.arange(len(target)),
            "fold": -1,
            "site": target["site"].to_numpy(),
            "y_true": target["y_true"].to_numpy(),
            "score": score,
            "y_pred": call_motion(score),
        }
    )


def transfer_thresholds(source: pd.DataFrame, target: pd.DataFrame) -> pd.DataFrame:
    """Call motion in a new data set by three thresholds that need none of its labels.

    Parameters
    ----------
    source : DataFrame
        Left-site-out rows of the data set trained on: ``y_true score``.
    target : DataFrame
        Scored rows of the new one; its labels only judge.

    Returns
    -------
    DataFrame
        ``threshold value balanced_accuracy specificity sensitivity called``: one half; the best on
        the source; and the one that calls as large a share of the target as the source's best
        calls of the source.
    """
    best = best_threshold(source["y_true"], source["score"])
    share = (source["score"] >= best).mean()
    values = {
        "one half": 0.5,
        "best on the source": best,
        "same share called": float(np.quantile(target["score"], 1 - share)),
    }
    rows = []
    for name, value in values.items():
        judged = classification_metrics(target["y_true"], target["score"], threshold=value)
        rows.append(
            {"threshold": name, "value": value,
             **{key: judged[key] for key in ("balanced_accuracy", "specificity", "sensitivity")},
             "called": float((target["score"] >= value).mean())}
        )  # fmt: skip
    return pd.DataFrame(rows)


def best_threshold(y_true, score) -> float:
    """Threshold with the highest balanced accuracy; half-way to the next lower score."""
    from sklearn.metrics import roc_curve

    false, true, values = roc_curve(y_true, score, drop_intermediate=False)
    best = int(np.argmax(true - false))
    lower = values[best + 1] if best + 1 < len(values) else values[best]
    return float((min(values[best], 1.0) + lower) / 2)


def judge_transfer(
    scored: dict[str, pd.DataFrame], chosen: dict[str, Recipe], *, n_boot: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Judge scored data sets by AUC, with intervals over scans (one scan a person).

    Parameters
    ----------
    scored : dict of str to DataFrame
        How a recipe was chosen: its rows from :func:`transfer`.
    chosen : dict of str to Recipe
        The recipes, under the same keys.
    n_boot, seed : int
        Draws of scans, and their seed.

    Returns
    -------
    DataFrame
        ``chosen_by recipe auc auc_low auc_high auc_within balanced_accuracy n n_positive``;
        balanced accuracy at one half.
    """
    rows = []
    for name, part in scored.items():
        judged = classification_metrics(part["y_true"], part["score"], y_pred=part["y_pred"])
        interval = bootstrap_ci(
            part["y_true"], part["score"], metric="auc", n_boot=n_boot, seed=seed
        )
        rows.append(
            {"chosen_by": name, "recipe": str(chosen[name]), "auc": judged["auc"],
             "auc_low": interval.low, "auc_high": interval.high,
             "auc_within": site_auc(part)["auc_within"],
             **{key: judged[key] for key in ("balanced_accuracy", "n", "n_positive")}}
        )  # fmt: skip
    return pd.DataFrame(rows)


def auc_by_mark(rows: pd.DataFrame, mark) -> pd.DataFrame:
    """AUC of the positives with and without a mark, each against all negatives.

    Parameters
    ----------
    rows : DataFrame
        ``y_true score``.
    mark : array-like of 0 and 1
        One per row.

    Returns
    -------
    DataFrame
        ``mark n_positive auc``; NaN where no positive has that mark.
    """
    mark, positive = np.asarray(mark).astype(int), rows["y_true"].to_numpy() == 1
    found = []
    for value in (0, 1):
        chosen = ~positive | (mark == value)
        n = int((positive & chosen).sum())
        value_auc = auc(rows["y_true"][chosen], rows["score"][chosen]) if n else np.nan
        found.append({"mark": value, "n_positive": n, "auc": value_auc})
    return pd.DataFrame(found)


def waist(rows: pd.DataFrame, table: pd.DataFrame, recipe: Recipe) -> pd.DataFrame:
    """Columns of ``predictions.csv`` for rows of a data set (task ``excluded``)."""
    words = [recipe.features, *recipe.models, recipe.lesson]
    name = "_".join(words).replace("+", "_").replace(" ", "_")
    return pd.DataFrame(
        {
            "experiment": f"ratings/{table['dataset'].iloc[0]}/{name}",
            "task": "excluded",
            "model": name,
            "fold": rows["fold"].to_numpy(),
            "scan_id": table["scan_id"].to_numpy(),
            "participant_id": table["participant_id"].to_numpy(),
            "y_true": rows["y_true"].to_numpy(),
            "score": np.round(rows["score"].to_numpy(), 12),
            "y_pred": rows["y_pred"].to_numpy(),
        }
    )
