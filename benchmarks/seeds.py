"""Table IV of the demo, severe motion, with other seeds: cohort, copies, folds and weights anew.

The first seed is the published run; every other is made here, without what its rows do not need
(the other simulators, severities, architectures, mild motion, the forests)::

    python benchmarks/seeds.py --seeds 21 22 --engine local:2
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from motionlib import experiments
from motionlib.files import write_table
from motionlib.predictions import combine_folds, load_predictions, select
from motionlib.stats.intervals import bootstrap_difference, summary_intervals
from motionlib.study import Run

ROOT = Path(__file__).resolve().parents[1]
TASK = "mov01vs2"
METHODS = {
    "research_only": "research only, paper's recipe",
    "research_only_recommended": "research only, recommended recipe",
    "from_scratch": "from scratch",
    "fine_tuned": "fine-tuned fc1+, paper's recipe",
    "fine_tuned_recommended": "fine-tuned, all layers, recommended recipe",
    "pooled_head": "regression on frozen features, recommended recipe",
    "untrained_features": "regression on untrained features",
}
PAIRS = [
    ("fine_tuned_recommended", "research_only_recommended"),
    ("fine_tuned_recommended", "from_scratch"),
    ("fine_tuned", "research_only"),
    ("fine_tuned", "from_scratch"),
    ("pooled_head", "untrained_features"),
    ("pooled_head", "from_scratch"),
]


def main() -> None:
    """Make the runs, judge them, and write ``benchmarks/results/seeds.csv``."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[21, 22])
    parser.add_argument("--runs", default=str(ROOT / "runs"), help="folder of the runs")
    parser.add_argument("--engine", default="inline", help="inline or local:N")
    parser.add_argument("--published", default=str(ROOT / "results" / "demo"))
    parser.add_argument("--out", default=str(ROOT / "benchmarks" / "results" / "seeds.csv"))
    args = parser.parse_args()
    profile = yaml.safe_load((ROOT / "notebooks" / "profiles" / "demo.yml").read_text())
    tables = [judge(load_predictions(args.published), profile["all"]["seed"])]
    for seed in args.seeds:
        tables.append(judge(run_seed(profile, seed, args.runs, args.engine), seed))
        print(tables[-1].to_string(index=False), flush=True)
    table = pd.concat([*tables, over_seeds(pd.concat(tables))], ignore_index=True)
    write_table(table.round(4), args.out)


def run_seed(profile: dict, seed: int, runs: str, engine: str) -> pd.DataFrame:
    """Make what Table IV needs with one seed; rows of ``predictions.csv``."""
    run = Run("04_fine_tuning", f"demo-seed{seed}", seed, runs, quiet=True)
    cohort = dict(profile["01_data_selection"])
    cohort = experiments.prepare_cohort(run, engine=engine, **cohort)
    batch_size = profile["all"]["batch_size"]
    before = profile["02_simulation_comparison"]
    budget = experiments.Budget(
        before["epochs"], before["n_folds"], before["learning_rate"], batch_size
    )
    experiments.pretrain(run, cohort, budget, simulators=("image",), severities=("2-4",))
    longer = replace(budget, epochs=before["passes"])
    simulator, severity, recipe = experiments.RECOMMENDED
    recommended = {"simulators": (simulator,), "severities": (severity,), "recipe": recipe}
    experiments.pretrain(run, cohort, longer, **recommended)
    image = experiments.pretrained(run, "image", "2-4", "paper")
    matched = experiments.pretrained(run, *experiments.RECOMMENDED)
    after = profile["04_fine_tuning"]
    limits = (cohort.n_outer, after["learning_rate"], batch_size)
    tuning = experiments.Budget(after["tuning_epochs"], *limits)
    scratch = experiments.Budget(after["scratch_epochs"], *limits)
    only = {"research_only": image, "research_only_recommended": matched}
    starts = {"fine_tuned": (image, "fc1+"), "fine_tuned_recommended": (matched, "all")}
    parts = [
        experiments.research_only(cohort, only),
        experiments.compare_starts(run, cohort, starts, tuning, scratch, tasks=(TASK,)),
        experiments.pooled_heads(cohort, matched),
    ]
    return run.save_predictions(pd.concat(parts, ignore_index=True))


def judge(predictions: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Balanced accuracy and AUC of every method, and every paired difference, with intervals."""
    rows = []
    parts = {name: select(predictions, f"warehouse/{name}", task=TASK) for name in METHODS}
    for name, words in METHODS.items():
        found = summary_intervals(parts[name])
        scans = parts[name].drop_duplicates("scan_id")
        facts = {"seed": seed, "what": words, "n": len(scans)}
        facts |= {"n_patients": scans["participant_id"].nunique()}
        rows.append(facts | {"n_severe": int(scans["y_true"].sum())} | _cells(found))
    for pair in PAIRS:
        both = [combine_folds(parts[name]) for name in pair]
        found = {m: bootstrap_difference(*both, metric=m) for m in ("balanced_accuracy", "auc")}
        words = " minus ".join(METHODS[name] for name in pair)
        rows.append({"seed": seed, "what": words} | _cells(found))
    return pd.DataFrame(rows)


def _cells(found: dict) -> dict:
    """Cells of the table from intervals by metric."""
    cells = {}
    for metric in ("balanced_accuracy", "auc"):
        each = found[metric]
        cells |= {metric: each.estimate, f"{metric}_low": each.low, f"{metric}_high": each.high}
    return cells


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Average the seeds, whose patients are all different: their errors are independent.

    The limits are of drawing patients; ``_sd`` is the spread of the seeds themselves.
    """
    rows = []
    for what, part in table.groupby("what", sort=False):
        row = {"seed": "mean", "what": what}
        for metric in ("balanced_accuracy", "auc"):
            mean = part[metric].mean()
            below = np.sqrt(((part[metric] - part[f"{metric}_low"]) ** 2).sum()) / len(part)
            above = np.sqrt(((part[f"{metric}_high"] - part[metric]) ** 2).sum()) / len(part)
            row |= {metric: mean, f"{metric}_low": mean - below, f"{metric}_high": mean + above}
            row[f"{metric}_sd"] = part[metric].std()  # over seeds, weights and copies included
        rows.append(row)
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
