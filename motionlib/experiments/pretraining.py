"""A run with a prepared cohort goes in; networks and rows of ``predictions.csv`` come out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from motionlib.compute.engines import default_device
from motionlib.experiments import copies
from motionlib.experiments.cohort import clean_path, manifest_of
from motionlib.experiments.trainings import (
    Budget,
    Job,
    folds_of,
    note_folds,
    spec_for,
    train,
)
from motionlib.files import read_json
from motionlib.motion.recipes import CONTROLS, LADDER
from motionlib.predictions import PREDICTION_COLUMNS
from motionlib.stats.intervals import summary_intervals
from motionlib.training.prediction import predict_all

COLUMNS = list(PREDICTION_COLUMNS)
AUGMENT = {"paper": "none", "recommended": "nuisance"}  # contrast, sharpness, noise, both classes
FEW = 100  # scans to train and validate on; fewer are moved and mirrored anew in every epoch


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
    run : motionlib.study.run.Run
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
    Departs from the paper where a cohort is small (see `recipe_of`).
    """
    real = copies.real_motion_set(run)
    still = copies.control_set(run, "resampled", engine=budget.engine)
    cells = [(s, v, n) for s in simulators for v in severities for n in networks]
    sets = {
        (s, v): copies.synthetic_set(run, s, v, recipe, engine=budget.engine) for s, v, _ in cells
    }
    how, spent = recipe_of(run, sets[cells[0][:2]], recipe, budget)
    plan = [(*cell, fold) for cell in cells for fold in range(budget.n_folds)]
    jobs = [
        Job(
            spec_for(run, sets[s, v], fold, spent, network=n, task="synthetic", **how),
            str(run.models),
            budget.device,
        )
        for s, v, n, fold in plan
    ]
    cells_of = [cell_name(s, v, recipe, n) for s, v, n, _ in plan]
    for name in dict.fromkeys(cells_of):
        note_folds(run, name, [job for job, of in zip(jobs, cells_of, strict=True) if of == name])
    folders = train(jobs, engine=budget.engine, label=f"pre-train ({recipe})")
    record(run, plan, folders, recipe)
    asked = []
    for (simulator, severity, network, fold), folder in zip(plan, folders, strict=True):
        name = f"pretrain/{simulator}/{severity}/{recipe}"
        prepared = read_prepared(run, sets[simulator, severity])
        tests = {
            name: (prepared[prepared["role"] == "test"], "synthetic"),
            f"{name}/cv": (prepared[prepared["fold"] == fold], "synthetic"),
            f"{name}/resampled": (still, "synthetic"),
        }
        if real is not None:
            tests[f"{name}/real"] = (real, "real_motion")
        asked += [((of, task, network, fold), folder, rows) for of, (rows, task) in tests.items()]
    return score_all(asked, budget.device, budget.engine)


def score_all(asked, device: str, engine: str) -> pd.DataFrame:
    """Predict on an engine and gather the rows of ``predictions.csv``.

    Parameters
    ----------
    asked : list of (names, folder, manifest)
        `names` are experiment, task, model and fold; the other two as for `predict`.
    device, engine : str
        Where to compute.

    Returns
    -------
    DataFrame
        Rows in the order asked for.
    """
    found = predict_all([pair for _, *pair in asked], device=device, engine=engine)
    parts = [rows_of(one, *names) for (names, *_), one in zip(asked, found, strict=True)]
    return pd.concat(parts, ignore_index=True)


def recipe_of(run, prepared: Path, recipe: str, budget: Budget) -> tuple[dict, Budget]:
    """Say how training changes its scans from epoch to epoch, and what it may spend.

    Parameters
    ----------
    run : motionlib.study.run.Run
        A run whose cohort is prepared.
    prepared : Path
        The prepared manifest of one cell.
    recipe : {"paper", "recommended"}
        How both classes are made.
    budget : Budget
        Of the notebook.

    Returns
    -------
    how : dict
        Fields of `TrainSpec`.
    spent : Budget
        With twice the epochs where scans are made anew.

    Notes
    -----
    Departs from the paper: the scans of its recipe are moved once, as the paper's, where there are
    at least `FEW` to train and validate on; of fewer, those that train are moved again and
    mirrored at random in every epoch.
    """
    n_scans = (pd.read_csv(prepared, sep="\t")["role"] == "train").sum()
    if recipe != "paper" or n_scans >= FEW:
        return {"augment": AUGMENT[recipe]}, budget
    spacing_mm = read_json(run.cohort / "cohort.json")["spacing_mm"]
    how = {"augment": "flip", "fresh_mm": float(spacing_mm)}
    return how, replace(budget, epochs=2 * budget.epochs)


def record(run, plan, folders, recipe: str) -> None:
    """Keep the seconds of every training."""
    for (simulator, severity, network, fold), folder in zip(plan, folders, strict=True):
        step = f"train/{network}/{simulator}/{severity}/{recipe}/fold{fold}"
        run.duration(step, seconds_of(folder), model=network, fold=fold)


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
    return folds_of(run, cell_name(simulator, severity, recipe, network), notebook=number)


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
    asked = []
    for recipe in recipes:
        folders = pretrained(run, simulator, "2-4", recipe)
        for control, site in itertools.product((*CONTROLS, *LADDER), ("", *elsewhere)):
            role = "other_site" if site else "test"
            prepared = copies.control_set(run, control, role=role, engine=engine)
            rows = read_prepared(run, prepared)
            rows = rows[rows["cohort"] == site] if site else rows
            name = f"control/{recipe}/{control}" + (f"/{site}" if site else "")
            for fold, folder in enumerate(folders):
                asked.append(((name, "synthetic", "Conv5FC3", fold), folder, rows))
    return score_all(asked, device, engine)


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
    clinical = read_prepared(run, copies.warehouse_set(run, task))
    test = clinical[clinical["role"] == "test"]
    if kind == "clinical":
        return {"train": clinical[clinical["role"] == "train"], "test": test}
    research = read_prepared(run, copies.synthetic_set(run, "image", "2-4", "paper"))
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


def each_volume(run, scan_ids) -> Iterator[np.ndarray]:
    """Centred volumes (I, J, K) of some scans, one at a time: a warehouse's exceed the memory."""
    for scan in scan_ids:
        yield np.load(clean_path(run, scan))
