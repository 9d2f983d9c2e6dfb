"""A name goes in; an untuned classifier with settings fixed in advance comes out.

A scan may be motion in part, where raters disagree: :func:`fit_shares` learns from shares.
"""

from __future__ import annotations

import numpy as np

MODELS = ("search", "forest", "boosting", "logistic", "ridge", "stump")  # "search" is forest.py's
INVERSE_PENALTY = {"logistic": 0.02, "ridge": 0.005}  # C; the second is held closer to zero


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
