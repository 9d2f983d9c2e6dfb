"""Checks of the study: a leaky split, what is missed and where, age, the places that decide."""

import itertools

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import GroupKFold, KFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from motionlib.compute.engines import default_device
from motionlib.experiments.cohort import Cohort
from motionlib.experiments.copies import control_set, read_prepared
from motionlib.experiments.evaluation import Evaluation, evaluate
from motionlib.experiments.pretraining import pretrained
from motionlib.experiments.trainings import trained_folds
from motionlib.predictions import combine_folds, select
from motionlib.preprocess.images import zscore
from motionlib.stats.intervals import bootstrap_ci, draw_patients, summary_intervals
from motionlib.tasks import TASK_WORDS
from motionlib.training.checkpoints import load_model

BLOCKS = 8  # a scan is known by the means of 8x8x8 blocks: no detail, and still a fingerprint
BATCH = 16  # volumes a forward pass
RUNGS = ("clean", "resampled", "motion_2-4", "motion_4-6", "motion_6-8")


def coin_lesson(volumes, patients, *, n_repeats: int = 20, n_folds: int = 5, seed: int = 0):
    """Toss a coin for every patient and let the nearest neighbour "predict" it.

    There is nothing to learn: an honest accuracy is one half. Split by image, other visits of the
    same patient stand in the training set and give the answer away. Source: paper §III-D.1: the
    separation was made at the patient level.

    Parameters
    ----------
    volumes : iterable of ndarray, each (I, J, K)
        One a scan, taken one at a time.
    patients : sequence of str
        Patient of each scan; ValueError if none has several or they are fewer than folds.
    n_repeats, n_folds, seed : int
        Coins tossed, folds, seed.

    Returns
    -------
    DataFrame
        ``split repeat accuracy`` for ``by image`` and ``by patient``.
    """
    patients = np.asarray(patients)
    names, code = np.unique(patients, return_inverse=True)
    if len(names) == len(patients) or len(names) < n_folds:
        raise ValueError(
            f"found {len(patients)} scans of {len(names)} patients; expected several visits of "
            f"some and at least {n_folds} patients"
        )
    features = np.stack([_fingerprint(np.asarray(v, dtype=float)) for v in volumes])
    rows = []
    for repeat in range(n_repeats):
        rng = np.random.default_rng([seed, repeat])
        coin = rng.permutation(np.arange(len(names)) % 2)[code]
        splitters = {
            "by image": KFold(n_folds, shuffle=True, random_state=repeat),
            "by patient": GroupKFold(n_folds, shuffle=True, random_state=repeat),
        }
        for split, splitter in splitters.items():
            groups = code if split == "by patient" else None  # KFold warns of groups it ignores
            known = {"groups": groups, "cv": splitter}
            scores = cross_val_score(KNeighborsClassifier(1), features, coin, **known)
            rows.append({"split": split, "repeat": repeat, "accuracy": scores.mean()})
    return pd.DataFrame(rows)


def positive_rate_by_severity(run, cohort: Cohort, simulator: str, networks) -> pd.DataFrame:
    """Share of the test scans that each network calls motion, by what was done to them.

    Parameters
    ----------
    run, cohort : motionlib.study.run.Run, Cohort
        A run in which the networks are trained on motion of 2-4 mm, the paper's way, and whose
        research test patients are scored.
    simulator, networks : {"image", "kspace"}, sequence of str
        Of the motion that they were trained on, and architectures.

    Returns
    -------
    DataFrame
        One row a network, one column a rung: false alarms on clean and on resampled scans, then
        sensitivity by the severity of the scan; means over folds, as fractions.
    """
    prepared = {rung: read_prepared(cohort, control_set(cohort, rung)) for rung in RUNGS}
    evaluations = [
        Evaluation(rung, "synthetic", folder, scans)
        for network in networks
        for folder in pretrained(run, simulator, "2-4", "paper", network, stage="benchmark")
        for rung, scans in prepared.items()
    ]
    rows = evaluate(evaluations, engine=cohort.engine)
    by_fold = rows.groupby(["model", "experiment", "fold"], sort=False)["y_pred"].mean()
    rates = by_fold.groupby(level=["model", "experiment"], sort=False).mean().unstack(sort=False)
    return rates[list(RUNGS)].rename_axis(columns=None)


