"""Forests on MR-ART (Nárai et al., Scientific Data 2022): real motion, judged by subject.

148 volunteers were scanned still and while nodding on request. Who is told to nod, nods: the
protocol's name is a baseline of its own, and severe motion is judged once more among the
head-motion scans alone.
"""

from itertools import product

import numpy as np
import pandas as pd

from motionlib.cohorts.ratings import measure_names
from motionlib.compute.engines import raise_failures, submit
from motionlib.files import shipped
from motionlib.iqms.forest import N_ITER, cross_validated, named_predictions
from motionlib.metrics import METRICS, classification_metrics
from motionlib.stats.intervals import bootstrap_ci
from motionlib.tasks import TASK_GRADES, select_task

ABSENT = "MR-ART's tables are not here: motionlib fetch mr-art DEST --subset tables"
TOLD = {  # protocols that are called motion by their name alone
    "mov01vs2": ("headmotion2",),
    "mov0vs1": ("headmotion1", "headmotion2"),
}
# Figures of a computation apart from this package, on the same tables with folds by subject; the
# mean over outer seeds where there were several.
REFERENCE = shipped("data_manifests") / "mr_art_reference.csv"


def predict_mr_art(
    table: pd.DataFrame | None, *, models, seeds, n_iter: int = N_ITER, engine: str = "inline"
) -> pd.DataFrame:
    """Predict severe and mild motion by every model, and by the protocol's name.

    Parameters
    ----------
    table : DataFrame or None
        From :func:`motionlib.cohorts.ratings.read_mr_art`; None gives no predictions.
    models, seeds, n_iter, engine : sequence of str, sequence of int, int, str
        Models of :func:`motionlib.iqms.forest.cross_validated`. Each seed draws its own folds by
        subject, and every scan is predicted once per seed. Combinations that the model ``search``
        tries inside each outer fold; see `compute.submit`.

    Returns
    -------
    DataFrame
        Columns of ``predictions.csv``, and ``seed`` (-1 for the protocol, which has none).
    """
    if table is None:
        return pd.DataFrame()
    names = measure_names(table)
    parts = []
    for task in TASK_GRADES:
        scans = select_task(table, task)
        pairs = list(product(models, map(int, seeds)))
        items = [(scans, names, model, seed, n_iter) for model, seed in pairs]
        scored = raise_failures(submit(_predict, items, engine=engine, label=f"mr-art {task}"))
        scored = dict(zip(pairs, scored, strict=True))
        scored["protocol", -1] = protocol_alone(scans, task)
        for (model, seed), rows in scored.items():
            keys = {"experiment": f"ratings/mr-art/{model}", "task": task, "model": model}
            rows = scans[["scan_id", "participant_id"]].join(rows)
            parts.append(named_predictions(rows, **keys).assign(seed=seed))
    return pd.concat(parts, ignore_index=True)


def _predict(item: tuple) -> pd.DataFrame:
    """Predict all scans of a task by one model with the folds of one seed."""
    scans, names, model, seed, n_iter = item
    X, y = scans[names].to_numpy(float), scans["y_true"].to_numpy()
    groups = scans["participant_id"].to_numpy()
    return cross_validated(X, y, groups, model, seed=seed, n_iter=n_iter)


def protocol_alone(scans: pd.DataFrame, task: str) -> pd.DataFrame:
    """Predict from the instruction to the subject alone (`TOLD`): no image, no measure."""
    score = scans["protocol"].isin(TOLD[task]).astype(float)
    return pd.DataFrame({"fold": -1, "y_true": scans["y_true"], "score": score})


def judge_mr_art(
    predictions: pd.DataFrame, table: pd.DataFrame | None, *, n_boot: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Judge the models beside the reference figures; without predictions, say why.

    Parameters
    ----------
    predictions, table, n_boot, seed : DataFrame, DataFrame or None, int, int
        From :func:`predict_mr_art`; MR-ART as given to it; draws of subjects for the intervals,
        taken on the first outer seed.

    Returns
    -------
    DataFrame
        One row per task and model: ``n n_positive n_seeds``, each metric's ``_mean`` and ``_sd``
        over outer seeds, ``_low`` and ``_high`` of balanced accuracy and AUC, the reference and
        the difference from it. Task ``mov01vs2 within`` is severe motion among head-motion scans.
    """
    if predictions.empty:
        return pd.DataFrame({"task": list(TASK_GRADES), "reason": ABSENT})
    told = table.loc[table["protocol"] != "standard", "scan_id"]
    severe = predictions[(predictions["task"] == "mov01vs2") & (predictions["model"] != "protocol")]
    within = severe[severe["scan_id"].isin(told)].assign(task="mov01vs2 within")
    parts = pd.concat([predictions, within]).groupby(["task", "model"], sort=False)
    judged = [
        {"task": task, "model": model, **_summarise(rows, n_boot=n_boot, seed=seed)}
        for (task, model), rows in parts
    ]
    summary = pd.DataFrame(judged).merge(pd.read_csv(REFERENCE), on=["task", "model"], how="left")
    for metric in ("balanced_accuracy", "auc"):
        summary[f"{metric}_difference"] = summary[f"{metric}_mean"] - summary[f"reference_{metric}"]
    return summary


def _summarise(rows: pd.DataFrame, *, n_boot: int, seed: int) -> dict:
    """Mean and SD over outer seeds, intervals over subjects, of one model on one task."""
    judged = pd.DataFrame(
        classification_metrics(part["y_true"], part["score"], y_pred=part["y_pred"])
        for _, part in rows.groupby("seed")
    )
    summary = {"n": judged["n"][0], "n_positive": judged["n_positive"][0], "n_seeds": len(judged)}
    first = rows[rows["seed"] == rows["seed"].min()]
    for metric in METRICS:
        summary[f"{metric}_mean"] = judged[metric].mean()
        summary[f"{metric}_sd"] = judged[metric].std(ddof=0) if len(judged) > 1 else np.nan
        if metric in ("balanced_accuracy", "auc"):
            interval = bootstrap_ci(
                first["y_true"], first["score"], first["participant_id"], metric=metric,
                y_pred=first["y_pred"], n_boot=n_boot, seed=seed,
            )  # fmt: skip
            summary[f"{metric}_low"], summary[f"{metric}_high"] = interval.low, interval.high
    return summary


def first_seed(predictions: pd.DataFrame) -> pd.DataFrame:
    """Rows for ``predictions.csv``: each model's first outer seed."""
    if predictions.empty:
        return predictions
    first = predictions.groupby(["task", "model"])["seed"].transform("min")
    return predictions[predictions["seed"] == first].drop(columns="seed")
