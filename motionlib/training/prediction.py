"""Prediction: a probability of motion for every scan of a prepared manifest."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from motionlib.compute.engines import configure_cpu, raise_failures, submit
from motionlib.files import atomic, code_key, content_key, identity, sha256_file
from motionlib.training.checkpoints import THRESHOLD, Model, load_model
from motionlib.training.data import VolumeStore, load_prepared

CHUNK = 512  # scans held in memory at a time
CODE = ("networks", "training", "preprocess/images.py")  # what a score depends on


def predict(
    model: str | os.PathLike | Model,
    manifest: str | os.PathLike | pd.DataFrame,
    *,
    device: str = "cpu",
    batch_size: int = 8,
) -> pd.DataFrame:
    """Score every scan of a prepared manifest with a finished run.

    Parameters
    ----------
    model : path-like or Model
        A run or model folder, or what `checkpoints.load_model` has opened.
    manifest : path-like or DataFrame
        Prepared manifest; `y_true` may be empty.
    device, batch_size : str, int
        Where to compute, and scans a forward pass; any gives the same scores to rounding.

    Returns
    -------
    DataFrame
        Columns `scan_id`, `participant_id`, `y_true`, `score` (softmax probability of motion) and
        `y_pred` (1 where the score reaches 0.5), in the manifest's order.

    Raises
    ------
    ValueError
        If the volumes are on another grid than the network was trained on.
    """
    table = load_prepared(manifest)
    model = load_model(model, device=device)
    scores = []
    with configure_cpu(), torch.inference_mode():
        for start in range(0, len(table), CHUNK):
            store = VolumeStore(table.iloc[start : start + CHUNK], device=device)
            if store.shape != model.shape:
                raise ValueError(
                    f"The volumes have shape {store.shape} where {model.name} was trained on "
                    f"{model.shape}; prepare them on that grid."
                )
            for first in range(0, len(store), batch_size):
                rows = np.arange(first, min(first + batch_size, len(store)))
                x = store.batch(rows, device)
                logits = model.network(x.contiguous(memory_format=torch.channels_last_3d))
                scores.append(logits.softmax(1)[:, -1].double().cpu().numpy())
    return _with_calls(table, np.concatenate(scores) if scores else np.empty(0))


def predict_all(
    pairs: Iterable[tuple], *, device: str = "cpu", engine: str = "inline"
) -> list[pd.DataFrame]:
    """Score many pairs of a finished run and a manifest by `predict`, on an engine, in their order.

    The scores do not depend on the engine. RuntimeError gives the first reason, if any failed.
    """
    found = submit(
        _predict_one,
        [(os.fspath(run), manifest, device) for run, manifest in pairs],
        engine=engine,
        label="predict",
        resources={"GPU": 1} if device.startswith("cuda") else None,
    )
    return raise_failures(found)


def _predict_one(task: tuple) -> pd.DataFrame:
    """Score by `predict`, or read what the same weights, volumes and code have said before."""
    run, manifest, device = task
    table = load_prepared(manifest)
    files = [Path(path) for path in table["path"]]
    if not all(path.is_file() for path in files):
        return predict(run, table, device=device)  # says which
    weights = sha256_file(Path(run) / "weights.safetensors")
    seen = [identity(path) for path in files]
    key = content_key(weights, seen, device, torch.__version__, code_key(*CODE))
    kept = Path(run) / "scores" / f"{key}.npy"
    if not kept.is_file():
        scored = predict(run, table, device=device)
        with atomic(kept) as aside:
            np.save(aside, scored["score"].to_numpy())
        return scored
    return _with_calls(table, np.load(kept, allow_pickle=False))


def _with_calls(table: pd.DataFrame, score: np.ndarray) -> pd.DataFrame:
    """Put scores and what they call beside the scans of a prepared manifest."""
    found = table[["scan_id", "participant_id", "y_true"]].copy()
    return found.assign(score=score, y_pred=(score >= THRESHOLD).astype(np.int64))
