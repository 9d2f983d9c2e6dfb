"""Volumes and the patients they show come in; what a leaky split pretends to know goes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from motionlib.files import seed_from
from motionlib.metrics import classification_metrics

N_BLOCKS = 12  # along each axis; 12^3 numbers a scan


def fingerprints(volumes: Sequence) -> np.ndarray:
    """Shrink each volume to a few block means of mean 0 and length 1.

    Parameters
    ----------
    volumes : sequence of array-like, each (I, J, K)
        All of one shape.

    Returns
    -------
    ndarray, shape (n, 1728), float32
    """
    rows = []
    for volume in volumes:
        array = np.asarray(volume, dtype=np.float32)
        for axis in range(3):
            edges = np.linspace(0, array.shape[axis], N_BLOCKS + 1).astype(int)
            widths = np.maximum(np.diff(edges), 1)
            total = np.add.reduceat(array, np.minimum(edges[:-1], array.shape[axis] - 1), axis)
            shape = [1, 1, 1]
            shape[axis] = N_BLOCKS
            array = total / widths.reshape(shape)
        flat = array.ravel() - array.mean()
        rows.append(flat / max(float(np.linalg.norm(flat)), 1e-6))
    return np.stack(rows)


def coin_by_patient(patients: pd.Series, *, seed: int) -> np.ndarray:
    """Toss one coin per patient; no image can know its outcome.

    Parameters
    ----------
    patients : pandas.Series
        The patient of each scan.
    seed : int
        Of the coins.

    Returns
    -------
    ndarray of int, shape (n,)
        0 or 1, the same for all scans of a patient; as many patients of each as can be.
    """
    names = sorted(patients.unique(), key=lambda name: seed_from(seed, str(name), "coin"))
    side = {name: number % 2 for number, name in enumerate(names)}
    return patients.map(side).to_numpy(dtype=int)


def compare_splits(
    prints: np.ndarray, patients: pd.Series, labels: Mapping[str, np.ndarray], *, seed: int
) -> pd.DataFrame:
    """Score the nearest neighbour in cross-validation by image and by patient.

    Parameters
    ----------
    prints : ndarray, shape (n, d)
        From `fingerprints`.
    patients : pandas.Series
        The patient of each scan.
    labels : mapping of str to ndarray of 0 and 1, shape (n,)
        What is to be predicted, under the names to show.
    seed : int
        Of the folds.

    Returns
    -------
    pandas.DataFrame
        One row per label: ``label n by_image by_patient flattery`` (balanced accuracies as
        fractions, and their difference).
    """
    patient = pd.factorize(patients.astype(str), sort=True)[0]
    rng = np.random.default_rng(seed)
    by_image = rng.permutation(len(prints)) % 5
    by_patient = (rng.permutation(patient.max() + 1) % 5)[patient]
    rows = []
    for name, label in labels.items():
        scores = [_accuracy(prints, np.asarray(label), fold) for fold in (by_image, by_patient)]
        rows.append((name, len(prints), *scores, scores[0] - scores[1]))
    return pd.DataFrame(rows, columns=["label", "n", "by_image", "by_patient", "flattery"])


def _accuracy(prints: np.ndarray, label: np.ndarray, fold: np.ndarray) -> float:
    """Balanced accuracy of the nearest neighbour among the scans of other folds."""
    alike = prints @ prints.T
    alike[fold[:, None] == fold[None, :]] = -np.inf
    guess = label[alike.argmax(axis=1)]
    return classification_metrics(label, guess.astype(float))["balanced_accuracy"]
