"""A number of rows comes in; the time and memory to validate and split a manifest go out."""

import argparse
import resource
import time

import numpy as np
import pandas as pd

from motionlib.files import write_json
from motionlib.manifest import complete, validate
from motionlib.splits import assign_splits, partition_clean_corrupted


def warehouse(n_rows: int, seed: int = 0) -> pd.DataFrame:
    """A warehouse of `n_rows` scans, 1.3 a patient, graded by two raters."""
    rng = np.random.default_rng(seed)
    patient = np.sort(rng.integers(0, int(n_rows / 1.3), n_rows))
    scan = pd.Series(np.arange(n_rows)).astype(str)
    raters = rng.choice([0, 1, 2], (n_rows, 2), p=[0.57, 0.3, 0.13])
    table = pd.DataFrame({"participant_id": "sub-" + pd.Series(patient).astype(str).str.zfill(8)})
    table["scan_id"] = table["participant_id"] + "_run-" + scan + "_T1w"
    table["path"] = table["participant_id"] + "/anat/" + table["scan_id"] + ".nii.gz"
    table["sha256"] = scan.str.zfill(64)
    table["rater_1"], table["rater_2"] = raters.T
    table["consensus"] = table["motion_grade"] = raters.max(axis=1)
    return table.assign(cohort="aphp", age=rng.uniform(18, 95, n_rows), sex="F", straight_reject=0)


def main() -> None:
    """Measure and write ``benchmarks/results/manifest.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out", default="benchmarks/results/manifest.json")
    args = parser.parse_args()
    table = complete(warehouse(args.rows))
    seconds = {}
    for name, step in (
        ("validate", lambda t: validate(t)),
        ("assign_splits", lambda t: assign_splits(t, test_fraction=0.1, seed=20)),
        ("validate_again", lambda t: validate(t)),
        ("partition", lambda t: t.assign(half=partition_clean_corrupted(t, seed=20))),
    ):
        start = time.process_time()
        table = step(table)
        seconds[name] = round(time.process_time() - start, 2)
        print(f"{name}: {seconds[name]} CPU-s", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    sides = table.groupby(["role", "fold"], dropna=False).size()
    result = {"rows": args.rows, "cpu_s": seconds, "total_cpu_s": round(sum(seconds.values()), 2)}
    result |= {"peak_gib": round(peak, 2), "fold_sizes": sides.tolist()}
    write_json(args.out, result)
    print(result)


if __name__ == "__main__":
    main()
