"""Pre-trained networks and graded scans go in; the warehouse's prediction rows come out.

Fine-tuning, no fine-tuning, training from scratch, the freeze study and the learning curve, all
on the same split of the same patients.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from motionlib import studydata
from motionlib.budget import default_device
from motionlib.checkpoints import load_network, read_model
from motionlib.experiments import COLUMNS, Budget, Job, read_prepared, rows_of, spec_for, train
from motionlib.files import read_json, write_json, write_table
from motionlib.studycohort import example_volumes, manifest_of
from motionlib.training import ensemble, predict
from motionlib.transfer import freeze_except, named_blocks

TASKS = ("mov01vs2", "mov0vs1")
HEAD = ("fc1", "fc2", "fc3")  # the paper's best: all but the fully connected layers frozen, §IV-B
FREEZE = {
    "fc3": ("fc3",),
    "fc2+": ("fc2", "fc3"),
    "fc1+": HEAD,
    "block5+": ("block5", *HEAD),
    "all": ("all",),
}


def fine_tuned(
    run,
    sources,
    budget: Budget,
    task: str,
    experiment: str,
    *,
    trainable=HEAD,
    manifest: Path | None = None,
) -> pd.DataFrame:
    """Fine-tune fold i of a pre-trained network on fold i of the warehouse, and predict the test.

    Parameters
    ----------
    run : motionlib.runs.Run
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
    DataFrame
        Rows of every fold and of their mean score.

    Notes
    -----
    Source: paper §III-C.3, §III-D.2, §IV-B.
    """
    manifest = manifest or studydata.warehouse_set(run, task)
    jobs = [
        Job(
            spec_for(run, manifest, fold, budget, task=task),
            str(run.models),
            budget.device,
            str(sources[fold]),
            tuple(trainable),
        )
        for fold in range(budget.n_folds)
    ]
    folders = train(run, jobs, engine=budget.engine, label=f"{experiment} {task}")
    names = [folder.name for folder in folders]
    write_json(run.models / f"{experiment.replace('/', '_')}_{task}.json", names)
    return predict_folds(run, folders, manifest, experiment, task, budget.device)


def from_scratch(
    run,
    budget: Budget,
    task: str,
    experiment="warehouse/from_scratch",
    *,
    manifest: Path | None = None,
) -> pd.DataFrame:
    """Train on the warehouse alone, the paper's comparison (§IV-B), and predict the test."""
    manifest = manifest or studydata.warehouse_set(run, task)
    jobs = [
        Job(spec_for(run, manifest, fold, budget, task=task), str(run.models), budget.device)
        for fold in range(budget.n_folds)
    ]
    folders = train(run, jobs, engine=budget.engine, label=f"{experiment} {task}")
    names = [folder.name for folder in folders]
    write_json(run.models / f"{experiment.replace('/', '_')}_{task}.json", names)
    return predict_folds(run, folders, manifest, experiment, task, budget.device)


def research_only(run, sources, task: str, experiment="warehouse/research_only", *, device=None):
    """Apply the pre-trained networks to the warehouse as they are."""
    return predict_folds(run, sources, studydata.warehouse_set(run, task), experiment, task, device)


def freeze_study(run, sources, tuning: Budget, scratch: Budget, *, task="mov01vs2"):
    """Fine-tune with one to all blocks free: what the paper's Table A.IV stands for (§IV-B).

    Where all blocks are free, the budget is that of a training from scratch.
    """
    parts = []
    for name, blocks in FREEZE.items():
        budget = scratch if name == "all" else tuning
        parts.append(fine_tuned(run, sources, budget, task, f"freeze/{name}", trainable=blocks))
    return pd.concat(parts, ignore_index=True)


def validation_losses(run, task="mov01vs2") -> pd.Series:
    """Mean validation loss over folds of every depth of the freeze study, lowest first.

    The paper froze all but the fully connected layers, its best on the scans it reports; here the
    depth is chosen on validation scans, and the test scans only judge it.
    """
    losses = {}
    for name in FREEZE:
        folders = read_json(run.need(f"models/freeze_{name}_{task}.json"))
        losses[name] = np.mean([read_model(run.models / one)["valid_loss"] for one in folders])
    return pd.Series(losses, name="validation_loss").sort_values(kind="stable")


def label_curve(run, sources, tuning: Budget, scratch: Budget, n_patients, *, trainable=HEAD):
    """How many graded patients does a hospital need? Severe motion, fine-tuned and from scratch."""
    task = "mov01vs2"
    whole = studydata.warehouse_set(run, task)
    parts = []
    for n in n_patients:
        some = subset_patients(run, whole, n, run.seed)
        parts.append(
            fine_tuned(
                run,
                sources,
                tuning,
                task,
                f"labels/fine_tuned/{n}",
                trainable=trainable,
                manifest=some,
            )
        )
        parts.append(from_scratch(run, scratch, task, f"labels/from_scratch/{n}", manifest=some))
    return pd.concat(parts, ignore_index=True)


