"""Finished studies come in; what more graded scans of the same virtual hospital change goes out.

One row for every detector of severe motion on the warehouse, with the number of graded patients
that it has learnt from: none (research only), some (the learning curve) or all. Each is judged as
in Table IV, and beside the research-only network on the same scans, both by the mean score of
their folds. Make the larger study of the results kept here (forty minutes on two cores) by::

    make study ARGS="--only 01,02,04 --runs larger --set 01.size=2560 --set 02.epochs=3 \
        --set 02.recommended=2-4:1 --set 04.patients=120,480"
    python benchmarks/warehouse_size.py runs/demo larger/demo
"""

import argparse
import re
from pathlib import Path

import pandas as pd

from motionlib.files import write_table
from motionlib.manifest import is_warehouse
from motionlib.metrics import METRICS
from motionlib.predictions import combine_folds, load_predictions, select
from motionlib.stats.intervals import bootstrap_difference, summary_intervals

TASK = "mov01vs2"
WAYS = {"warehouse/research_only": 0, "warehouse/fine_tuned": None, "warehouse/from_scratch": None}


def judged(folder: Path, n_boot: int, seed: int) -> list[dict]:
    """One row a detector of a finished study."""
    scans = pd.read_csv(folder / "splits.csv")
    hospital = scans[is_warehouse(scans["cohort"])]
    learnt = hospital[(hospital["role"] == "train") & hospital["motion_grade"].notna()]
    everybody = learnt["source_participant_id"].nunique()
    predictions = load_predictions(folder)
    curve = select(predictions, "labels/*", task=TASK)["experiment"].unique()
    ways = WAYS | {name: int(re.findall(r"\d+", name)[-1]) for name in curve}
    folds = {name: select(predictions, name, task=TASK).query("fold >= 0") for name in ways}
    mean = {name: combine_folds(part) for name, part in folds.items()}
    rows = []
    for name, patients in ways.items():
        row = {"warehouse_scans": len(hospital), "way": re.sub(r"^\w+/|/\d+$", "", name)}
        row["graded_patients"] = everybody if patients is None else patients
        found = summary_intervals(folds[name], n_boot=n_boot, seed=seed)
        for metric in METRICS:
            row[metric] = found[metric].estimate
            row |= {f"{metric}_low": found[metric].low, f"{metric}_high": found[metric].high}
        row |= {"n": len(mean[name]), "n_positive": mean[name]["y_true"].sum()}
        row["n_folds"] = folds[name]["fold"].nunique()
        if patients != 0:
            for metric in ("balanced_accuracy", "auc"):
                both = (mean[name], mean["warehouse/research_only"])
                more = bootstrap_difference(*both, metric=metric, n_boot=n_boot, seed=seed)
                row[f"{metric}_above_research_only"] = more.estimate
                row |= {f"{metric}_above_low": more.low, f"{metric}_above_high": more.high}
        rows.append(row)
    return rows


def main() -> None:
    """Judge the studies and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished studies")
    parser.add_argument("--n-boot", type=int, default=2000, help="draws of patients (2000)")
    parser.add_argument("--seed", type=int, default=20, help="of the draws (20)")
    parser.add_argument("--out", default="benchmarks/results/warehouse_size.csv")
    args = parser.parse_args()
    rows = [row for folder in args.runs for row in judged(folder, args.n_boot, args.seed)]
    table = pd.DataFrame(rows).sort_values(["warehouse_scans", "graded_patients", "way"])
    write_table(table.round(4), args.out)
    print(table.iloc[:, :7].round(3).to_string(index=False))


if __name__ == "__main__":
    main()
