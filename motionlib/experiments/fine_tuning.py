"""From synthetic to real motion: networks meet the graded scans of the warehouse.

Fine-tuning, no fine-tuning, training from scratch and the freeze study, all on the same split of
the same patients (paper §III-C.3, §III-D.2, §IV-B).
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
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
from motionlib.experiments.trainings import Budget, Training, plan_trainings, train, trained_folds
from motionlib.files import seed_from, write_table
from motionlib.predictions import average_scores
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
# Epochs without a lower validation loss after which a fine-tuning ends, of all layers and of some.
# From scratch none ends early, so that no gain over it comes of a training cut short.
PATIENCE, PATIENCE_FROZEN = 3, 5
SEVERE = "mov01vs2"  # the task of the freeze study and of fewer patients


def research_only(cohort: Cohort, sources: dict[str, Sequence[Path]]) -> pd.DataFrame:
    """Apply pre-trained networks to the warehouse as they are, for both tasks.

    Parameters
    ----------
    cohort, sources : Cohort, dict
        Whose warehouse, and folders of the pre-trained folds by what their rows are called.

    Returns
    -------
    DataFrame
        Rows ``warehouse/{name}`` of every fold and of their mean score. Where every graded scan is
        judged once, fold i is judged by the network that a fine-tuning for it begins with.
    """
    evaluations = []
    for task in TASK_GRADES:
        prepared = warehouse_set(cohort, task)
        for name, folders in sources.items():
            for k in range(cohort.n_outer or len(folders)):
                scans = _judged(cohort, prepared, k)
                folder = folders[k % len(folders)]
                evaluations.append(Evaluation(f"warehouse/{name}", task, folder, scans, k))
    return evaluate_with_mean(evaluations, engine=cohort.engine)


def compare_starts(
    run,
    cohort: Cohort,
    sources: dict[str, tuple[Sequence[Path], str]],
    tuning: Budget,
    scratch: Budget,
    *,
    tasks: Sequence[str] = tuple(TASK_GRADES),
) -> pd.DataFrame:
    """Fine-tune from every named pre-training and train from scratch.

    Parameters
    ----------
    run, cohort : motionlib.study.run.Run, Cohort
        Where the models go, and whose warehouse.
    sources : dict
        By what the fine-tuned rows are called, the folders of the pre-trained folds and which
        blocks move, a name of `FREEZE`; the paper's best is ``fc1+``.
    tuning, scratch : Budget
        Of a fine-tuning where blocks stay frozen, and of a training of all blocks.
    tasks : sequence of str
        By default both.

    Returns
    -------
    DataFrame
        Rows ``warehouse/{name}`` and ``warehouse/from_scratch``, folds and their mean.
    """
    trainings = []
    for task in tasks:
        starts = {
            name: _start(cohort, folders, depth, tuning, scratch)
            for name, (folders, depth) in sources.items()
        }
        starts["from_scratch"] = {"budget": scratch, "outer": cohort.n_outer > 0}
        prepared = warehouse_set(cohort, task)
        for name, start in starts.items():
            trainings += plan_trainings(run, f"warehouse/{name}", task, prepared, **start)
    return _train_and_predict(run, cohort, trainings, label="warehouse")


def freeze_study(
    run, cohort: Cohort, sources: Sequence[Path], tuning: Budget, scratch: Budget
) -> pd.DataFrame:
    """Fine-tune with one to all blocks free: what the paper's Table A.IV stands for (§IV-B).

    Arguments as in `compare_starts`; rows ``freeze/{depth}`` of severe motion.
    """
    prepared, trainings = warehouse_set(cohort, SEVERE), []
    for depth in FREEZE:
        start = _start(cohort, sources, depth, tuning, scratch)
        trainings += plan_trainings(run, f"freeze/{depth}", SEVERE, prepared, **start)
    return _train_and_predict(run, cohort, trainings, label="freeze study")


def validation_losses(run) -> pd.DataFrame:
    """Tell the validation loss of every depth of the freeze study (rows) in every fold."""
    losses = {}
    for name in FREEZE:
        folders = trained_folds(run, f"freeze/{name}", SEVERE, notebook="04")
        losses[name] = [read_model(folder)["valid_loss"] for folder in folders]
    return pd.DataFrame(losses).T.rename_axis(index="depth", columns="fold")


def chosen_depth(run, freeze_rows: pd.DataFrame) -> pd.DataFrame:
    """Rows ``warehouse/fine_tuned_chosen``: in every fold the depth of its lowest validation loss.

    A fold chooses by scans that it does not judge.
    """
    best = "freeze/" + validation_losses(run).idxmin()
    folds = freeze_rows[freeze_rows["experiment"] == freeze_rows["fold"].map(best)]
    both = pd.concat([folds, average_scores(folds)], ignore_index=True)
    return both.assign(experiment="warehouse/fine_tuned_chosen")


def fewer_patients(
    run, cohort: Cohort, sources: Sequence[Path], scratch: Budget, patients: Iterable[int]
) -> pd.DataFrame:
    """Fine-tune all layers and train from scratch on some of the graded patients (severe motion).

    `patients` are about the numbers of patients that train, of all folds alike; larger ones than
    there are are left out. Every training takes as many steps as one from scratch on all. Rows
    ``labels/fine_tuned_recommended/{n}`` and ``labels/from_scratch/{n}``, of all judged scans.
    """
    prepared, trainings = warehouse_set(cohort, SEVERE), []
    scans = pd.read_csv(prepared, sep="\t")
    kept_apart = 2 if cohort.n_outer else 1  # folds that do not train
    for n in patients:
        graded = scans[scans["role"] == "train"]
        everyone = graded["source_participant_id"].nunique()
        share = n / (everyone * (1 - kept_apart / graded["fold"].nunique()))
        if share >= 1:
            continue
        some = _some_of_each_fold(graded, share, cohort.seed)
        path = write_table(some, prepared.with_name(f"{prepared.stem}_{n}_patients.tsv"))
        epochs = round(scratch.epochs * len(graded) / len(some))
        budget = replace(scratch, epochs=epochs, patience=None)
        starts = {"fine_tuned_recommended": {"sources": sources}, "from_scratch": {}}
        for name, start in starts.items():
            start["outer"] = cohort.n_outer > 0
            trainings += plan_trainings(run, f"labels/{name}/{n}", SEVERE, path, budget, **start)
    if not trainings:
        return _no_rows()
    return _train_and_predict(run, cohort, trainings, label="fewer patients", judged=prepared)


def _some_of_each_fold(graded: pd.DataFrame, share: float, seed: int) -> pd.DataFrame:
    """Choose a share of the patients of every fold, of those with and without motion alike."""
    known = {"fold": ("fold", "first"), "moved": ("y_true", "max")}
    people = graded.groupby("source_participant_id").agg(**known)
    rng = np.random.default_rng(seed_from(seed, "fewer patients"))
    chosen = [
        name
        for _, group in people.groupby(["fold", "moved"])
        for name in rng.permutation(group.index.to_numpy())[: max(1, round(share * len(group)))]
    ]
    return graded[graded["source_participant_id"].isin(chosen)]


def _train_and_predict(
    run, cohort: Cohort, trainings: Sequence[Training], *, label: str, judged: Path | None = None
) -> pd.DataFrame:
    """Make trainings on the warehouse, then rows of what each fold's network is judged on.

    The scans that are judged are those of the trainings' own manifests, or of `judged`.
    """
    train(run, trainings, engine=cohort.engine, label=label)
    tested = {
        (manifest, fold): _judged(cohort, Path(judged or manifest), fold)
        for manifest, fold in {(t.spec.manifest, t.fold) for t in trainings}
    }
    evaluations = [
        Evaluation(t.experiment, t.spec.task, t.folder, tested[t.spec.manifest, t.fold], t.fold)
        for t in trainings
    ]
    return evaluate_with_mean(evaluations, engine=cohort.engine)


def annotators(cohort: Cohort) -> pd.DataFrame:
    """Rows of the two raters on the scans that networks are judged on, where there are raters."""
    manifest = cohort.manifest.set_index("scan_id")
    parts = []
    for task in TASK_GRADES:
        tested = read_prepared(cohort, warehouse_set(cohort, task))
        tested = tested[tested["role"] == ("train" if cohort.n_outer else "test")]
        for rater in ("rater_1", "rater_2"):
            grade = manifest.loc[tested["scan_id"], rater]
            if grade.isna().any():
                continue
            called = rater_calls(grade, task).to_numpy()
            rows = tested.assign(score=called.astype(float), y_pred=called)
            parts.append(prediction_rows(rows, "warehouse/annotators", task, rater, -1))
    return pd.concat(parts, ignore_index=True) if parts else _no_rows()


def _no_rows() -> pd.DataFrame:
    """No predictions; numbers stay numbers when they are put beside others."""
    kinds = {"fold": "int64", "y_true": "int64", "score": "float64", "y_pred": "int64"}
    return pd.DataFrame(columns=COLUMNS).astype(kinds)


def free_weights(folder: Path, blocks: tuple[str, ...]) -> int:
    """Count the weights that move when only some blocks of a trained network are free."""
    network = load_model(folder).network
    freeze_except(network, named_blocks(network, blocks))
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def _start(
    cohort: Cohort, sources: Sequence[Path], depth: str, tuning: Budget, scratch: Budget
) -> dict:
    """Where fine-tunings begin, what moves in them, what they may spend, and who judges them."""
    budget = replace(tuning, patience=PATIENCE_FROZEN)
    if depth == "all":  # with nothing frozen an epoch costs as much as from scratch
        budget = replace(scratch, patience=PATIENCE)
    start = {"budget": budget, "sources": sources, "trainable": FREEZE[depth]}
    return start | {"outer": cohort.n_outer > 0}


def _judged(cohort: Cohort, prepared: Path, fold: int) -> pd.DataFrame:
    """Choose what a fold's network is judged on: the test set, or else the outer fold."""
    scans = read_prepared(cohort, prepared)
    return scans[scans["fold"] == fold] if cohort.n_outer else scans[scans["role"] == "test"]
