"""Training of a network from a specification: Adam, weighted cross-entropy, lowest loss kept.

1. The specification's hash names the folder, so that nothing is trained twice.
2. All scans of a fold are read once into memory, then batches are gathered from them.
3. After every epoch the validation loss is taken; every few seconds the whole state is written
   down. All randomness is drawn from (seed, epoch, scan), so that a killed run continues to the
   same bits.
4. The epoch of lowest validation loss becomes the model.
"""

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from motionlib.compute.engines import configure_cpu
from motionlib.files import runs_root, seed_from, sha256_file, write_json
from motionlib.networks import build_network
from motionlib.training.checkpoints import (
    disk_faults,
    finish,
    is_done,
    load_epoch,
    model_facts,
    save_epoch,
    weights_of,
)
from motionlib.training.data import VolumeStore, load_prepared, split_rows
from motionlib.training.spec import TrainSpec

SAVE_EVERY_S = 10.0  # after the first epoch to end later: what a kill can lose
WARM_UP = 0.1  # of all steps, where the schedule is "cosine"


def fit(
    spec: TrainSpec,
    runs_dir: str | os.PathLike | None = None,
    *,
    device: str = "cpu",
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Train a network from fresh weights, or return at once if that was done before.

    Parameters
    ----------
    spec : TrainSpec
        What to train.
    runs_dir : path-like, optional
        Folder of all runs; this one goes to ``<network>-<key>/`` in it. None is ``models/`` under
        the folder of all studies (see `files.runs_root`).
    device : str, default="cpu"
        Where to compute; not part of the run's identity.
    progress : callable, optional
        Called with one line an epoch.

    Returns
    -------
    Path
        The run folder.

    Raises
    ------
    ValueError
        If the manifest is not the one specified, a class is empty, or the loss is not finite.
    FileNotFoundError, OSError
        If the manifest or a volume is not there; if the disk is full: what was saved last is kept.

    Notes
    -----
    Source: paper §III-C.2: Adam, learning rate 1e-4, batches of 16, weighted binary cross-entropy
    (here the same on two logits), lowest validation loss kept.
    """
    folder = spec.folder(runs_root() / "models" if runs_dir is None else runs_dir)
    if is_done(folder):
        return folder
    if spec.init_from is not None:
        raise ValueError("The specification starts from another run; use transfer.fine_tune.")
    train, validation = load_splits(spec, device)
    with configure_cpu(), torch.random.fork_rng():
        network = fresh_network(spec, train.store.shape).to(device)
        return Loop(spec, folder, network, network, train, validation, device).run(progress)


def fresh_network(spec: TrainSpec, shape):
    """Build the specified network; its weights depend on the seed alone."""
    torch.manual_seed(seed_from(spec.seed, "weights"))
    return build_network(spec.network, shape, dropout=spec.dropout, **dict(spec.options))


@dataclass(frozen=True)
class Split:
    """Scans that train or validate: rows of a store, classes, and numbers of their originals."""

    store: Any
    rows: np.ndarray
    y_true: np.ndarray
    original: np.ndarray


def load_splits(spec: TrainSpec, device: str = "cpu") -> tuple[Split, Split]:
    """Load the training and the validation scans of a specification, as rows of one store."""
    if not Path(spec.manifest).is_file():
        raise FileNotFoundError(f"Prepared manifest {spec.manifest} is not there; prepare it.")
    checksum = sha256_file(spec.manifest)
    if checksum != spec.manifest_sha256:
        raise ValueError(
            f"Manifest {Path(spec.manifest).name} has checksum {checksum[:12]} where the run was "
            f"specified for {spec.manifest_sha256[:12]}; make the specification again."
        )
    table = load_prepared(spec.manifest)
    train, validation = split_rows(table, spec.fold, spec.test_fold)
    table = table.iloc[np.concatenate([train, validation])].reset_index(drop=True)
    store = VolumeStore(table, device=device, augment=spec.augment, seed=spec.seed)
    original, _ = pd.factorize(table["original" if "original" in table else "scan_id"])
    columns = (np.arange(len(table)), table["y_true"].to_numpy(np.int64), original)
    first, second = zip(*(np.split(column, [len(train)]) for column in columns), strict=True)
    return Split(store, *first), Split(store, *second)


class Loop:
    """The optimiser, the class weights and the epochs of one training.

    `network` is the whole network and `trained` the part of it that is applied to the stores'
    inputs: the same, or what follows a frozen prefix whose features the stores hold.
    """

    def __init__(
        self,
        spec: TrainSpec,
        folder: Path,
        network: nn.Module,
        trained: nn.Module,
        train: Split,
        validation: Split,
        device: str,
    ):
        self.spec, self.folder, self.network, self.trained = spec, folder, network, trained
        self.train, self.validation, self.device = train, validation, torch.device(device)
        if spec.precision == "bf16" and self.device.type == "cpu":
            raise ValueError(
                "precision='bf16' needs a GPU: on the CPU oneDNN's bf16 gradients are not the same "
                "from run to run; use float32."
            )
        network.to(memory_format=torch.channels_last_3d)  # half the time on CPU
        parameters = [p for p in network.parameters() if p.requires_grad]
        if not parameters:
            raise ValueError("Every tensor is frozen; name at least one block that shall train.")
        self.optimizer = torch.optim.Adam(
            parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay, fused=True
        )
        counts = np.bincount(train.y_true, minlength=2)
        weighted = spec.loss == "weighted"
        weights = len(train.y_true) / (2 * counts) if weighted else np.ones(2)
        self.class_weights = torch.tensor(weights, dtype=torch.float32, device=self.device)
        self.micro_batch = spec.batch_size + 1  # a last batch of one joins the one before
        self.n_batches = len(self.batches(0))

    def run(self, progress: Callable[[str], None] | None = None) -> Path:
        """Run the epochs that are not done yet, publish the best and return the folder."""
        spec = self.spec
        with disk_faults(self.folder, "starting"):
            plain = asdict(spec) | {"manifest": Path(spec.manifest).name}
            write_json(self.folder / "spec.json", plain)
        fresh = {"epoch": 0, "best_epoch": 0, "history": [], "micro_batch": self.micro_batch}
        saved = load_epoch(self.folder, self.network, self.optimizer, self.device)
        (state, best), saved_at = saved or (fresh, {}), time.monotonic()
        self.micro_batch = state["micro_batch"]
        while not self._ends(state):
            state = self.epoch(state)
            if state["best_epoch"] == state["epoch"]:
                best = weights_of(self.network)
            if time.monotonic() - saved_at >= SAVE_EVERY_S and not self._ends(state):
                save_epoch(self.folder, self.network, self.optimizer, state, best)
                saved_at = time.monotonic()
            if progress is not None:
                progress(_progress_line(spec, state))
        shape = self.train.store.shape
        facts = model_facts(spec, shape, state, self.device, self.class_weights)
        return finish(self.folder, state, facts, best)

    def _ends(self, state: dict[str, Any]) -> bool:
        """Whether all epochs are done, or the last few have not lowered the validation loss."""
        waited = state["epoch"] - state["best_epoch"]
        stalled = self.spec.patience is not None and waited >= self.spec.patience
        return state["epoch"] >= self.spec.epochs or stalled

    def epoch(self, state: dict[str, Any]) -> dict[str, Any]:
        """Train one epoch, validate, and return the next state.

        `best_epoch` is the one of lowest validation loss, the first of equals. A loss that is not
        finite raises ValueError; ``not_finite.json`` in the run folder names the scans.
        """
        begun, number = time.perf_counter(), state["epoch"] + 1
        torch.manual_seed(seed_from(self.spec.seed, "dropout", number))
        self._train_mode()
        losses, batches = [], self.batches(number)
        for i, batch in enumerate(batches):
            rate = self.rate((number - 1) * self.n_batches + i)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            losses.append(self._step(batch, number))
            # on a GPU a look at every loss would wait for it: there they are read at the end
            if self.device.type == "cpu" and not torch.isfinite(losses[-1]):
                break
        values = torch.stack(losses).double().cpu().numpy()
        lost = np.flatnonzero(~np.isfinite(values))
        if len(lost):
            self._stop(number, batches[lost[0]])
        valid_loss, accuracy = self._validate()
        if not math.isfinite(valid_loss):
            self._stop(number, np.arange(0))
        row = {
            "epoch": number,
            "steps": self.n_batches,
            "learning_rate": rate,
            "train_loss": float(np.average(values, weights=[len(batch) for batch in batches])),
            "valid_loss": valid_loss,
            "valid_balanced_accuracy": accuracy,
            "micro_batch": self.micro_batch,
            "seconds": round(time.perf_counter() - begun, 3),
        }
        history = [*state["history"], row]
        return {
            "epoch": number,
            "best_epoch": min(history, key=lambda r: r["valid_loss"])["epoch"],
            "history": history,
            "micro_batch": self.micro_batch,
        }

    def batches(self, epoch: int) -> list[np.ndarray]:
        """Positions of the training scans of each batch; a last batch of one joins the one before.

        A single scan may have no variance to be normalised by at the end of the network.
        """
        rng = np.random.default_rng(seed_from(self.spec.seed, "order", epoch))
        y_true = self.train.y_true
        if self.spec.sampler == "weighted":
            chance = 1 / np.bincount(y_true, minlength=2)[y_true]
            order = rng.choice(len(y_true), len(y_true), p=chance / chance.sum())
        elif self.spec.sampler == "pairs":
            order = self._paired_order(rng)
        else:
            order = rng.permutation(len(y_true))
        size = self.spec.batch_size
        cuts = list(range(size, len(order), size))
        if cuts and len(order) - cuts[-1] == 1:
            cuts.pop()
        return np.split(order, cuts)

    def _paired_order(self, rng: np.random.Generator) -> np.ndarray:
        """Positions in random pairs of a still and a moved copy of an original; left-overs wait."""
        y_true, original = self.train.y_true, self.train.original
        pairs = []
        for number in np.unique(original):
            sides = [np.flatnonzero((original == number) & (y_true == y)) for y in (0, 1)]
            n = min(map(len, sides))
            pairs.append(np.stack([rng.permutation(side)[:n] for side in sides], axis=1))
        pairs = np.concatenate(pairs)
        if not len(pairs):
            raise ValueError(
                "No original has a copy with and one without motion; expected pairs of copies, or "
                "another sampler."
            )
        return rng.permutation(pairs).ravel()

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0 over all epochs."""
        if self.spec.schedule == "constant":
            return self.spec.learning_rate
        total = self.n_batches * self.spec.epochs
        warm = max(1, round(WARM_UP * total))
        if step < warm:
            return self.spec.learning_rate * (step + 1) / warm
        done = (step - warm) / max(1, total - warm)
        return self.spec.learning_rate * 0.5 * (1 + math.cos(math.pi * done))

    def _train_mode(self) -> None:
        """Switch to training; frozen batch-norm layers keep their statistics if so specified."""
        self.trained.train()
        if self.spec.freeze_bn_stats:
            for module in self.trained.modules():
                frozen = not any(p.requires_grad for p in module.parameters(recurse=False))
                if isinstance(module, _BatchNorm) and frozen:
                    module.eval()

    def _forward(self, split: Split, batch: np.ndarray, epoch: int | None):
        """Logits and classes of some scans of a split."""
        x = split.store.batch(split.rows[batch], self.device, epoch)
        y = torch.from_numpy(split.y_true[batch]).to(self.device)
        if x.ndim == 5:  # volumes, not features
            x = x.contiguous(memory_format=torch.channels_last_3d)
        half = self.spec.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            logits = self.trained(x)
        return logits.float(), y

    def _loss(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Sum over scans of the class weight times the cross-entropy."""
        losses = nn.functional.cross_entropy(logits, y, reduction="none")
        return (self.class_weights[y] * losses).sum()

    def _step(self, batch: np.ndarray, epoch: int) -> torch.Tensor:
        """Update the weights once; out of memory, in smaller pieces of the same batch.

        The loss of a batch is the sum over its pieces divided by its size: its gradient does not
        depend on them. Buffers (running statistics) that a failed try has moved are put back.
        """
        buffers = [b.clone() for b in self.trained.buffers()]
        while True:
            try:
                self.optimizer.zero_grad(set_to_none=True)
                total = torch.zeros((), device=self.device)
                for piece in self._pieces(batch):
                    loss = self._loss(*self._forward(self.train, piece, epoch)) / len(batch)
                    loss.backward()
                    total += loss.detach()
                self.optimizer.step()
                return total
            except torch.OutOfMemoryError as error:
                loss = None  # its graph holds the memory
                if self.micro_batch == 1:
                    raise MemoryError(
                        "One scan alone does not fit in the device's memory; use a coarser grid, "
                        "precision='bf16' or a larger device."
                    ) from error
                self.micro_batch = min(self.micro_batch, len(batch)) // 2
                for buffer, before in zip(self.trained.buffers(), buffers, strict=True):
                    buffer.copy_(before)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    @torch.inference_mode()
    def _validate(self) -> tuple[float, float]:
        """Mean weighted loss and balanced accuracy of the validation scans."""
        self.trained.eval()
        total, called = 0.0, []
        n = len(self.validation.rows)
        for piece in self._pieces(np.arange(n)):
            logits, y = self._forward(self.validation, piece, None)
            total += float(self._loss(logits, y).double())
            called.append(logits.argmax(1).cpu().numpy())
        right = np.concatenate(called) == self.validation.y_true
        recalls = [right[self.validation.y_true == c].mean() for c in (0, 1)]
        return total / n, float(np.mean(recalls))

    def _pieces(self, batch: np.ndarray) -> list[np.ndarray]:
        """Split a batch into equal pieces that fit in memory."""
        return np.array_split(batch, -(-len(batch) // self.micro_batch))

    def _stop(self, epoch: int, batch: np.ndarray) -> None:
        """Write down the scans of a batch whose loss is not finite, then raise."""
        ids = [self.train.store.scan_ids[i] for i in self.train.rows[batch]]
        where = "training" if ids else "validation"
        note = {"epoch": epoch, "part": where, "scan_ids": ids}
        write_json(self.folder / "not_finite.json", note)
        raise ValueError(
            f"The {where} loss of {self.folder.name} is not finite in epoch {epoch}; the batch's "
            "scans are in not_finite.json of the run folder, so look at them or lower the "
            "learning rate."
        )


def _progress_line(spec: TrainSpec, state: dict) -> str:
    """One line about the latest epoch, with an estimate of the time that is left."""
    row, done = state["history"][-1], state["epoch"]
    pace_s = sum(r["seconds"] for r in state["history"]) / done
    return (
        f"{spec.network} fold {spec.fold} epoch {done}/{spec.epochs}: loss "
        f"{row['train_loss']:.4f}, validation {row['valid_loss']:.4f} "
        f"(BA {row['valid_balanced_accuracy']:.3f}), "
        f"about {pace_s * (spec.epochs - done):.0f} s left"
    )
