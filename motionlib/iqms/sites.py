"""Leaving one site out: what a model of rated scans is worth at a hospital that it never saw.

As in MRIQC's article (Esteban et al., PLoS ONE 2017), each site of ABIDE is predicted by a model
of all others, and ds030 by one of ABIDE. A measure's level tells the scanner before it tells
motion, so it is also tried against its own site's median and spread, which need no label.
"""

from itertools import product

import numpy as np
import pandas as pd
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict

from motionlib.compute.engines import raise_failures, submit
from motionlib.iqms.forest import call_motion, make_model, named_predictions
from motionlib.metrics import auc, classification_metrics
from motionlib.stats.calibration import best_threshold
from motionlib.stats.intervals import bootstrap_ci

FEATURES = ("raw", "within")
FARTHEST = 10.0  # interquartile ranges from the site's median; an outlier may not rule a model


def leave_one_site_out(
    table: pd.DataFrame, names, *, models, seed: int, engine: str = "inline"
) -> dict[tuple[str, str], pd.DataFrame]:
    """Predict each site by models that were trained on all others.

    `table` has ``dataset scan_id participant_id site y_true`` and the measures `names`; `models`
    are those of `forest.make_model`. Returns for each pair of features and model the scans in their
    order, without their measures, with ``fold score y_pred``; fold is the site's number in
    alphabetical order. One site only is a `ValueError`.
    """
    n_sites = table["site"].nunique()
    if n_sites < 2:
        raise ValueError(f"found {n_sites} site: expected two or more, to leave one out")
    pairs = list(product(FEATURES, models))
    items = [(table, tuple(names), features, model, seed) for features, model in pairs]
    rows = raise_failures(submit(_leave_out, items, engine=engine, label="sites"))
    return dict(zip(pairs, rows, strict=True))


def _leave_out(item: tuple) -> pd.DataFrame:
    """Predict every site by one kind of features and one model."""
    table, names, features, model, seed = item
    X, y = site_features(table, names, features), table["y_true"].to_numpy()
    sites = table["site"].to_numpy()
    untuned = make_model(model, seed=seed, n_rows=len(y))
    apart = {"groups": sites, "cv": LeaveOneGroupOut(), "method": "predict_proba"}
    score = cross_val_predict(untuned, X, y, **apart)[:, 1]
    return _scored(table, np.unique(sites, return_inverse=True)[1], score)


def transfer(
    source: pd.DataFrame, target: pd.DataFrame, names, *, models, seed: int
) -> dict[tuple[str, str], pd.DataFrame]:
    """Train on one data set and score another, whose labels only judge.

    Rows of the target as `leave_one_site_out` gives them; fold is -1.
    """
    y = source["y_true"].to_numpy()
    rows = {}
    for features, name in product(FEATURES, models):
        model = make_model(name, seed=seed, n_rows=len(y))
        model.fit(site_features(source, names, features), y)
        score = model.predict_proba(site_features(target, names, features))[:, 1]
        rows[features, name] = _scored(target, -1, score)
    return rows


def _scored(table: pd.DataFrame, fold, score: np.ndarray) -> pd.DataFrame:
    """Rated scans without their measures, with what a model says of them."""
    scans = table[["dataset", "scan_id", "participant_id", "site", "y_true"]]
    return scans.assign(fold=fold, score=score, y_pred=call_motion(score))


def site_features(table: pd.DataFrame, names, features: str) -> np.ndarray:
    """Measures as they are (``raw``) or against their site (``within``), float, shape (n, p).

    ``within`` is the distance from the site's median in units of its interquartile range, at most
    `FARTHEST` either way; 0 where a site has no spread. No label is read.
    """
    raw = table[list(names)].astype(float)
    if features == "raw":
        return raw.to_numpy()
    sites = raw.groupby(table["site"].to_numpy())
    spread = sites.transform("quantile", 0.75) - sites.transform("quantile", 0.25)
    within = (raw - sites.transform("median")) / spread.where(spread > 0)
    return within.clip(-FARTHEST, FARTHEST).fillna(0).to_numpy()


def judge_sites(scored: dict, *, n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Judge scored scans of many sites by AUC, with intervals over scans (one scan a person).

    `scored` comes from `leave_one_site_out` or `transfer`. Returns ``features model auc auc_low
    auc_high auc_within balanced_accuracy n n_positive``: the AUC of all scans pooled (a site's base
    rate helps) and of pairs within a site (it cannot); balanced accuracy at one half.
    """
    judged = []
    for (features, model), rows in scored.items():
        y_true, score = rows["y_true"], rows["score"]
        metrics = classification_metrics(y_true, score, y_pred=rows["y_pred"])
        interval = bootstrap_ci(y_true, score, metric="auc", n_boot=n_boot, seed=seed)
        judged.append(
            {
                **{"features": features, "model": model, **interval.named("auc")},
                "auc_within": auc_within_sites(rows),
                **{name: metrics[name] for name in ("balanced_accuracy", "n", "n_positive")},
            }
        )
    return pd.DataFrame(judged)


def auc_within_sites(rows: pd.DataFrame) -> float:
    """AUC over the pairs of a positive and a negative scan that share a site (ties count half)."""
    y_true, score = rows["y_true"].to_numpy(int), rows["score"].to_numpy(float)
    if np.isnan(score).any():
        raise ValueError(f"{np.isnan(score).sum()} of {len(score)} scores are NaN: expected none")
    right = pairs = 0.0
    for scans in rows.groupby("site").indices.values():
        n_positive = int(y_true[scans].sum())
        n_pairs = n_positive * (len(scans) - n_positive)
        if n_pairs:
            right += n_pairs * auc(y_true[scans], score[scans])
            pairs += n_pairs
    if not pairs:
        raise ValueError("no site holds both classes: expected positives and negatives in one")
    return right / pairs


def transfer_thresholds(source: pd.DataFrame, target: pd.DataFrame) -> pd.DataFrame:
    """Call motion in a new data set by three thresholds that need none of its labels.

    `source` are left-site-out rows of the data set trained on, `target` scored rows of the new one.
    The thresholds: one half; the best on the source; and the one that calls as large a share of the
    target as the source's best calls of the source.
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
        metrics = classification_metrics(target["y_true"], target["score"], threshold=value)
        rates = {m: metrics[m] for m in ("balanced_accuracy", "specificity", "sensitivity")}
        called = float((target["score"] >= value).mean())
        rows.append({"threshold": name, "value": value, **rates, "called": called})
    return pd.DataFrame(rows)


def prediction_rows(scored: dict) -> pd.DataFrame:
    """Rows of ``predictions.csv`` for scored scans of many sites (task ``excluded``)."""
    parts = []
    for (features, model), rows in scored.items():
        name = f"{features}_{model}"
        experiment = f"ratings/{rows['dataset'].iloc[0]}/{name}"
        parts.append(named_predictions(rows, experiment=experiment, task="excluded", model=name))
    return pd.concat(parts, ignore_index=True)
