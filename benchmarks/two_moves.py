"""Test copies of the model go in; how much of each kind of motion its input shows comes out.

TorchIO's motion with two moves (its default) leaves the middle of k-space, a third of it on average
(the first change lies between 0.13 and 0.53 of the highest frequency), to the first position, along
the axis that is filled in time: fine detail alone changes, however far the head moves. For every
test head this measures how far the model's input of a copy lies from that of the clean head: root
of the summed squared difference over that of the clean input about its mean.
Beside it stand copies that did not move. `make model` makes the copies.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from motionlib.files import code_key, write_table
from motionlib.scoring.build import CODE, SITES

STILL = ("resampled", "blurred", "noisier")
MOVED = tuple(f"torchio_n{n}_{mm}" for mm in ("2-4", "4-6", "6-8") for n in (2, 4))


def changes(manifest: Path) -> pd.DataFrame:
    """Relative change of the input, a row a head and copy made at the scan's own voxels."""
    table = pd.read_csv(manifest, sep="\t", dtype={"participant_id": str})
    rows = []
    for patient, part in table.groupby("participant_id"):
        paths = part.set_index("variant")["path"]
        clean = np.load(paths["clean@native"]).astype(np.float64)
        size = np.linalg.norm(clean - clean.mean())
        for name in (*STILL, *MOVED):
            copy = np.load(paths[f"{name}@native"]).astype(np.float64)
            change = np.linalg.norm(copy - clean) / size
            rows.append({"patient": patient, "copy": name, "change": change})
    return pd.DataFrame(rows)


def main() -> None:
    """Measure and write ``benchmarks/results/two_moves.csv``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", default="runs/model", help="where make model left its copies")
    parser.add_argument("--out", default="benchmarks/results/two_moves.csv")
    args = parser.parse_args()
    parts = []
    for site in SITES:
        manifest = Path(args.work) / code_key(*CODE) / f"test_{site}.tsv"
        if not manifest.is_file():
            raise SystemExit(f"{manifest} is not there; run `make model` first.")
        found = changes(manifest).groupby("copy", sort=False)["change"]
        table = found.quantile([0.25, 0.5, 0.75]).unstack().round(3)
        table.columns = ["quarter", "median", "three_quarters"]
        parts.append(table.assign(site=site, heads=found.size()).reset_index())
    table = pd.concat(parts, ignore_index=True)
    print(table.to_string(index=False))
    write_table(table[["site", "copy", "heads", "quarter", "median", "three_quarters"]], args.out)


if __name__ == "__main__":
    main()
