"""Ask which digits can be trusted: the same seed again, with two threads, and on another engine.

A small virtual cohort is made, measured (``iqms``), scored by the shipped model (``score``), and a
small network is fine-tuned on graded heads (``finetune``), in a fresh process for each way in
`WAYS`. Files are compared with those of the first way, byte by byte; where bytes differ, the
largest difference of any number in them is given as a share of the largest number of its column
or volume. Columns: ``what files``, one a way with the number of files whose bytes differ, and
``largest_difference``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from motionlib.files import repository, write_table

WAYS = {  # name: threads of the numerical libraries, engine
    "first": (1, "inline"),
    "again": (1, "inline"),
    "two threads": (2, "inline"),
    "two processes": (1, "local:2"),
}
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
WHAT = {  # patterns of files below a way's folder
    "heads": "cohort/**/*.nii.gz",
    "cohort tables": "cohort/**/*.tsv",
    "what was done to heads": "cohort/**/*.json",
    "image quality": "q.tsv",
    "scores": "s.tsv",
    "fine-tuned weights": "mine/weights.safetensors",
    "fine-tuned predictions": "mine/predictions.csv",
    "fine-tuned model": "mine/model.json",
}


def make(place: Path, engine: str, inputs: Path) -> None:
    """Make everything in one folder (in a process of its own)."""
    from motionlib.cli import main as motionlib
    from motionlib.cohorts import read_cohort

    sizes = {"n_research": (1, 1, 0), "n_real_motion": 0, "n_warehouse": 4, "spacing_mm": 4.0}
    read_cohort("virtual", place / "cohort", engine=engine, **sizes)
    scans = str(place / "cohort" / "manifest.tsv")
    motionlib(["iqms", scans, "--out", str(place / "q.tsv"), "--engine", engine])
    words = ["score", scans, "--out", str(place / "s.tsv"), "--no-report", "--engine", engine]
    motionlib(words)
    words = ["finetune", str(inputs / "grades.tsv"), "--from", str(inputs / "model")]
    words += ["--task", "mov01vs2", "--out", str(place / "mine"), "--engine", engine]
    motionlib([*words, "--epochs", "3", "--folds", "2"])


def write_inputs(folder: Path) -> None:
    """Write graded heads and a model to start from."""
    sys.path.insert(0, str(repository() / "tests"))
    from scoring_set import write_heads, write_model

    paths = write_heads(folder / "heads", 16, graded=True)
    rows = [
        (p.name[:-7], f"sub-{n // 2}", f"heads/{p.name}", n % 2 * 2) for n, p in enumerate(paths)
    ]
    columns = ["scan_id", "participant_id", "path", "motion_grade"]
    write_table(pd.DataFrame(rows, columns=columns), folder / "grades.tsv")
    write_model(folder / "model")


def numbers_of(path: Path) -> dict[str, np.ndarray]:
    """All numbers in a file, by column, tensor or volume."""
    if path.name.endswith(".nii.gz"):
        return {"voxels": np.asarray(nib.load(path).dataobj, dtype=float)}
    if path.suffix == ".safetensors":
        return {name: tensor.astype(float) for name, tensor in load_file(path).items()}
    if path.suffix == ".json":
        flat = pd.json_normalize(json.loads(path.read_text()))
        found = {name: np.ravel(np.array(flat[name][0], dtype=object)) for name in flat}
        return {n: v.astype(float) for n, v in found.items() if _is_numeric(v)}
    table = pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",")
    return {name: table[name].to_numpy(float) for name in table.select_dtypes("number")}


def _is_numeric(values: np.ndarray) -> bool:
    """Whether all are numbers, and none a truth value."""
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def difference(one: Path, other: Path) -> float:
    """Largest difference of two files' numbers, as a share; infinite if they hold other ones."""
    first, second = numbers_of(one), numbers_of(other)
    if first.keys() != second.keys():
        return np.inf
    shares = [0.0]
    for name, values in first.items():
        if values.shape != second[name].shape or (np.isnan(values) != np.isnan(second[name])).any():
            return np.inf
        most = np.nanmax(np.abs(values), initial=0.0)
        apart = np.nanmax(np.abs(values - second[name]), initial=0.0)
        shares.append(apart / most if most else apart)
    return max(shares)


def compared(first: Path, other: Path, way: str) -> list[dict]:
    """Compare two ways: a row each kind of file."""
    rows = []
    for what, pattern in WHAT.items():
        names = sorted({p.relative_to(top) for top in (first, other) for p in top.glob(pattern)})
        differing = [n for n in names if (first / n).read_bytes() != (other / n).read_bytes()]
        largest = max((difference(first / n, other / n) for n in differing), default=0.0)
        row = {"way": way, "what": what, "files": len(names)}
        row |= {"other_bytes": len(differing), "largest_difference": largest}
        rows.append(row)
    return rows


def main() -> int:
    """Go every way and write ``benchmarks/results/determinism.csv``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, help="folder to keep (default: a temporary one)")
    parser.add_argument("--make", nargs=3, metavar=("DIR", "ENGINE", "INPUTS"), help="one way only")
    parser.add_argument("--out", default="benchmarks/results/determinism.csv")
    args = parser.parse_args()
    if args.make:
        make(Path(args.make[0]), args.make[1], Path(args.make[2]))
        return 0
    rows = []
    with tempfile.TemporaryDirectory() as name:
        work = (args.work or Path(name)).resolve()
        write_inputs(work / "in")
        for way, (threads, engine) in WAYS.items():
            # by one name, which becomes part of ids
            place = work / way.replace(" ", "-") / "out"
            place.mkdir(parents=True)
            environment = os.environ | dict.fromkeys(THREADS, str(threads))
            environment.pop("MOTIONLIB_DATA", None)
            words = [__file__, "--make", str(place), engine, str(work / "in")]
            subprocess.run([sys.executable, *words], env=environment, check=True)
            if way != "first":
                rows += compared(work / "first" / "out", place, way)
    table = pd.DataFrame(rows).groupby("what", sort=False)
    ways = pd.DataFrame(rows).pivot_table(index="what", columns="way", values="other_bytes")
    ways = ways.rename(columns=lambda name: name.replace(" ", "_")).astype(int)
    table = pd.concat([table["files"].max(), ways, table["largest_difference"].max()], axis=1)
    write_table(table.reset_index(), args.out)
    print(table.to_string(index=False))
    return 1 if ways.to_numpy().any() else 0


if __name__ == "__main__":
    sys.exit(main())
