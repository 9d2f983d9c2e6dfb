"""A table of measures with labels goes in; a tuned random forest and unseen predictions come out.

The search is the paper's: 300 combinations of four hyper-parameters by five-fold cross-validation
in which a patient stays in one fold. Anything reported as performance comes from
:func:`nested_forest`, where the search never sees the fold it is judged on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product

import numpy as np
import pandas as pd

from motionlib.metrics import classification_metrics

MODELS = ("search", "forest", "boosting", "logistic", "ridge", "stump")  # "search" is forest.py's
INVERSE_PENALTY = {"logistic": 0.02, "ridge": 0.005}  # C; the second is held closer to zero
# The paper names the four hyper-parameters (section III-C.3), not their values: this grid of 384
# is ours. Forests are compared at several sizes for the price of the largest.
SEARCH_SPACE = {
    "n_estimators": (10, 20, 40, 60, 80, 100),
    "max_depth": (3, 5, 8, None),
    "min_samples_split": (2, 5, 10, 20),
    "min_samples_leaf": (1, 2, 4, 8),
}
N_ITER = 300  # §III-C.3
N_FOLDS = 5  # §III-C.3


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


def make_model(name: str, *, seed: int, n_jobs: int = 1, n_rows: int = 100, balanced: bool = True):
    """Build an untuned classifier to set beside the search.

    Parameters
    ----------
    name : {"forest", "boosting", "logistic", "ridge", "stump"}
        Settings fixed in advance: 500 trees with three samples a leaf; histogram gradient
        boosting, 200 small steps; logistic regression on normal scores, and once more with
        four times the penalty; one threshold on one measure.
    seed : int
        Of the model.
    n_jobs : int, default=1
        Trees grown at a time.
    n_rows : int, default=100
        Rows it will be fitted to; fewer than 100 make the normal scores coarser.
    balanced : bool, default=True
        Weigh both classes the same; False leaves it to the weights of the rows.

    Returns
    -------
    scikit-learn classifier
        Not fitted. Undefined measures (NaN) are accepted by all.

    Raises
    ------
    ValueError
        If the name is another.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import QuantileTransformer
    from sklearn.tree import DecisionTreeClassifier

    options = {"class_weight": "balanced" if balanced else None}
    if name == "forest":
        return RandomForestClassifier(
            500, min_samples_leaf=3, random_state=seed, n_jobs=n_jobs, **options
        )
    if name == "boosting":
        return HistGradientBoostingClassifier(
            max_iter=200, learning_rate=0.05, max_leaf_nodes=8, l2_regularization=1.0,
            random_state=seed, **options,
        )  # fmt: skip
    if name in INVERSE_PENALTY:
        return make_pipeline(
            SimpleImputer(strategy="median", keep_empty_features=True),
            QuantileTransformer(
                n_quantiles=min(100, n_rows), output_distribution="normal", random_state=seed
            ),
            LogisticRegression(C=INVERSE_PENALTY[name], max_iter=5000, **options),
        )
    if name == "stump":
        return DecisionTreeClassifier(max_depth=1, random_state=seed, **options)
    raise ValueError(f"model {name!r} is not known: expected one of {', '.join(MODELS)}")


def fit_model(name: str, X, y, *, seed: int, n_jobs: int = 1):
    """Build a model by :func:`make_model` and fit it to rows of measures."""
    return make_model(name, seed=seed, n_jobs=n_jobs, n_rows=len(y)).fit(X, y)


def fit_shares(name: str, X, share, strata=None, *, seed: int, n_jobs: int = 1):
    """Fit a model to rows that may be motion in part.

    Parameters
    ----------
    name, seed, n_jobs
        As in :func:`make_model`.
    X : array-like of float, shape (n, p)
        Measures.
    share : array-like of float, shape (n,)
        0 no motion, 1 motion; between them a row counts as both, in proportion.
    strata : array-like, shape (n,), optional
        As in :func:`class_weights`.

    Returns
    -------
    scikit-learn classifier
        Fitted.
    """
    X, share = np.asarray(X), np.asarray(share, float)
    weights = np.concatenate(class_weights(share, strata))
    rows = np.flatnonzero(weights)
    y = (rows < len(share)).astype(int)
    model = make_model(name, seed=seed, n_jobs=n_jobs, n_rows=len(rows), balanced=False)
    steps = getattr(model, "steps", None)
    key = f"{steps[-1][0]}__sample_weight" if steps else "sample_weight"
    return model.fit(X[rows % len(share)], y, **{key: weights[rows]})


