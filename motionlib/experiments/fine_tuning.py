"""Pre-trained networks and graded scans go in; the warehouse's prediction rows come out.

Fine-tuning, no fine-tuning, training from scratch, the freeze study and the learning curve, all
on the same split of the same patients.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from motionlib import tasks
from motionlib.compute.engines import default_device
from motionlib.experiments import copies
from motionlib.experiments.cohort import manifest_of
from motionlib.experiments.pretraining import COLUMNS, read_prepared, rows_of, score_all
from motionlib.experiments.trainings import Budget, Job, folds_of, note_folds, spec_for, train
from motionlib.files import write_table
from motionlib.predictions import average_scores
from motionlib.training.checkpoints import load_model, read_model
from motionlib.training.transfer import freeze_except, named_blocks

TASKS = ("mov01vs2", "mov0vs1")
HEAD = ("fc1", "fc2", "fc3")  # the paper's best: all but the fully connected layers frozen, §IV-B
FREEZE = {
    "fc3": ("fc3",),
    "fc2+": ("fc2", "fc3"),
    "fc1+": HEAD,
    "block5+": ("block5", *HEAD),
    "all": ("all",),
}


@dataclass(frozen=True)
class Way:
    """One way to a detector on the warehouse, a training a fold.

    Attributes
    ----------
    experiment, task : str
        Names in ``predictions.csv``.
    manifest : Path
        Prepared manifest of its scans.
    jobs : tuple of Job
        Fold by fold.
    """

    experiment: str
    task: str
    manifest: Path
    jobs: tuple[Job, ...]


def fine_tuned(
    run, sources, budget: Budget, task: str, experiment: str, *, trainable=HEAD, manifest=None
) -> Way:
    """Fine-tune fold i of a pre-trained network on fold i of the warehouse.

    Parameters
    ----------
    run : motionlib.study.run.Run
        A run whose cohort is prepared.
    sources : list of Path
        Run folders of the pre-trained folds.
    budget : Budget
        Epochs and folds of the fine-tuning.
    task : {"mov01vs2", "mov0vs1"}
        What is detected.
    experiment : str
        Name in ``predictions.csv``.
    trainable : tuple of str
        Blocks that move; everything else stays frozen.
    manifest : Path, optional
        Prepared manifest in place of the task's own (learning curves).

    Returns
    -------
    Way
        To be trained by `answers`.

    Notes
    -----
    Source: paper §III-C.3, §III-D.2, §IV-B.
    """
    manifest = manifest or copies.warehouse_set(run, task)
    free = tuple(trainable)
    jobs = [
        Job(
            spec_for(run, manifest, fold, budget, task=task),
            str(run.models),
            budget.device,
            str(sources[fold]),
            free,
        )
        for fold in range(budget.n_folds)
    ]
    return Way(experiment, task, manifest, tuple(jobs))


def from_scratch(
    run, budget: Budget, task: str, experiment="warehouse/from_scratch", *, manifest=None
) -> Way:
    """Train on the warehouse alone, the paper's comparison (§IV-B); as `fine_tuned`."""
    manifest = manifest or copies.warehouse_set(run, task)
    jobs = [
        Job(spec_for(run, manifest, fold, budget, task=task), str(run.models), budget.device)
        for fold in range(budget.n_folds)
    ]
    return Way(experiment, task, manifest, tuple(jobs))


def answers(run, ways: list[Way], budget: Budget, *, label: str) -> pd.DataFrame:
    """Train all folds of some ways at once, and predict the test.

    Returns
    -------
    DataFrame
        Rows of every fold and of their mean score, way by way.
    """
    for way in ways:
        note_folds(run, f"{way.experiment.replace('/', '_')}_{way.task}", way.jobs)
    jobs = [job for way in ways for job in way.jobs]
    folders = iter(train(jobs, engine=budget.engine, label=label))
    trained = [
        ([next(folders) for _ in way.jobs], way.manifest, way.experiment, way.task) for way in ways
    ]
    return predict_folds(run, trained, budget.device, budget.engine)


def compare_ways(run, sources: dict, tuning: Budget, scratch: Budget, *, trainable=HEAD):
    """Fine-tune from every named pre-training and train from scratch, for both tasks.

    Parameters
    ----------
    sources : dict
        Folders of the pre-trained folds by what the fine-tuned way is called.
    tuning, scratch : Budget
        Of the fine-tunings, and of the trainings from scratch.
    trainable : tuple of str
        Blocks that move in a fine-tuning.

    Returns
    -------
    DataFrame
        Rows ``warehouse/{name}`` and ``warehouse/from_scratch``.
    """
    ways = []
    for task in TASKS:
        for name, folders in sources.items():
            options = {"trainable": trainable}
            ways.append(fine_tuned(run, folders, tuning, task, f"warehouse/{name}", **options))
        ways.append(from_scratch(run, scratch, task))
    return answers(run, ways, tuning, label="warehouse")


def research_only(run, sources: dict, *, device=None, engine="inline") -> pd.DataFrame:
    """Apply pre-trained networks to the warehouse as they are, for both tasks.

    Parameters
    ----------
    sources : dict
        Folders of the pre-trained folds by what the way is called.
    device, engine : str, optional
        Where to compute; the device is that of `Budget` unless named.

    Returns
    -------
    DataFrame
        Rows ``warehouse/{name}``.
    """
    ways = [
        (folders, copies.warehouse_set(run, task), f"warehouse/{name}", task)
        for task in TASKS
        for name, folders in sources.items()
    ]
    return predict_folds(run, ways, device or default_device(), engine)


