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
from motionlib.iqms.forest import call_motion, fit_shares
from motionlib.metrics import auc, classification_metrics
from motionlib.stats.calibration import best_threshold
from motionlib.stats.intervals import bootstrap_ci

FEATURES = ("raw", "within", "raw+within")
MODELS = ("forest", "boosting", "logistic", "ridge")
LESSONS = ("verdict", "votes", "grades within")


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


def lessons_of(table: pd.DataFrame) -> tuple[str, ...]:
    """Lessons that a table can teach: all three if its raters are in it, else the verdict."""
    return LESSONS if any(name.startswith("rater_") for name in table) else LESSONS[:1]


def taught(table: pd.DataFrame, lesson: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Tell what a model learns from each scan.

    Parameters
    ----------
    table : DataFrame
        ``site y_true`` and, for the lessons of several raters, ``rater_*``: -1 exclude, 0
        doubtful, 1 accept, NaN not rated.
    lesson : {"verdict", "votes", "grades within"}
        ``y_true``; the share of raters who exclude; or the mean grade of the raters, from 0
        (accept) to 1 (exclude), both classes weighing the same within each site.

    Returns
    -------
    share : ndarray of float, shape (n,)
        Motion's share in each scan; a scan without a rating has its ``y_true``.
    strata : ndarray or None
        Sites, or None, as :func:`classifiers.fit_shares` takes them.
    """
    if lesson not in LESSONS:
        raise ValueError(f"lesson is {lesson!r}: expected one of {', '.join(LESSONS)}")
    verdict = table["y_true"].astype(float)
    if lesson == "verdict":
        return verdict.to_numpy(), None
    raters = [name for name in table if name.startswith("rater_")]
    if not raters:
        raise ValueError(f"the table has no column rater_*: {lesson!r} needs it, teach the verdict")
    ratings = table[raters].astype(float)
    if lesson == "votes":
        ratings = ratings.where(ratings.isna(), np.where(ratings == -1, -1.0, 1.0))
    share = ((1 - ratings) / 2).mean(axis=1).fillna(verdict).to_numpy()
    return share, None if lesson == "votes" else table["site"].to_numpy()


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
