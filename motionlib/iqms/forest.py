"""Random forest on image-quality measures, tuned by random search (paper §III-C.3).

The search tries 300 combinations of four hyper-parameters by five-fold cross-validation in which a
patient stays in one fold. Its own score is that of the best of many; anything reported as
performance comes from scans that the search never saw: the warehouse's test scans
(:func:`warehouse_rows`) or an outer loop of folds around the search (:func:`cross_validated`).
"""

import hashlib
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import sklearn
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.model_selection import PredefinedSplit, StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import QuantileTransformer

from motionlib.files import code_key, content_key, read_json, write_json
from motionlib.metrics import classification_metrics
from motionlib.predictions import PREDICTION_COLUMNS

MODELS = ("forest", "boosting", "logistic")  # untuned; "search" names the random search
# The paper names the four hyper-parameters (§III-C.3), not their values: this grid of 384 is ours.
# Forests are compared at several sizes for the price of the largest.
SEARCH_SPACE = {
    "n_estimators": (10, 20, 40, 60, 80, 100),
    "max_depth": (3, 5, 8, None),
    "min_samples_split": (2, 5, 10, 20),
    "min_samples_leaf": (1, 2, 4, 8),
}
N_ITER = 300  # §III-C.3
N_FOLDS = 5  # §III-C.3


@dataclass(frozen=True)
class ForestSearch:
    """A finished random search.

    `best_params` is the combination with the best mean balanced accuracy, the smallest forest among
    equals; `best_score`, its cross-validated balanced accuracy, is optimistic: the best of many.
    `results` has one row per combination tried: the four values, ``mean`` and ``sd`` over folds.
    `estimator` is the best combination fitted to all rows, `fold_estimators` without each fold in
    turn, `predictions` its out-of-fold rows: ``fold y_true score y_pred``.
    """

    best_params: dict
    best_score: float
    results: pd.DataFrame
    estimator: object = field(repr=False)
    fold_estimators: list = field(repr=False)
    predictions: pd.DataFrame = field(repr=False)

    def predict_proba(self, X) -> np.ndarray:
        """Probability of both classes for rows of measures, shape (n, 2)."""
        return self.estimator.predict_proba(np.asarray(X, dtype=np.float32))

    def predict(self, X) -> np.ndarray:
        """0 or 1 for rows of measures: motion when its probability is at least 1/2."""
        return call_motion(self.predict_proba(X)[:, 1])


