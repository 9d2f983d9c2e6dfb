"""Folders of scans come in; CPU-seconds a scan and peak memory of ``motionlib score`` go out.

The command is started as a user starts it, inline, one thread, with its report; the cost holds
start-up, reading, checks, network, and pictures. Memory is told at 50 and at 500 scans (links to
the same files, each read anew). Without sets, the folders of MOTIONLIB_DATA are scored, or 24
virtual heads made on the spot where it is not set. Without ``--model`` the shipped model is timed.
The load average before each call tells whether the machine was free: where it is not well below the
number of cores, throughput is a lower bound.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from motionlib.files import write_table
from motionlib.scoring.model import default_model, read_rule

SETS = ("ixi-2mm:50", "ixi-2mm:500", "ds000011:12", "ds002748-1p5mm:40")  # below MOTIONLIB_DATA


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
    model = Path(args.model) if args.model else default_model()
    rule, rows = read_rule(model), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, word in enumerate(args.sets or default_sets(folder / "heads")):
            label, _, rest = word.partition("=")
            place, _, count = rest.rpartition(":")
            scans = sorted(Path(place).rglob("*_T1w.nii.gz"))
            source = linked(scans, int(count), folder / f"in{number}")
            out = folder / f"out{number}" / "scores.tsv"
            load = os.getloadavg()[0]
            cpu_s, wall_s, peak_mb = cost(source, model, out)
            scored = pd.read_csv(out, sep="\t")
            rows.append(
                {
                    "scans": label,
                    "n": int(count),
                    "n_without_score": int(scored["abstained"].sum()),
                    "model": rule.name,
                    "voxel_mm": rule.spacing_mm,
                    "cpu_s": cpu_s,
                    "cpu_s_per_scan": cpu_s / int(count),
                    "wall_s": wall_s,
                    "scans_per_minute": int(count) / wall_s * 60,
                    "peak_memory_mb": peak_mb,
                    "load_before": load,
                    "cores": os.cpu_count(),
                }
            )
            print(rows[-1], flush=True)
    write_table(pd.DataFrame(rows).round(3), args.out)


if __name__ == "__main__":
    main()
