"""A finished demo comes in; its calibration error and coverage on a larger unseen warehouse go out.

The demo's test holds too few severe scans for its calibration error to be told from luck. So more
of the same virtual warehouse is made, with another seed (no patient in common), and judged by the
demo's fine-tuned networks with maps and thresholds from the demo's validation scans, as in notebook
04. Nothing but the coverage's random halves is fitted to the new scans.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from motionlib.cohorts.virtual.cohort import make_cohort
from motionlib.experiments import calibration
from motionlib.experiments.cohort import Cohort, centre_scans, open_cohort
from motionlib.experiments.copies import read_prepared, warehouse_set
from motionlib.experiments.evaluation import Evaluation, evaluate_with_mean
from motionlib.experiments.trainings import trained_folds
from motionlib.files import write_table
from motionlib.study.run import Run

RESULTS = Path(__file__).parent / "results"
EXPERIMENT = "warehouse/fine_tuned"


def unseen(demo: Run, place: Path, task: str, size: int, seed: int, engine: str) -> pd.DataFrame:
    """Rows of every fold's model and of their mean on a warehouse of another seed."""
    own = open_cohort(demo)
    spacing_mm = own.spacing_mm
    made, _ = make_cohort(
        place / "images", n_research=(0, 0, 0), n_real_motion=0, n_warehouse=size, seed=seed,
        spacing_mm=spacing_mm, engine=engine,
    )  # fmt: skip
    made = made[made["role"] == "warehouse"].assign(role="test")
    made = made.assign(path=[str(place / "images" / path) for path in made["path"]])
    names = ("More of the virtual warehouse.", "unseen", seed, place)
    cohort = Cohort(made, spacing_mm, own.slab_mm, *names)
    folder = cohort.volume_path("any").parent
    made, _ = centre_scans(made, folder, spacing_mm, engine)
    cohort = replace(cohort, manifest=made)
    prepared = read_prepared(cohort, warehouse_set(cohort, task))
    folders = trained_folds(demo, EXPERIMENT, task, notebook="04")
    evaluations = [Evaluation(EXPERIMENT, task, folder, prepared) for folder in folders]
    return evaluate_with_mean(evaluations, engine=engine)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path, help="folder of a finished run, such as runs/demo")
    parser.add_argument("--task", default="mov01vs2")
    parser.add_argument("--size", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=21, help="not the demo's own")
    parser.add_argument("--engine", default="inline")
    parser.add_argument("--scores", type=Path, help="keep or reuse the scores in this file")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    demo = Run("04_fine_tuning", args.demo.name, 20, args.demo.parent, quiet=True)
    held = calibration.validation_scores(demo, open_cohort(demo), EXPERIMENT, args.task)
    if args.scores and args.scores.exists():
        rows = pd.read_csv(args.scores)
    else:
        with tempfile.TemporaryDirectory() as place:
            rows = unseen(demo, Path(place), args.task, args.size, args.seed, args.engine)
        if args.scores:
            write_table(rows, args.scores)
    errors = calibration.compare_calibrators(held, rows)
    coverage = calibration.promised_coverage(rows)
    whole = calibration.calibrated(held, rows, "platt").query("fold == -1")
    print(
        f"scans {len(whole)}, severe {int(whole['y_true'].sum())}, mean {np.mean(whole['score'])}"
    )
    for name, table in (("calibration", errors), ("conformal", coverage)):
        write_table(table.round(4), args.out / f"{name}.csv")
        print(table.round(4).to_string(index=False))


if __name__ == "__main__":
    main()
