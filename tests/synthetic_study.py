"""A seed goes in; the files a finished study leaves behind come out, without images or networks."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd

METHODS = {
    "fine_tuned": ("Conv5FC3", 2.2),
    "research_only": ("Conv5FC3", 0.6),
    "from_scratch": ("Conv5FC3", 1.4),
    "forest_research": ("RandomForest", 0.4),
    "forest_clinical": ("RandomForest", 1.0),
    "fine_tuned_kspace": ("Conv5FC3", 2.0),
}
COLUMNS = [
    "experiment",
    "task",
    "model",
    "fold",
    "scan_id",
    "participant_id",
    "y_true",
    "score",
    "y_pred",
]


def scans_of(rng) -> pd.DataFrame:
    """Three research cohorts and a warehouse; two scans for some patients, grades by two raters."""
    rows = []
    sizes = {"virtual-adni": 40, "virtual-msseg": 12, "virtual-bite": 12, "virtual-warehouse": 160}
    for cohort, n_patients in sizes.items():
        for patient in range(n_patients):
            role = "test" if patient % 3 == 0 else "train"
            age, sex = round(rng.normal(60, 12), 1), "FM"[rng.integers(2)]
            for visit in range(1 + patient % 2):
                row = {"scan_id": f"{cohort}-{patient:03d}-{visit}", "cohort": cohort}
                row |= {"participant_id": f"{cohort}-{patient:03d}", "role": role}
                row |= {"age": age, "sex": sex, "manufacturer": "Siemens"}
                row["fold"] = patient % 2 if role == "train" else pd.NA
                rows.append(row)
    scans = pd.DataFrame(rows)
    scans["source_participant_id"] = scans["participant_id"]
    warehouse = scans["cohort"] == "virtual-warehouse"
    true = rng.choice(3, size=len(scans), p=[0.5, 0.3, 0.2])
    for rater in ("rater_1", "rater_2"):
        missed = rng.random(len(scans)) < 0.25
        scans[rater] = pd.array(np.maximum(true - missed, 0), "Int64")
    scans["straight_reject"] = pd.array((np.arange(len(scans)) % 11 == 5).astype(int), "Int64")
    lost = ~warehouse | (scans["straight_reject"] == 1)
    scans.loc[~warehouse, "straight_reject"] = pd.NA
    scans.loc[lost, ["rater_1", "rater_2"]] = pd.NA
    scans["consensus"] = scans[["rater_1", "rater_2"]].max(axis=1)
    scans["motion_grade"] = scans["consensus"]
    scans.loc[warehouse & lost, "role"] = "excluded"
    scans["y_true"] = pd.array((np.arange(len(scans)) % 2).astype(int), "Int64")
    scans.loc[warehouse, "y_true"] = pd.NA
    return scans


def predict(rng, scans, labels, experiment, task, model, fold, apart) -> pd.DataFrame:
    """Scores that separate the classes by `apart` standard deviations."""
    labels = np.asarray(labels, dtype=int)
    score = 1 / (1 + np.exp(-(rng.normal(size=len(labels)) + apart * (labels - 0.5))))
    rows = scans[["scan_id", "participant_id"]].assign(y_true=labels, score=score.round(4))
    rows = rows.assign(y_pred=(rows["score"] >= 0.5).astype(int), experiment=experiment)
    return rows.assign(task=task, model=model, fold=fold)[COLUMNS]


def predictions_of(scans: pd.DataFrame, rng) -> pd.DataFrame:
    """Every experiment of the study, two folds."""
    research = scans[scans["cohort"] != "virtual-warehouse"]
    test, train = (research[research["role"] == role] for role in ("test", "train"))
    parts = []
    ranges = [
        f"{simulator}/{s}" for simulator in ("image", "kspace") for s in ("2-4", "4-6", "6-8")
    ]
    cells = [(f"pretrain/{each}/paper", "Conv5FC3") for each in ranges]
    cells += [
        (f"benchmark/{simulator}/2-4/paper", model)
        for simulator in ("image", "kspace")
        for model in ("Conv5FC3", "ResNet3D", "SECNN", "ViT3D")
    ]
    for (name, model), fold in product(cells, (0, 1)):
        held = train[train["fold"] == fold]
        real = test.head(20).assign(y_true=[1] * 12 + [0] * 8)
        once = test.assign(y_true=0)
        for suffix, task, rows in (
            ("", "synthetic", test),
            ("/cv", "synthetic", held),
            ("/resampled", "synthetic", once),
            ("/real", "real_motion", real),
            ("/emulated", "emulated_motion", real),
        ):
            found = predict(rng, rows, rows["y_true"], name + suffix, task, model, fold, 5)
            parts.append(found)
    warehouse = scans[(scans["cohort"] == "virtual-warehouse") & (scans["role"] == "test")]
    for task in ("mov01vs2", "mov0vs1"):
        rows = warehouse if task == "mov01vs2" else warehouse[warehouse["motion_grade"] < 2]
        level = 2 if task == "mov01vs2" else 1
        labels = (rows["motion_grade"] == level).astype(int)
        for (method, (model, apart)), fold in product(METHODS.items(), (0, 1)):
            apart = apart / (1 if task == "mov01vs2" else 3)
            name = f"warehouse/{method}"
            parts.append(predict(rng, rows, labels, name, task, model, fold, apart))
        for rater in ("rater_1", "rater_2"):
            found = predict(rng, rows, labels, "warehouse/annotators", task, rater, -1, 1)
            called = (rows[rater] >= level).astype(int).to_numpy()
            parts.append(found.assign(score=called.astype(float), y_pred=called))
    for blocks, fold in product(("fc3", "fc1+", "all"), (0, 1)):
        labels = (warehouse["motion_grade"] == 2).astype(int)
        name = f"freeze/{blocks}"
        parts.append(predict(rng, warehouse, labels, name, "mov01vs2", "Conv5FC3", fold, 1.5))
    return pd.concat(parts, ignore_index=True)


def write_study(folder, seed: int = 0):
    """Write ``predictions.csv``, ``splits.csv`` and ``durations.csv``; return the folder."""
    rng = np.random.default_rng(seed)
    scans = scans_of(rng)
    scans.to_csv(folder / "splits.csv", index=False)
    predictions_of(scans, rng).to_csv(folder / "predictions.csv", index=False)
    rows = [(f"simulate/image/{n}", 2.0 * n, 4) for n in (4, 16, 128)]
    rows += [("simulate/kspace/200", 8.0, 4)]
    rows += [
        (f"train/{model}/benchmark/kspace/2-4/paper/fold{fold}", 60.0, 40)
        for model in ("Conv5FC3", "ResNet3D", "SECNN", "ViT3D")
        for fold in (0, 1)
    ]
    rows += [(f"train/Conv5FC3/pretrain/image/2-4/paper/fold{k}", 60.0, 30 + k) for k in (0, 1)]
    durations = pd.DataFrame(rows, columns=["step", "seconds", "n"]).assign(device="cpu")
    durations.to_csv(folder / "durations.csv", index=False)
    return folder
