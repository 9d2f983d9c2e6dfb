"""The paper's tables with our values beside the printed ones.

A table is a pure function of a run's ``predictions.csv``, ``splits.csv`` and ``durations.csv``:
nothing is typed, and a cell that a run cannot fill is empty and carries its reason.
"""

import os
from pathlib import Path

import pandas as pd

from motionlib import typeset
from motionlib.files import write_text
from motionlib.manifest import is_warehouse
from motionlib.metrics import per_fold
from motionlib.paper.beside import beside_paper
from motionlib.paper.comparisons import agreement, mcnemar_table, scoreboard
from motionlib.paper.run_summary import RunSummary
from motionlib.paper.transcription import ARCHITECTURES, audit, in_text, published

STANDS_FOR = {
    "ADNI": ("adni", "virtual-adni"),
    "MSSEG": ("msseg", "virtual-msseg"),
    "MNI BITE": ("bite", "virtual-bite"),
}
OWN_SIMULATIONS = (("drift", "2-4", "paper"), ("acquired", "0.5-8", "recommended"))
OWN_METHODS = (
    *("fine_tuned_recommended", "research_only_recommended", "fine_tuned_kspace"),
    *("fine_tuned_chosen", "pooled_head", "untrained_features"),
)


def table_1(run: RunSummary) -> pd.DataFrame:
    """Describe the patients of every database (paper Table I).

    Age and sex are of patients (their first scan); the real-motion test is left out, rejected
    warehouse scans are counted, as in the paper. ``unrated`` scans have neither a grade nor
    anybody's verdict: that they are free of motion is an assumption.
    """
    scans = run.scans[~run.scans["role"].isin(["real_motion"])]
    rejected = scans["role"].eq("excluded").fillna(False) & ~is_warehouse(scans["cohort"])
    scans = scans[~rejected]
    ours = {}
    for name, part in scans.groupby(_database(scans["cohort"]), sort=False):
        patients = part.drop_duplicates("source_participant_id")
        age = pd.to_numeric(patients.get("age"))
        sex = patients["sex"].dropna().str.upper().str[0]
        ours[name] = {
            "n_patients": len(patients),
            "n_images": len(part),
            "age_mean": age.mean(),
            "age_sd": age.std(ddof=1),
            "age_min": age.min(),
            "age_max": age.max(),
            "sex_f": (sex == "F").mean() if len(sex) else float("nan"),
            "unrated": int(_unrated(part).sum()),
            "n": len(part),
            "cohort": " + ".join(sorted(part["cohort"].unique())),
        }
    others = ", ".join(sorted(scans["cohort"].dropna().unique())) or "none"
    rows = []
    for name in published("table_1")["database"]:
        reason = {"reason": f"no such scans in this run, which has {others}"}
        rows.append({"database": name} | ours.pop(name, reason))
    rows += [{"database": name} | row for name, row in ours.items()]
    return beside_paper(pd.DataFrame(rows), "table_1")


def table_2(run: RunSummary) -> pd.DataFrame:
    """Synthetic and real motion by simulator and severity, Conv5FC3 (paper Table II).

    The rows ``drift`` (another reading of the k-space range) and ``acquired`` (the recommended
    recipe) have no printed counterpart. ``_mean _sd`` run over the folds' models on the independent
    test set, the intervals over its patients; ``_cv_mean _cv_sd`` are each model's own validation
    scans (the paper's caption and text disagree on which was used). ``real_motion_accuracy`` is the
    sensitivity of the best fold's model, as in the paper; beside it the specificity on still scans
    of the same kind, which the paper's set lacks, and the AUC (mean over folds). Motion that an
    acquisition simulator made is no real motion: ``emulated_motion_*``. ``resampled_called_motion``
    is the share of the test patients' still heads that are called motion after one resampling (mean
    over folds). ``steps`` are the optimiser's, of one fold.
    Departs from the paper: of fewer than 100 research scans to train and validate on, each of the
    corrupted half is moved several times (`experiments.synthetic_set`).
    """
    rows = []
    keys = [(*key, "paper") for key in published("table_2")[["simulator", "severity"]].to_numpy()]
    for simulator, severity, recipe in [*keys, *OWN_SIMULATIONS]:
        experiment = f"pretrain/{simulator}/{severity}/{recipe}"
        row = {"simulator": simulator, "severity": severity, "recipe": recipe}
        summary = run.summary(experiment, task="synthetic", model="Conv5FC3")
        if summary is not None:
            row |= summary | _cross_validation(run, experiment) | _resampled(run, experiment)
            row |= _motion(run, experiment, "emulated") | _motion(run, experiment, "real")
            row["steps"] = _training_cost(run, experiment, "Conv5FC3")["steps"]
            rows.append(row)
        elif (simulator, severity, recipe) in keys:
            rows.append(row | _missing(experiment))
    return beside_paper(pd.DataFrame(rows), "table_2")


