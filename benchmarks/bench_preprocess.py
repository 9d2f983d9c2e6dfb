"""Real heads come in; what t1-linear makes of them, its cost and its precision go out.

Every scan is preprocessed as ``motionlib preprocess`` does it, in a process of its own so that its
peak memory is known, one after the other, one thread. Some are moved by a known affine first and
registered again: ``displacement_mm`` is the mean distance, over the MNI brain, between where the
two registrations send its points, in MNI space; 0 would be perfect. The scans are the six of
ds000011 and the first ten of ixi-2mm below MOTIONLIB_DATA, or three heads of the virtual cohort
where that is not set.
"""

import argparse
import os
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd

from motionlib.files import read_json, write_table
from motionlib.preprocess.caps import caps_names

SETS = (("ds000011", 6), ("ixi-2mm", 10))
MOVED = ("sub-01_T1w", "sub-IXI013_T1w")  # registered twice
TURN_DEG, SIZE = (6, -5, 8), (1.04, 0.96, 1.0)  # of the known affine, about the scan's centre


def choose(folder: Path) -> list[tuple[str, Path]]:
    """Sets and paths of the scans, virtual heads where MOTIONLIB_DATA is not set."""
    data = os.environ.get("MOTIONLIB_DATA")
    if not data:
        from motionlib.cohorts import read_cohort

        read_cohort("virtual", folder, n_research=(0, 3, 0), n_real_motion=0, n_warehouse=0)
        return [("virtual", path) for path in sorted(folder.rglob("*_T1w.nii.gz"))]
    found = []
    for name, count in SETS:
        paths = sorted((Path(data) / name).glob("*/anat/*_T1w.nii.gz"))
        found += [(name, path) for path in paths[:count]]
    if not found:
        raise SystemExit(f"MOTIONLIB_DATA is {data} and holds none of ds000011, ixi-2mm.")
    return found


def preprocess(path: Path, scan: str, out: Path) -> dict:
    """Preprocess one scan to a CAPS folder; its outcome, cost and matrix."""
    from motionlib.preprocess.caps import preprocess_one

    names = caps_names(scan.removesuffix("_T1w"), "ses-M000")
    item = {
        "scan_id": scan,
        "source": str(path),
        "out": str(out),
        "names": {"cropped": names.cropped, "affine": names.affine},
        "backend": "simpleitk",
        "template": None,
        "template_identity": None,
        "orientation": None,
    }
    start = time.process_time()
    row = preprocess_one(item)
    row["cpu_s"] = round(time.process_time() - start, 1)
    row["peak_memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    record = out / "qc" / f"{scan}.json"
    row["matrix"] = read_json(record)["matrix"] if record.is_file() else None
    return row


def move(path: Path, out: Path) -> np.ndarray:
    """Write the scan moved by the known affine; return that affine (old mm to new mm)."""
    from scipy.spatial.transform import Rotation

    from motionlib.preprocess.grid import Grid, resample_to_grid
    from motionlib.preprocess.images import read_array, save_volume

    array, affine = read_array(path)
    known = np.eye(4)
    rotation = Rotation.from_euler("xyz", TURN_DEG, degrees=True).as_matrix()
    known[:3, :3] = rotation @ np.diag(SIZE)
    centre = affine[:3, :3] @ (np.array(array.shape) / 2) + affine[:3, 3]
    known[:3, 3] = centre - known[:3, :3] @ centre
    wide = affine.copy()
    wide[:3, 3] -= affine[:3, :3] @ np.full(3, 10)
    grid = Grid(tuple(n + 20 for n in array.shape), tuple(map(tuple, wide.tolist())))
    save_volume(resample_to_grid(array, known @ affine, grid, antialias=False), wide, out)
    return known


def displacement_mm(first: np.ndarray, second: np.ndarray, known: np.ndarray) -> float:
    """Mean distance in MNI mm between two registrations, over the MNI brain."""
    from motionlib.preprocess.registration import load_target

    target = load_target("whole-head")
    points = np.argwhere(target.brain)[::997] @ target.affine[:3, :3].T + target.affine[:3, 3]
    apart = (np.linalg.inv(first) @ np.linalg.inv(known) @ second - np.eye(4))[:3]
    return float(np.linalg.norm(points @ apart[:, :3].T + apart[:, 3], axis=1).mean())


def measure(path: Path, scan: str, again: bool) -> dict:
    """Preprocess one scan, once more after it has moved if asked."""
    with tempfile.TemporaryDirectory() as name:
        row = preprocess(path, scan, Path(name) / "caps")
        first = row.pop("matrix")
        row["displacement_mm"] = None
        if again and first is not None:
            known = move(path, Path(name) / "moved.nii.gz")
            second = preprocess(Path(name) / "moved.nii.gz", scan, Path(name) / "again")
            if second["status"] == "done":
                both = np.array(first), np.array(second["matrix"])
                row["displacement_mm"] = round(displacement_mm(*both, known), 3)
            else:
                row["reason"] = f"moved: {second['reason']}"
    return row


def main() -> None:
    """Measure and write ``benchmarks/results/preprocess.csv``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="benchmarks/results/preprocess.csv")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    columns = ["scan", "cohort", "status", "cpu_s", "peak_memory_mb", "overlap", "information"]
    columns += ["displacement_mm", "reason"]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for cohort, path in choose(Path(folder)):
            scan = path.name.removesuffix(".nii.gz")
            again = scan in MOVED or cohort == "virtual"
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                row = pool.submit(measure, path, scan, again).result()
            rows.append(row | {"scan": scan, "cohort": cohort})
            print({name: rows[-1].get(name) for name in columns}, flush=True)
            write_table(pd.DataFrame(rows).reindex(columns=columns), args.out)


if __name__ == "__main__":
    main()
