"""Scans of patients with several visits go in; what a leaky split pretends to find comes out."""

from __future__ import annotations

import numpy as np
import pandas as pd

BLOCKS = 8  # a scan is known by the means of 8x8x8 blocks: no detail, and still a fingerprint


def fingerprint(volume) -> np.ndarray:
    """Block means of a volume (I, J, K), z-scored: a coarse face of the scan, shape (512,)."""
    means = volume
    for axis in range(3):
        parts = np.array_split(means, BLOCKS, axis=axis)
        means = np.stack([part.mean(axis=axis) for part in parts], axis=axis)
    flat = means.ravel()
    return (flat - flat.mean()) / flat.std()


def coin_lesson(volumes, patients, *, n_repeats: int = 20, n_folds: int = 5, seed: int = 0):
    """Toss a coin for every patient and let the nearest neighbour "predict" it.

    There is nothing to learn: an honest accuracy is one half.  Split by image, other visits of
    the same patient stand in the training set and give the answer away.

    Parameters
    ----------
    volumes : iterable of ndarray, each (I, J, K)
        One a scan, taken one at a time.
    patients : sequence of str
        Patient of each scan; some need several.
    n_repeats, n_folds, seed : int
        Coins tossed, folds, seed.

    Returns
    -------
    DataFrame
        ``split repeat accuracy`` for ``by image`` and ``by patient``.

    Raises
    ------
    ValueError
        If no patient has two scans, or there are fewer patients than folds.

    Notes
    -----
    Source: paper §III-D.1: the separation was made at the patient level.
    """
    from sklearn.model_selection import GroupKFold, KFold, cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    patients = np.asarray(patients)
    names, code = np.unique(patients, return_inverse=True)
    if len(names) == len(patients) or len(names) < n_folds:
        raise ValueError(
            f"found {len(patients)} scans of {len(names)} patients; expected several visits of "
            f"some and at least {n_folds} patients"
        )
    features = np.stack([fingerprint(np.asarray(v, dtype=float)) for v in volumes])
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
