"""Fine-tuning on a user's own grades: a model that scores, and how it does on patients apart.

Training patients move the fully connected blocks of the network (paper §III-C.3); validation
patients choose epoch, temperature, threshold and limits for grades; test patients, in no other
part, are used once, for the report.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from motionlib.files import PACKAGE, atomic, write_json, write_table
from motionlib.metrics import METRICS, classification_metrics
from motionlib.predictions import PREDICTION_COLUMNS, check_predictions
from motionlib.scoring import own_scans
from motionlib.scoring.grade_limits import FEW, Grading, choose_limits, grade_warnings, judge_limits
from motionlib.scoring.model import FOLDER, DecisionRule, decision_rule
from motionlib.scoring.own_scans import PATIENT, PREPARED_COLUMNS
from motionlib.stats.calibration import best_threshold, logit, temperature, tempered
from motionlib.stats.conformal import prediction_limits
from motionlib.stats.intervals import bootstrap_ci
from motionlib.tasks import TASK_WORDS
from motionlib.training.checkpoints import Model, load_model
from motionlib.training.prediction import predict
from motionlib.training.spec import TrainSpec
from motionlib.training.transfer import fine_tune

PROMISE = 0.9  # of either class, that is decided rightly or left to a person
BEFORE, AFTER = "own_grades/before", "own_grades/fine_tuned"


@dataclass(frozen=True)
class TuningPlan:
    """How to fine-tune on own grades."""

    task: str  # mov01vs2, severe motion against the rest, or mov0vs1, mild motion against none
    epochs: int = 20
    learning_rate: float = 1e-4
    test_fraction: float = 0.3  # of the scans, whole patients; unused where roles are given
    n_folds: int = 5  # one of so many parts of the training patients is for validation
    seed: int = 20  # of split, training and bootstrap
    voxel_mm: float | None = None  # of the model's grid, where its model.json does not say it


@dataclass(frozen=True)
class Outcome:
    """What a fine-tuning on own grades gave."""

    folder: Path  # the new model folder
    facts: dict  # its model.json
    metrics: pd.DataFrame  # of the test scans, one row a model and threshold, with intervals
    counts: pd.DataFrame  # scans, patients and scans with motion in each part
    left_out: pd.DataFrame  # scan_id and reason of graded scans that could not be used
    grading: Grading  # limits for grades, judged on the test patients, or why there are none
    promise: str  # of the range of doubt, or why there is none
    warnings: list[str]  # what to know before trusting the metrics


def fine_tune_own(
    manifest: str | os.PathLike,
    source: str | os.PathLike,
    out: str | os.PathLike,
    plan: TuningPlan,
    *,
    device: str = "cpu",
    engine: str = "inline",
    progress: Callable[[str], None] | None = None,
) -> Outcome:
    """Fine-tune the fully connected blocks on own grades and judge the result on patients apart.

    Source: paper §III-C.3 (all but the fully connected layers frozen).

    Parameters
    ----------
    manifest, source : path-like
        The graded scans (see `own_scans.read_graded`), and the model folder to start from.
        FileNotFoundError or ValueError if grades, split or model cannot be used.
    out, plan : path-like, TuningPlan
        Model folder to write; ``work/`` in it keeps prepared scans and the training's state. The
        plan says what is detected, and how the training goes.
    device, engine, progress : str, str, callable
        Where the network computes, where scans are prepared (`compute.engines.submit`), and what
        is called with a line of text from time to time.
    """
    out, work = Path(out), Path(out) / "work"
    # 1. Refuse what cannot work before any scan is read.
    model, rule = _open_source(source, plan.voxel_mm)
    if out.exists() and out.resolve() == model.folder.resolve():
        raise ValueError(f"{out.name} is the checkpoint itself; give another folder for the result")
    split = {"test_fraction": plan.test_fraction, "n_folds": plan.n_folds, "seed": plan.seed}
    graded = own_scans.read_graded(manifest, plan.task)
    own_scans.split_scans(graded, **split)
    # 2. Prepare the scans as `score` does, and split those that can be used.
    usable, left_out = own_scans.prepare_scans(
        graded, work / "prepared", rule, engine=engine, progress=progress
    )
    try:
        table, fold = own_scans.split_scans(usable, **split)
    except ValueError as error:
        if not len(left_out):
            raise
        first = left_out.iloc[0]
        raise ValueError(
            f"{len(left_out)} of {len(graded)} graded scans cannot be used, the first of them, "
            f"{first['scan_id']}: {first['reason']}. With what is left: {error}"
        ) from error
    train, held = table["role"] == "train", table["fold"] == fold
    parts = {
        "training": table.loc[train & ~held, PREPARED_COLUMNS],
        "validation": table.loc[train & held, PREPARED_COLUMNS],
        "test": table.loc[table["role"] == "test", PREPARED_COLUMNS],
    }
    # 3. Train; the best epoch is the validation patients'.
    prepared = work / f"{plan.task}.tsv"
    paths = [os.path.relpath(path, work) for path in table["path"]]
    write_table(table.assign(path=paths)[PREPARED_COLUMNS], prepared)
    spec = TrainSpec(
        network=model.facts["network"],
        manifest=str(prepared),
        fold=fold,
        task=plan.task,
        epochs=plan.epochs,
        learning_rate=plan.learning_rate,
        dropout=model.facts["dropout"],
        seed=plan.seed,
    )
    run = fine_tune(model, spec, work / "runs", device=device, progress=progress)
    tuned = load_model(run, device=device)
    # 4. Choose temperature, threshold and limits for grades on the validation patients.
    scores = predict(tuned, parts["validation"], device=device)
    t = temperature(scores["y_true"], scores["score"])
    p = tempered(scores["score"], t)
    threshold = best_threshold(scores["y_true"], p)
    review, promise = choose_doubt(scores["y_true"], p, threshold)
    grades = table.set_index("scan_id")["motion_grade"]
    grading = choose_limits(plan.task, grades, grades[scores["scan_id"]], p)
    earlier = str(model.facts.get("cohort") or "not stated").rstrip(".")
    facts = tuned.facts | {
        "name": f"{out.name}-{spec.key}",
        "threshold": threshold,
        "calibration": {"temperature": t, "bias": 0.0},
        "review": review,
        "grade_thresholds": grading.limits,
        "voxel_mm": rule.spacing_mm,
        "slab_mm": rule.slab_mm,
        "field_mm": rule.field_mm,
        "cohort": f"{len(parts['training'])} scans graded by the user for "
        f"{TASK_WORDS[plan.task]}; before that: {earlier}",
        "card": "report.html",
        "stripped_seen": rule.knows_stripped or bool(table["stripped"].any()),
        "registered_seen": model.facts.get("registered_seen") or bool(table["registered"].any()),
    }
    # 5. Judge on the test patients, before and after.
    predictions = _predictions(model, rule, tuned, facts, parts["test"], device)
    metrics = _test_metrics(predictions, parts["test"], facts["threshold"], plan.seed)
    after = predictions[predictions["experiment"] == AFTER].rename(columns={"score": "p_motion"})
    after["motion_grade"] = grades[after["scan_id"]].to_numpy()
    after = after[["scan_id", "participant_id", "motion_grade", "p_motion"]]
    grading = judge_limits(grading, after, parts["test"][PATIENT].to_numpy(), plan.seed)
    # 6. Write the model folder; it is one again once its description is there.
    if (out / "model.json").is_file():  # of an earlier call, as then are these grades
        (out / "grades.csv").unlink(missing_ok=True)
        (out / "model.json").unlink()
    with atomic(out / "weights.safetensors") as aside:
        shutil.copyfile(run / "weights.safetensors", aside)
    write_table(check_predictions(predictions), out / "predictions.csv")
    if grading.scans is not None:
        write_table(grading.scans, out / "grades.csv")
    write_json(out / "model.json", facts)
    warnings = [*_warnings(parts, left_out, metrics), *grade_warnings(grading)]
    return Outcome(out, facts, metrics, _counts(parts), left_out, grading, promise, warnings)


def choose_doubt(y_true, p, threshold: float) -> tuple[tuple[float, float] | None, str]:
    """Choose the probabilities that are left to a person, by validation scans, and say its promise.

    Beyond the range, which holds the threshold, a new scan's decision is wrong for about one less
    `PROMISE` of either class (`stats.conformal`); these scans have also chosen the epoch, so rather
    more. None, and why, where the scans are too few.
    """
    try:
        still, moved = prediction_limits(y_true, p, level=PROMISE)
    except ValueError as error:
        return None, f"No range of doubt is promised. {error}"
    low, high = min(still, 1 - moved, threshold), max(still, 1 - moved, threshold)
    return (float(low), float(high)), (
        f"Probabilities from {low:.4f} to {high:.4f} are left to a person. Of new scans like the "
        f"{len(p)} validation scans about {1 - PROMISE:.0%} of the still ones lie above, and about "
        f"{1 - PROMISE:.0%} of those with motion below (conformal prediction); as these scans have "
        f"chosen the epoch too, expect rather more."
    )


def worth_of_grades() -> str:
    """Say what grades bought on the rated scans of the shipped model's card; nothing without it."""
    if not (path := PACKAGE / FOLDER / "grades.csv").is_file():
        return ""
    table = pd.read_csv(path)
    right = table["balanced_accuracy"].map(", balanced accuracy {:.2f}".format, "ignore").fillna("")
    cells = table["grades"].astype(str) + table["auc"].map(": AUC {:.2f}".format) + right
    return f"what graded scans bought on IXI, of whose motion raters voted ({'; '.join(cells)})"


