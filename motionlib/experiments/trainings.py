"""Trainings that belong together go in; their folders come out, from any engine.

Every training is an idempotent task: its specification names its folder, so that a rerun trains
nothing twice and a killed run goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from motionlib import compute
from motionlib.compute.engines import default_device, progress_of
from motionlib.files import read_json, sha256_file, write_json
from motionlib.training.checkpoints import is_done
from motionlib.training.fitting import fit
from motionlib.training.spec import TrainSpec
from motionlib.training.transfer import fine_tune, specify


@dataclass(frozen=True)
class Job:
    """One training: its specification, the models it starts from, the folder it goes to."""

    spec: TrainSpec
    models: str
    device: str = "cpu"
    source: str | None = None
    trainable: tuple[str, ...] = ("all",)

    @property
    def folder(self) -> Path:
        """Where the training goes, known before it is made."""
        if self.source is None:
            return self.spec.folder(self.models)
        return specify(self.source, self.spec, trainable=self.trainable).folder(self.models)


def spec_for(run, manifest: Path, fold: int, budget: Budget, *, network="Conv5FC3", **more):
    """Specify one training on one fold of a prepared manifest."""
    return TrainSpec(
        network=network,
        manifest=str(manifest),
        manifest_sha256=sha256_file(manifest),
        fold=fold,
        epochs=budget.epochs,
        batch_size=budget.batch_size,
        learning_rate=budget.learning_rate,
        precision=budget.precision,
        seed=run.seed,
        **more,
    )


def train(jobs: Iterable[Job], *, engine: str, label: str) -> list[Path]:
    """Make trainings on an engine and return their folders, in order; equal ones are made once.

    A training on a GPU occupies one of the workers' GPUs.  Progress is a bar in JupyterLab, else a
    line at most every 15 seconds: of epochs where this process trains, of finished trainings
    elsewhere.

    Raises
    ------
    RuntimeError
        If any failed; those that finished are kept and the next call goes on with the rest.
    """
    jobs = list(jobs)
    unique = list(dict.fromkeys(jobs))
    with progress_of(label, len(unique)) as say:
        folders = compute.submit(
            partial(_train_one, progress=say) if engine == "inline" else _train_one,
            unique,
            engine=engine,
            label=label,
            resources={"GPU": 1} if any(job.device.startswith("cuda") for job in jobs) else None,
            progress=say,
        )
    compute.raise_failures(folders)
    made = {job: Path(folder) for job, folder in zip(unique, folders, strict=True)}
    return [made[job] for job in jobs]


def _train_one(job: Job, progress=None) -> str:
    options = {"device": job.device, "progress": progress}
    if job.source is None:
        return str(fit(job.spec, job.models, **options))
    spec = replace(job.spec, trainable=job.trainable)
    return str(fine_tune(job.source, spec, job.models, trainable=job.trainable, **options))


def note_folds(run, name: str, jobs: Iterable[Job]) -> None:
    """Write down which folders are the folds of a model, before or after they are trained."""
    write_json(run.models / f"{name}.json", [job.folder.name for job in jobs])


def folds_of(run, name: str, *, notebook: str | None = None) -> list[Path]:
    """Folders of the trained folds of a model.

    Raises
    ------
    FileNotFoundError
        If one of them is not trained yet; says which notebook does it.
    """
    folders = [
        run.models / one for one in read_json(run.need(f"models/{name}.json", notebook=notebook))
    ]
    for folder in folders:
        if not is_done(folder):
            run.need(f"models/{folder.name}/DONE", notebook=notebook)
    return folders


@dataclass(frozen=True)
class Budget:
    """What one training may spend.

    Attributes
    ----------
    epochs : int
        Passes over the training scans.
    n_folds : int
        Folds trained.
    learning_rate : float
        Adam's step; the paper has 1e-4.
    batch_size : int
        The paper has 16.
    engine : str
        Where trainings run.
    device : str
        ``cpu`` or ``cuda``; the default is what MOTIONLIB_DEVICE says, else ``cpu``.
    """

    epochs: int
    n_folds: int
    learning_rate: float = 1e-4  # §III-C.2
    batch_size: int = 16  # §III-C.2
    engine: str = "inline"
    device: str = field(default_factory=default_device)

    @property
    def precision(self) -> str:
        """``bf16`` on a GPU, where it is the fast way, else ``float32``."""
        return "bf16" if self.device.startswith("cuda") else "float32"
