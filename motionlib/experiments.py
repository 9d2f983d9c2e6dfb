"""A run with a prepared cohort goes in; trained networks and rows of ``predictions.csv`` come out.

Every training is an idempotent task: its specification names its folder, so that a rerun trains
nothing twice and a killed run goes on where it was.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd

from motionlib import compute, studydata
from motionlib.budget import Budget, default_device, text_progress
from motionlib.files import read_json, sha256_file, write_json
from motionlib.intervals import summary_intervals
from motionlib.predictions import PREDICTION_COLUMNS
from motionlib.studycohort import example_volumes, manifest_of, prepare_cohort  # noqa: F401
from motionlib.training import TrainSpec, fit, predict
from motionlib.transfer import fine_tune
from motionlib.variants import CONTROLS, LADDER

COLUMNS = list(PREDICTION_COLUMNS)
AUGMENT = {"paper": "none", "recommended": "nuisance"}  # contrast, sharpness, noise, both classes


@dataclass(frozen=True)
class Job:
    """One training: its specification, the models it starts from, the folder it goes to."""

    spec: TrainSpec
    models: str
    device: str = "cpu"
    source: str | None = None
    trainable: tuple[str, ...] = ("all",)


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


def train(run, jobs: list[Job], *, engine: str, label: str) -> list[Path]:
    """Run trainings on an engine and return their folders, in order.

    A training on a GPU occupies one of the workers' GPUs.  A line of progress is printed at most
    every 15 seconds: of epochs where this process trains, of finished trainings elsewhere.

    Raises
    ------
    RuntimeError
        If any failed; those that finished are kept and the next call goes on with the rest.
    """
    say = text_progress()
    here = engine.partition(":")[0] in ("inline", "shard")
    folders = compute.submit(
        partial(_train_one, progress=say) if here else _train_one,
        jobs,
        engine=engine,
        label=label,
        resources={"GPU": 1} if any(job.device.startswith("cuda") for job in jobs) else None,
        progress=say,
    )
    compute.raise_failures(folders)
    return [Path(folder) for folder in folders]


def _train_one(job: Job, progress=None) -> str:
    options = {"device": job.device, "progress": progress}
    if job.source is None:
        return str(fit(job.spec, job.models, **options))
    spec = replace(job.spec, trainable=job.trainable)
    return str(fine_tune(job.source, spec, job.models, trainable=job.trainable, **options))


def rows_of(predictions: pd.DataFrame, experiment: str, task: str, model: str, fold: int):
    """Turn one model's predictions into rows of ``predictions.csv``."""
    rows = predictions.assign(experiment=experiment, task=task, model=model, fold=fold)
    return rows[COLUMNS]


def pretrain(
    run,
    budget: Budget,
    *,
    simulators=("image",),
    severities=("2-4",),
    recipe: str = "paper",
    networks=("Conv5FC3",),
) -> pd.DataFrame:
    """Pre-train networks on synthetic motion and predict every test.

    Parameters
    ----------
    run : motionlib.runs.Run
        A run whose cohort is prepared.
    budget : Budget
        Epochs, folds, engine.
    simulators, severities, networks : sequence of str
        The grid of Tables II, III and A.III.
    recipe : {"paper", "recommended"}
        How both classes are made (see `studydata.synthetic_set`).

    Returns
    -------
    DataFrame
        Rows of ``predictions.csv``: independent test set, cross-validation (``/cv``), the test
        patients' still heads resampled once (``/resampled``), and real motion (``/real``).

    Notes
    -----
    Source: paper §III-C, §III-D.1, Tables II, III and A.III.
    """
    real = studydata.real_motion_set(run)
    still = studydata.control_set(run, "resampled", engine=budget.engine)
    cells = [(s, v, n) for s in simulators for v in severities for n in networks]
    sets = {
        (s, v): studydata.synthetic_set(run, s, v, recipe, engine=budget.engine)
        for s, v, _ in cells
    }
    plan = [(*cell, fold) for cell in cells for fold in range(budget.n_folds)]
    jobs = [
        Job(
            spec_for(
                run, sets[s, v], fold, budget, network=n, task="synthetic", augment=AUGMENT[recipe]
            ),
            str(run.models),
            budget.device,
        )
        for s, v, n, fold in plan
    ]
    folders = train(run, jobs, engine=budget.engine, label=f"pre-train ({recipe})")
    record(run, plan, folders, recipe)
    parts = []
    for (simulator, severity, network, fold), folder in zip(plan, folders, strict=True):
        name = f"pretrain/{simulator}/{severity}/{recipe}"
        prepared = read_prepared(run, sets[simulator, severity])
        held_out = {"": prepared["role"] == "test", "/cv": prepared["fold"] == fold}
        for suffix, rows in held_out.items():
            found = predict(folder, prepared[rows], device=budget.device)
            parts.append(rows_of(found, name + suffix, "synthetic", network, fold))
        elsewhere = {"resampled": (still, "synthetic")}
        if real is not None:
            elsewhere["real"] = (real, "real_motion")
        for suffix, (manifest, task) in elsewhere.items():
            found = predict(folder, manifest, device=budget.device)
            parts.append(rows_of(found, f"{name}/{suffix}", task, network, fold))
    return pd.concat(parts, ignore_index=True)