def table_3(run: RunSummary) -> pd.DataFrame:
    """Compare four networks on k-space motion of 2-4 mm and degrees (paper Table III).

    Training times are of different computers; the paper does not say whether they are of one fold
    or of all, ours are the sum over folds.
    """
    experiment = "benchmark/kspace/2-4/paper"
    models = published("table_3")["model"]
    rows = [_of_network(run, experiment, m) | _training_cost(run, experiment, m) for m in models]
    return beside_paper(pd.DataFrame(rows), "table_3")


def table_4(run: RunSummary) -> pd.DataFrame:
    """Compare raters, networks and forests on the warehouse's test scans (paper Table IV, §IV-B).

    Mean over the folds' models (or over the raters) on the same test scans; the intervals draw the
    patients. A rater's AUC is not defined and stays empty. Departs from the paper: without a fixed
    test set each graded scan is judged once, by the fold that it is kept from; all are one set.
    """
    rows = []
    keys = published("table_4")[["task", "method"]]
    for task, method in keys.itertuples(index=False):
        summary = run.summary(f"warehouse/{method}", task=task)
        row = {"task": task, "method": method}
        row |= summary or _missing(f"warehouse/{method} {task}")
        if method == "annotators":  # the curve of a rater has one point
            row = {name: value for name, value in row.items() if not name.startswith("auc")}
        rows.append(row)
    for task in keys["task"].unique():
        for method in OWN_METHODS:
            summary = run.summary(f"warehouse/{method}", task=task)
            if summary is not None:
                rows.append({"task": task, "method": method} | summary)
    return beside_paper(pd.DataFrame(rows), "table_4")


def table_a1(run: RunSummary) -> pd.DataFrame:
    """Count corrupted and clean research scans in each set (paper Table A.I).

    The validation set is that of fold 0. Whether a scan was corrupted is read from the column
    ``y_true`` of the scans, else from the predictions of the paper's recipe.
    """
    scans = run.scans[~is_warehouse(run.scans["cohort"])]
    scans = scans.assign(set=_set_of(scans)).dropna(subset=["set"])
    labels = scans["scan_id"].map(run.synthetic_labels())
    unknown = int(labels.isna().sum())
    scans = scans.assign(moved=labels, database=_database(scans["cohort"]))
    reason = "no research scans in this run"
    if len(scans):
        reason = f"{unknown} of {len(scans)} scans have no label yet" if unknown else ""
    rows = []
    for name, label in published("table_a1")[["set", "label"]].itertuples(index=False):
        row: dict = {"set": name, "label": label, "reason": reason or pd.NA}
        if len(scans) and not unknown:
            wanted = 1 if label == "motion" else 0
            part = scans[(scans["set"] == name) & (scans["moved"] == wanted)]
            row |= part["database"].value_counts().to_dict()
            row |= {each: row.get(each, 0) for each in STANDS_FOR}
            own = ~part["database"].isin(STANDS_FOR)
            row |= {"other": int(own.sum()), "total": len(part), "n": len(part)}
            row["cohort"] = " + ".join(sorted(part["cohort"].unique()))
            absent = [each for each in STANDS_FOR if not scans["database"].eq(each).any()]
            row |= dict.fromkeys(absent, pd.NA)
            if absent:
                row["reason"] = f"no {', '.join(absent)} in this run; see the column other"
        rows.append(row)
    wanted = ["set", "label", *STANDS_FOR, "other", "total", "n", "cohort", "reason"]
    return beside_paper(pd.DataFrame(rows).reindex(columns=wanted), "table_a1")


