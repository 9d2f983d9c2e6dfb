"""Rated scans of many sites go in; predictions for sites never seen in training come out.

A measure's level tells the scanner before it tells motion. Each site's own median and spread,
known without any label, take the level away; what is left can be compared between sites. Raters
disagree, and what each of them said teaches more than one verdict.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
import pandas as pd

from motionlib.compute.engines import raise_failures, submit
from motionlib.iqms.classifiers import fit_shares
from motionlib.iqms.forestsearch import call_motion
from motionlib.iqms.lessons import LESSONS, lessons_of, taught
from motionlib.metrics import auc

FEATURES = ("raw", "within", "raw+within")
MODELS = ("forest", "boosting", "logistic", "ridge")


@dataclass(frozen=True)
class Recipe:
    """How scans of an unseen site are scored.

    Attributes
    ----------
    features : {"raw", "within", "raw+within"}
        Measures as they are, against their own site, or both.
    models : tuple of str
        Names of :func:`classifiers.make_model`; their scores are averaged.
    lesson : {"verdict", "votes", "grades within"}
        What the models are taught; see :func:`lessons.taught`.
    """

    features: str
    models: tuple[str, ...]
    lesson: str = "verdict"

    def __str__(self) -> str:
        return f"{self.features}: {' + '.join(self.models)}, {self.lesson}"


def recipes(models=MODELS, lessons=LESSONS) -> list[Recipe]:
    """Every choice that is open: features times lessons times each set of the models."""
    sets = [s for n in range(1, len(models) + 1) for s in combinations(models, n)]
    return [Recipe(*choice) for choice in product(FEATURES, sets, lessons)]


def site_features(table: pd.DataFrame, names, features: str) -> np.ndarray:
    """Build a recipe's features.

    Parameters
    ----------
    table : DataFrame
        ``site`` and the measures; whole sites, since their medians are taken. No label is read.
    names : sequence of str
        The measures.
    features : {"raw", "within", "raw+within"}
        ``within``: distance from the site's median in units of its interquartile range, at most
        10 either way; 0 where a site has no spread.

    Returns
    -------
    ndarray of float, shape (n, p) or (n, 2 p)
        In the table's order.
    """
    if features not in FEATURES:
        raise ValueError(f"features are {features!r}: expected one of {', '.join(FEATURES)}")
    raw = table[list(names)].astype(float)
    if features == "raw":
        return raw.to_numpy()
    sites = raw.groupby(table["site"].to_numpy())
    spread = sites.transform("quantile", 0.75) - sites.transform("quantile", 0.25)
    within = (raw - sites.transform("median")) / spread.where(spread > 0)
    within = within.clip(-10, 10).fillna(0).to_numpy()
    return within if features == "within" else np.hstack([raw.to_numpy(), within])


def leave_one_site_out(
    table: pd.DataFrame,
    names,
    features: str,
    model: str,
    *,
    lesson: str = "verdict",
    seed: int,
    n_jobs: int = 1,
) -> pd.DataFrame:
    """Predict each site by one model that was trained on all others.

    Parameters
    ----------
    table : DataFrame
        ``site y_true``, the measures, and what the lesson needs.
    names, features
        As in :func:`site_features`.
    model : str
        Of :func:`classifiers.make_model`.
    lesson : str, default="verdict"
        As in :func:`lessons.taught`.
    seed : int
        Of the model.
    n_jobs : int, default=1
        Trees grown at a time.

    Returns
    -------
    DataFrame
        ``row fold site y_true score``; fold is the site's number in alphabetical order.
    """
    X, y = site_features(table, names, features), table["y_true"].to_numpy()
    share, strata = taught(table, lesson)
    sites = table["site"].to_numpy()
    if len(set(sites)) < 2:
        raise ValueError(f"found {len(set(sites))} site: expected two or more, to leave one out")
    score, fold = np.empty(len(y)), np.empty(len(y), int)
    for k, site in enumerate(sorted(set(sites))):
        out = sites == site
        fitted = fit_shares(
            model, X[~out], share[~out], None if strata is None else strata[~out], seed=seed,
            n_jobs=n_jobs,
        )  # fmt: skip
        score[out] = fitted.predict_proba(X[out])[:, 1]
        fold[out] = k
    return pd.DataFrame(
        {"row": np.arange(len(y)), "fold": fold, "site": sites, "y_true": y, "score": score}
    )


def compare_recipes(
    table: pd.DataFrame, names, *, seed: int, models=MODELS, engine: str = "inline"
) -> tuple[pd.DataFrame, dict[Recipe, pd.DataFrame]]:
    """Judge every recipe by leaving one site out, on one data set.

    Parameters
    ----------
    table, names, seed
        As in :func:`leave_one_site_out`.
    models : sequence of str
        Which models recipes are made of.
    engine : str, default="inline"
        Where to compute; see :func:`motionlib.compute.engines.submit`.

    Returns
    -------
    comparison : DataFrame
        ``recipe features models lesson auc auc_within``: the AUC of all scans pooled (a site's
        base rate helps), and of pairs within a site (it cannot).
    predictions : dict
        Recipe to its rows.
    """
    lessons = lessons_of(table)
    items = [(table, tuple(names), *parts, seed) for parts in product(FEATURES, models, lessons)]
    found = raise_failures(submit(_leave_out, items, engine=engine, label="sites"))
    parts = {item[2:5]: rows for item, rows in zip(items, found, strict=True)}
    rows, predictions = [], {}
    for recipe in recipes(models, lessons):
        own = [parts[recipe.features, model, recipe.lesson] for model in recipe.models]
        mean = own[0].assign(score=np.mean([one["score"] for one in own], axis=0))
        predictions[recipe] = mean.assign(y_pred=call_motion(mean["score"]))
        rows.append(
            {"recipe": str(recipe), "features": recipe.features,
             "models": " + ".join(recipe.models), "lesson": recipe.lesson,
             **site_auc(predictions[recipe])}
        )  # fmt: skip
    return pd.DataFrame(rows), predictions


def _leave_out(item: tuple) -> pd.DataFrame:
    table, names, features, model, lesson, seed = item
    return leave_one_site_out(table, names, features, model, lesson=lesson, seed=seed)


def choose_recipe(comparison: pd.DataFrame, predictions, *, by: str = "auc_within") -> Recipe:
    """Recipe with the highest value in a column of :func:`compare_recipes`; the first if equal.

    Parameters
    ----------
    comparison, predictions
        From :func:`compare_recipes`.
    by : {"auc_within", "auc"}
        What is highest.
    """
    best = comparison["recipe"][comparison[by].idxmax()]
    return next(recipe for recipe in predictions if str(recipe) == best)


def choose_by_site(predictions, *, by: str = "auc_within") -> pd.DataFrame:
    """Predict each site by the recipe that is best on the others.

    The best of many recipes looks better than it is; here a site has no say in its recipe.

    Parameters
    ----------
    predictions : dict of Recipe to DataFrame
        From :func:`compare_recipes`.
    by : {"auc_within", "auc"}
        Which of :func:`site_auc`'s figures decides.

    Returns
    -------
    DataFrame
        Rows as in `predictions`, and ``recipe``. Scores are ranks among all rows of the recipe,
        from 0 to 1, so that sites with different recipes can be pooled.

    Notes
    -----
    A recipe's rows on the other sites come from models that saw this one; its own do not.
    """
    found = list(predictions.items())
    rows = found[0][1].assign(recipe="")
    for site in sorted(rows["site"].unique()):
        out = (rows["site"] == site).to_numpy()
        worth = [site_auc(part[~out])[by] for _, part in found]
        recipe, part = found[int(np.argmax(worth))]
        rows.loc[out, "score"] = part["score"].rank(pct=True)[out]
        rows.loc[out, "y_pred"] = part["y_pred"][out]
        rows.loc[out, "recipe"] = str(recipe)
    return rows


def site_auc(rows: pd.DataFrame) -> dict[str, float]:
    """AUC of all scans pooled, and of the pairs that share a site.

    Parameters
    ----------
    rows : DataFrame
        ``site y_true score``.

    Returns
    -------
    dict
        ``auc`` and ``auc_within``: among pairs of a positive and a negative scan of one site, the
        share in which the positive scores higher (ties count half).
    """
    y_true, score = rows["y_true"].to_numpy(int), rows["score"].to_numpy(float)
    if np.isnan(score).any():
        raise ValueError(f"{np.isnan(score).sum()} of {len(score)} scores are NaN: expected none")
    right = pairs = 0.0
    for own in rows.groupby("site").indices.values():
        n_positive = int(y_true[own].sum())
        n = n_positive * (len(own) - n_positive)
        if n:
            right += n * auc(y_true[own], score[own])
            pairs += n
    if not pairs:
        raise ValueError("no site holds both classes: expected positives and negatives in one")
    return {"auc": auc(y_true, score), "auc_within": right / pairs}
