"""Pre-training on synthetic motion, and what the networks make of scans that did not move.

Source: paper §III-C, §III-D.1: every simulator, severity and network is trained in a patient-level
cross-validation and tested on independent patients.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from motionlib.experiments.cohort import Cohort
from motionlib.experiments.copies import (
    control_set,
    motion_set,
    read_prepared,
    synthetic_set,
    warehouse_set,
)
from motionlib.experiments.evaluation import Evaluation, evaluate
from motionlib.experiments.trainings import (
    Budget,
    Training,
    plan_trainings,
    train,
    trained_folds,
)
from motionlib.motion.recipes import CONTROLS, LADDER
from motionlib.stats.intervals import summary_intervals

AUGMENT = {"paper": "none", "recommended": "nuisance"}  # contrast, sharpness, noise, both classes
FEW = 100  # scans to train and validate on; fewer are moved and mirrored anew in every epoch


def pretrain(
    run,
    cohort: Cohort,
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
        Where models and durations go.
    cohort : Cohort
        Whose research scans.
    budget : Budget
        Epochs, folds, steps.
    simulators, severities, networks : sequence of str
        The grid of Tables II, III and A.III.
    recipe : {"paper", "recommended"}
        How both classes are made (see `copies.synthetic_set`).

    Returns
    -------
    DataFrame
        Rows of ``predictions.csv``: independent test set, cross-validation (``/cv``), the test
        patients' still heads resampled once (``/resampled``), real motion (``/real``), and
        emulated motion (``/emulated``), where the cohort has them.

    Notes
    -----
    Source: paper §III-C, §III-D.1, Tables II, III and A.III.
    Departs from the paper where a cohort is small (see `recipe_of`).
    """
    motion = {"real": motion_set(cohort), "emulated": motion_set(cohort, emulated=True)}
    still = control_set(cohort, "resampled")
    sets = {
        f"pretrain/{simulator}/{severity}/{recipe}": synthetic_set(
            cohort, simulator, severity, recipe
        )
        for simulator in simulators
        for severity in severities
    }
    choices = recipe_of(cohort, next(iter(sets.values())), recipe, budget)
    trainings = [
        training
        for experiment, prepared in sets.items()
        for network in networks
        for training in plan_trainings(
            run, experiment, "synthetic", prepared, budget, network=network, **choices
        )
    ]
    train(run, trainings, engine=cohort.engine, label=f"pre-train ({recipe})")
    _record_durations(run, trainings)
    scans = {experiment: read_prepared(cohort, prepared) for experiment, prepared in sets.items()}
    evaluations = [
        evaluation
        for training in trainings
        for evaluation in _tests(training, scans[training.experiment], still, motion)
    ]
    return evaluate(evaluations, engine=cohort.engine)


def _tests(
    training: Training, scans: pd.DataFrame, still: Path, motion: dict[str, Path | None]
) -> Iterator[Evaluation]:
    """Everything that one pre-trained fold is tested on."""
    name, folder = training.experiment, training.folder
    yield Evaluation(name, "synthetic", folder, scans[scans["role"] == "test"])
    yield Evaluation(f"{name}/cv", "synthetic", folder, scans[scans["fold"] == training.spec.fold])
    yield Evaluation(f"{name}/resampled", "synthetic", folder, still)
    for kind, prepared in motion.items():
        if prepared is not None:
            yield Evaluation(f"{name}/{kind}", f"{kind}_motion", folder, prepared)


def recipe_of(cohort: Cohort, prepared: Path, recipe: str, budget: Budget) -> dict:
    """Say how training changes its scans from epoch to epoch, as fields of `TrainSpec`.

    Departs from the paper: the scans of its recipe are moved once, as the paper's, where there are
    at least `FEW` to train and validate on; of fewer, those that train are moved again and
    mirrored at random in every epoch, for twice the epochs.
    """
    n_scans = (pd.read_csv(prepared, sep="\t")["role"] == "train").sum()
    if recipe != "paper" or n_scans >= FEW:
        return {"augment": AUGMENT[recipe]}
    return {"augment": "flip", "fresh_mm": cohort.spacing_mm, "epochs": 2 * budget.epochs}