def table_a2(run: RunSummary) -> pd.DataFrame:
    """Count the warehouse's graded scans in each set, fold 0 validating (paper Table A.II)."""
    scans = run.warehouse
    grade = pd.to_numeric(scans.get("motion_grade", pd.Series(dtype=float)))
    scans = scans.assign(set=_set_of(scans), grade=grade).dropna(subset=["set", "grade"])
    rows = []
    for name, label in published("table_a2")[["set", "label"]].itertuples(index=False):
        number = int(label.removeprefix("motion "))
        part = scans[(scans["set"] == name) & (scans["grade"] == number)]
        row: dict = {"set": name, "label": label}
        if len(scans):
            row |= {"mov01vs2": len(part), "mov0vs1": len(part) if number < 2 else pd.NA}
            row |= {"n": len(part), "cohort": " + ".join(sorted(scans["cohort"].unique()))}
            row["reason"] = "grade 2 is not part of mov0vs1" if number == 2 else pd.NA
            if name == "testing" and not (scans["set"] == name).any():
                row["reason"] = "no fixed test set: every graded scan is judged out of its fold"
        else:
            row["reason"] = "no graded warehouse scans in this run"
        rows.append(row)
    wanted = ["set", "label", "mov0vs1", "mov01vs2", "n", "cohort", "reason"]
    return beside_paper(pd.DataFrame(rows).reindex(columns=wanted), "table_a2")


def table_a3(run: RunSummary) -> pd.DataFrame:
    """Compare four networks on image-based motion, 2-4 mm and degrees, best fold (Table A.III).

    ``_ours`` is the model of the fold that validates best, ``_mean`` the mean over folds; only the
    latter can be set beside Table III.
    """
    rows, experiment = [], "benchmark/image/2-4/paper"
    for model in published("table_a3")["model"]:
        row = _of_network(run, experiment, model)
        row["steps"] = _training_cost(run, experiment, model)["steps"]
        judged = run.rows(experiment, task="synthetic", model=model)
        if len(judged):
            folds = per_fold(judged).set_index("fold")
            best = run.best_fold(experiment, model=model)
            best = int(folds.index.min()) if best is None else best
            row["best_fold"] = best
            for metric in ("balanced_accuracy", "specificity", "sensitivity"):
                row[f"{metric}_ours"] = folds.loc[best, metric]
        rows.append(row)
    return beside_paper(pd.DataFrame(rows), "table_a3")


def table_a4(run: RunSummary) -> pd.DataFrame:
    """Show the k-space pre-trained models after fine-tuning, and the freeze study (paper §IV-B).

    Table A.IV is cited there for both but is not in the text we have: two balanced accuracies
    follow from stated gains, the freeze study has nothing to stand beside.
    """
    rows = []
    for task in published("table_a4")["task"]:
        experiment = "warehouse/fine_tuned_kspace"
        row = {"task": task, "method": "fine_tuned_kspace"}
        rows.append(row | (run.summary(experiment, task=task) or _missing(f"{experiment} {task}")))
    experiments = run.predictions["experiment"]
    studied = list(dict.fromkeys(experiments[experiments.str.startswith("freeze/")]))
    for experiment in studied:
        blocks = experiment.removeprefix("freeze/")
        row = {"task": "mov01vs2", "method": f"free: {blocks}"}
        row |= run.summary(experiment, task="mov01vs2") or _missing(experiment)
        rows.append({"reason": "not printed: Table A.IV is not in the text we have"} | row)
    if not studied:
        row = {"task": "mov01vs2", "method": "free: fc3 to all"}
        rows.append(row | _missing("freeze/..."))
    return beside_paper(pd.DataFrame(rows), "table_a4")


def timing(run: RunSummary) -> pd.DataFrame:
    """Set simulation and training times beside the paper's; the computers differ.

    Returns ``quantity key seconds_paper seconds_ours ratio n device reason``: seconds per scan for
    the simulators, seconds of all folds for the trainings; ``ratio`` is paper / ours. Source: paper
    §V (seconds per image), Table III (training).
    """
    wanted = []
    for n in (4, 16, 128):
        name = f"corrupt one scan, image-based, {n} positions"
        seconds = in_text(f"seconds per image image-based {n} positions")
        wanted.append((name, f"simulate/image/{n}", seconds))
    name = "corrupt one scan, k-space, 200 time points"
    wanted.append((name, "simulate/kspace/200", in_text("seconds per image k-space")))
    minutes = published("table_3").set_index("model")["training_minutes"]
    for label, model in ARCHITECTURES.items():
        key = f"train/{model}/benchmark/kspace/2-4/paper"
        wanted.append((f"train {label}", key, 60.0 * minutes[model]))
    rows = []
    for quantity, key, seconds in wanted:
        known = run.durations["key"].astype(str)
        chosen = run.durations[(known == key) | known.str.startswith(f"{key}/")]
        row = {"quantity": quantity, "key": key, "seconds_paper": seconds}
        if chosen.empty:
            rows.append(row | {"reason": f"no duration named {key} in this run"})
            continue
        ours = chosen["seconds"].sum()
        ours = ours / chosen["n"].sum() if key.startswith("simulate") else ours
        row |= {"seconds_ours": ours, "ratio": seconds / ours, "n": int(chosen["n"].sum())}
        device = " + ".join(sorted(set(chosen["device"].astype(str))))
        rows.append(row | {"device": device, "reason": "other computer and image size"})
    columns = ["quantity", "key", "seconds_paper", "seconds_ours", "ratio", "n", "device", "reason"]
    return pd.DataFrame(rows).reindex(columns=columns)


