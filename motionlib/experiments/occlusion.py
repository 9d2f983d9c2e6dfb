"""A fine-tuned network goes in; where it looks, and its worst mistakes, come out."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from motionlib.experiments.budget import default_device
from motionlib.experiments.cohort import example_volumes
from motionlib.experiments.trainings import folds_of
from motionlib.training.checkpoints import load_network


@dataclass(frozen=True)
class Occlusion:
    """A scan, and how much its score falls when a place is hidden.

    Attributes
    ----------
    volume, fall : ndarray, shape (I, J, K)
        The scan, and the fall of the score at every voxel.
    affine : ndarray, shape (4, 4)
        Of the study grid.
    labels : tuple of str
        What the two are.
    """

    volume: np.ndarray
    fall: np.ndarray
    affine: np.ndarray
    labels: tuple[str, str]


def occlude(run, task: str, experiment="warehouse/fine_tuned", *, cube_vox: int = 8) -> Occlusion:
    """Hide one cube after the other of the severe scan that the networks are surest of.

    The hidden voxels get the volume's mean, which is zero after z-scoring.  The fold whose model
    gave the highest score looks.
    """
    rows = run.predictions(experiment, task=task)
    rows = rows[(rows["fold"] >= 0) & (rows["y_true"] == 1)]
    surest = rows.loc[rows["score"].idxmax()]
    folders = folds_of(run, f"{experiment.replace('/', '_')}_{task}", notebook="04")
    network, _ = load_network(folders[int(surest["fold"])])
    (volume,), affine = example_volumes(run, [surest["scan_id"]])
    device = default_device()
    scored = torch.from_numpy((volume - volume.mean()) / volume.std())[None, None].to(device)
    network = network.to(device)
    corners = list(itertools.product(*(range(0, n, cube_vox) for n in volume.shape)))
    fall = np.zeros(volume.shape, np.float32)
    with torch.inference_mode():
        whole = network(scored).softmax(1)[0, 1].item()
        for corner in corners:
            place = tuple(slice(start, start + cube_vox) for start in corner)
            hidden = scored.clone()
            hidden[(0, 0, *place)] = 0
            fall[place] = whole - network(hidden).softmax(1)[0, 1].item()
    labels = (f"scan, score {whole:.2f}", "fall of the score when hidden")
    return Occlusion(volume, np.clip(fall, 0, None), affine, labels)


def mistakes(predictions: pd.DataFrame, experiment: str, task: str) -> pd.DataFrame:
    """Find the highest score without motion and the lowest with motion, by the mean of folds."""
    rows = predictions[
        (predictions["experiment"] == experiment)
        & (predictions["task"] == task)
        & (predictions["fold"] == -1)
    ]
    still, moved = rows[rows["y_true"] == 0], rows[rows["y_true"] == 1]
    pair = pd.concat([still.nlargest(1, "score"), moved.nsmallest(1, "score")])
    words = ("no motion by consensus", "motion by consensus")
    return pair.assign(
        label=[f"{w}, score {s:.2f}" for w, s in zip(words, pair["score"], strict=True)]
    )