def class_weights(share, strata=None) -> tuple[np.ndarray, np.ndarray]:
    """Weigh rows as motion and as none, so that both classes count the same.

    Parameters
    ----------
    share : array-like of float, shape (n,)
        Share of motion in each row.
    strata : array-like, shape (n,), optional
        Sites, for instance: the classes count the same within each, so that its rate teaches
        nothing. A stratum counts by P N / (P + N), P and N its amounts of both classes; one that
        has only one class does not count. Default: one stratum.

    Returns
    -------
    positive, negative : ndarray of float, shape (n,)
        Together they sum to n.

    Raises
    ------
    ValueError
        If a share lies outside 0 to 1, or if no stratum holds both classes.
    """
    share = np.asarray(share, float)
    if not ((share >= 0) & (share <= 1)).all():
        raise ValueError("a share of motion is undefined or outside 0 to 1: expected 0 to 1")
    strata = np.zeros(len(share), int) if strata is None else np.asarray(strata)
    _, stratum = np.unique(strata, return_inverse=True)
    motion = np.bincount(stratum, share)[stratum]
    still = np.bincount(stratum, 1 - share)[stratum]
    if not (motion * still).any():
        raise ValueError("no stratum holds both classes: expected motion and none in one at least")
    amount = motion * still / (motion + still)
    positive = np.divide(share * amount, motion, out=np.zeros(len(share)), where=amount > 0)
    negative = np.divide((1 - share) * amount, still, out=np.zeros(len(share)), where=amount > 0)
    scale = len(share) / (positive.sum() + negative.sum())
    return positive * scale, negative * scale