_MAKERS = {
    "table_1": table_1,
    "table_2": table_2,
    "table_3": table_3,
    "table_4": table_4,
    "table_a1": table_a1,
    "table_a2": table_a2,
    "table_a3": table_a3,
    "table_a4": table_a4,
    "timing": timing,
    "agreement": agreement,
    "mcnemar": mcnemar_table,
}
TABLES = (*_MAKERS, "scoreboard", "paper_audit")


def build_table(
    name: str, folder: str | os.PathLike, *, n_boot: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Make one table from what a run has written.

    Parameters
    ----------
    name : str
        One of `TABLES`.
    folder : path-like
        ``runs/<profile>`` (``Run.folder``).
    n_boot, seed : int
        Draws of patients for every interval, and their seed.

    Returns
    -------
    DataFrame
        All rows of the paper's table at every profile.

    Raises
    ------
    ValueError
        Unknown table, or predictions that are not in order.
    FileNotFoundError
        The folder is no run's.
    """
    if name not in TABLES:
        raise ValueError(f"Found table {name!r}, expected one of {', '.join(TABLES)}.")
    if name == "paper_audit":
        return audit()
    run = RunSummary(folder, n_boot=n_boot, seed=seed)
    if name == "scoreboard":
        return scoreboard(run, {each: make(run) for each, make in _MAKERS.items()})
    return _MAKERS[name](run)


def build_tables(
    folder: str | os.PathLike, *, n_boot: int = 2000, seed: int = 0
) -> dict[str, pd.DataFrame]:
    """Make all `TABLES`, by name, measuring nothing twice; arguments as for `build_table`."""
    run = RunSummary(folder, n_boot=n_boot, seed=seed)
    tables = {name: make(run) for name, make in _MAKERS.items()}
    return tables | {"scoreboard": scoreboard(run, tables), "paper_audit": audit()}


def typeset_tables(
    folder: str | os.PathLike, made: dict[str, pd.DataFrame], *, caption: str
) -> int:
    """Write tables as ``.html`` and ``.tex`` beside the ``.csv`` of a run; return how many files.

    Parameters
    ----------
    folder, made : path-like, dict of DataFrame
        The run, and what `build_tables` made of it.
    caption : str
        The cohort's sentence, below every table.
    """
    for name, table in made.items():
        path = Path(folder) / "tables" / name
        title = typeset.label(name)
        html = typeset.to_html(table, title=title, caption=caption)
        latex = typeset.to_latex(table, caption=f"{title}. {caption}", label=f"tab:{name}")
        for suffix, text in ((".html", html), (".tex", latex)):
            write_text(path.with_suffix(suffix), text.rstrip() + "\n")
    return 2 * len(made)


def headline(folder: str | os.PathLike) -> pd.DataFrame:
    """Make the small table for the README: severe and mild motion by method, as text.

    From ``tables/table_4.csv`` of a finished or published run, so that the same intervals stand
    everywhere: percent for the balanced accuracy, two decimals for the AUC, with 95 % intervals.
    """
    table = pd.read_csv(Path(folder) / "tables" / "table_4.csv")
    rows, measures = [], (("ba", "balanced_accuracy", 100, 1), ("auc", "auc", 1, 2))
    for row in table.to_dict("records"):
        cells = {"task": row["task"], "method": row["method"]}
        for short, metric, scale, digits in measures:
            cells[f"{short}_paper"] = _number(scale * row[f"{metric}_paper"], digits)
            ends = [row.get(f"{metric}_{part}", float("nan")) for part in ("ours", "low", "high")]
            ours, low, high = (_number(scale * value, digits) for value in ends)
            cells[f"{short}_ours"] = f"{ours} [{low}, {high}]" if ours else ""
        cells["n"] = "" if pd.isna(row.get("n")) else str(int(row["n"]))
        cells["cohort"] = "" if pd.isna(row.get("cohort")) else row["cohort"]
        rows.append(cells)
    return pd.DataFrame(rows)


def _number(value: float, digits: int) -> str:
    """Write a number with fixed decimals, nothing where there is none."""
    return "" if pd.isna(value) else f"{value:.{digits}f}"


def _database(cohort: pd.Series) -> pd.Series:
    """Paper's database that each cohort stands for; its own name where there is none."""
    names = {ours: paper for paper, many in STANDS_FOR.items() for ours in many}
    return cohort.map(names).fillna(cohort).where(~is_warehouse(cohort), "AP-HP")


def _set_of(scans: pd.DataFrame) -> pd.Series:
    """Training, validation (fold 0) or testing."""
    fold = pd.to_numeric(scans["fold"]) if "fold" in scans else pd.Series(pd.NA, scans.index)
    names = pd.Series(pd.NA, index=scans.index, dtype="string")
    names[scans["role"].eq("train").fillna(False)] = "training"
    names[scans["role"].eq("train").fillna(False) & fold.eq(0).fillna(False)] = "validation"
    names[scans["role"].eq("test").fillna(False)] = "testing"
    return names


def _missing(experiment: str) -> dict:
    """Say why a row is empty."""
    return {"reason": f"no predictions of {experiment} in this run"}


def _cross_validation(run: RunSummary, experiment: str) -> dict:
    """Mean and SD over folds on each model's own validation scans."""
    rows = run.rows(f"{experiment}/cv", model="Conv5FC3")
    if rows.empty:
        return {}
    folds = per_fold(rows, allow_one_class=True)["balanced_accuracy"]
    return {"balanced_accuracy_cv_mean": folds.mean(), "balanced_accuracy_cv_sd": folds.std(ddof=1)}


def _resampled(run: RunSummary, experiment: str) -> dict:
    """Share of still heads called motion once they are resampled."""
    rows = run.rows(f"{experiment}/resampled", model="Conv5FC3")
    return {} if rows.empty else run.called(rows).named("resampled_called_motion")


def _unrated(scans: pd.DataFrame) -> pd.Series:
    """Mark scans of which nobody said whether the head moved; straight rejects do not count."""
    unknown = scans[[c for c in ("motion_grade", "motion_votes") if c in scans]].isna().all(axis=1)
    return unknown & ~scans["role"].eq("excluded").fillna(False)


def _motion(run: RunSummary, experiment: str, kind: str) -> dict:
    """Sensitivity, specificity and AUC on ``real`` or ``emulated`` motion, best-validating fold."""
    rows = run.rows(f"{experiment}/{kind}", model="Conv5FC3")
    if rows.empty:
        return _missing(f"{experiment}/{kind}") if kind == "real" else {}
    best = run.best_fold(experiment, model="Conv5FC3")
    best = int(rows["fold"].min()) if best is None else best
    chosen, name = rows[rows["fold"] == best], f"{kind}_motion"
    moved, still = chosen[chosen["y_true"] == 1], chosen[chosen["y_true"] == 0]
    cells: dict = {f"{name}_n": len(chosen), f"{name}_fold": best}
    if len(moved):
        rate = run.called(moved)
        ours = "accuracy_ours" if kind == "real" else "accuracy"  # the paper has the real one
        cells |= {f"{name}_{ours}": rate.estimate, f"{name}_accuracy_low": rate.low}
        cells[f"{name}_accuracy_high"] = rate.high
        cells[f"{name}_accuracy_mean"] = rows.loc[rows["y_true"] == 1, "y_pred"].mean()
    if len(still):
        rate = run.called(still)
        cells[f"{name}_specificity"] = 1 - rate.estimate
        cells[f"{name}_specificity_low"] = 1 - rate.high
        cells[f"{name}_specificity_high"] = 1 - rate.low
    if len(moved) and len(still):
        summary = run.summary(f"{experiment}/{kind}", model="Conv5FC3")
        cells |= {f"{name}_auc": summary["auc_mean"], f"{name}_auc_low": summary["auc_low"]}
        cells[f"{name}_auc_high"] = summary["auc_high"]
    return cells


def _of_network(run: RunSummary, experiment: str, model: str) -> dict:
    """Summary of one network on synthetic motion, or why there is none."""
    summary = run.summary(experiment, task="synthetic", model=model)
    return {"model": model} | (summary or _missing(f"{experiment} by {model}"))


def _training_cost(run: RunSummary, experiment: str, model: str) -> dict:
    """Optimiser steps of one fold, and minutes that all folds trained; NaN if none was recorded."""
    start = f"train/{model}/{experiment}/fold"
    chosen = run.durations[run.durations["key"].astype(str).str.startswith(start)]
    if chosen.empty:
        return {"steps": float("nan"), "training_minutes": float("nan")}
    return {"steps": chosen["n"].max(), "training_minutes": chosen["seconds"].sum() / 60}
