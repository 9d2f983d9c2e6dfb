"""The scans and durations of a run go in; Tables I, A.I, A.II and the timings come out."""

from __future__ import annotations

import pandas as pd

from motionlib.paper.beside import beside_paper
from motionlib.paper.run_summary import Measured, is_warehouse
from motionlib.paper.transcription import ARCHITECTURES, in_text, published

STANDS_FOR = {
    "ADNI": ("adni", "virtual-adni"),
    "MSSEG": ("msseg", "virtual-msseg"),
    "MNI BITE": ("bite", "virtual-bite"),
}
SETS = ("training", "validation", "testing")


def _database(cohort: pd.Series) -> pd.Series:
    """Paper's database that each cohort stands for; its own name where there is none."""
    names = {ours: paper for paper, many in STANDS_FOR.items() for ours in many}
    return cohort.map(names).fillna(cohort).where(~is_warehouse(cohort), "AP-HP")


def table_1(run: Measured) -> pd.DataFrame:
    """Describe the patients of every database.

    Notes
    -----
    Source: paper Table I. Age and sex are of patients (their first scan); the real-motion test is
    left out, rejected warehouse scans are counted, as in the paper.
    """
    scans = run.scans[~run.scans["role"].isin(["real_motion"])]
    rejected = scans["role"].eq("excluded").fillna(False) & ~is_warehouse(scans["cohort"])
    scans = scans[~rejected]
    found = {}
    for name, part in scans.groupby(_database(scans["cohort"]), sort=False):
        patients = part.drop_duplicates("source_participant_id")
        age = pd.to_numeric(patients.get("age"))
        sex = patients["sex"].dropna().str.upper().str[0]
        found[name] = {
            "n_patients": len(patients),
            "n_images": len(part),
            "age_mean": age.mean(),
            "age_sd": age.std(ddof=1),
            "age_min": age.min(),
            "age_max": age.max(),
            "sex_f": (sex == "F").mean() if len(sex) else float("nan"),
            "n": len(part),
            "cohort": " + ".join(sorted(part["cohort"].unique())),
        }
    others = ", ".join(sorted(scans["cohort"].dropna().unique())) or "none"
    rows = []
    for name in published("table_1")["database"]:
        reason = {"reason": f"no such scans in this run, which has {others}"}
        rows.append({"database": name} | found.pop(name, reason))
    rows += [{"database": name} | row for name, row in found.items()]
    return beside_paper(pd.DataFrame(rows), "table_1")


def _set_of(scans: pd.DataFrame) -> pd.Series:
    """Training, validation (fold 0) or testing."""
    fold = pd.to_numeric(scans["fold"]) if "fold" in scans else pd.Series(pd.NA, scans.index)
    names = pd.Series(pd.NA, index=scans.index, dtype="string")
    names[scans["role"].eq("train").fillna(False)] = "training"
    names[scans["role"].eq("train").fillna(False) & fold.eq(0).fillna(False)] = "validation"
    names[scans["role"].eq("test").fillna(False)] = "testing"
    return names


def table_a1(run: Measured) -> pd.DataFrame:
    """Count corrupted and clean research scans in each set.

    Notes
    -----
    Source: paper Table A.I. The validation set is that of fold 0. Whether a scan was corrupted is
    read from the column ``y_true`` of the scans, else from the predictions of the paper's recipe.
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
            present = set(scans["database"])
            for each in STANDS_FOR:
                row[each] = row[each] if each in present else pd.NA
            absent = [each for each in STANDS_FOR if each not in present]
            if absent:
                row["reason"] = f"no {', '.join(absent)} in this run; see the column other"
        rows.append(row)
    wanted = ["set", "label", *STANDS_FOR, "other", "total", "n", "cohort", "reason"]
    return beside_paper(pd.DataFrame(rows).reindex(columns=wanted), "table_a1")


def table_a2(run: Measured) -> pd.DataFrame:
    """Count the warehouse's graded scans in each set.

    Notes
    -----
    Source: paper Table A.II. The validation set is that of fold 0.
    """
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
        else:
            row["reason"] = "no graded warehouse scans in this run"
        rows.append(row)
    wanted = ["set", "label", "mov0vs1", "mov01vs2", "n", "cohort", "reason"]
    return beside_paper(pd.DataFrame(rows).reindex(columns=wanted), "table_a2")


def timing(run: Measured) -> pd.DataFrame:
    """Set simulation and training times beside the paper's.

    Returns
    -------
    DataFrame
        ``quantity key seconds_paper seconds_ours ratio n device reason``: seconds per scan for the
        simulators, seconds of all folds for the trainings; ``ratio`` is paper / ours.

    Notes
    -----
    Source: paper §V (seconds per image), Table III (training). The computers differ.
    """
    wanted = [
        (f"corrupt one scan, image-based, {n} positions", f"simulate/image/{n}", in_text(name))
        for n, name in (
            (4, "seconds per image image-based 4 positions"),
            (16, "seconds per image image-based 16 positions"),
            (128, "seconds per image image-based 128 positions"),
        )
    ]
    name = "corrupt one scan, k-space, 200 time points"
    wanted.append((name, "simulate/kspace/200", in_text("seconds per image k-space")))
    minutes = published("table_3").set_index("model")["training_minutes"]
    for label, model in ARCHITECTURES.items():
        key = f"train/{model}/kspace/2-4/paper"
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
