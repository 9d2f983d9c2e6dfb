"""The folder of a training: checkpoints while it runs, a model when it has ended.

It holds ``spec.json``, ``metrics.csv`` and, while it trains, ``last/`` with files of an epoch;
``state.json`` there names the epoch to continue from and is replaced only once that epoch's files
are on the disk, so that an interruption at any moment loses what came after it at most. At the end
``weights.safetensors`` and ``model.json`` are written, then ``DONE``, and ``last/`` goes.
"""

import errno
import os
import pickle
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from motionlib import __version__
from motionlib.files import atomic, read_json, write_json, write_table, write_text
from motionlib.networks import build_network

THRESHOLD = 0.5  # of the softmax probability: the larger logit, §III-C.2
Weights = dict[str, torch.Tensor]
CLASSES = ["no motion", "motion"]  # positive = motion = the last logit


@dataclass(frozen=True)
class Model:
    """A finished training, opened once.

    `folder` holds its ``model.json`` and ``weights.safetensors``; `facts` are the contents of the
    former: architecture, grid, task, threshold and where it comes from. `network` is a Sequential
    with its weights, in evaluation mode.
    """

    folder: Path
    facts: dict[str, Any]
    network: nn.Sequential

    @property
    def name(self) -> str:
        """Name of the folder, for messages."""
        return self.folder.name

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels of the grid that it takes, (I, J, K)."""
        return tuple(self.facts["shape"])


def load_model(source: str | os.PathLike | Model, *, device: str = "cpu") -> Model:
    """Open a model folder once, on a device: hand the result down in place of the folder.

    A model that this function has returned is only moved. FileNotFoundError if the folder holds no
    finished model; ValueError if the weights belong to another architecture or shape than
    ``model.json`` says, or are no safetensors.
    """
    if isinstance(source, Model):
        source.network.to(device)
        return source
    folder, facts = Path(source), read_model(source)
    weights = read_weights(folder / "weights.safetensors")
    with torch.device("meta"):  # takes no memory before the weights are seen to fit
        network = _described(facts, folder.name)
    fill(network, weights, f"{facts['network']} at {tuple(facts['shape'])}", folder.name)
    network = network.to(device, memory_format=torch.channels_last_3d)
    return Model(folder, facts, network.eval())


def _described(facts: dict[str, Any], name: str) -> nn.Sequential:
    """Build the network of a ``model.json``, or say that it describes none."""
    try:
        options = {"n_classes": facts["n_classes"], "dropout": facts["dropout"]} | facts["options"]
        return build_network(facts["network"], facts["shape"], **options)
    except (TypeError, KeyError, RuntimeError, OverflowError) as error:
        said = str(error).partition("\n")[0]
        raise ValueError(f"model.json of {name} describes no network: {said}.") from error


def read_model(source: str | os.PathLike | Model) -> dict[str, Any]:
    """Read ``model.json`` of a finished model, without weights; else FileNotFoundError."""
    if isinstance(source, Model):
        return source.facts
    path = Path(source) / "model.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{Path(source).name} holds no finished model (no model.json); train it first."
        )
    return read_json(path)


def read_weights(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """Read tensors from a safetensors file, never from a pickle.

    FileNotFoundError if it is not there; ValueError if it is of another kind or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"Weights {path.name} are not in {path.parent.name}; train first.")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path.name} in {path.parent.name} is not a whole safetensors file ({error}); pickles "
            "are not read, so export the weights as safetensors or train again."
        ) from error


def fill(network, weights: dict[str, torch.Tensor], wanted: str, source: str) -> None:
    """Load weights into a network, or say in one sentence that they are another network's."""
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    given = {name: tensor.shape for name, tensor in weights.items()}
    wrong = [name for name in shapes | given if shapes.get(name) != given.get(name)]
    if wrong:
        raise ValueError(
            f"The weights of {source} are not those of {wanted}: {len(wrong)} tensors differ in "
            f"name or shape, such as {min(wrong)}; use a run of the same network and grid."
        )
    if next(network.parameters()).is_meta:
        network.to_empty(device="cpu")
    network.load_state_dict(weights)


def is_done(folder: Path) -> bool:
    """Tell whether a run has ended and its model is there."""
    return (folder / "DONE").is_file() and (folder / "weights.safetensors").is_file()


