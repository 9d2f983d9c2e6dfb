"""A user's graded scans and a model folder go in; a fine-tuned model folder, judged, comes out.

Threshold, temperature and limits for grades are chosen on validation patients; the test patients
are used once, for the report.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from motionlib.files import atomic, write_json, write_table
from motionlib.predictions import PREDICTION_COLUMNS, check_predictions
from motionlib.scoring import own_scans
from motionlib.scoring.gradelimits import Grading, choose_limits, grade_warnings, judge_limits
from motionlib.scoring.model import read_judge
from motionlib.scoring.modelinput import slab_grid
from motionlib.scoring.ownfigures import AFTER, BEFORE, part_counts, test_figures, warn
from motionlib.stats.calibration import best_threshold, logit, temperature, tempered
from motionlib.training.checkpoints import load_network, read_model
from motionlib.training.prediction import predict
from motionlib.training.spec import TrainSpec
from motionlib.training.transfer import fine_tune

WORDS = {"mov01vs2": "severe motion against the rest", "mov0vs1": "mild motion against none"}


@dataclass(frozen=True)
class Outcome:
    """What a fine-tuning on own grades gave.

    Attributes
    ----------
    folder : Path
        The new model folder.
    task : str
        ``mov01vs2`` or ``mov0vs1``.
    threshold, temperature : float
        Chosen on the validation patients.
    metrics : DataFrame
        Test figures with intervals over patients, one row a model and threshold.
    counts : DataFrame
        Scans, patients and scans with motion in training, validation and test.
    left_out : DataFrame
        ``scan_id`` and ``reason`` of graded scans that could not be used.
    grading : Grading
        Limits for grades, judged on the test patients, or why there are none.
    warnings : list of str
        What to know before trusting the figures.
    facts : dict
        ``model.json``.
    """

    folder: Path
    task: str
    threshold: float
    temperature: float
    metrics: pd.DataFrame
    counts: pd.DataFrame
    left_out: pd.DataFrame
    grading: Grading
    warnings: list[str]
    facts: dict


def read_source(source: str | os.PathLike, voxel_mm: float | None) -> tuple[dict, float]:
    """Check the checkpoint before any scan is read.

    Parameters
    ----------
    source : path-like
        Model folder.
    voxel_mm : float, optional
        Of the study grid; needed where ``model.json`` does not say it.

    Returns
    -------
    model : dict
        ``model.json``.
    voxel_mm : float

    Raises
    ------
    FileNotFoundError, ValueError
        If it is no model folder, a pickle, of another architecture, or on another grid.
    """
    if Path(source).is_file():
        raise ValueError(
            f"{Path(source).name} is a file; expected a model folder with model.json and "
            "weights.safetensors (pickles are not read)"
        )
    model = read_model(source)
    load_network(source)
    stated = model.get("voxel_mm")
    if stated is None and voxel_mm is None:
        raise ValueError(
            f"model.json of {Path(source).name} does not say its voxel_mm; give --voxel-mm, the "
            "voxel size of the grid it was trained on"
        )
    if stated is not None and voxel_mm is not None and float(stated) != voxel_mm:
        raise ValueError(f"--voxel-mm is {voxel_mm:g} where model.json says {stated:g}; leave it")
    voxel_mm = float(stated if stated is not None else voxel_mm)
    shape = slab_grid(voxel_mm, model.get("slab_mm")).shape
    if tuple(model["shape"]) != shape:
        raise ValueError(
            f"{Path(source).name} takes {tuple(model['shape'])} voxels where the grid of "
            f"{voxel_mm:g} mm has {shape}; give the voxel size it was trained on"
        )
    return model, voxel_mm


def fine_tune_own(
    manifest: str | os.PathLike,
    source: str | os.PathLike,
    task: str,
    out: str | os.PathLike,
    *,
    epochs: int = 20,
    learning_rate: float = 1e-4,
    test_fraction: float = 0.3,
    n_folds: int = 5,
    seed: int = 20,
    voxel_mm: float | None = None,
    device: str = "cpu",
    engine: str = "inline",
    progress: Callable[[str], None] | None = None,
) -> Outcome:
    """Fine-tune the fully connected blocks on own grades and judge the result on patients apart.

    Parameters
    ----------
    manifest : path-like
        See `ownscans.read_graded`.
    source : path-like
        Model folder to start from.
    task : {"mov01vs2", "mov0vs1"}
        What is detected.
    out : path-like
        Model folder to write; ``work/`` in it keeps prepared scans and the training's state.
    epochs, learning_rate, seed, device
        As in `trainspec.TrainSpec`.
    test_fraction : float, default=0.3
        Share of the scans, whole patients, for the test; unused where the manifest gives roles.
    n_folds : int, default=5
        One of so many parts of the training patients is for validation.
    voxel_mm : float, optional
        See `read_source`.
    engine : str
        Where scans are prepared.
    progress : callable, optional
        Called with a line of text from time to time.

    Returns
    -------
    Outcome

    Raises
    ------
    ValueError
        If grades, split or checkpoint cannot be used; one sentence says why.

    Notes
    -----
    Source: paper §III-C.3 (all but the fully connected layers frozen).
    """
    model, voxel_mm = read_source(source, voxel_mm)
    out = Path(out)
    if out.exists() and out.resolve() == Path(source).resolve():
        raise ValueError(f"{out.name} is the checkpoint itself; give another folder for the result")
    graded = own_scans.read_graded(manifest, task)
    own_scans.split_scans(graded, test_fraction=test_fraction, n_folds=n_folds, seed=seed)
    usable, left_out = own_scans.prepare_scans(
        graded,
        out / "work" / "prepared",
        spacing_mm=voxel_mm,
        slab_mm=model.get("slab_mm"),
        engine=engine,
        progress=progress,
    )
    table = own_scans.split_scans(usable, test_fraction=test_fraction, n_folds=n_folds, seed=seed)
    fold = own_scans.validation_fold(table)
    prepared = own_scans.write_prepared(table, out / "work" / f"{task}.tsv")
    spec = TrainSpec(
        network=model["network"],
        manifest=str(prepared),
        fold=fold,
        task=task,
        epochs=epochs,
        learning_rate=learning_rate,
        dropout=model["dropout"],
        seed=seed,
    )
    run = fine_tune(source, spec, out / "work" / "runs", device=device, progress=progress)
    train = table["role"] == "train"
    parts = {
        "training": table[train & (table["fold"] != fold)],
        "validation": table[train & (table["fold"] == fold)],
        "test": table[table["role"] == "test"],
    }
    parts = {name: part[own_scans.PREPARED_COLUMNS] for name, part in parts.items()}
    held = predict(run, parts["validation"], device=device)
    t = temperature(held["y_true"], held["score"])
    held_p = tempered(held["score"], t)
    threshold = best_threshold(held["y_true"], held_p)
    grades = table.set_index("scan_id")["motion_grade"]
    grading = choose_limits(task, grades, grades[held["scan_id"]], held_p)
    facts = read_model(run) | {
        "name": f"{out.name}-{spec.key}",
        "threshold": threshold,
        "calibration": {"temperature": t, "bias": 0.0},
        "review": None,
        "grade_thresholds": grading.limits,
        "voxel_mm": voxel_mm,
        "slab_mm": model.get("slab_mm"),
        "cohort": f"{len(parts['training'])} scans graded by the user for {WORDS[task]}; before "
        f"that: {str(model.get('cohort') or 'not stated').rstrip('.')}",
        "card": "report.md",
        "stripped_seen": bool(model.get("stripped_seen")) or bool(table["stripped"].any()),
    }
    predictions = _predictions(source, run, parts["test"], facts, device)
    metrics = test_figures(predictions, parts["test"], threshold, seed)
    after = predictions[predictions["experiment"] == AFTER].rename(columns={"score": "p_motion"})
    after["motion_grade"] = grades[after["scan_id"]].to_numpy()
    after = after[["scan_id", "participant_id", "motion_grade", "p_motion"]]
    grading = judge_limits(grading, after, parts["test"][own_scans.PATIENT].to_numpy(), seed)
    counts = part_counts(parts)
    out.mkdir(parents=True, exist_ok=True)
    with atomic(out / "weights.safetensors") as aside:
        shutil.copyfile(run / "weights.safetensors", aside)
    write_table(check_predictions(predictions), out / "predictions.csv")
    (out / "grades.csv").unlink(missing_ok=True)
    if grading.scans is not None:
        write_table(grading.scans, out / "grades.csv")
    write_json(out / "model.json", facts)
    return Outcome(
        *(out, task, threshold, t, metrics, counts, left_out, grading),
        warnings=[*warn(parts, left_out, metrics), *grade_warnings(grading)],
        facts=facts,
    )


def _predictions(source, run: Path, test: pd.DataFrame, facts: dict, device: str) -> pd.DataFrame:
    """Score the test scans before and after, each with its own calibration and threshold."""
    rows = []
    before = predict(source, test, device=device)
    cut = 0.5
    if read_model(source).get("voxel_mm") is not None:  # a model made for scoring
        judge = read_judge(source)
        before["score"] = [judge.probability(z) for z in logit(before["score"])]
        cut = judge.threshold
    after = predict(run, test, device=device)
    after["score"] = tempered(after["score"], facts["calibration"]["temperature"])
    for experiment, found, limit in ((BEFORE, before, cut), (AFTER, after, facts["threshold"])):
        found = found.assign(experiment=experiment, task=facts["task"], model=facts["network"])
        y_pred = (found["score"] >= limit).astype(int)
        rows.append(found.assign(fold=facts["fold"], y_pred=y_pred)[list(PREDICTION_COLUMNS)])
    return pd.concat(rows, ignore_index=True)