def freeze_study(run, sources, tuning: Budget, scratch: Budget, *, task="mov01vs2"):
    """Fine-tune with one to all blocks free: what the paper's Table A.IV stands for (§IV-B).

    Where all blocks are free, the budget is that of a training from scratch.
    """
    ways = []
    for name, blocks in FREEZE.items():
        budget = scratch if name == "all" else tuning
        ways.append(fine_tuned(run, sources, budget, task, f"freeze/{name}", trainable=blocks))
    return answers(run, ways, tuning, label="freeze study")


def validation_losses(run, task="mov01vs2") -> pd.Series:
    """Mean validation loss over folds of every depth of the freeze study, lowest first.

    The paper froze all but the fully connected layers, its best on the scans it reports; here the
    depth is chosen on validation scans, and the test scans only judge it.
    """
    losses = {}
    for name in FREEZE:
        folders = folds_of(run, f"freeze_{name}_{task}", notebook="04")
        losses[name] = np.mean([read_model(one)["valid_loss"] for one in folders])
    return pd.Series(losses, name="validation_loss").sort_values(kind="stable")


def label_curve(run, sources, tuning: Budget, scratch: Budget, n_patients, *, trainable=HEAD):
    """How many graded patients does a hospital need? Severe motion, fine-tuned and from scratch."""
    task = "mov01vs2"
    whole = copies.warehouse_set(run, task)
    ways = []
    for n in n_patients:
        some = subset_patients(run, whole, n, run.seed)
        options = {"trainable": trainable, "manifest": some}
        ways += [
            fine_tuned(run, sources, tuning, task, f"labels/fine_tuned/{n}", **options),
            from_scratch(run, scratch, task, f"labels/from_scratch/{n}", manifest=some),
        ]
    return answers(run, ways, tuning, label="learning curve")


def annotators(run) -> pd.DataFrame:
    """Rows of the two raters on the warehouse's test scans, where the cohort has raters."""
    manifest = manifest_of(run).set_index("scan_id")
    parts = []
    for task in tasks.TASK_GRADES:
        prepared = read_prepared(run, copies.warehouse_set(run, task))
        tested = prepared[prepared["role"] == "test"]
        for rater in ("rater_1", "rater_2"):
            grade = manifest.loc[tested["scan_id"], rater]
            if grade.isna().any():
                continue
            called = tasks.rater_calls(grade, task).to_numpy()
            rows = tested.assign(score=called.astype(float), y_pred=called)
            parts.append(rows_of(rows, "warehouse/annotators", task, rater, -1))
    if not parts:  # numbers stay numbers when these rows are put beside others
        kinds = {"fold": "int64", "y_true": "int64", "score": "float64", "y_pred": "int64"}
        return pd.DataFrame(columns=COLUMNS).astype(kinds)
    return pd.concat(parts, ignore_index=True)


def predict_folds(run, ways, device: str, engine: str) -> pd.DataFrame:
    """Rows of every fold's model on the test scans, and of their mean score (fold -1).

    Parameters
    ----------
    ways : list of (folders, manifest, experiment, task)
        The trained folds, the prepared manifest that holds their test, names of their rows.
    device, engine : str
        Where to compute.
    """
    asked = []
    for folders, manifest, experiment, task in ways:
        prepared = read_prepared(run, manifest)
        tested = prepared[prepared["role"] == "test"]
        for fold, folder in enumerate(folders):
            asked.append(((experiment, task, "Conv5FC3", fold), folder, tested))
    parts = []
    scored = score_all(asked, device, engine).groupby(["experiment", "task"], sort=False)
    for (experiment, task), every in scored:
        parts += [every, rows_of(average_scores(every), experiment, task, "Conv5FC3", -1)]
    return pd.concat(parts, ignore_index=True)


def subset_patients(run, manifest: Path, n_patients: int, seed: int) -> Path:
    """Keep all test scans and the training scans of ``n_patients`` random patients.

    One patient with motion is kept in every fold, since a fold without any cannot be validated.

    Raises
    ------
    ValueError
        If there are fewer patients than that, or fewer are asked for than there are folds.
    """
    table = pd.read_csv(manifest, sep="\t")
    training = table[table["role"] == "train"]
    people = training.groupby("source_participant_id").agg(
        fold=("fold", "first"), moved=("y_true", "max")
    )
    n_folds = people["fold"].nunique()
    if not n_folds <= n_patients <= len(people):
        raise ValueError(
            f"{n_patients} graded patients were asked for; expected {n_folds} (one a fold) to "
            f"{len(people)} (all that train)"
        )
    people = people.loc[np.random.default_rng(seed).permutation(people.index.to_numpy())]
    needed = people[people["moved"] == 1].drop_duplicates("fold").index
    rest = people.index.difference(needed, sort=False)
    kept = [*needed, *rest[: n_patients - len(needed)]]
    rows = table[(table["role"] != "train") | table["source_participant_id"].isin(kept)]
    return write_table(rows, run.cache / f"{manifest.stem}_{n_patients}patients.tsv")


def free_weights(folder, blocks: tuple[str, ...]) -> int:
    """Count the weights that move when only some blocks of a trained network are free."""
    network = load_model(folder).network
    freeze_except(network, named_blocks(network, blocks))
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
