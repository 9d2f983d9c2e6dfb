"""How much of each kind of motion the shipped model's input shows.

TorchIO's motion with two moves (its default) leaves the middle of k-space, a third of it on average
(the first change lies between 0.13 and 0.53 of the highest frequency), to the first position, along
the axis that is filled in time: fine detail alone changes, however far the head moves. For some
heads of every site this measures how far the model's input of a copy lies from that of the clean
head: root of the summed squared difference over that of the clean input about its mean.
Beside it stand copies that did not move.
"""

import argparse

import numpy as np
import pandas as pd
import torch
from make_model import FIELD, SITES, make_test_copy, rated_heads

from motionlib.cohorts import read_cohort
from motionlib.experiments.cohort import data_root
from motionlib.files import seed_from, write_table
from motionlib.preprocess.images import read_array
from motionlib.scoring.model import model_input

STILL = ("resampled", "blurred", "noisier")
MOVED = tuple(f"torchio_n{n}_{mm}" for mm in ("2-4", "4-6", "6-8") for n in (2, 4))


def changes(paths: list[str]) -> pd.DataFrame:
    """Relative change of the input, a row a head and copy made at the scan's own voxels."""
    rows = []
    for number, path in enumerate(paths):
        volume, affine = read_array(path)
        still = torch.from_numpy(np.clip(volume, 0, None))
        clean = model_input(still, affine, *FIELD).astype(np.float64)
        size = np.linalg.norm(clean - clean.mean())
        for name in (*STILL, *MOVED):
            made = make_test_copy(still, affine, name, seed_from(number, name))
            copy = model_input(made, affine, *FIELD).astype(np.float64)
            rows.append({"copy": name, "change": np.linalg.norm(copy - clean) / size})
    return pd.DataFrame(rows)


def main() -> None:
    """Measure and write ``benchmarks/results/two_moves.csv``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heads", type=int, default=12, help="of a site, at most")
    parser.add_argument("--out", default="benchmarks/results/two_moves.csv")
    args = parser.parse_args()
    ixi = rated_heads()
    sites = {"ixi": ixi.loc[ixi["still"], "path"]}
    for site, place in SITES.items():
        others = read_cohort("bids", data_root() / place)
        sites[site] = others.manifest["path"].map(lambda path, root=others.root: str(root / path))
    parts = []
    for site, paths in sites.items():
        found = changes(paths.head(args.heads).tolist()).groupby("copy", sort=False)["change"]
        table = found.quantile([0.25, 0.5, 0.75]).unstack().round(3)
        table.columns = ["quarter", "median", "three_quarters"]
        parts.append(table.assign(site=site, heads=found.size()).reset_index())
    table = pd.concat(parts, ignore_index=True)
    print(table.to_string(index=False))
    write_table(table[["site", "copy", "heads", "quarter", "median", "three_quarters"]], args.out)


if __name__ == "__main__":
    main()
