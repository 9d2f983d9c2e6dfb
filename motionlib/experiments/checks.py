"""Checks of the study: a leaky split, the motion that is missed, the places that decide."""

from __future__ import annotations

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
from motionlib.predictions import select
from motionlib.preprocess.images import zscore
from motionlib.training.checkpoints import load_model

BLOCKS = 8  # a scan is known by the means of 8x8x8 blocks: no detail, and still a fingerprint
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
            scores = cross_val_score(
                KNeighborsClassifier(1), features, coin, groups=groups, cv=splitter
            )
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
    fall = np.zeros(volume.shape, np.float32)
    with torch.inference_mode():
        whole = network(scored).softmax(1)[0, 1].item()
        for corner in corners:
            place = tuple(slice(start, start + cube_vox) for start in corner)
            hidden = scored.clone()
            hidden[(0, 0, *place)] = 0
            fall[place] = whole - network(hidden).softmax(1)[0, 1].item()
    labels = [f"scan, score {whole:.2f}", "fall of the score when hidden"]
    return [volume, np.clip(fall, 0, None)], labels


def mistakes(predictions: pd.DataFrame, experiment: str, task: str) -> pd.DataFrame:
    """Find the highest score without motion and the lowest with motion, by the mean of folds."""
    rows = select(predictions, experiment, task=task).query("fold == -1")
    still, moved = rows[rows["y_true"] == 0], rows[rows["y_true"] == 1]
    pair = pd.concat([still.nlargest(1, "score"), moved.nsmallest(1, "score")])
    words = ("no motion by consensus", "motion by consensus")
    return pair.assign(
        label=[f"{w}, score {s:.2f}" for w, s in zip(words, pair["score"], strict=True)]
    )


def _fingerprint(volume) -> np.ndarray:
    """Block means of a volume (I, J, K), z-scored: a coarse face of the scan, shape (512,)."""
    means = volume
    for axis in range(3):
        parts = np.array_split(means, BLOCKS, axis=axis)
        means = np.stack([part.mean(axis=axis) for part in parts], axis=axis)
    flat = means.ravel()
    return (flat - flat.mean()) / flat.std()
