"""From synthetic to real motion: networks meet the graded scans of the warehouse.

Fine-tuning, no fine-tuning, training from scratch, the freeze study and the learning curve, all on
the same split of the same patients (paper §III-C.3, §III-D.2, §IV-B).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from motionlib.experiments.cohort import Cohort
from motionlib.experiments.copies import read_prepared, warehouse_set
from motionlib.experiments.evaluation import (
    COLUMNS,
    Evaluation,
    evaluate_with_mean,
    prediction_rows,
)
from motionlib.experiments.trainings import (
    Budget,
    Training,
    plan_trainings,
    train,
    trained_folds,
)
from motionlib.files import write_table
from motionlib.tasks import TASK_GRADES, rater_calls
from motionlib.training.checkpoints import load_model, read_model
from motionlib.training.transfer import freeze_except, named_blocks

FREEZE = {  # blocks that move, by what is set free
    "fc3": ("fc3",),
    "fc2+": ("fc2", "fc3"),
    "fc1+": ("fc1", "fc2", "fc3"),  # the paper's best, §IV-B
    "block5+": ("block5", "fc1", "fc2", "fc3"),
    "all": ("all",),
}


def research_only(cohort: Cohort, sources: dict[str, Sequence[Path]]) -> pd.DataFrame:
    """Apply pre-trained networks to the warehouse as they are, for both tasks.

    Parameters
    ----------
    cohort : Cohort
        Whose warehouse.
    sources : dict
        Folders of the pre-trained folds by what their rows are called.

    Returns
    -------
    DataFrame
        Rows ``warehouse/{name}`` of every fold and of their mean score.
    """
    evaluations = []
    for task in TASK_GRADES:
        tested = _tested(cohort, warehouse_set(cohort, task))
        for name, folders in sources.items():
            evaluations += [Evaluation(f"warehouse/{name}", task, f, tested) for f in folders]
    return evaluate_with_mean(evaluations, engine=cohort.engine)


def compare_starts(
    run,
    cohort: Cohort,
    sources: dict[str, Sequence[Path]],
    tuning: Budget,
    scratch: Budget,
    *,
    depth: str = "fc1+",
) -> pd.DataFrame:
    """Fine-tune from every named pre-training and train from scratch, for both tasks.

    Parameters
    ----------
    run : motionlib.study.run.Run
        Where the models go.
    cohort : Cohort
        Whose warehouse.
    sources : dict
        Folders of the pre-trained folds by what the fine-tuned rows are called.
    tuning, scratch : Budget
        Of a fine-tuning where blocks stay frozen, and of a training of all blocks.
    depth : str
        Blocks that move in a fine-tuning, a name of `FREEZE`; the paper's best by default.

    Returns
    -------
    DataFrame
        Rows ``warehouse/{name}`` and ``warehouse/from_scratch``, folds and their mean.
    """
    trainings = []
    for task in TASK_GRADES:
        prepared = warehouse_set(cohort, task)
        for name, folders in sources.items():
            start = _start(folders, depth, tuning, scratch)
            trainings += plan_trainings(run, f"warehouse/{name}", task, prepared, **start)
        trainings += plan_trainings(run, "warehouse/from_scratch", task, prepared, scratch)
    return _train_and_predict(run, cohort, trainings, label="warehouse")


def freeze_study(
    run,
    cohort: Cohort,
    sources: Sequence[Path],
    tuning: Budget,
    scratch: Budget,
    *,
    task: str = "mov01vs2",
) -> pd.DataFrame:
    """Fine-tune with one to all blocks free: what the paper's Table A.IV stands for (§IV-B).

    Arguments as in `compare_starts`; rows ``freeze/{depth}``.
    """
    prepared, trainings = warehouse_set(cohort, task), []
    for depth in FREEZE:
        start = _start(sources, depth, tuning, scratch)
        trainings += plan_trainings(run, f"freeze/{depth}", task, prepared, **start)
    return _train_and_predict(run, cohort, trainings, label="freeze study")


def validation_losses(run, task: str = "mov01vs2") -> pd.Series:
    """Mean validation loss over folds of every depth of the freeze study, lowest first.

    The paper froze all but the fully connected layers, its best on the scans it reports; here the
    depth is chosen on validation scans, and the test scans only judge it.
    """
    losses = {}
    for name in FREEZE:
        folders = trained_folds(run, f"freeze/{name}", task, notebook="04")
        losses[name] = np.mean([read_model(folder)["valid_loss"] for folder in folders])
    return pd.Series(losses, name="validation_loss").sort_values(kind="stable")


def label_curve(
    run,
    cohort: Cohort,
    sources: Sequence[Path],
    tuning: Budget,
    scratch: Budget,
    n_patients: Iterable[int],
    *,
    depth: str = "fc1+",
) -> pd.DataFrame:
    """How many graded patients does a hospital need? Severe motion, fine-tuned and from scratch.

    Arguments as in `compare_starts`; rows ``labels/{fine_tuned,from_scratch}/{n}`` for every number
    of patients.
    """
    task, trainings = "mov01vs2", []
    whole = warehouse_set(cohort, task)
    for n in n_patients:
        some = _subset_patients(whole, n, cohort.seed)
        start = _start(sources, depth, tuning, scratch)
        trainings += plan_trainings(run, f"labels/fine_tuned/{n}", task, some, **start)
        trainings += plan_trainings(run, f"labels/from_scratch/{n}", task, some, scratch)
    return _train_and_predict(run, cohort, trainings, label="learning curve")


def _train_and_predict(
    run, cohort: Cohort, trainings: Sequence[Training], *, label: str
) -> pd.DataFrame:
    """Make trainings on the warehouse, then rows of every fold and of their mean on its test."""
    train(run, trainings, engine=cohort.engine, label=label)
    manifests = dict.fromkeys(training.spec.manifest for training in trainings)
    tested = {manifest: _tested(cohort, manifest) for manifest in manifests}
    evaluations = [
        Evaluation(t.experiment, t.spec.task, t.folder, tested[t.spec.manifest]) for t in trainings
    ]
    return evaluate_with_mean(evaluations, engine=cohort.engine)


def annotators(cohort: Cohort) -> pd.DataFrame:
    """Rows of the two raters on the warehouse's test scans, where the cohort has raters."""
    manifest = cohort.manifest.set_index("scan_id")
    parts = []
    for task in TASK_GRADES:
        tested = _tested(cohort, warehouse_set(cohort, task))
        for rater in ("rater_1", "rater_2"):
            grade = manifest.loc[tested["scan_id"], rater]
            if grade.isna().any():
                continue
            called = rater_calls(grade, task).to_numpy()
            rows = tested.assign(score=called.astype(float), y_pred=called)
            parts.append(prediction_rows(rows, "warehouse/annotators", task, rater, -1))
    if not parts:  # numbers stay numbers when these rows are put beside others
        kinds = {"fold": "int64", "y_true": "int64", "score": "float64", "y_pred": "int64"}
        return pd.DataFrame(columns=COLUMNS).astype(kinds)
    return pd.concat(parts, ignore_index=True)


def free_weights(folder: Path, blocks: tuple[str, ...]) -> int:
    """Count the weights that move when only some blocks of a trained network are free."""
    network = load_model(folder).network
    freeze_except(network, named_blocks(network, blocks))
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def _start(sources: Sequence[Path], depth: str, tuning: Budget, scratch: Budget) -> dict:
    """Where fine-tunings begin, what moves in them, and what they may spend."""
    budget = scratch if depth == "all" else tuning  # with nothing frozen an epoch costs as much
    return {"budget": budget, "sources": sources, "trainable": FREEZE[depth]}


def _tested(cohort: Cohort, prepared: Path | str) -> pd.DataFrame:
    """Test scans of a prepared manifest."""
    scans = read_prepared(cohort, prepared)
    return scans[scans["role"] == "test"]


def _subset_patients(prepared: Path, n_patients: int, seed: int) -> Path:
    """Keep all test scans and the training scans of ``n_patients`` random patients.

    One patient with motion is kept in every fold, since a fold without any cannot be validated.
    """
    table = pd.read_csv(prepared, sep="\t")
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
    return write_table(rows, prepared.with_name(f"{prepared.stem}_{n_patients}patients.tsv"))