def search_forest(
    X, y, groups, *, n_iter: int = N_ITER, seed: int, n_jobs: int = 1, folds=None, cache=None
) -> ForestSearch:
    """Tune a random forest by random search, patients kept together.

    Parameters
    ----------
    X : array-like of float, shape (n, p)
        Measures; NaN where one is undefined.
    y, groups : array-like, shape (n,)
        1 is motion, else 0, and patient of each row.
    n_iter, n_jobs : int
        Combinations tried (300 in the paper), and forests grown at a time (processes).
    seed : int
        Of the draw, the folds and the forests. Same seed, same result, whatever `n_jobs`.
    folds : array-like of int, shape (n,), optional
        Fold of each row; default: five folds, stratified by label.
    cache : path-like, optional
        Folder in which the scores of a search are kept; an equal one does not search again.

    Returns
    -------
    ForestSearch
        Best combination, all results, fitted forests, out-of-fold predictions.

    Raises
    ------
    ValueError
        If there is one class, fewer patients than folds, a patient in two folds, infinite values or
        a measure that is nowhere defined.

    Notes
    -----
    Source: paper §III-C.3. The classes are not weighed, since the paper does not speak of it. With
    one seed the first k trees of a forest are the forest of k trees, so each forest is grown once,
    at its largest size; and combinations that split only nodes which the leaf size forbids to split
    are one forest. Neither changes a result.
    """
    X, y, groups = _check_table(X, y, groups)
    folds = grouped_folds(y, groups, seed=seed) if folds is None else np.asarray(folds)
    _check_folds(y, groups, folds)
    numbers = np.unique(folds)

    # 1. Draw the combinations; those that differ in the number of trees alone are one shape.
    grid = draw_combinations(n_iter, seed=seed)
    split = np.maximum(grid["min_samples_split"], 2 * grid["min_samples_leaf"])  # the one in force
    shape_of = list(zip(grid["max_depth"], grid["min_samples_leaf"], split, strict=True))
    largest: dict = {}
    for n_trees, shape in zip(grid["n_estimators"], shape_of, strict=True):
        largest[shape] = max(n_trees, largest.get(shape, 0))

    # 2. Judge them out of fold, or read how an equal search has judged them.
    table = hashlib.sha256(b"".join(np.ascontiguousarray(a).data for a in (X, y, folds)))
    facts = table.hexdigest(), grid.to_dict("list"), seed, sklearn.__version__, code_key("iqms")
    kept = None if cache is None else Path(cache) / f"{content_key(*facts)}.json"
    if kept is not None and kept.is_file():
        scores = np.array(read_json(kept))
    else:
        scores = _judge_combinations(X, y, folds, grid, shape_of, largest, seed, n_jobs)
        if kept is not None:
            write_json(kept, scores.tolist())
    results = grid.assign(mean=scores.mean(axis=1), sd=scores.std(axis=1))

    # 3. Take the best, the smallest and shallowest among equals, and fit it.
    order = results.assign(loss=-results["mean"].round(12))
    best = order.sort_values(["loss", *SEARCH_SPACE], kind="stable").index[0]
    params = {name: int(grid.loc[best, name]) or None for name in SEARCH_SPACE}
    forest = RandomForestClassifier(**params, random_state=seed, n_jobs=n_jobs)
    fold_estimators = [clone(forest).fit(X[folds != k], y[folds != k]) for k in numbers]
    score = np.empty(len(y))
    for k, one in zip(numbers, fold_estimators, strict=True):
        score[folds == k] = one.predict_proba(X[folds == k])[:, 1]
    return ForestSearch(
        best_params=params,
        best_score=float(results.loc[best, "mean"]),
        results=results.sort_values("mean", ascending=False, kind="stable", ignore_index=True),
        estimator=clone(forest).fit(X, y),
        fold_estimators=fold_estimators,
        predictions=_fold_rows(y, folds, score),
    )


def draw_combinations(n_iter: int = N_ITER, *, seed: int) -> pd.DataFrame:
    """Draw `n_iter` different combinations of the search space; max_depth 0 is unlimited."""
    grid = pd.DataFrame(list(product(*SEARCH_SPACE.values())), columns=list(SEARCH_SPACE))
    grid["max_depth"] = grid["max_depth"].fillna(0).astype(int)
    if not 1 <= n_iter <= len(grid):
        raise ValueError(f"n_iter is {n_iter}: expected 1 to {len(grid)}, the size of the space")
    chosen = np.random.default_rng(seed).permutation(len(grid))[:n_iter]
    return grid.iloc[chosen].reset_index(drop=True)


def _judge_combinations(X, y, folds, grid, shape_of, largest, seed, n_jobs):
    """Balanced accuracy of every combination in each fold, (combinations, folds)."""
    numbers = np.unique(folds)
    # each shape is grown once per fold, and its scores after every tree are kept
    pairs = list(product(sorted(set(shape_of)), numbers))
    grown = Parallel(n_jobs=n_jobs)(
        delayed(_prefix_scores)(X, y, folds != k, shape, largest[shape], seed) for shape, k in pairs
    )
    grown = dict(zip(pairs, grown, strict=True))
    accuracy = np.empty((len(grid), len(numbers)))
    for row, (n_trees, shape) in enumerate(zip(grid["n_estimators"], shape_of, strict=True)):
        for column, k in enumerate(numbers):
            called = call_motion(grown[shape, k][n_trees - 1])
            accuracy[row, column] = balanced_accuracy_score(y[folds == k], called)
    return accuracy


def _prefix_scores(X, y, train, shape, n_trees, seed) -> np.ndarray:
    """Scores of the rows left out by forests of 1, 2, ... trees, shape (n_trees, n_left_out)."""
    depth, leaf, split = (int(value) for value in shape)
    forest = RandomForestClassifier(
        n_trees, max_depth=depth or None, min_samples_leaf=leaf, min_samples_split=split,
        random_state=seed,
    ).fit(X[train], y[train])  # fmt: skip
    votes = [tree.predict_proba(X[~train], check_input=False)[:, 1] for tree in forest.estimators_]
    return np.cumsum(votes, axis=0) / np.arange(1, n_trees + 1)[:, None]