def _open_source(
    source: str | os.PathLike, voxel_mm: float | None = None
) -> tuple[Model, DecisionRule]:
    """Open the model to start from and check it; `voxel_mm` where ``model.json`` lacks it."""
    if Path(source).is_file():
        raise ValueError(
            f"{Path(source).name} is a file; expected a model folder with model.json and "
            "weights.safetensors (pickles are not read)"
        )
    model = load_model(source)
    stated = model.facts.get("voxel_mm")
    if stated is None and voxel_mm is None:
        raise ValueError(
            f"model.json of {model.name} does not say its voxel_mm; give --voxel-mm, the "
            "voxel size of the grid it was trained on"
        )
    if stated is not None and voxel_mm is not None and float(stated) != voxel_mm:
        raise ValueError(f"--voxel-mm is {voxel_mm:g} where model.json says {stated:g}; leave it")
    facts = model.facts | {"voxel_mm": float(voxel_mm if stated is None else stated)}
    return model, decision_rule(facts, model.name)


def _predictions(
    model: Model, rule: DecisionRule, tuned: Model, facts: dict, test: pd.DataFrame, device: str
) -> pd.DataFrame:
    """Score the test scans before and after, each with its own calibration and threshold."""
    before, after = predict(model, test, device=device), predict(tuned, test, device=device)
    before["score"] = [rule.probability(z) for z in logit(before["score"])]
    after["score"] = tempered(after["score"], facts["calibration"]["temperature"])
    rows = []
    cases = ((BEFORE, before, rule.threshold), (AFTER, after, facts["threshold"]))
    for experiment, scores, threshold in cases:
        scores = scores.assign(experiment=experiment, task=facts["task"], model=facts["network"])
        y_pred = (scores["score"] >= threshold).astype(int)
        rows.append(scores.assign(fold=facts["fold"], y_pred=y_pred)[list(PREDICTION_COLUMNS)])
    return pd.concat(rows, ignore_index=True)