def save_epoch(folder: Path, network, optimizer, state: dict[str, Any], best: Weights) -> None:
    """Write a checkpoint of the latest epoch and the best weights, then drop what was before.

    The state holds plain values: `epoch` (epochs done), `best_epoch`, `history` (rows of
    ``metrics.csv``) and `micro_batch`. Schedule and random numbers need none: both are functions
    of (seed, epoch, step).
    """
    last, epoch = folder / "last", state["epoch"]
    best_file = last / f"epoch_{state['best_epoch']}.safetensors"
    with disk_faults(folder, f"writing epoch {epoch}"):
        with atomic(last / f"epoch_{epoch}.safetensors") as aside:
            save_file(weights_of(network), aside)
        if not best_file.is_file():
            with atomic(best_file) as aside:
                save_file(best, aside)
        with atomic(last / f"epoch_{epoch}.pt") as aside:
            torch.save(optimizer.state_dict(), aside)
        write_table(pd.DataFrame(state["history"]), folder / "metrics.csv")
        write_json(last / "state.json", state)
    _tidy(last, state)


def _tidy(last: Path, state: dict[str, Any]) -> None:
    """Remove what a state neither continues from nor has as its best."""
    keep = {f"epoch_{state['epoch']}.{suffix}" for suffix in ("safetensors", "pt")}
    keep |= {f"epoch_{state['best_epoch']}.safetensors", "state.json"}
    for path in last.iterdir():
        if path.name not in keep:
            path.unlink(missing_ok=True)


def load_epoch(
    folder: Path, network, optimizer, device: str
) -> tuple[dict[str, Any], Weights] | None:
    """Put network and optimiser back to the last saved epoch; return its state and best weights."""
    last = folder / "last"
    if not (last / "state.json").is_file():
        shutil.rmtree(last, ignore_errors=True)  # what a kill left of a first checkpoint
        return None
    state = read_json(last / "state.json")
    _tidy(last, state)
    network.load_state_dict(read_weights(last / f"epoch_{state['epoch']}.safetensors"))
    saved = last / f"epoch_{state['epoch']}.pt"
    try:
        optimizer.load_state_dict(torch.load(saved, map_location=device, weights_only=True))
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{saved.name} of run {folder.name} is damaged or not ours; remove the folder last/ "
            "to train from the start."
        ) from error
    return state, read_weights(last / f"epoch_{state['best_epoch']}.safetensors")


def model_facts(spec, shape, state: dict, device: str, class_weights) -> dict[str, Any]:
    """Say what a run's weights belong to: the contents of ``model.json``."""
    best = state["history"][state["best_epoch"] - 1]
    return {
        "key": spec.key,
        "network": spec.network,
        "architecture": spec.network,
        "shape": list(shape),
        "n_classes": len(CLASSES),
        "classes": CLASSES,
        "dropout": spec.dropout,
        "options": dict(spec.options),
        "preprocessing": "z-score of the whole volume",
        "task": spec.task,
        "threshold": THRESHOLD,
        "calibration": None,
        "cohort": None,
        "seed": spec.seed,
        "fold": spec.fold,
        "test_fold": spec.test_fold,
        "init_from": spec.init_from,
        "manifest_sha256": spec.manifest_sha256,
        "class_weights": [float(w) for w in class_weights],
        "best_epoch": state["best_epoch"],
        "valid_loss": best["valid_loss"],
        "device": torch.device(device).type,
        "threads": torch.get_num_threads(),
        "versions": {"motionlib": __version__, "torch": torch.__version__},
    }


def finish(folder: Path, state: dict[str, Any], facts: dict[str, Any], best: Weights) -> Path:
    """Publish the best weights as the model, with its facts in ``model.json``, and mark it done."""
    with disk_faults(folder, "writing the model"):
        with atomic(folder / "weights.safetensors") as aside:
            save_file(best, aside)
        write_table(pd.DataFrame(state["history"]), folder / "metrics.csv")
        write_json(folder / "model.json", facts)
        write_text(folder / "DONE", "")
    shutil.rmtree(folder / "last", ignore_errors=True)
    return folder


@contextmanager
def disk_faults(folder: Path, doing: str):
    """Turn a full disk into one sentence that says what is kept."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(
            error.errno,
            f"No space left while {doing} of run {folder.name}; what was finished before is kept, "
            "so free some space and run again",
        ) from error


def weights_of(network) -> Weights:
    """Copy parameters and buffers to contiguous CPU tensors."""
    return {
        name: tensor.detach().to("cpu", memory_format=torch.contiguous_format, copy=True)
        for name, tensor in network.state_dict().items()
    }