def call_motion(score) -> np.ndarray:
    """1 where a score is at least 1/2; sums of votes are rounded, lest their order decide ties."""
    return (np.round(score, 12) >= 0.5).astype(int)


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
    outer: bool = False,
    cache=None,
) -> tuple[pd.DataFrame, ForestSearch]:
    """Train the paper's forest on one cohort and predict the warehouse's test scans.

    Parameters
    ----------
    train, test : DataFrame
        ``source_participant_id y_true fold``, and ``scan_id participant_id y_true``, with the
        measures; the folds are the networks' folds.
    columns : sequence of str
        The measures used. One that is undefined in all of `train` is left out; ValueError if all
        are.
    kind, task : {"research", "clinical"}, {"mov01vs2", "mov0vs1"}
        Which cohort `train` is, and which question `test` is labelled for.
    seed, n_iter, n_jobs, cache
        As in :func:`search_forest`.
    outer : bool, default=False
        `test` holds the scans of `train`, each of which is predicted by a search among the scans of
        the other folds.

    Returns
    -------
    predictions : DataFrame
        Rows of ``predictions.csv``: every test scan by the forest of each fold, and by their mean
        (fold -1); with `outer` by the mean forest of the search that has not seen its fold.
    search : ForestSearch
        The search among all of `train`.

    Notes
    -----
    Source: paper Table IV, rows "Random forest trained on research dataset" and "... on CDW".
    """
    usable = _defined(train, columns)
    options = {"n_iter": n_iter, "seed": seed, "n_jobs": n_jobs, "cache": cache}
    y, folds = (train[name].to_numpy(dtype=int) for name in ("y_true", "fold"))
    search = search_forest(
        _finite(train[usable]), y, train["source_participant_id"].to_numpy(), folds=folds, **options
    )
    seen = _finite(test[usable])
    scans = test[["scan_id", "participant_id"]].assign(y_true=test["y_true"].astype(int))
    if outer:
        score = _nested(train, usable, **options)
        scans = scans.assign(fold=test["fold"].to_numpy(int), score=score)
        parts = [scans, scans.assign(fold=-1)]
    else:
        scores = {
            int(k): forest.predict_proba(seen)[:, 1]
            for k, forest in zip(np.unique(folds), search.fold_estimators, strict=True)
        }
        scores[-1] = np.mean(list(scores.values()), axis=0)
        parts = [scans.assign(fold=fold, score=score) for fold, score in sorted(scores.items())]
    names = {"experiment": f"warehouse/forest_{kind}", "task": task, "model": "RandomForest"}
    return named_predictions(pd.concat(parts, ignore_index=True), **names), search


def _nested(train: pd.DataFrame, columns, **options) -> np.ndarray:
    """Score every row by the mean forest of a search among the other folds, shape (n,)."""
    X, y = _finite(train[columns]), train["y_true"].to_numpy(int)
    folds, patients = train["fold"].to_numpy(int), train["source_participant_id"].to_numpy()
    score = np.empty(len(y))
    for k in np.unique(folds):
        rest = folds != k
        search = search_forest(X[rest], y[rest], patients[rest], folds=folds[rest], **options)
        votes = [forest.predict_proba(X[~rest])[:, 1] for forest in search.fold_estimators]
        score[~rest] = np.mean(votes, axis=0)
    return score


def judge_rows(rows: pd.DataFrame) -> dict:
    """Judge rows of `warehouse_rows`: `metrics.classification_metrics` of the mean forest."""
    mean = rows[rows["fold"] == -1]
    return classification_metrics(mean["y_true"], mean["score"], y_pred=mean["y_pred"])


def judge_set(
    train: pd.DataFrame, test: pd.DataFrame, columns, *, outer: bool = False, **options
) -> dict:
    """Judge a set of measures: the search on `train`, the mean forest on `test`.

    Arguments as of `warehouse_rows`, answer as of `judge_rows`.
    """
    if outer:  # the search among all of `train`, which judges nothing, is not made
        score = _nested(train, _defined(train, columns), **options)
        return classification_metrics(test["y_true"], score, y_pred=call_motion(score))
    rows, _ = warehouse_rows(train, test, columns, kind="clinical", task="mov01vs2", **options)
    return judge_rows(rows)