def _test_metrics(
    predictions: pd.DataFrame, test: pd.DataFrame, threshold: float, seed: int
) -> pd.DataFrame:
    """Metrics of the test scans before and after, with intervals that draw patients.

    A row a model and threshold; `predictions` come in the order of `test`.
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
            scans = part["y_true"], part["score"], test[PATIENT].to_numpy()
            row |= bootstrap_ci(*scans, metric=name, y_pred=y_pred, seed=seed).named(name)
        rows.append(row)
    return pd.DataFrame(rows)


def _counts(parts: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Count scans and patients of every part."""
    rows = [(n, len(p), p[PATIENT].nunique(), (p["y_true"] == 1).sum()) for n, p in parts.items()]
    return pd.DataFrame(rows, columns=["part", "scans", "patients", "with motion"])


def _warnings(
    parts: dict[str, pd.DataFrame], left_out: pd.DataFrame, metrics: pd.DataFrame
) -> list[str]:
    """Say what makes the metrics uncertain."""
    lines = []
    for name, use in (
        ("validation", "threshold and calibration rest on them"),
        ("test", "the intervals are wide and one scan moves every figure"),
    ):
        least = parts[name].groupby("y_true")[PATIENT].nunique().min()
        if least < FEW:
            lines.append(f"Few {name} scans: {least} patients in the smaller class; {use}.")
    if len(left_out):
        lines.append(f"{len(left_out)} graded scans could not be used; the reasons are listed.")
    if metrics["balanced_accuracy_low"].iloc[-1] <= 0.5:
        lines.append("The interval of the balanced accuracy reaches 0.5: it may be no use at all.")
    if metrics["auc"].iloc[-1] < metrics["auc"].iloc[0]:
        lines.append("The AUC was higher before fine-tuning: keep the model you had.")
    return lines