def record(run, plan, folders, recipe: str) -> None:
    """Keep which folders belong to each cell, and the seconds of every training."""
    found: dict[str, list[str]] = {}
    for (simulator, severity, network, fold), folder in zip(plan, folders, strict=True):
        step = f"train/{network}/{simulator}/{severity}/{recipe}/fold{fold}"
        run.duration(step, seconds_of(folder), model=network, fold=fold)
        found.setdefault(cell_name(simulator, severity, recipe, network), []).append(folder.name)
    for name, folds in found.items():
        write_json(run.models / f"{name}.json", folds)


def cell_name(simulator: str, severity: str, recipe: str, network: str) -> str:
    """Name of the file that lists the folds of one pre-training cell."""
    return f"pretrained_{simulator}_{severity}_{recipe}_{network}"


def seconds_of(folder: Path) -> float:
    """Seconds that a training took, as its own log says."""
    return float(pd.read_csv(folder / "metrics.csv")["seconds"].sum())


def pretrained(run, simulator: str, severity: str, recipe: str, network="Conv5FC3") -> list[Path]:
    """Folders of the pre-trained folds of one cell.

    Raises
    ------
    FileNotFoundError
        If notebook 02 (03 for other networks) has not trained it.
    """
    number = "02" if network == "Conv5FC3" else "03"
    name = f"models/{cell_name(simulator, severity, recipe, network)}.json"
    return [run.models / folder for folder in read_json(run.need(name, notebook=number))]


def learning_curves(run, simulators, networks, *, severity="2-4", recipe="paper") -> pd.DataFrame:
    """Loss by epoch of every fold of some cells, with their simulator, model and fold."""
    parts = []
    for simulator in simulators:
        for network in networks:
            folders = pretrained(run, simulator, severity, recipe, network)
            for fold, folder in enumerate(folders):
                curve = pd.read_csv(folder / "metrics.csv")
                parts.append(curve.assign(simulator=simulator, model=network, fold=fold))
    return pd.concat(parts, ignore_index=True)


def controls(
    run, recipes=("paper", "recommended"), *, simulator="image", engine="inline", device=None
):
    """Score clean scans changed in every way that is not motion, and a ladder of motion.

    The device is that of `Budget` unless named.

    Returns
    -------
    DataFrame
        Rows ``control/{recipe}/{control}``, and ``control/{recipe}/{control}/{cohort}`` for every
        other site that the cohort has scans of.
    """
    manifest, device = manifest_of(run), device or default_device()
    elsewhere = manifest.loc[manifest["role"] == "other_site", "cohort"].unique()
    parts = []
    for recipe in recipes:
        folders = pretrained(run, simulator, "2-4", recipe)
        for control, site in itertools.product((*CONTROLS, *LADDER), ("", *elsewhere)):
            role = "other_site" if site else "test"
            prepared = studydata.control_set(run, control, role=role, engine=engine)
            rows = read_prepared(run, prepared)
            rows = rows[rows["cohort"] == site] if site else rows
            name = f"control/{recipe}/{control}" + (f"/{site}" if site else "")
            for fold, folder in enumerate(folders):
                found = predict(folder, rows, device=device)
                parts.append(rows_of(found, name, "synthetic", "Conv5FC3", fold))
    return pd.concat(parts, ignore_index=True)


def forest_inputs(run, kind: str, task: str) -> dict[str, pd.DataFrame]:
    """Training and test scans of the random forest: the same split as the networks'.

    Parameters
    ----------
    kind : {"research", "clinical"}
        Trained on image-based synthetic motion of 2-4 mm, or on the graded warehouse scans.
    task : {"mov01vs2", "mov0vs1"}
        What is predicted on the warehouse's test scans.

    Returns
    -------
    dict
        ``train`` and ``test``: prepared manifests with absolute paths.
    """
    clinical = read_prepared(run, studydata.warehouse_set(run, task))
    test = clinical[clinical["role"] == "test"]
    if kind == "clinical":
        return {"train": clinical[clinical["role"] == "train"], "test": test}
    research = read_prepared(run, studydata.synthetic_set(run, "image", "2-4", "paper"))
    return {"train": research[research["role"] == "train"], "test": test}


def read_prepared(run, manifest: Path) -> pd.DataFrame:
    """Read a prepared manifest with absolute paths."""
    table = pd.read_csv(manifest, sep="\t")
    return table.assign(path=[str(run.cache / path) for path in table["path"]])


def accuracy_by_model(predictions: pd.DataFrame, experiment: str, *, n_boot: int = 1000):
    """Balanced accuracy of each model in one experiment, mean of folds, with patient interval."""
    rows = predictions[predictions["experiment"] == experiment]
    found = []
    for model, part in rows.groupby("model", sort=False):
        interval = summary_intervals(part, n_boot=n_boot)["balanced_accuracy"]
        estimate = {"balanced_accuracy": interval.estimate, "low": interval.low}
        found.append({"model": model, **estimate, "high": interval.high})
    return pd.DataFrame(found)