def importance(
    search: ForestSearch, train: pd.DataFrame, columns, *, seed: int, n_repeats: int = 10
) -> pd.DataFrame:
    """Loss of AUC on unseen patients when one measure is shuffled.

    `search` comes from `warehouse_rows`: its forest of each fold is judged on the scans of `train`
    that it was not trained on, with `n_repeats` shuffles. Returns ``measure auc_loss low high``,
    largest first: mean and 2.5 to 97.5 percentiles over folds and shuffles. Measures that carry the
    same information share their loss.
    """
    usable = _defined(train, columns)
    X, folds = _finite(train[usable]), search.predictions["fold"].to_numpy()
    y = search.predictions["y_true"].to_numpy()
    parts = zip(np.unique(folds), search.fold_estimators, strict=True)
    losses = [_losses(f, X[folds == k], y[folds == k], n_repeats, seed) for k, f in parts]
    losses = np.concatenate(losses, axis=1)
    low, high = np.percentile(losses, (2.5, 97.5), axis=1)
    table = {"measure": usable, "auc_loss": losses.mean(axis=1), "low": low, "high": high}
    by_loss = {"ascending": False, "kind": "stable", "ignore_index": True}
    return pd.DataFrame(table).sort_values("auc_loss", **by_loss)


def _losses(forest, X, y, n_repeats: int, seed: int) -> np.ndarray:
    """Give scikit-learn's ``permutation_importance``, (p, n), all shuffles predicted at once."""
    seed, losses = np.random.RandomState(seed).randint(np.iinfo(np.int32).max + 1), []
    for column in range(X.shape[1]):
        draw, order = np.random.RandomState(seed), np.arange(len(X))
        copies, values = np.tile(X, (n_repeats + 1, 1, 1)), X[:, column]  # the first stays whole
        for copy in copies[1:]:
            draw.shuffle(order)
            values = copy[:, column] = values[order]
        scores = forest.predict_proba(copies.reshape(-1, X.shape[1]))[:, 1]
        whole, *shuffled = (roc_auc_score(y, part) for part in scores.reshape(-1, len(X)))
        losses.append(whole - np.array(shuffled))
    return np.array(losses)


def cross_validated(
    X, y, groups, model: str = "forest", *, seed: int, n_iter: int = N_ITER
) -> pd.DataFrame:
    """Predict every row by a model that saw no row of its patient.

    `X`, `y`, `groups` and `n_iter` as in `search_forest`; `model` is a name in `MODELS`, or
    ``search``: the whole random search, nested so that it never sees the fold it is judged on.
    Returns ``fold y_true score y_pred`` in the order of the table.
    """
    X, y, groups = _check_table(X, y, groups)
    folds = grouped_folds(y, groups, seed=seed)
    if model != "search":
        untuned, parts = make_model(model, seed=seed, n_rows=len(y)), PredefinedSplit(folds)
        score = cross_val_predict(untuned, X, y, cv=parts, method="predict_proba")[:, 1]
        return _fold_rows(y, folds, score)
    score = np.empty(len(y))
    for k in np.unique(folds):
        train = folds != k
        options = {"n_iter": n_iter, "seed": seed + 1 + int(k)}
        search = search_forest(X[train], y[train], groups[train], **options)
        score[~train] = search.predict_proba(X[~train])[:, 1]
    return _fold_rows(y, folds, score)


