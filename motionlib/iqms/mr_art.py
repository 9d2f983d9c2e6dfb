"""MR-ART's rated scans go in; models judged on unseen subjects and their confounds come out."""

from __future__ import annotations

import numpy as np
import pandas as pd

from motionlib.cohorts.ratings import measure_names
from motionlib.compute.engines import raise_failures, submit
from motionlib.iqms.forest import N_ITER, cross_validated
from motionlib.metrics import METRICS, classification_metrics
from motionlib.stats.intervals import bootstrap_ci
from motionlib.tasks import select_task

ABSENT = "MR-ART's tables are not here: motionlib fetch mr-art DEST --subset tables"

# Measured elsewhere with the same tables and folds by subject; the mean over outer seeds where
# there is one. "within" are severe motion's figures among the head-motion scans.
REFERENCE = pd.DataFrame(
    [
        ("mov01vs2", "forest", 0.901, 0.962),
        ("mov01vs2", "search", 0.901, 0.963),
        ("mov01vs2", "boosting", 0.890, 0.959),
        ("mov01vs2", "protocol", 0.756, np.nan),
        ("mov01vs2 within", "forest", 0.826, 0.911),
        ("mov0vs1", "forest", 0.825, 0.875),
        ("mov0vs1", "search", 0.821, 0.874),
        ("mov0vs1", "boosting", 0.810, 0.868),
        ("mov0vs1", "protocol", 0.833, np.nan),
    ],
    columns=["task", "model", "reference_balanced_accuracy", "reference_auc"],
)


def repeat_models(
    table: pd.DataFrame,
    names,
    task: str,
    *,
    models,
    seeds,
    n_iter: int = N_ITER,
    engine: str = "inline",
    label: str = "mr-art",
) -> pd.DataFrame:
    """Predict every scan by models that never saw its subject, once per outer seed.

    Parameters
    ----------
    table : DataFrame
        ``scan_id participant_id motion_grade`` and the measures.
    names : sequence of str
        The measures used.
    task : {"mov01vs2", "mov0vs1"}
        Severe or mild motion.
    models : sequence of str
        Of :func:`forest.cross_validated`; ``a+b`` averages two.
    seeds : sequence of int
        Each draws its own folds.
    n_iter : int, default=300
        Combinations tried by the model ``search``, anew inside each outer fold.
    engine : str, default="inline"
        Where to compute.
    label : str
        Data set, written into ``experiment``.

    Returns
    -------
    DataFrame
        Columns of ``predictions.csv``, and ``seed``.
    """
    scans = select_task(table, task)
    X, y, groups = scans[list(names)], scans["y_true"], scans["participant_id"]
    X, y, groups = X.to_numpy(float), y.to_numpy(), groups.to_numpy()
    items = [(X, y, groups, model, int(s), n_iter) for model in models for s in seeds]
    found = raise_failures(submit(_predict, items, engine=engine, label=f"{label} {task}"))
    parts = [
        _waist(scans, f"ratings/{label}/{item[3]}", task, item[3], rows).assign(seed=item[4])
        for item, rows in zip(items, found, strict=True)
    ]
    return pd.concat(parts, ignore_index=True)


def _predict(item: tuple) -> pd.DataFrame:
    X, y, groups, model, seed, n_iter = item
    return cross_validated(X, y, groups, model, seed=seed, n_iter=n_iter)


