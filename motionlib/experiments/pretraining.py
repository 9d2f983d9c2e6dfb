"""Pre-training on synthetic motion, and what the networks make of scans that did not move.

Source: paper §III-C, §III-D.1: every simulator, severity and network is trained in a patient-level
cross-validation and tested on independent patients.
"""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from motionlib.experiments.cohort import Cohort
from motionlib.experiments.copies import (
    control_set,
    has_few,
    motion_set,
    read_prepared,
    synthetic_set,
    warehouse_set,
)
from motionlib.experiments.evaluation import Evaluation, evaluate
from motionlib.experiments.trainings import Budget, Training, plan_trainings, train, trained_folds
from motionlib.motion.recipes import CONTROLS, LADDER
from motionlib.stats.intervals import summary_intervals

RECOMMENDED = ("acquired", "0.5-8", "recommended")  # simulator, severity, recipe
CONTROLLED = {  # networks that the shortcut audit looks at
    "paper": ("image", "2-4", "paper"),
    "paper, k-space": ("kspace", "2-4", "paper"),
    "recommended": RECOMMENDED,
}


def pretrain(
    run,
    cohort: Cohort,
    budget: Budget,
    *,
    simulators=("image",),
    severities=("2-4",),
    recipe: str = "paper",
    networks=("Conv5FC3",),
    stage: str = "pretrain",
) -> pd.DataFrame:
    """Pre-train networks on synthetic motion and predict every test.

    Parameters
    ----------
    run, cohort, budget : motionlib.study.run.Run, Cohort, Budget
        Where models and durations go, whose research scans, and epochs, folds, steps.
    simulators, severities, networks : sequence of str
        The grid of Tables II, III and A.III.
    recipe : {"paper", "recommended"}
        How both classes are made (see `copies.synthetic_set`).
    stage : str
        First word of the experiments' names: ``pretrain``, or ``benchmark`` of the architectures,
        which may spend another budget.

    Returns
    -------
    DataFrame
        Rows of ``predictions.csv``: independent test set, cross-validation (``/cv``), the test
        patients' still heads resampled once (``/resampled``), real motion (``/real``), and emulated
        motion (``/emulated``), where the cohort has them.

    Notes
    -----
    Source: paper §III-C, §III-D.1, Tables II, III and A.III. Departs from the paper where a cohort
    is small (see `recipe_of`).
    """
    motion = {"real": motion_set(cohort), "emulated": motion_set(cohort, emulated=True)}
    still = control_set(cohort, "resampled")
    sets = {
        f"{stage}/{simulator}/{severity}/{recipe}": synthetic_set(
            cohort, simulator, severity, recipe
        )
        for simulator in simulators
        for severity in severities
    }
    choices = recipe_of(cohort, recipe)
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


def recipe_of(cohort: Cohort, recipe: str) -> dict:
    """Say how training draws and changes its scans, as fields of `TrainSpec`.

    The recommended recipe's batches hold pairs, a moved and a still copy of one head: without
    motion these differ by nothing, and a network that meets them apart does not begin to learn.
    Departs from the paper: where its recipe has fewer than `copies.FEW` scans, both classes are
    drawn alike, with replacement, and mirrored at random.
    """
    if recipe != "paper":
        return {"augment": "nuisance", "sampler": "pairs"}
    if has_few(cohort):
        return {"augment": "flip", "sampler": "weighted", "loss": "plain"}
    return {"augment": "none"}


def _record_durations(run, trainings: Iterable[Training]) -> None:
    """Keep the seconds of every training, as its own log says."""
    for training in trainings:
        network, fold = training.spec.network, training.spec.fold
        cell = training.experiment
        log = pd.read_csv(training.folder / "metrics.csv")
        step, seconds = f"train/{network}/{cell}/fold{fold}", float(log["seconds"].sum())
        run.duration(step, seconds, model=network, fold=fold, n=int(log["steps"].sum()))


def pretrained(
    run,
    simulator: str,
    severity: str,
    recipe: str,
    network: str = "Conv5FC3",
    *,
    stage: str = "pretrain",
) -> list[Path]:
    """Folders of the pre-trained folds; FileNotFoundError if no notebook has trained them."""
    number = "02" if stage == "pretrain" else "03"
    experiment = f"{stage}/{simulator}/{severity}/{recipe}"
    return trained_folds(run, experiment, "synthetic", network, notebook=number)


def learning_curves(run, simulators, networks, *, severity="2-4", recipe="paper") -> pd.DataFrame:
    """Loss by epoch of every fold of the benchmark's networks, with simulator, model and fold."""
    parts = []
    for simulator, network in itertools.product(simulators, networks):
        folders = pretrained(run, simulator, severity, recipe, network, stage="benchmark")
        for fold, folder in enumerate(folders):
            curve = pd.read_csv(folder / "metrics.csv")
            parts.append(curve.assign(simulator=simulator, model=network, fold=fold))
    return pd.concat(parts, ignore_index=True)


def controls(run, cohort: Cohort) -> pd.DataFrame:
    """Score clean scans changed in every way that is not motion, and a ladder of motion.

    Parameters
    ----------
    run, cohort : motionlib.study.run.Run, Cohort
        A run in which the networks of `CONTROLLED` are trained, whose test patients and other sites
        are scored.

    Returns
    -------
    DataFrame
        Rows ``control/{recipe}/{control}``, and ``control/{recipe}/{control}/{cohort}`` for every
        other site that the cohort has scans of.
    """
    manifest = cohort.manifest
    elsewhere = manifest.loc[manifest["role"] == "other_site", "cohort"].unique()
    evaluations = []
    for recipe, trained in CONTROLLED.items():
        folders = pretrained(run, *trained)
        for control, site in itertools.product((*CONTROLS, *LADDER), ("", *elsewhere)):
            role = "other_site" if site else "test"
            rows = read_prepared(cohort, control_set(cohort, control, role=role))
            rows = rows[rows["cohort"] == site] if site else rows
            name = f"control/{recipe}/{control}" + (f"/{site}" if site else "")
            evaluations += [Evaluation(name, "synthetic", folder, rows) for folder in folders]
    return evaluate(evaluations, engine=cohort.engine)


def forest_inputs(cohort: Cohort, kind: str, task: str) -> dict[str, pd.DataFrame]:
    """Training and test scans of the random forest: the same split as the networks', whole heads.

    Parameters
    ----------
    cohort, task : Cohort, {"mov01vs2", "mov0vs1"}
        Whose scans, and what is predicted on the warehouse's test scans.
    kind : {"research", "clinical"}
        Trained on image-based synthetic motion of 2-4 mm, or on the graded warehouse scans.

    Returns
    -------
    dict
        ``train`` and ``test``: prepared manifests with absolute paths. Where every graded scan is
        judged once, the clinical ones are the same scans twice: each is judged out of its fold.
    """
    clinical = read_prepared(cohort, warehouse_set(cohort, task, whole=True))
    graded = clinical[clinical["role"] == "train"]
    test = graded if cohort.n_outer else clinical[clinical["role"] == "test"]
    if kind == "clinical":
        return {"train": graded, "test": test}
    research = read_prepared(cohort, synthetic_set(cohort, "image", "2-4", "paper", whole=True))
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