def occlude(
    run, cohort: Cohort, task: str, experiment: str = "warehouse/fine_tuned", *, cube_vox: int = 8
) -> tuple[list[np.ndarray], list[str]]:
    """Hide one cube after the other of the severe scan that the networks are surest of.

    The hidden voxels get the volume's mean, which is zero after z-scoring. The fold whose model
    gave the highest score looks.

    Returns
    -------
    volumes, labels : list of 2 ndarray, shape (I, J, K); list of 2 str
        The scan, and the fall of the score at every voxel when it is hidden; what the two are.
    """
    rows = run.predictions(experiment, task=task)
    rows = rows[(rows["fold"] >= 0) & (rows["y_true"] == 1)]
    surest = rows.loc[rows["score"].idxmax()]
    folders = trained_folds(run, experiment, task, notebook="04")
    device = default_device()
    network = load_model(folders[int(surest["fold"])], device=device).network
    (volume,) = cohort.volumes([surest["scan_id"]])
    volume = volume[cohort.planes]
    scored = torch.from_numpy(zscore(volume))[None, None].to(device)
    corners = itertools.product(*(range(0, n, cube_vox) for n in volume.shape))
    places = [tuple(slice(start, start + cube_vox) for start in corner) for corner in corners]
    fall = np.zeros(volume.shape, np.float32)
    with torch.inference_mode():
        whole = network(scored).softmax(1)[0, 1].item()
        for first in range(0, len(places), BATCH):
            some = places[first : first + BATCH]
            hidden = scored.repeat(len(some), 1, 1, 1, 1)
            for one, place in zip(hidden, some, strict=True):
                one[(0, *place)] = 0
            for score, place in zip(network(hidden).softmax(1)[:, 1].tolist(), some, strict=True):
                fall[place] = whole - score
    labels = [f"scan, score {whole:.2f}", "fall of the score when hidden"]
    return [volume, np.clip(fall, 0, None)], labels


def mistakes(predictions: pd.DataFrame, experiment: str, task: str) -> pd.DataFrame:
    """Find the highest score without motion and the lowest with motion, by the mean of folds."""
    rows = select(predictions, experiment, task=task).query("fold == -1")
    still, moved = rows[rows["y_true"] == 0], rows[rows["y_true"] == 1]
    pair = pd.concat([still.nlargest(1, "score"), moved.nsmallest(1, "score")])
    kind = TASK_WORDS[task].partition(" against ")[0]  # mild or severe motion
    words = (f"no {kind} by consensus", f"{kind} by consensus")
    labels = [f"{w}, score {s:.2f}" for w, s in zip(words, pair["score"], strict=True)]
    return pair.assign(label=labels)


