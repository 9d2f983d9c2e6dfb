"""A name goes in; an untuned classifier with settings fixed in advance comes out."""

from __future__ import annotations

MODELS = ("search", "forest", "boosting", "logistic", "stump")  # "search" is forest.py's


def make_model(name: str, *, seed: int, n_jobs: int = 1, n_rows: int = 100):
    """Build an untuned classifier to set beside the search.

    Parameters
    ----------
    name : {"forest", "boosting", "logistic", "stump"}
        Settings fixed in advance: 500 balanced trees with three samples a leaf; histogram
        gradient boosting, 200 small steps; logistic regression on normal scores; one threshold
        on one measure.
    seed : int
        Of the model.
    n_jobs : int, default=1
        Trees grown at a time.
    n_rows : int, default=100
        Rows it will be fitted to; fewer than 100 make the normal scores coarser.

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

    if name == "forest":
        return RandomForestClassifier(
            500, min_samples_leaf=3, class_weight="balanced", random_state=seed, n_jobs=n_jobs
        )
    if name == "boosting":
        return HistGradientBoostingClassifier(
            max_iter=200, learning_rate=0.05, max_leaf_nodes=8, l2_regularization=1.0,
            class_weight="balanced", random_state=seed,
        )  # fmt: skip
    if name == "logistic":
        return make_pipeline(
            SimpleImputer(strategy="median", keep_empty_features=True),
            QuantileTransformer(
                n_quantiles=min(100, n_rows), output_distribution="normal", random_state=seed
            ),
            LogisticRegression(C=0.02, max_iter=5000, class_weight="balanced"),
        )
    if name == "stump":
        return DecisionTreeClassifier(max_depth=1, class_weight="balanced", random_state=seed)
    raise ValueError(f"model {name!r} is not known: expected one of {', '.join(MODELS)}")


def fit_model(name: str, X, y, *, seed: int, n_jobs: int = 1):
    """Build a model by :func:`make_model` and fit it to rows of measures."""
    return make_model(name, seed=seed, n_jobs=n_jobs, n_rows=len(y)).fit(X, y)
