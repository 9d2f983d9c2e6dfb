"""Measures with labels go in; the best of many forests, by patient-grouped folds, comes out."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product

import numpy as np
import pandas as pd

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