def _waist(scans, experiment: str, task: str, model: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Columns of ``predictions.csv`` for out-of-fold rows."""
    return pd.DataFrame(
        {
            "experiment": experiment,
            "task": task,
            "model": model,
            "fold": rows["fold"].to_numpy(),
            "scan_id": scans["scan_id"].to_numpy(),
            "participant_id": scans["participant_id"].to_numpy(),
            "y_true": rows["y_true"].to_numpy(),
            "score": np.round(rows["score"].to_numpy(), 12),
            "y_pred": rows["y_pred"].to_numpy(),
        }
    )


def both_tasks(art, *, models, seeds, n_iter: int, engine: str = "inline") -> list[pd.DataFrame]:
    """Severe and mild motion by every model, the nested search and the protocol's name.

    Severe motion's predictions come once more, for the head-motion scans alone.

    Parameters
    ----------
    art : DataFrame or None
        From :func:`motionlib.cohorts.ratings.read_mr_art`; None gives no predictions.
    models, seeds, n_iter, engine
        As in :func:`repeat_models`.
    """
    if art is None:
        return []
    parts = []
    for task in ("mov01vs2", "mov0vs1"):
        parts.append(
            repeat_models(
                art, measure_names(art), task, models=models, seeds=seeds,
                n_iter=n_iter, engine=engine,
            )
        )  # fmt: skip
        parts.append(protocol_alone(art, task))
    return [*parts, among(parts[0], art[art["protocol"] != "standard"])]


def among_told(art, *, models, seeds, engine: str = "inline") -> list[pd.DataFrame]:
    """Severe motion among the head-motion scans only, by the mean of the models.

    Trained on these scans alone, with all measures (``told``) and with each subject as its own
    reference besides (``own``).

    Parameters
    ----------
    art, models, seeds, engine
        As in :func:`both_tasks`.
    """
    if art is None:
        return []
    names = measure_names(art)
    own, own_names = with_own_reference(art, names)
    told = own[own["protocol"] != "standard"]
    parts = []
    for label, columns in (("told", names), ("own", own_names)):
        found = repeat_models(
            told, columns, "mov01vs2", models=["+".join(models)], seeds=seeds, engine=engine,
            label=f"mr-art-{label}",
        )  # fmt: skip
        parts.append(found.assign(model=f"{label}: {' + '.join(models)}"))
    return parts


def protocol_alone(table: pd.DataFrame, task: str) -> pd.DataFrame:
    """Predict from the instruction to the subject alone: no image, no measure.

    Severe: headmotion2 is called severe. Mild: either head-motion protocol is called mild.
    """
    scans = select_task(table, task)
    told = ["headmotion2"] if task == "mov01vs2" else ["headmotion1", "headmotion2"]
    called = scans["protocol"].isin(told).astype(int)
    rows = pd.DataFrame({"fold": -1, "y_true": scans["y_true"], "score": 1.0 * called})
    rows = rows.assign(y_pred=called)
    return _waist(scans, "ratings/mr-art/protocol", task, "protocol", rows).assign(seed=-1)


def single_measures(table: pd.DataFrame, names, task: str, *, seed: int) -> pd.DataFrame:
    """Cross-validate one threshold on each measure alone.

    Parameters
    ----------
    table, names, task
        As in :func:`repeat_models`.
    seed : int
        Of the folds.

    Returns
    -------
    DataFrame
        ``measure balanced_accuracy``, best first. The best of many is an optimistic figure.
    """
    scans = select_task(table, task)
    y, groups = scans["y_true"].to_numpy(), scans["participant_id"].to_numpy()
    rows = []
    for name in names:
        found = cross_validated(scans[[name]].to_numpy(float), y, groups, "stump", seed=seed)
        judged = classification_metrics(y, found["score"], y_pred=found["y_pred"])
        rows.append({"measure": name, "balanced_accuracy": judged["balanced_accuracy"]})
    table = pd.DataFrame(rows).sort_values("balanced_accuracy", ascending=False, kind="stable")
    return table.reset_index(drop=True)


def summarise(predictions: pd.DataFrame, *, n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Judge repeated predictions: mean and SD over outer seeds, interval over subjects.

    Parameters
    ----------
    predictions : DataFrame
        From :func:`repeat_models` or :func:`protocol_alone`.
    n_boot : int, default=1000
        Draws of subjects for the interval, taken on the first seed.
    seed : int
        Of the draws.

    Returns
    -------
    DataFrame
        One row per task and model: ``n n_positive n_seeds``, each metric's ``_mean`` and ``_sd``,
        and ``_low`` and ``_high`` of balanced accuracy and AUC.
    """
    rows = []
    for (task, model), part in predictions.groupby(["task", "model"], sort=False):
        judged = pd.DataFrame(
            [
                classification_metrics(one["y_true"], one["score"], y_pred=one["y_pred"])
                for _, one in part.groupby("seed")
            ]
        )
        row = {"task": task, "model": model, "n": judged["n"][0]}
        row |= {"n_positive": judged["n_positive"][0], "n_seeds": len(judged)}
        first = part[part["seed"] == part["seed"].min()]
        for metric in METRICS:
            row[f"{metric}_mean"] = judged[metric].mean()
            row[f"{metric}_sd"] = judged[metric].std(ddof=0) if len(judged) > 1 else np.nan
            if metric in ("balanced_accuracy", "auc"):
                interval = bootstrap_ci(
                    first["y_true"], first["score"], first["participant_id"], metric=metric,
                    y_pred=first["y_pred"], n_boot=n_boot, seed=seed,
                )  # fmt: skip
                row[f"{metric}_low"], row[f"{metric}_high"] = interval.low, interval.high
        rows.append(row)
    return pd.DataFrame(rows)


def with_own_reference(table: pd.DataFrame, names) -> tuple[pd.DataFrame, list[str]]:
    """Add each measure's distance from the mean of the subject's own scans.

    Parameters
    ----------
    table : DataFrame
        ``participant_id`` and the measures; all scans of each subject. No label is read.
    names : sequence of str
        The measures.

    Returns
    -------
    table : DataFrame
        With one more column per measure, ``<name>_own``, in units of the measure's SD.
    names : list of str
        Old and new measures.
    """
    measures = table[list(names)].astype(float)
    own = measures - measures.groupby(table["participant_id"]).transform("mean")
    own = (own / measures.std()).add_suffix("_own")
    joined = pd.concat([table, own], axis=1).copy()  # one block per kind of column
    return joined, [*names, *own.columns]


def among(predictions: pd.DataFrame, scans: pd.DataFrame) -> pd.DataFrame:
    """Keep the predictions of some scans; their name in ``task`` says so."""
    kept = predictions[predictions["scan_id"].isin(scans["scan_id"])]
    return kept.assign(task=kept["task"] + " within")


def beside_reference(summary: pd.DataFrame) -> pd.DataFrame:
    """Put the reference figures and the differences beside ours, where there are any."""
    joined = summary.merge(REFERENCE, on=["task", "model"], how="left")
    for metric in ("balanced_accuracy", "auc"):
        joined[f"{metric}_difference"] = joined[f"{metric}_mean"] - joined[f"reference_{metric}"]
    return joined


def judge(parts: list[pd.DataFrame], *, n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Summarise all predictions beside the reference; without any, one row that says why.

    Parameters
    ----------
    parts : list of DataFrame
        From :func:`both_tasks` and :func:`among_told`; empty where the tables are missing.
    n_boot, seed
        As in :func:`summarise`.
    """
    if not parts:
        return pd.DataFrame({"task": ["mov01vs2", "mov0vs1"], "reason": [ABSENT, ABSENT]})
    return beside_reference(summarise(pd.concat(parts), n_boot=n_boot, seed=seed))


def first_seed(parts: list[pd.DataFrame]) -> list[pd.DataFrame]:
    """Rows for ``predictions.csv``: the first outer seed's, and no subset twice."""
    whole = [part for part in parts if not part["task"].str.contains(" ").any()]
    return [part[part["seed"] == part["seed"].min()].drop(columns="seed") for part in whole]
