"""Folders of scans come in; CPU-seconds a scan and peak memory of ``motionlib score`` go out.

The command is started as a user starts it, inline, one thread, with its report; the cost holds
start-up, reading, checks, network, and pictures. Memory is told at 50 and at 500 scans (links to
the same files, each read anew). Without sets, the folders of MOTIONLIB_DATA are scored, or 24
virtual heads made on the spot where it is not set. Without ``--model`` the shipped model is timed,
or fresh weights of Conv5FC3 at 4 mm where there is none: the work is the same.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from motionlib.files import write_json, write_table
from motionlib.grids import study_grid
from motionlib.shipped import default_model

SETS = ("ixi-2mm:50", "ixi-2mm:500", "ds000011:12", "ds002748-1p5mm:40")  # below MOTIONLIB_DATA


def fresh_model(folder: Path) -> Path:
    """Write a model folder whose weights nobody has trained."""
    import torch
    from safetensors.torch import save_file

    from motionlib.networks import build_network

    torch.manual_seed(0)
    shape = study_grid(4.0).shape
    folder.mkdir()
    save_file(build_network("Conv5FC3", shape).state_dict(), folder / "weights.safetensors")
    facts = {"network": "Conv5FC3", "shape": list(shape), "n_classes": 2, "dropout": None}
    facts |= {"options": {}, "threshold": 0.5, "voxel_mm": 4.0, "key": "fresh"}
    write_json(folder / "model.json", facts)
    return folder


def default_sets(folder: Path) -> list[str]:
    """Name the sets of MOTIONLIB_DATA, or make virtual heads where it is not set."""
    data = os.environ.get("MOTIONLIB_DATA")
    if data:
        pairs = [word.split(":") for word in SETS]
        sets = [f"{n}={Path(data, n)}:{k}" for n, k in pairs if Path(data, n).is_dir()]
        if not sets:
            names = ", ".join(dict.fromkeys(name for name, _ in pairs))
            raise SystemExit(f"MOTIONLIB_DATA is {data} and holds none of {names}; name a set.")
        return sets
    from motionlib.cohorts import read_cohort

    read_cohort("virtual", folder, n_research=(0, 24, 0), n_real_motion=0, n_warehouse=0)
    return [f"virtual={folder}:24", f"virtual={folder}:240"]


def linked(scans: list[Path], count: int, folder: Path) -> Path:
    """Fill a folder with links to scans, over and over until there are `count`."""
    folder.mkdir()
    for number in range(count):
        link = folder / f"scan-{number:04d}_T1w.nii.gz"
        link.symlink_to(scans[number % len(scans)].resolve())
    return folder


def cost(source: Path, model: Path, out: Path) -> tuple[float, float, float]:
    """CPU-seconds, wall seconds and peak memory in MB of one call."""
    words = ["-m", "motionlib.cli", "score", str(source), "--model", str(model), "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = time.monotonic()
    quiet = os.open(os.devnull, os.O_WRONLY)
    child = os.posix_spawn(
        sys.executable,
        [sys.executable, *words],
        environment,
        file_actions=[(os.POSIX_SPAWN_DUP2, quiet, 2)],
    )
    _, status, used = os.wait4(child, 0)
    os.close(quiet)
    if os.waitstatus_to_exitcode(status) not in (0, 1):
        raise SystemExit(f"motionlib score failed on {source.name}")
    return used.ru_utime + used.ru_stime, time.monotonic() - started, used.ru_maxrss / 1024


def main() -> None:
    """Measure every set and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "sets", nargs="*", metavar="NAME=DIR:N", help="for instance ixi-2mm=DIR:50; N links"
    )
    parser.add_argument("--model")
    parser.add_argument("--out", default="benchmarks/results/score.csv")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            model = Path(args.model) if args.model else default_model()
        except FileNotFoundError:
            model = fresh_model(folder / "fresh")
        for number, word in enumerate(args.sets or default_sets(folder / "heads")):
            label, _, rest = word.partition("=")
            place, _, count = rest.rpartition(":")
            scans = sorted(Path(place).rglob("*_T1w.nii.gz"))
            source = linked(scans, int(count), folder / f"in{number}")
            out = folder / f"out{number}" / "scores.tsv"
            cpu_s, wall_s, peak_mb = cost(source, model, out)
            scored = pd.read_csv(out, sep="\t")
            rows.append(
                {
                    "scans": label,
                    "n": int(count),
                    "n_without_score": int(scored["abstained"].sum()),
                    "model": model.name,
                    "cpu_s": cpu_s,
                    "cpu_s_per_scan": cpu_s / int(count),
                    "wall_s": wall_s,
                    "peak_memory_mb": peak_mb,
                }
            )
            print(rows[-1], flush=True)
    write_table(pd.DataFrame(rows).round(3), args.out)


if __name__ == "__main__":
    main()
