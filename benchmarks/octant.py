"""A finished run comes in; what the octant of the paper's motion does to a warehouse goes out.

The paper's motion is positive in every direction. Until a correction of this study the positive
directions were those of RAS, where TorchIO's are of LPS: the same motion mirrored front to back and
left to right. Both are trained here on the run's heads and folds, and tested, without fine-tuning,
on the run's warehouse. A recipe whose motion has one octant teaches that octant.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

from motionlib.compute.engines import configure_cpu
from motionlib.experiments.cohort import Cohort, open_cohort
from motionlib.experiments.copies import read_prepared
from motionlib.experiments.pretraining import pretrained
from motionlib.files import read_json, seed_from, write_table
from motionlib.motion import recipes
from motionlib.study.run import Run
from motionlib.training.fitting import fit
from motionlib.training.prediction import predict
from motionlib.training.spec import TrainSpec

SIGNS = {"RAS": np.ones(3), "LPS": recipes.LPS}
FIELDS = ("network", "fold", "epochs", "batch_size", "learning_rate", "seed", "task")


def moved(cohort: Cohort, rows: pd.DataFrame, sign: np.ndarray, folder: Path) -> pd.DataFrame:
    """Make the moved copies of a prepared manifest again, positive in other directions."""
    before, recipes.LPS = recipes.LPS, sign
    affine, paths = cohort.grid.matrix, []
    try:
        for row in rows.itertuples():
            path = Path(row.path)
            if row.y_true == 1:
                scan, path = Path(row.original).stem, folder / f"{row.scan_id}.npy"
                still = torch.from_numpy(np.load(cohort.cache / row.original).astype(np.float32))
                rng = np.random.default_rng(seed_from(cohort.seed, scan, row.variant))
                copy = recipes.make_variant(still, affine, row.variant, rng)
                np.save(path, copy.numpy().astype(np.float16))
            paths.append(str(path.resolve()))
    finally:
        recipes.LPS = before
    return rows.assign(path=paths)


def main() -> None:
    """Measure and write ``benchmarks/results/octant.csv``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("profile", nargs="?", default="demo")
    parser.add_argument("--runs", metavar="DIR")
    parser.add_argument("--work", default="runs/octant")
    parser.add_argument("--out", default="benchmarks/results/octant.csv")
    args = parser.parse_args()
    run = Run("02_simulation_comparison", args.profile, 20, args.runs, quiet=True)
    cohort = open_cohort(run)
    prepared = read_prepared(cohort, run.cache / "synthetic_image_2-4_paper.tsv")
    warehouse = read_prepared(cohort, run.cache / "warehouse_mov01vs2.tsv").query("role == 'test'")
    specs = [read_json(f / "spec.json") for f in pretrained(run, "image", "2-4", "paper")]
    rows = []
    with configure_cpu(1):
        for name, sign in SIGNS.items():
            folder = Path(args.work) / name
            folder.mkdir(parents=True, exist_ok=True)
            table = write_table(moved(cohort, prepared, sign, folder), folder / "prepared.tsv")
            for spec in specs:
                same = {field: spec[field] for field in FIELDS}
                found = predict(fit(TrainSpec(manifest=str(table), **same), folder), warehouse)
                right = (found["score"] >= 0.5) == (found["y_true"] == 1)
                rate = right.groupby(found["y_true"]).mean()
                rows.append(
                    {"positive_in": name, "fold": spec["fold"], "n": len(found)}
                    | {"sensitivity": rate[1], "specificity": rate[0]}
                    | {"balanced_accuracy": rate.mean()}
                    | {"auc": roc_auc_score(found["y_true"], found["score"])}
                )
                print(rows[-1], flush=True)
    write_table(pd.DataFrame(rows).round(4), args.out)


if __name__ == "__main__":
    main()
