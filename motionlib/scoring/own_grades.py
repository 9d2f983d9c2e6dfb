"""A user's graded scans and a model folder go in; a fine-tuned model folder, judged, comes out.

Threshold, temperature and limits for grades are chosen on validation patients; the test patients
are used once, for the report.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from motionlib.files import atomic, write_json, write_table
from motionlib.metrics import METRICS, classification_metrics
from motionlib.predictions import PREDICTION_COLUMNS, check_predictions
from motionlib.scoring import own_scans
from motionlib.scoring.model import read_judge, slab_grid
from motionlib.scoring.own_scans import PATIENT
from motionlib.stats.agreement import GRADES, Kappa, grade_table, weighted_kappa
from motionlib.stats.calibration import best_threshold, logit, temperature, tempered
from motionlib.stats.intervals import bootstrap_ci
from motionlib.tasks import TASK_WORDS
from motionlib.training.checkpoints import load_model, read_model
from motionlib.training.prediction import predict
from motionlib.training.spec import TrainSpec
from motionlib.training.transfer import fine_tune

DIGITS = 6  # of a probability, as `score` rounds it before it gives a grade
TIE = 1e-12  # kappas nearer than this are equal
FEW = 15  # scans of a grade; below it a limit follows single scans
NONE = "No grades are given"
BEFORE, AFTER = "own_grades/before", "own_grades/fine_tuned"


@dataclass(frozen=True)
class Grading:
    """Limits for grades, judged on the test patients.

    Attributes
    ----------
    limits : tuple of 2 float, or None
        From these probabilities on the grade is 1, and 2; None: no grades are given.
    said : str
        What was chosen and by what, or why there are none.
    held : float
        Linear weighted kappa of the validation scans, which the limits were chosen by; NaN: none.
    n_held : tuple of 3 int
        Validation scans of grade 0, 1 and 2.
    kappa : Kappa, or None
        Linear weighted kappa of the test scans, its interval by drawing patients.
    table : DataFrame, or None
        Test scans, one row a grade by the user, one column a grade by the model.
    scans : DataFrame, or None
        ``scan_id participant_id motion_grade p_motion grade`` of the test scans.
    """

    limits: tuple[float, float] | None
    said: str
    held: float
    n_held: tuple[int, ...]
    kappa: Kappa | None = None
    table: pd.DataFrame | None = None
    scans: pd.DataFrame | None = None


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
    model = load_model(source).facts
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
        "cohort": f"{len(parts['training'])} scans graded by the user for {TASK_WORDS[task]}; "
        f"before that: {str(model.get('cohort') or 'not stated').rstrip('.')}",
        "card": "report.html",
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


def grades_by(limits: tuple[float, float], p) -> np.ndarray:
    """Grade 0, 1 or 2 of probabilities, (n,); it never falls where the probability rises."""
    p = np.round(np.asarray(p, dtype=float), DIGITS)
    return (p[:, None] >= np.asarray(limits)).sum(axis=1)


def best_limits(grades, p) -> tuple[tuple[float, float], float]:
    """Choose the two limits with the highest linear weighted kappa.

    Limits lie in the middle between two neighbouring probabilities, so that each grade is given to
    some scan. Of several pairs that are equally good, the middle one is taken.

    Parameters
    ----------
    grades : array-like of 0, 1 and 2, shape (n,)
        Grades by the user.
    p : array-like, shape (n,)
        Probabilities of motion, of three different values at least.

    Returns
    -------
    limits : tuple of 2 float
    kappa : float
        What they reach on these scans.

    Notes
    -----
    The distance of two grades is the number of limits that they lie on different sides of, so the
    penalties of the two limits, seen and by chance, add up.
    """
    p, y = np.round(np.asarray(p, dtype=float), DIGITS), np.asarray(grades, dtype=int)
    levels, place = np.unique(p, return_inverse=True)
    cuts = (levels[1:] + levels[:-1]) / 2
    seen, chance = zip(*(_penalties(y >= grade, place, len(cuts)) for grade in (1, 2)), strict=True)

    def kappas(low: int) -> np.ndarray:
        """Every pair whose lower limit is the one at this place."""
        penalty = seen[0][low] + seen[1][low + 1 :]
        return 1 - penalty / (chance[0][low] + chance[1][low + 1 :])

    lows = range(len(cuts) - 1)
    best = max(kappas(low).max() for low in lows)
    ties = np.array(
        [(low, low + 1 + k) for low in lows for k in np.flatnonzero(kappas(low) >= best - TIE)]
    )
    low, high = ties[np.square(ties - ties.mean(axis=0)).sum(axis=1).argmin()]
    return (float(cuts[low]), float(cuts[high])), float(best)


def _penalties(above: np.ndarray, place: np.ndarray, n_cuts: int) -> tuple[np.ndarray, np.ndarray]:
    """Count scans on the wrong side of every cut, (n_cuts,), and those that chance puts there."""
    n = len(above)
    below = np.cumsum(np.bincount(place, minlength=n_cuts + 1))[:n_cuts]
    missed = np.cumsum(np.bincount(place, above, minlength=n_cuts + 1))[:n_cuts]
    alarms = (n - below) - (above.sum() - missed)
    by_chance = (above.sum() * below + (n - above.sum()) * (n - below)) / n
    return missed + alarms, by_chance


def choose_limits(task: str, grades, held_grades, held_p) -> Grading:
    """Choose limits on the validation scans, or say why there are none.

    Parameters
    ----------
    task : {"mov01vs2", "mov0vs1"}
        What the model detects.
    grades : array-like of int
        Grades of all scans that the task uses.
    held_grades, held_p : array-like, shape (n,)
        Grades and calibrated probabilities of the validation scans.
    """
    n_held = tuple(int((np.asarray(held_grades, dtype=int) == grade).sum()) for grade in GRADES)

    def none(why: str) -> Grading:
        return Grading(None, f"{NONE}: {why}.", float("nan"), n_held)

    found = sorted(set(map(int, grades)))
    if set(found) != set(GRADES):
        hint = "; --task mov01vs2 uses all three" if task == "mov0vs1" else ""
        words = " and ".join(map(str, found))
        return none(f"the scans of {task} have grades {words} only, limits need 0, 1 and 2{hint}")
    lacking = [grade for grade, n in zip(GRADES, n_held, strict=True) if n == 0]
    if lacking:
        words = " or ".join(map(str, lacking))
        return none(f"the validation patients have no scan of grade {words}")
    levels = len(np.unique(np.round(held_p, DIGITS)))
    if levels < len(GRADES):
        return none(f"the validation scans have {levels} different probabilities, limits need 3")
    limits, kappa = best_limits(held_grades, held_p)
    if kappa <= 0:
        return none("with no limits do they agree with the validation grades better than chance")
    said = (
        f"Chosen on the validation patients alone: grade 1 from a probability of {limits[0]:.4f} "
        f"on, grade 2 from {limits[1]:.4f} on, the limits with the highest linear weighted kappa "
        f"there ({kappa:.3f})."
    )
    return Grading(limits, said, kappa, n_held)


def judge_limits(grading: Grading, scans: pd.DataFrame, patients, seed: int) -> Grading:
    """Judge chosen limits on the test scans; without limits there is nothing to judge.

    Parameters
    ----------
    grading : Grading
        From `choose_limits`.
    scans : DataFrame
        ``scan_id participant_id motion_grade p_motion`` of the test scans.
    patients : array-like, shape (n,)
        The patient of each.
    seed : int
        Of the bootstrap.
    """
    if grading.limits is None:
        return grading
    scans = scans.assign(grade=grades_by(grading.limits, scans["p_motion"]))
    pair = (scans["motion_grade"].astype(int), scans["grade"])
    kappa = weighted_kappa(*pair, groups=patients, seed=seed)
    table = pd.DataFrame(grade_table(*pair), index=GRADES, columns=GRADES)
    return replace(grading, kappa=kappa, table=table, scans=scans)


def grade_warnings(grading: Grading) -> list[str]:
    """Say what makes the grades doubtful."""
    if grading.kappa is None:
        return []
    said = []
    if min(grading.n_held) < FEW:
        counts = ", ".join(map(str, grading.n_held))
        said.append(
            f"Few validation scans of a grade: {counts} of 0, 1, 2; the limits rest on them."
        )
    if not grading.kappa.low > 0:
        said.append("The interval of the grades' kappa reaches 0: the grades may be no use at all.")
    mild = grading.table.loc[1]
    if mild.sum() and mild[1] * 2 < mild.sum():
        said.append(
            f"Mild motion is not graded reliably: {int(mild[1])} of {int(mild.sum())} test scans "
            "that you graded 1 got grade 1."
        )
    return said


def test_figures(
    predictions: pd.DataFrame, test: pd.DataFrame, threshold: float, seed: int
) -> pd.DataFrame:
    """Judge the test scans before and after, with intervals that draw patients.

    Parameters
    ----------
    predictions : DataFrame
        Rows of `BEFORE` and `AFTER`, in the order of `test`.
    test : DataFrame
        The test scans with their patients.
    threshold : float
        Chosen on the validation patients.
    seed : int
        Of the bootstrap.

    Returns
    -------
    DataFrame
        One row a model and threshold: ``model n n_positive`` and every metric with ``_low`` and
        ``_high``.
    """
    rows = []
    cases = (
        (BEFORE, "before fine-tuning, its own threshold", None),
        (AFTER, "fine-tuned, threshold 0.5", 0.5),
        (AFTER, f"fine-tuned, chosen threshold {threshold:.3f}", threshold),
    )
    for experiment, words, cut in cases:
        part = predictions[predictions["experiment"] == experiment]
        y_pred = part["y_pred"] if cut is None else (part["score"] >= cut).astype(int)
        values = classification_metrics(part["y_true"], part["score"], y_pred=y_pred)
        row = {"model": words, "n": values["n"], "n_positive": values["n_positive"]}
        for name in METRICS:
            ci = bootstrap_ci(
                part["y_true"],
                part["score"],
                test[PATIENT].to_numpy(),
                metric=name,
                y_pred=y_pred,
                seed=seed,
            )
            row |= {name: ci.estimate, f"{name}_low": ci.low, f"{name}_high": ci.high}
        rows.append(row)
    return pd.DataFrame(rows)


def part_counts(parts: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Count scans and patients of every part."""
    return pd.DataFrame(
        {
            "part": name,
            "scans": len(part),
            "patients": part[PATIENT].nunique(),
            "with motion": int((part["y_true"] == 1).sum()),
        }
        for name, part in parts.items()
    )


def warn(parts: dict, left_out: pd.DataFrame, metrics: pd.DataFrame) -> list[str]:
    """Say what makes the figures uncertain."""
    said = []
    for name, use in (
        ("validation", "threshold and calibration rest on them"),
        ("test", "the intervals are wide and one scan moves every figure"),
    ):
        part = parts[name]
        least = part.groupby("y_true")[PATIENT].nunique().min()
        if least < FEW:
            said.append(f"Few {name} scans: {least} patients in the smaller class; {use}.")
    if len(left_out):
        said.append(f"{len(left_out)} graded scans could not be used; the reasons are listed.")
    if metrics["balanced_accuracy_low"].iloc[-1] <= 0.5:
        said.append("The interval of the balanced accuracy reaches 0.5: it may be no use at all.")
    if metrics["auc"].iloc[-1] < metrics["auc"].iloc[0]:
        said.append("The AUC was higher before fine-tuning: keep the model you had.")
    return said
