"""A finished run comes in; how many research patients k-space detection needs goes out.

The networks of Table II (paper's recipe, k-space motion) are trained again on scans that were
moved once, as the paper's: on a part of the training patients, moved and still in equal shares,
and on all of them with more epochs or mirrored scans, with the folds and test heads of the run.
Last come the run's own networks. Each row is one severity: mean and range over the folds, the test
heads that most folds get wrong, and the loss on the validation patients, which choices go by.
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from motionlib.compute.engines import configure_cpu
from motionlib.experiments.cohort import open_cohort
from motionlib.experiments.copies import read_prepared
from motionlib.experiments.pretraining import pretrained
from motionlib.files import read_json, write_table
from motionlib.motion.recipes import SEVERITIES
from motionlib.study.run import Run
from motionlib.training.fitting import fit
from motionlib.training.prediction import predict
from motionlib.training.spec import TrainSpec

SHARES = (0.25, 0.5, 0.75)  # of the training patients; all of them is the run's own networks
EPOCHS = 12  # of the networks on a part of the patients
OTHERS = {
    "once, 12 epochs": {},
    "once, 24 epochs": {"epochs": 24},
    "once, 24 epochs, mirrored": {"epochs": 24, "augment": "flip"},
    "once, 24 epochs, mirrored, cosine, step 2e-4": {
        "epochs": 24, "augment": "flip", "schedule": "cosine", "learning_rate": 2e-4,
    },
}  # fmt: skip
FIELDS = ("network", "fold", "batch_size", "learning_rate", "seed", "task")


def part_of(rows: pd.DataFrame, share: float, fold: int, seed: int) -> pd.DataFrame:
    """Keep a share of a fold's training patients of each class; validation and test stay."""
    learnt = (rows["role"] == "train") & (rows["fold"] != fold)
    rng, kept = np.random.default_rng([seed, fold]), []
    for _, part in rows[learnt].groupby("y_true"):
        people = rng.permutation(np.sort(part["source_participant_id"].unique()))
        kept += list(people[: max(2, round(share * len(people)))])
    return rows[~learnt | rows["source_participant_id"].isin(kept)]


def judged(folder: Path, rows: pd.DataFrame) -> tuple[float, list[str], float]:
    """Balanced accuracy on the test heads, the heads called wrongly, lowest validation loss."""
    found = predict(folder, rows[rows["role"] == "test"])
    right = (found["score"] >= 0.5) == (found["y_true"] == 1)
    wrong = found.loc[~right, "participant_id"].astype(str)
    loss = pd.read_csv(folder / "metrics.csv")["valid_loss"].min()
    return float(right.groupby(found["y_true"]).mean().mean()), sorted(wrong), float(loss)


def summary(severity: str, choice: str, share: float, n: int, folds: list) -> dict:
    """One row: a severity and a choice, over the folds."""
    accuracy = [ba for ba, _, _ in folds]
    often = Counter(name for _, wrong, _ in folds for name in wrong)
    return {
        "severity": severity,
        "choice": choice,
        "share": share,
        "training_scans": n,
        "folds": len(folds),
        "balanced_accuracy": round(float(np.mean(accuracy)), 4),
        "lowest": round(min(accuracy), 4),
        "highest": round(max(accuracy), 4),
        "validation_loss": round(float(np.mean([loss for _, _, loss in folds])), 4),
        "wrong_in_most_folds": " ".join(k for k, c in often.items() if 2 * c > len(folds)),
    }


def main() -> None:
    """Measure and write ``benchmarks/results/kspace_patients.csv``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("profile", nargs="?", default="real")
    parser.add_argument("--runs", metavar="DIR")
    parser.add_argument("--work", default="runs/kspace_patients")
    parser.add_argument("--out", default="benchmarks/results/kspace_patients.csv")
    args = parser.parse_args()
    configure_cpu(threads=1)
    run = Run("02_simulation_comparison", args.profile, 20, args.runs, quiet=True)
    cohort, work, rows = open_cohort(run), Path(args.work), []
    work.mkdir(parents=True, exist_ok=True)
    for severity in SEVERITIES:
        name = f"synthetic_kspace_{severity}_paper"
        prepared = read_prepared(cohort, run.cache / f"{name}.tsv")
        folders = pretrained(run, "kspace", severity, "paper")
        specs = [read_json(folder / "spec.json") for folder in folders]
        known = [{field: spec[field] for field in FIELDS} | {"epochs": EPOCHS} for spec in specs]
        for share in SHARES:
            folds = []
            for one in known:
                few = part_of(prepared, share, one["fold"], one["seed"])
                table = write_table(few, work / f"{name}_{share}_{one['fold']}.tsv")
                folds.append(judged(fit(TrainSpec(manifest=str(table), **one), work), few))
            n = int(((few["role"] == "train") & (few["fold"] != one["fold"])).sum())
            rows.append(summary(severity, "once, 12 epochs", share, n, folds))
        n = int(((prepared["role"] == "train") & (prepared["fold"] != one["fold"])).sum())
        whole = write_table(prepared, work / f"{name}.tsv")
        for choice, options in OTHERS.items():
            fits = [fit(TrainSpec(manifest=str(whole), **(one | options)), work) for one in known]
            rows.append(summary(severity, choice, 1.0, n, [judged(f, prepared) for f in fits]))
        own = [judged(folder, prepared) for folder in folders]
        choice = "anew" if specs[0].get("fresh_mm") else "once"
        choice = f"the run: {choice}, {specs[0]['epochs']} epochs, {specs[0]['augment']}"
        rows.append(summary(severity, choice, 1.0, n, own))
        print(pd.DataFrame(rows).to_string(index=False), flush=True)
        write_table(pd.DataFrame(rows), args.out)


if __name__ == "__main__":
    main()