@dataclass(frozen=True)
class ForestSearch:
    """A finished random search.

    Attributes
    ----------
    best_params : dict
        The combination with the best mean balanced accuracy; the smallest forest among equals.
    best_score : float
        Its cross-validated balanced accuracy. Optimistic: it is the best of many.
    results : DataFrame
        One row per combination tried: the four values, ``mean`` and ``sd`` over folds.
    estimator : RandomForestClassifier
        The best combination, fitted to all rows.
    fold_estimators : list of RandomForestClassifier
        The best combination, fitted without each fold in turn.
    predictions : DataFrame
        Out-of-fold rows of the best combination: ``row fold y_true score y_pred``.
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


def call_motion(score) -> np.ndarray:
    """1 where a score is at least 1/2; sums of votes are rounded, lest their order decide ties."""
    return (np.round(score, 12) >= 0.5).astype(int)


def draw_combinations(n_iter: int = N_ITER, *, seed: int) -> pd.DataFrame:
    """Draw different combinations of the search space, in random order.

    Parameters
    ----------
    n_iter : int, default=300
        How many; at most the 384 there are.
    seed : int
        Of the draw.

    Returns
    -------
    DataFrame
        Columns `n_estimators`, `max_depth` (0 = unlimited), `min_samples_split`,
        `min_samples_leaf`.
    """
    grid = pd.DataFrame(list(product(*SEARCH_SPACE.values())), columns=list(SEARCH_SPACE))
    grid["max_depth"] = grid["max_depth"].fillna(0).astype(int)
    if not 1 <= n_iter <= len(grid):
        raise ValueError(f"n_iter is {n_iter}: expected 1 to {len(grid)}, the size of the space")
    chosen = np.random.default_rng(seed).permutation(len(grid))[:n_iter]
    return grid.iloc[chosen].reset_index(drop=True)


def search_forest(
    X, y, groups, *, n_iter: int = N_ITER, seed: int, n_jobs: int = 1, folds=None, class_weight=None
) -> ForestSearch:
    """Tune a random forest by random search, patients kept together.

    Parameters
    ----------
    X : array-like of float, shape (n, p)
        Measures; NaN where one is undefined.
    y : array-like of 0 and 1, shape (n,)
        1 is motion.
    groups : array-like, shape (n,)
        Patient of each row.
    n_iter : int, default=300
        Combinations tried.
    seed : int
        Of the draw, the folds and the forests. Same seed, same result, whatever `n_jobs`.
    n_jobs : int, default=1
        Forests grown at a time (processes).
    folds : array-like of int, shape (n,), optional
        Fold of each row; default: five folds, stratified by label.
    class_weight : optional
        Passed to the forest. The paper does not speak of weights, hence None.

    Returns
    -------
    ForestSearch
        Best combination, all results, fitted forests, out-of-fold predictions.

    Raises
    ------
    ValueError
        If there is one class, fewer patients than folds, a patient in two folds, infinite
        values or a measure that is nowhere defined.

    Notes
    -----
    Source: paper §III-C.3. With one seed the first k trees of a forest are the forest of k trees,
    so each forest is grown once, at its largest size; and combinations that split only nodes
    which the leaf size forbids to split are one forest. Neither changes a result.
    """
    from joblib import Parallel, delayed
    from sklearn.metrics import balanced_accuracy_score

    X, y, groups = check_table(X, y, groups)
    folds = grouped_folds(y, groups, seed=seed) if folds is None else np.asarray(folds)
    _check_folds(y, groups, folds)
    grid = draw_combinations(n_iter, seed=seed)
    shape = _forest_shape(grid)
    shapes = sorted(set(shape))
    largest = {s: max(n for n, t in zip(grid["n_estimators"], shape, strict=True) if t == s)
               for s in shapes}  # fmt: skip
    numbers = np.unique(folds)
    grown = Parallel(n_jobs=n_jobs)(
        delayed(_prefix_scores)(X, y, folds != k, s, largest[s], seed, class_weight)
        for s in shapes
        for k in numbers
    )
    grown = dict(zip(product(shapes, numbers), grown, strict=True))
    scores = np.empty((len(grid), len(numbers)))
    for row, (n_trees, s) in enumerate(zip(grid["n_estimators"], shape, strict=True)):
        for column, k in enumerate(numbers):
            called = call_motion(grown[s, k][n_trees - 1])
            scores[row, column] = balanced_accuracy_score(y[folds == k], called)
    results = grid.assign(mean=scores.mean(axis=1), sd=scores.std(axis=1))
    order = results.assign(neg=-results["mean"].round(12))
    order = order.sort_values(["neg", *SEARCH_SPACE], kind="stable")
    best = int(order.index[0])
    params = _sklearn_params(grid.loc[best])
    return ForestSearch(
        best_params=params,
        best_score=float(results.loc[best, "mean"]),
        results=results.sort_values("mean", ascending=False, kind="stable", ignore_index=True),
        estimator=_forest(params, seed, class_weight, n_jobs).fit(X, y),
        fold_estimators=[
            _forest(params, seed, class_weight, n_jobs).fit(X[folds != k], y[folds != k])
            for k in numbers
        ],
        predictions=fold_rows(
            y, folds, {k: grown[shape[best], k][params["n_estimators"] - 1] for k in numbers}
        ),
    )


def grouped_folds(y, groups, *, n_folds: int = N_FOLDS, seed: int) -> np.ndarray:
    """Assign each row a fold, patients whole, classes balanced; shape (n,), 0 to n_folds - 1."""
    from sklearn.model_selection import StratifiedGroupKFold

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


def check_table(X, y, groups) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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


def _forest_shape(grid: pd.DataFrame) -> list[tuple[int, int, int]]:
    """Depth, leaf size and the split size that is in force, for each combination."""
    split = np.maximum(grid["min_samples_split"], 2 * grid["min_samples_leaf"])
    return list(zip(grid["max_depth"], grid["min_samples_leaf"], split, strict=True))


def _sklearn_params(row: pd.Series) -> dict:
    return {name: None if row[name] == 0 else int(row[name]) for name in SEARCH_SPACE}


def _forest(params: dict, seed: int, class_weight, n_jobs: int = 1):
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(
        **params, random_state=seed, class_weight=class_weight, n_jobs=n_jobs
    )


def _prefix_scores(X, y, train, shape, n_trees, seed, class_weight) -> np.ndarray:
    """Scores of the rows left out by forests of 1, 2, ... trees, shape (n_trees, n_left_out)."""
    depth, leaf, split = (int(value) for value in shape)
    params = {
        "n_estimators": n_trees,
        "max_depth": depth or None,
        "min_samples_leaf": leaf,
        "min_samples_split": split,
    }
    forest = _forest(params, seed, class_weight).fit(X[train], y[train])
    votes = [tree.predict_proba(X[~train], check_input=False)[:, 1] for tree in forest.estimators_]
    return np.cumsum(votes, axis=0) / np.arange(1, n_trees + 1)[:, None]


def fold_rows(y, folds, scores: dict) -> pd.DataFrame:
    """Out-of-fold rows in the order of the table."""
    score = np.empty(len(y))
    for k, values in scores.items():
        score[folds == k] = values
    return pd.DataFrame(
        {
            "row": np.arange(len(y)),
            "fold": folds,
            "y_true": y,
            "score": score,
            "y_pred": call_motion(score),
        }
    )