def _record_durations(run, trainings: Iterable[Training]) -> None:
    """Keep the seconds of every training, as its own log says."""
    for training in trainings:
        network, fold = training.spec.network, training.spec.fold
        cell = training.experiment.removeprefix("pretrain/")
        seconds = float(pd.read_csv(training.folder / "metrics.csv")["seconds"].sum())
        run.duration(f"train/{network}/{cell}/fold{fold}", seconds, model=network, fold=fold)


def pretrained(run, simulator: str, severity: str, recipe: str, network="Conv5FC3") -> list[Path]:
    """Folders of the pre-trained folds of one simulator, severity, recipe and network.

    Raises
    ------
    FileNotFoundError
        If notebook 02 (03 for other networks) has not trained it.
    """
    number = "02" if network == "Conv5FC3" else "03"
    experiment = f"pretrain/{simulator}/{severity}/{recipe}"
    return trained_folds(run, experiment, "synthetic", network, notebook=number)


def learning_curves(run, simulators, networks, *, severity="2-4", recipe="paper") -> pd.DataFrame:
    """Loss by epoch of every fold of some networks, with their simulator, model and fold."""
    parts = []
    for simulator, network in itertools.product(simulators, networks):
        folders = pretrained(run, simulator, severity, recipe, network)
        for fold, folder in enumerate(folders):
            curve = pd.read_csv(folder / "metrics.csv")
            parts.append(curve.assign(simulator=simulator, model=network, fold=fold))
    return pd.concat(parts, ignore_index=True)


def controls(
    run, cohort: Cohort, recipes=("paper", "recommended"), *, simulator: str = "image"
) -> pd.DataFrame:
    """Score clean scans changed in every way that is not motion, and a ladder of motion.

    Parameters
    ----------
    run : motionlib.study.run.Run
        A run in which the networks are trained on motion of 2-4 mm.
    cohort : Cohort
        Its test patients and other sites are scored.
    recipes : sequence of str
        Of the networks.
    simulator : {"image", "kspace"}
        Of the motion that they were trained on.

    Returns
    -------
    DataFrame
        Rows ``control/{recipe}/{control}``, and ``control/{recipe}/{control}/{cohort}`` for every
        other site that the cohort has scans of.
    """
    manifest = cohort.manifest
    elsewhere = manifest.loc[manifest["role"] == "other_site", "cohort"].unique()
    evaluations = []
    for recipe in recipes:
        folders = pretrained(run, simulator, "2-4", recipe)
        for control, site in itertools.product((*CONTROLS, *LADDER), ("", *elsewhere)):
            role = "other_site" if site else "test"
            rows = read_prepared(cohort, control_set(cohort, control, role=role))
            rows = rows[rows["cohort"] == site] if site else rows
            name = f"control/{recipe}/{control}" + (f"/{site}" if site else "")
            evaluations += [Evaluation(name, "synthetic", folder, rows) for folder in folders]
    return evaluate(evaluations, engine=cohort.engine)


def forest_inputs(cohort: Cohort, kind: str, task: str) -> dict[str, pd.DataFrame]:
    """Training and test scans of the random forest: the same split as the networks'.

    Parameters
    ----------
    cohort : Cohort
        Whose scans.
    kind : {"research", "clinical"}
        Trained on image-based synthetic motion of 2-4 mm, or on the graded warehouse scans.
    task : {"mov01vs2", "mov0vs1"}
        What is predicted on the warehouse's test scans.

    Returns
    -------
    dict
        ``train`` and ``test``: prepared manifests with absolute paths.
    """
    clinical = read_prepared(cohort, warehouse_set(cohort, task))
    test = clinical[clinical["role"] == "test"]
    if kind == "clinical":
        return {"train": clinical[clinical["role"] == "train"], "test": test}
    research = read_prepared(cohort, synthetic_set(cohort, "image", "2-4", "paper"))
    return {"train": research[research["role"] == "train"], "test": test}


def accuracy_by_model(predictions: pd.DataFrame, experiment: str, *, n_boot: int = 1000):
    """Balanced accuracy of each model in one experiment, mean of folds, with patient interval."""
    rows = predictions[predictions["experiment"] == experiment]
    table = []
    for model, part in rows.groupby("model", sort=False):
        interval = summary_intervals(part, n_boot=n_boot)["balanced_accuracy"]
        estimate = {"balanced_accuracy": interval.estimate, "low": interval.low}
        table.append({"model": model, **estimate, "high": interval.high})
    return pd.DataFrame(table)