def annotators(run) -> pd.DataFrame:
    """Rows of the two raters on the warehouse's test scans, where the cohort has raters."""
    manifest = manifest_of(run).set_index("scan_id")
    parts = []
    for task, (_, positive) in studydata.TASK_GRADES.items():
        prepared = read_prepared(run, studydata.warehouse_set(run, task))
        tested = prepared[prepared["role"] == "test"]
        for rater in ("rater_1", "rater_2"):
            grade = manifest.loc[tested["scan_id"], rater]
            if grade.isna().any():
                continue
            called = grade.isin(positive) if task == "mov01vs2" else grade >= min(positive)
            called = called.to_numpy().astype(int)
            rows = tested.assign(score=called.astype(float), y_pred=called)
            parts.append(rows_of(rows, "warehouse/annotators", task, rater, -1))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)


def predict_folds(run, folders, manifest: Path, experiment: str, task: str, device=None):
    """Rows of every fold's model on the test scans, and of their mean score (fold -1)."""
    device = device or default_device()
    prepared = read_prepared(run, manifest)
    tested = prepared[prepared["role"] == "test"]
    parts = [
        rows_of(predict(folder, tested, device=device), experiment, task, "Conv5FC3", fold)
        for fold, folder in enumerate(folders)
    ]
    every = pd.concat(parts, ignore_index=True)
    mean = rows_of(ensemble(every), experiment, task, "Conv5FC3", -1)
    return pd.concat([every, mean], ignore_index=True)


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


@dataclass(frozen=True)
class Occlusion:
    """A scan, and how much its score falls when a place is hidden.

    Attributes
    ----------
    volume, fall : ndarray, shape (I, J, K)
        The scan, and the fall of the score at every voxel.
    affine : ndarray, shape (4, 4)
        Of the study grid.
    labels : tuple of str
        What the two are.
    """

    volume: np.ndarray
    fall: np.ndarray
    affine: np.ndarray
    labels: tuple[str, str]


def occlude(run, task: str, experiment="warehouse/fine_tuned", *, cube_vox: int = 8) -> Occlusion:
    """Hide one cube after the other of the severe scan that the networks are surest of.

    The hidden voxels get the volume's mean, which is zero after z-scoring.  The fold whose model
    gave the highest score looks.
    """
    rows = run.predictions(experiment, task=task)
    rows = rows[(rows["fold"] >= 0) & (rows["y_true"] == 1)]
    surest = rows.loc[rows["score"].idxmax()]
    folders = read_json(run.need(f"models/{experiment.replace('/', '_')}_{task}.json"))
    network, _ = load_network(run.models / folders[int(surest["fold"])])
    (volume,), affine = example_volumes(run, [surest["scan_id"]])
    device = default_device()
    scored = torch.from_numpy((volume - volume.mean()) / volume.std())[None, None].to(device)
    network = network.to(device)
    corners = list(itertools.product(*(range(0, n, cube_vox) for n in volume.shape)))
    fall = np.zeros(volume.shape, np.float32)
    with torch.inference_mode():
        whole = network(scored).softmax(1)[0, 1].item()
        for corner in corners:
            place = tuple(slice(start, start + cube_vox) for start in corner)
            hidden = scored.clone()
            hidden[(0, 0, *place)] = 0
            fall[place] = whole - network(hidden).softmax(1)[0, 1].item()
    labels = (f"scan, score {whole:.2f}", "fall of the score when hidden")
    return Occlusion(volume, np.clip(fall, 0, None), affine, labels)


def mistakes(predictions: pd.DataFrame, experiment: str, task: str) -> pd.DataFrame:
    """Find the highest score without motion and the lowest with motion, by the mean of folds."""
    rows = predictions[
        (predictions["experiment"] == experiment)
        & (predictions["task"] == task)
        & (predictions["fold"] == -1)
    ]
    still, moved = rows[rows["y_true"] == 0], rows[rows["y_true"] == 1]
    pair = pd.concat([still.nlargest(1, "score"), moved.nsmallest(1, "score")])
    words = ("no motion by consensus", "motion by consensus")
    return pair.assign(
        label=[f"{w}, score {s:.2f}" for w, s in zip(words, pair["score"], strict=True)]
    )


def free_weights(folder, blocks: tuple[str, ...]) -> int:
    """Count the weights that move when only some blocks of a trained network are free."""
    network, _ = load_network(folder)
    freeze_except(network, named_blocks(network, blocks))
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
