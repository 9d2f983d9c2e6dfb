"""A frozen specification goes in; a run folder with the lowest-loss network comes out.

The specification's hash names the folder, so that nothing is trained twice, and all randomness
is drawn from (seed, epoch, scan), so that a killed run continues to the same bits.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from motionlib.compute.engines import configure_cpu
from motionlib.files import seed_from, sha256_file, write_json
from motionlib.networks import build_network
from motionlib.study.provenance import runs_root
from motionlib.training.checkpoints import (
    describe,
    disk_faults,
    finish,
    is_done,
    load_epoch,
    save_epoch,
)
from motionlib.training.data import VolumeStore, load_prepared, split_rows
from motionlib.training.freshcopies import FreshStore
from motionlib.training.loop import Loop, Part
from motionlib.training.prediction import ensemble, predict
from motionlib.training.spec import TrainSpec

__all__ = ["TrainSpec", "configure_cpu", "ensemble", "fit", "load_parts", "predict", "run_epochs"]


def fit(
    spec: TrainSpec,
    runs_dir: str | os.PathLike | None = None,
    *,
    device: str = "cpu",
    progress: Callable[[str], None] | None = None,
    tensorboard: bool = False,
) -> Path:
    """Train a network from fresh weights, or return at once if that was done before.

    Parameters
    ----------
    spec : TrainSpec
        What to train.
    runs_dir : path-like, optional
        Folder of all runs; this one goes to ``<network>-<key>/`` in it. None is ``models/`` under
        the folder of all studies (see `provenance.runs_root`).
    device : str, default="cpu"
        Where to compute; not part of the run's identity.
    progress : callable, optional
        Called with one line an epoch.
    tensorboard : bool, default=False
        Also write event files, if TensorBoard is installed.

    Returns
    -------
    Path
        The run folder.

    Raises
    ------
    ValueError
        If the manifest is not the one specified, a class is empty, or the loss is not finite.
    FileNotFoundError
        If the manifest or one of its volumes is not there.
    OSError
        If the disk is full; the last finished epoch is kept.

    Notes
    -----
    Source: paper §III-C.2: Adam, learning rate 1e-4, batches of 16, weighted binary
    cross-entropy (here the same on two logits), lowest validation loss kept.
    """
    folder = spec.folder(runs_root() / "models" if runs_dir is None else runs_dir)
    if is_done(folder):
        return folder
    if spec.init_from is not None:
        raise ValueError("The specification starts from another run; use transfer.fine_tune.")
    train, validation, shape = load_parts(spec, device)
    with configure_cpu(), torch.random.fork_rng():
        network = fresh_network(spec, shape).to(device)
        return run_epochs(
            spec,
            folder,
            network,
            network,
            train,
            validation,
            shape,
            device=device,
            progress=progress,
            tensorboard=tensorboard,
        )


def load_parts(spec: TrainSpec, device: str = "cpu") -> tuple[Part, Part, tuple[int, ...]]:
    """Load the training and the validation scans of a specification.

    Returns
    -------
    train, validation : Part
        Rows of one store.
    shape : tuple of 3 int
        Voxels of the grid.
    """
    if not Path(spec.manifest).is_file():
        raise FileNotFoundError(f"Prepared manifest {spec.manifest} is not there; prepare it.")
    found = sha256_file(spec.manifest)
    if found != spec.manifest_sha256:
        raise ValueError(
            f"Manifest {Path(spec.manifest).name} has checksum {found[:12]} where the run was "
            f"specified for {spec.manifest_sha256[:12]}; make the specification again."
        )
    table = load_prepared(spec.manifest)
    train, validation = split_rows(table, spec.fold)
    table = table.iloc[np.concatenate([train, validation])].reset_index(drop=True)
    options = {"device": device, "augment": spec.augment, "seed": spec.seed}
    if spec.fresh_mm is None:
        store = VolumeStore(table, **options)
    else:
        store = FreshStore(table, spec.fresh_mm, **options)
    y_true = table["y_true"].to_numpy(np.int64)
    rows = np.arange(len(table))
    cut = len(train)
    return Part(store, rows[:cut], y_true[:cut]), Part(store, rows[cut:], y_true[cut:]), store.shape


def fresh_network(spec: TrainSpec, shape):
    """Build the specified network; its weights depend on the seed alone."""
    torch.manual_seed(seed_from(spec.seed, "weights"))
    return build_network(spec.network, shape, dropout=spec.dropout, **dict(spec.options))


def run_epochs(
    spec: TrainSpec,
    folder: Path,
    network,
    trained,
    train: Part,
    validation: Part,
    shape,
    *,
    device: str,
    progress: Callable[[str], None] | None = None,
    tensorboard: bool = False,
) -> Path:
    """Run the epochs that are not done yet, then publish the best.

    Parameters
    ----------
    spec, folder : TrainSpec, Path
        The run.
    network, trained : torch.nn.Module
        The whole network, and the part of it that is applied to the stores' inputs: the same, or
        what follows a frozen prefix.
    train, validation : Part
        From `load_parts`, or features of them.
    shape : tuple of 3 int
        Voxels of the grid.
    device, progress, tensorboard
        As in `fit`.

    Returns
    -------
    Path
        The folder.
    """
    with disk_faults(folder, "starting"):
        write_json(folder / "spec.json", asdict(spec) | {"manifest": Path(spec.manifest).name})
    loop = Loop(spec, folder, network, trained, train, validation, device)
    state = load_epoch(folder, network, loop.optimizer, device) or loop.start()
    loop.micro_batch = state["micro_batch"]
    board = _board(folder) if tensorboard else None
    while state["epoch"] < spec.epochs:
        state = loop.epoch(state)
        save_epoch(folder, network, loop.optimizer, state)
        row = state["history"][-1]
        if board is not None:
            for name in ("train_loss", "valid_loss", "valid_balanced_accuracy"):
                board.add_scalar(name, row[name], state["epoch"])
        if progress is not None:
            progress(_line(spec, state))
    if board is not None:
        board.close()
    return finish(folder, state, describe(spec, shape, state, device, loop.class_weights))


def _line(spec: TrainSpec, state: dict) -> str:
    """One line of progress with an estimate of what is left."""
    row, done = state["history"][-1], state["epoch"]
    pace_s = sum(r["seconds"] for r in state["history"]) / done
    return (
        f"{spec.network} fold {spec.fold} epoch {done}/{spec.epochs}: loss "
        f"{row['train_loss']:.4f}, validation {row['valid_loss']:.4f} "
        f"(BA {row['valid_balanced_accuracy']:.3f}), "
        f"about {pace_s * (spec.epochs - done):.0f} s left"
    )


def _board(folder: Path):
    """Open TensorBoard's writer, or say what to install."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "TensorBoard is not installed; install motionlib with its [log] extra or leave "
            "tensorboard=False (metrics.csv is always written)."
        ) from error
    return SummaryWriter(folder / "tensorboard")
