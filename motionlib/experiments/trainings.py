"""Trainings and what they predict: which network is trained on what, and where its rows go.

A training is an idempotent task: its specification names its folder, so that a rerun trains
nothing twice and a killed run goes on where it was.  ``models/trainings.csv`` says which folder
holds which fold of which experiment, in the words of ``predictions.csv``.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from motionlib import compute
from motionlib.compute.engines import default_device, progress_of
from motionlib.files import sha256_file, write_table
from motionlib.training.checkpoints import is_done
from motionlib.training.fitting import fit
from motionlib.training.spec import TrainSpec
from motionlib.training.transfer import fine_tune, specify

KEYS = ["experiment", "task", "model"]  # rows of a model's folds, as in predictions.csv


@dataclass(frozen=True)
class Budget:
    """What one training may spend.

    Attributes
    ----------
    epochs, n_folds : int
        Passes over the training scans, and folds trained.
    learning_rate, batch_size : float, int
        Adam's step and the scans of a batch; the paper has 1e-4 and 16.
    patience : int or None
        Epochs without a lower validation loss after which a training stops.
    """

    epochs: int
    n_folds: int
    learning_rate: float = 1e-4  # §III-C.2
    batch_size: int = 16  # §III-C.2
    patience: int | None = None


@dataclass(frozen=True)
class Training:
    """One fold of a network of the study.

    `experiment` names its rows in ``predictions.csv``; task, network and fold are those of the
    specification, which is complete, so that its key names the folder among all `models` of the
    run. A fine-tuning goes on from the folder `source`.
    """

    experiment: str
    spec: TrainSpec
    models: Path
    source: Path | None = None

    @property
    def fold(self) -> int:
        """Fold by which its rows are called: the one it is judged on, else the validation fold."""
        return self.spec.fold if self.spec.test_fold is None else self.spec.test_fold

    @property
    def folder(self) -> Path:
        """Where the training goes, known before it is made."""
        return self.spec.folder(self.models)


def plan_trainings(
    run,
    experiment: str,
    task: str,
    prepared: Path,
    budget: Budget,
    *,
    sources: Sequence[Path] | None = None,
    trainable: tuple[str, ...] = ("all",),
    outer: bool = False,
    **choices,
) -> list[Training]:
    """Specify the folds of one network: from fresh weights, or fine-tuned from folds of another.

    Fold i goes on from source i, the folder of a pre-trained fold, or from the first again where
    there are fewer; `trainable` are the blocks that move in it. With `outer` fold i is kept apart
    to be judged, and the next one validates. `choices` are further fields of `TrainSpec`.
    """
    # bf16 is the fast way on a GPU; on a CPU its gradients are not reproducible
    if outer and budget.n_folds < 3:
        raise ValueError(
            f"{budget.n_folds} folds were asked for; expected at least 3 where every graded scan "
            "is judged once: one to be judged, one to validate, the others to train"
        )
    fields = {
        "network": "Conv5FC3",
        "task": task,
        "manifest": str(prepared),
        "manifest_sha256": sha256_file(prepared),
        "epochs": budget.epochs,
        "patience": budget.patience,
        "batch_size": budget.batch_size,
        "learning_rate": budget.learning_rate,
        "precision": "bf16" if default_device().startswith("cuda") else "float32",
        "seed": run.seed,
    }
    trainings = []
    for fold in range(budget.n_folds):
        folds = {"fold": fold}
        if outer:
            folds = {"fold": (fold + 1) % budget.n_folds, "test_fold": fold}
        spec = TrainSpec(**(fields | choices | folds))
        source = None
        if sources is not None:
            source = sources[fold % len(sources)]
            spec = specify(source, spec, trainable=trainable)
        trainings.append(Training(experiment, spec, run.models, source))
    return trainings


def train(run, trainings: Sequence[Training], *, engine: str, label: str) -> None:
    """Make trainings on an engine and note their folders; those that are done are not made again.

    A training on a GPU occupies one of the workers' GPUs.  Progress is a bar in JupyterLab, else a
    line at most every 15 seconds: of epochs where this process trains, of finished trainings
    elsewhere.  RuntimeError if any failed; the next call goes on with the rest.
    """
    _note_folders(run, trainings)
    by_folder = {training.folder: training for training in trainings}  # equal ones are made once
    longest_first = sorted(by_folder.values(), key=lambda t: t.spec.trainable != ("all",))
    device = default_device()
    with progress_of(label, len(by_folder)) as say:
        options = {"progress": say} if engine == "inline" else {}
        results = compute.submit(
            partial(_train_one, device=device, **options),
            longest_first,
            engine=engine,
            label=label,
            resources={"GPU": 1} if device.startswith("cuda") else None,
            progress=say,
        )
    compute.raise_failures(results)


def _train_one(training: Training, *, device: str, progress=None) -> str:
    """Train or fine-tune one network."""
    spec, models = training.spec, training.models
    if training.source is None:
        return str(fit(spec, models, device=device, progress=progress))
    options = {"trainable": spec.trainable, "device": device, "progress": progress}
    return str(fine_tune(training.source, spec, models, **options))


def _note_folders(run, trainings: Iterable[Training]) -> None:
    """Put the folders of trainings into ``models/trainings.csv``, before they are made."""
    rows = [(t.experiment, t.spec.task, t.spec.network, t.fold, t.folder.name) for t in trainings]
    table = pd.DataFrame(rows, columns=[*KEYS, "fold", "folder"])
    path = run.models / "trainings.csv"
    if path.is_file():
        before = pd.read_csv(path)
        again = before.set_index(KEYS).index.isin(table.set_index(KEYS).index)
        table = pd.concat([before[~again], table], ignore_index=True)
    write_table(table.sort_values([*KEYS, "fold"]), path)


def trained_folds(
    run, experiment: str, task: str, model: str = "Conv5FC3", *, notebook: str
) -> list[Path]:
    """Folders of the trained folds of a network; FileNotFoundError if one of them is missing."""
    table = pd.read_csv(run.need("models/trainings.csv", notebook=notebook))
    keys = (experiment, task, model)
    rows = table[(table[KEYS] == keys).all(axis=1)].sort_values("fold")
    if rows.empty:
        run.need(f"models/{experiment}", notebook=notebook)
    folders = [run.models / name for name in rows["folder"]]
    for folder in folders:
        if not is_done(folder):
            run.need(f"models/{folder.name}/DONE", notebook=notebook)
    return folders
