"""Ask what a warehouse's number of scans does to memory: thousands of small heads, one call each.

``score`` (shipped model), ``iqms`` and ``preprocess`` go over different heads, 4 mm voxels, each
file with noise of its own, with ``--engine local:2``; ``preprocess`` over a fiftieth of them.
The memory of all processes of a call together is read once a second (a page that two share counts
half in each). Columns:

``scans``, ``failed``, ``wall_s``, ``cpu_s_per_scan`` (all processes), ``scans_per_s``.
``memory_early_mb``, ``memory_late_mb``: medians of the second and of the last tenth of the time;
``memory_peak_mb``: the most in any second.
``growth_kb_per_scan``: slope of memory by time after the first tenth, over the scans a second.
``days_for_a_million``, ``growth_gb_for_a_million``: what these would come to, not measured.

Last, ``score --dry-run`` over a manifest of a million rows that name these heads in turn.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from motionlib.files import repository, write_table
from motionlib.preprocess.images import save_volume

sys.path.insert(0, str(repository() / "tests"))
from scoring_set import head

FEWER = 50  # times fewer scans for `preprocess`, which takes minutes for a hundred
ENOUGH = 1000  # scans, with fewer of which a trend of the memory says nothing
KINDS = 16  # heads made; the others differ from them by noise
A_MILLION = 1_000_000


def write_scans(folder: Path, count: int) -> Path:
    """Write heads that differ, uncompressed, and their manifest."""
    folder.mkdir(parents=True)
    heads = [head(seed, moved=seed % 2 == 1) for seed in range(KINDS)]
    noise = np.random.default_rng(20)
    rows = []
    for number in range(count):
        array, affine = heads[number % KINDS]
        array = np.abs(array + noise.standard_normal(array.shape, np.float32) * 4)
        name = f"sub-{number:05d}_T1w"
        save_volume(array, affine, folder / f"{name}.nii", dtype="int16")
        rows.append((name, name[:9], f"{name}.nii"))
    table = pd.DataFrame(rows, columns=["scan_id", "participant_id", "path"])
    return write_table(table, folder / "manifest.tsv")


def memory_mb(processes: list[psutil.Process]) -> float:
    """Memory that processes hold together, shared pages once."""
    total = 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:  # it has just ended
            continue
    return total / 2**20


def watched(words: list[str], log: Path) -> tuple[int, float, float, list[tuple[float, float]]]:
    """Run a command; its status, seconds, CPU-seconds, and memory by time."""
    memory = []
    began, before = time.monotonic(), os.times()
    with open(log, "w") as stream:
        program = subprocess.Popen(
            [sys.executable, "-m", "motionlib.cli", *words],
            stderr=stream,
            stdout=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        known = psutil.Process(program.pid)
        while program.poll() is None:
            time.sleep(1)
            try:
                everyone = [known, *known.children(recursive=True)]
            except psutil.Error:
                break
            memory.append((time.monotonic() - began, memory_mb(everyone)))
    status = program.wait()
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user
    return status, time.monotonic() - began, cpu - before.children_system, memory


def failed(name: str, outcome: Path) -> int:
    """Count the scans without a result in a command's table."""
    rows = pd.read_csv(outcome, sep="\t")
    lost = {"score": rows.get("abstained"), "iqms": rows.get("slices", pd.Series()) == 0,
            "preprocess": rows.get("status", pd.Series()) == "failed"}  # fmt: skip
    return int(lost[name].sum())


def row_of(name: str, words: list[str], outcome: Path, count: int, log: Path) -> dict:
    """Measure one command over `count` scans."""
    status, wall_s, cpu_s, memory = watched(words, log)
    if status not in (0, 1):
        raise SystemExit(f"{name} ended with status {status}: {log.read_text()[-500:]}")
    seconds, mb = (np.array(column) for column in zip(*memory, strict=True))
    seconds, mb = seconds[mb > 0], mb[mb > 0]  # the last look may come after the end
    tenth = seconds[-1] / 10
    early, late = (seconds > tenth) & (seconds < 2 * tenth), seconds > 9 * tenth
    slope = np.polyfit(seconds[seconds > tenth], mb[seconds > tenth], 1)[0]  # MB a second
    growth = slope * wall_s / count if count >= ENOUGH else float("nan")  # MB a scan
    return {
        "command": name,
        "scans": count,
        "failed": failed(name, outcome),
        "wall_s": round(wall_s, 1),
        "cpu_s_per_scan": round(cpu_s / count, 3),
        "scans_per_s": round(count / wall_s, 2),
        "memory_early_mb": round(float(np.median(mb[early])), 1),
        "memory_late_mb": round(float(np.median(mb[late])), 1),
        "memory_peak_mb": round(float(mb.max()), 1),
        "growth_kb_per_scan": round(float(1024 * growth), 2),
        "days_for_a_million": round(A_MILLION * wall_s / count / 86400, 1),
        "growth_gb_for_a_million": round(float(growth * A_MILLION / 1024), 2),
    }


def dry_run(folder: Path, rows: int) -> dict:
    """Plan the scores of a manifest of many rows that name the same heads in turn."""
    names = sorted(path.name for path in (folder / "in").glob("*.nii"))
    scan = pd.Series(np.arange(rows)).astype(str).str.zfill(7)
    paths = np.resize(np.array(names, dtype=object), rows)
    table = pd.DataFrame({"scan_id": "sub-" + scan + "_T1w", "path": paths})
    manifest = write_table(table.assign(participant_id="sub-" + scan), folder / "in" / "many.tsv")
    words = ["score", str(manifest), "--out", str(folder / "many" / "s.tsv"), "--dry-run"]
    status, wall_s, cpu_s, memory = watched(words, folder / "many.log")
    told = (folder / "many.log").read_text().splitlines()[-1]
    if status or f"{rows} to read" not in told:
        raise SystemExit(f"the dry run ended with status {status}: {told}")
    peak = max(mb for _, mb in memory)
    return {"command": "score --dry-run", "scans": rows, "failed": 0, "wall_s": round(wall_s, 1),
            "cpu_s_per_scan": round(cpu_s / rows, 6), "scans_per_s": round(rows / wall_s),
            "memory_peak_mb": round(peak, 1)}  # fmt: skip


def main() -> None:
    """Measure and write ``benchmarks/results/many_scans.csv``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scans", type=int, default=10_000)
    parser.add_argument("--out", default="benchmarks/results/many_scans.csv")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        manifest = write_scans(folder / "in", args.scans)
        few = write_table(
            pd.read_csv(manifest, sep="\t").head(args.scans // FEWER), folder / "in" / "few.tsv"
        )
        for name, source, count, words, outcome in (
            ("score", manifest, args.scans, ["--out", "{}/s.tsv", "--no-report"], "s.tsv"),
            ("iqms", manifest, args.scans, ["--out", "{}/q.tsv", "--cache", "{}/c.json"], "q.tsv"),
            ("preprocess", few, args.scans // FEWER, ["--out", "{}/caps"], "caps/outcome.tsv"),
        ):
            call = [name, str(source), *(word.format(place) for word in words)]
            row = row_of(
                name, [*call, "--engine", "local:2"], folder / outcome, count, folder / "log"
            )
            print(row, flush=True)
            rows.append(row)
            write_table(pd.DataFrame(rows), args.out)
        rows.append(dry_run(folder, A_MILLION))
        print(rows[-1], flush=True)
        write_table(pd.DataFrame(rows), args.out)


if __name__ == "__main__":
    main()