def by_kind_of_scan(run, predictions: pd.DataFrame, experiments, task: str) -> pd.DataFrame:
    """Judge methods on parts of an emulated warehouse: reformatted or not, smoothed or not.

    Parameters
    ----------
    run, task : motionlib.study.run.Run, str
        A run whose cohort is generated, and the task.
    predictions, experiments : DataFrame, sequence of str
        Rows of ``predictions.csv``, and the methods (``warehouse/...``).

    Returns
    -------
    DataFrame
        ``experiment part n n_patients n_motion``, then specificity, sensitivity, balanced accuracy
        and AUC with limits, as fractions. Empty where nobody generated the scans.
    """
    files = sorted((run.cohort / "images").rglob("truth.tsv"))
    if not files:
        return pd.DataFrame(columns=["experiment", "part"])
    truth = pd.concat(pd.read_csv(path, sep="\t") for path in files).set_index("scan_id")
    judged = truth.loc[truth.index.isin(predictions.loc[predictions["task"] == task, "scan_id"])]
    tilted, third = judged["tilt_deg"] > 0, judged["blur_mm"].quantile([1 / 3, 2 / 3])
    sharp = judged["blur_mm"] <= third.iloc[0]
    parts = {
        "all graded scans": tilted | ~tilted,
        "acquired planes": ~tilted,
        "tilted reformats": tilted,
        "least smoothed third": sharp,
        "most smoothed third": judged["blur_mm"] > third.iloc[1],
        "acquired planes, least smoothed": ~tilted & sharp,
    }
    table = []
    for experiment in experiments:
        rows = select(predictions, f"warehouse/{experiment}", task=task)
        for part, chosen in parts.items():
            here = rows[rows["scan_id"].isin(judged.index[chosen])]
            if here.empty:
                continue
            scans = here.drop_duplicates("scan_id")
            row = {"experiment": experiment, "part": part, "n": len(scans)}
            row["n_patients"] = scans["participant_id"].nunique()
            row["n_motion"] = int(scans["y_true"].sum())
            for metric, found in summary_intervals(here, n_boot=1000).items():
                row |= found.named(metric)
            table.append(row)
    return pd.DataFrame(table)


def learnt_age(cohort: Cohort, predictions: pd.DataFrame, experiments, task: str) -> pd.DataFrame:
    """Ask whether scores follow age: age as a score, and scores of still scans against age.

    Parameters as of `by_kind_of_scan`. Returns ``method n n_patients auc auc_low auc_high
    age_correlation _low _high n_still``: Spearman's correlation of score and age among the judged
    scans of grade 0, with limits by drawing patients. Empty where no age is known.
    """
    known = cohort.manifest.set_index("scan_id")[["age", "motion_grade"]]
    table = []
    for experiment in experiments:
        rows = combine_folds(select(predictions, f"warehouse/{experiment}", task=task))
        rows = rows.join(known, on="scan_id").dropna(subset=["age"])
        if rows["y_true"].nunique() < 2:
            return pd.DataFrame(columns=["method"])
        still = rows[rows["motion_grade"] == 0]
        if not table:
            table.append(_area("age alone", rows, rows["age"] / 200))
        row = _area(experiment, rows, rows["score"])
        code = pd.factorize(still["participant_id"])[0]
        ranks = still[["score", "age"]].rank().to_numpy(float)
        draws = draw_patients(code.max() + 1, 1000, cohort.seed)[:, code]
        found = [_weighted_correlation(ranks, weights) for weights in draws]
        row["age_correlation"] = _weighted_correlation(ranks, np.ones(len(ranks)))
        row["age_correlation_low"], row["age_correlation_high"] = np.quantile(found, [0.025, 0.975])
        table.append(row | {"n_still": len(still)})
    return pd.DataFrame(table)


def _area(method: str, rows: pd.DataFrame, score) -> dict:
    """AUC of a score with its limits, patients drawn."""
    area = bootstrap_ci(rows["y_true"], score, rows["participant_id"], metric="auc", n_boot=1000)
    return {"method": method, "n": area.n, "n_patients": area.n_groups} | area.named("auc")


def _weighted_correlation(ranks: np.ndarray, weights: np.ndarray) -> float:
    """Correlation of two columns (n, 2) in which row i counts `weights[i]` times."""
    spread = np.cov(ranks.T, aweights=weights)
    return float(spread[0, 1] / np.sqrt(max(spread[0, 0] * spread[1, 1], 1e-12)))


def _fingerprint(volume) -> np.ndarray:
    """Block means of a volume (I, J, K), z-scored: a coarse face of the scan, shape (512,)."""
    means = volume
    for axis in range(3):
        parts = np.array_split(means, BLOCKS, axis=axis)
        means = np.stack([part.mean(axis=axis) for part in parts], axis=axis)
    flat = means.ravel()
    return (flat - flat.mean()) / flat.std()