def make_model(name: str, *, seed: int, n_rows: int):
    """Untuned classifier to set beside the search: ``forest``, ``boosting`` or ``logistic``.

    The settings were fixed in advance: 500 trees with three samples a leaf; histogram gradient
    boosting, 200 small steps; logistic regression on normal scores, which are coarser where the
    whole table has fewer than 200 rows. Both classes weigh the same; NaN is accepted by all.
    """
    if name == "forest":
        return RandomForestClassifier(
            500, min_samples_leaf=3, class_weight="balanced", random_state=seed
        )
    if name == "boosting":
        return HistGradientBoostingClassifier(
            max_iter=200, learning_rate=0.05, max_leaf_nodes=8, l2_regularization=1.0,
            class_weight="balanced", random_state=seed,
        )  # fmt: skip
    if name == "logistic":
        n_quantiles = min(100, n_rows // 2)  # never more than the rows of a training fold
        return make_pipeline(
            SimpleImputer(strategy="median", keep_empty_features=True),
            QuantileTransformer(
                n_quantiles=n_quantiles, output_distribution="normal", random_state=seed
            ),
            LogisticRegression(C=0.02, max_iter=5000, class_weight="balanced"),
        )
    raise ValueError(f"model {name!r} is not known: expected one of {', '.join(MODELS)}, search")


def named_predictions(rows: pd.DataFrame, *, experiment: str, task: str, model: str):
    """Columns of ``predictions.csv`` for rows with ``scan_id participant_id fold y_true score``."""
    names = {"experiment": experiment, "task": task, "model": model}
    score = np.round(rows["score"], 12)
    return rows.assign(**names, score=score, y_pred=call_motion(score))[list(PREDICTION_COLUMNS)]


def grouped_folds(y, groups, *, n_folds: int = N_FOLDS, seed: int) -> np.ndarray:
    """Assign each row a fold, patients whole, classes balanced; shape (n,), 0 to n_folds - 1."""
    y, groups = np.asarray(y), np.asarray(groups)
    n_patients = len(np.unique(groups))
    if n_patients < n_folds:
        raise ValueError(
            f"{n_patients} patients cannot fill {n_folds} folds: expected at least one a fold, "
            "add patients or ask for fewer folds"
        )
    folds = np.empty(len(y), int)
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    for k, (_, test) in enumerate(splitter.split(y[:, None], y, groups)):
        folds[test] = k
    return folds


def _fold_rows(y, folds, score) -> pd.DataFrame:
    """Out-of-fold rows in the order of the table."""
    return pd.DataFrame({"fold": folds, "y_true": y, "score": score, "y_pred": call_motion(score)})


def _defined(train: pd.DataFrame, columns) -> list[str]:
    """Keep the measures that are defined in at least one training scan."""
    usable = [name for name in columns if train[name].notna().any()]
    if not usable:
        raise ValueError(
            f"none of the measures {', '.join(columns)} is defined in the {len(train)} training "
            "scans: expected heads with air around them"
        )
    return usable


def _finite(measures: pd.DataFrame) -> np.ndarray:
    """Measures as float32 with NaN for what a float32 cannot hold, shape (n, p)."""
    with np.errstate(over="ignore"):
        values = measures.to_numpy(dtype=np.float32)
    return np.where(np.isfinite(values), values, np.float32(np.nan))


def _check_table(X, y, groups) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Arrays fit for a forest, or one sentence why not."""
    X = np.asarray(X, dtype=np.float32)
    y, groups = np.asarray(y), np.asarray(groups)
    if X.ndim != 2 or not len(X) == len(y) == len(groups):
        raise ValueError(
            f"X has shape {X.shape}, y {len(y)} and groups {len(groups)} rows: expected a table "
            "with one label and one patient per row"
        )
    labels = sorted(set(y.tolist()))
    if labels != [0, 1]:
        raise ValueError(f"the labels are {labels}: expected both 0 (no motion) and 1 (motion)")
    if np.isinf(X).any():
        raise ValueError("X holds infinite values: expected finite ones, or NaN where undefined")
    empty = np.flatnonzero(np.isnan(X).all(axis=0))
    if empty.size:
        raise ValueError(
            f"columns {empty.tolist()} of X are NaN in every row: expected measures that are "
            "defined somewhere, drop these columns"
        )
    return X, y.astype(int), groups


def _check_folds(y, groups, folds) -> None:
    """Refuse folds that share a patient or that leave one class."""
    if len(folds) != len(y):
        raise ValueError(f"{len(folds)} folds for {len(y)} rows: expected one per row")
    crossing = pd.Series(folds).groupby(np.asarray(groups)).nunique()
    if (crossing > 1).any():
        raise ValueError(
            f"{(crossing > 1).sum()} patients lie in more than one fold: expected each in one, "
            "assign folds by patient"
        )
    for k in np.unique(folds):
        if len(set(y[folds == k])) < 2 or len(set(y[folds != k])) < 2:
            raise ValueError(
                f"fold {k} or the rest has one class only: expected both in each fold, use fewer "
                "folds or more patients"
            )
