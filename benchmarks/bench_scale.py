"""Many small scans come in; what is lost or made twice while processes are killed goes out.

``motionlib simulate --engine local:2`` goes over a manifest of small heads, once undisturbed and
once with workers, and the program itself, killed by SIGKILL at random moments and started again.
Every call for a scan is noted in a log, before and after it. Columns of the result:

``worker_kills``, ``program_kills``: processes killed.
``interrupted``: calls that began and never ended, killed under way.
``made``: calls that ended with a scan made; a kill between a scan's last byte and the note of it
leaves one that no note counts, so this can be a little below ``scans``.
``repeated``: scans made to the end more than once.
``asked_again``: calls for a scan that an earlier call of the same program had ended already.
``lost``: scans without an outcome, an image or a record at the end.
``differing``: files whose bytes are not those of the undisturbed run.
``left_aside``: half-written files that stayed behind.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from motionlib.files import sha256_file, write_table
from motionlib.motion import on_disk
from motionlib.motion.on_disk import corrupt_one, moved_id
from motionlib.preprocess.images import phantom, save_volume

LOG = "SCALE_LOG"  # environment variable: where calls are noted
CHILD = "import sys, bench_scale; sys.exit(bench_scale.simulate(*sys.argv[1:]))"


def noted(item: dict) -> dict:
    """Make one scan as the command does, with a line in the log before and after."""
    _note("begun", item["scan_id"])
    result = corrupt_one(item)
    _note(result["status"], item["scan_id"])
    return result


def _note(*words) -> None:
    """Append one line; a line is whole or not there, whoever else writes."""
    line = "\t".join([*map(str, words), str(os.getpid()), os.environ["SCALE_RUN"]]) + "\n"
    log = os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, line.encode())
    os.close(log)


def simulate(manifest: str, out: str) -> int:
    """Run the command as a user does, every call noted."""
    from motionlib.cli import main as command

    on_disk.corrupt_one = noted
    return command(["simulate", manifest, out, "--engine", "local:2"])


def write_scans(folder: Path, n_scans: int) -> Path:
    """Write small heads, 16 to 24 voxels a side, and their manifest."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(20)
    rows = ["scan_id\tparticipant_id\tpath"]
    for n in range(n_scans):
        shape = tuple(int(side) for side in rng.integers(16, 25, 3))
        save_volume(phantom(shape, seed=n), np.diag([8.0, 8, 8, 1]), folder / f"{n:05d}.nii.gz")
        rows.append(f"sub-{n:05d}_T1w\tsub-{n:05d}\t{n:05d}.nii.gz")
    (folder / "manifest.tsv").write_text("\n".join(rows) + "\n")
    return folder / "manifest.tsv"


def start(manifest: Path, out: Path, log: Path, run: int) -> subprocess.Popen:
    """Start the command in a process of its own."""
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    one = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(manifest), str(out)],
        env=os.environ | one | {LOG: str(log), "SCALE_RUN": str(run)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def read_log(log: Path) -> pd.DataFrame:
    """Return the calls noted so far: ``word scan_id pid run``."""
    lines = log.read_text().splitlines() if log.exists() else []
    columns = ["word", "scan_id", "pid", "run"]
    return pd.DataFrame([line.split("\t") for line in lines], columns=columns)


def disturb(manifest: Path, out: Path, log: Path, kills: list[str], every: int) -> Counter:
    """Run the command to its end, killing a worker or the program after about `every` scans."""
    rng = np.random.default_rng(20)
    killed: Counter = Counter()
    run, program = 0, start(manifest, out, log, 0)
    try:
        for victim in kills:
            ended = int(read_log(log)["word"].eq("done").sum())
            _wait_for(program, log, ended + int(rng.integers(every // 2, every + 1)))
            time.sleep(float(rng.uniform(0, 0.05)))
            workers = psutil.Process(program.pid).children(recursive=True)
            if victim == "program":
                program.kill()
                program.wait()
                psutil.wait_procs(workers, timeout=60)  # workers end by themselves
                run += 1
                program = start(manifest, out, log, run)
            else:
                busy = set(read_log(log)["pid"].tail(4).astype(int))
                at_work = [worker.pid for worker in workers if worker.pid in busy]
                os.kill(int(rng.choice(at_work)), signal.SIGKILL)
            killed[victim] += 1
        if program.wait():
            raise RuntimeError(f"The command ended with status {program.returncode}; expected 0.")
    finally:
        program.kill()
        program.wait()
    return killed


def _wait_for(program: subprocess.Popen, log: Path, n_made: int) -> None:
    """Wait until so many scans are made."""
    while int(read_log(log)["word"].eq("done").sum()) < n_made:
        if program.poll() is not None:
            raise RuntimeError("The command ended before it could be killed; give more scans.")
        time.sleep(0.02)


def compare(manifest: Path, calm: Path, out: Path, calls: pd.DataFrame) -> dict:
    """Count what is lost, made twice, different or left behind."""
    scans = pd.read_csv(manifest, sep="\t")["scan_id"]
    outcome = pd.read_csv(out / "outcome.tsv", sep="\t").set_index("scan_id")["status"]
    lost, differing = 0, 0
    for scan in scans:
        copies = [folder / moved_id(scan, folder) for folder in (calm, out)]
        pairs = [[f"{copy}{end}" for copy in copies] for end in (".nii.gz", ".json")]
        there = all(Path(moved).is_file() for _, moved in pairs)
        lost += not there or outcome.get(scan) not in ("done", "kept")
        if there:
            differing += sum(sha256_file(one) != sha256_file(other) for one, other in pairs)
    made = calls.loc[calls["word"] == "done", "scan_id"].value_counts()
    ended = calls[calls["word"] != "begun"]
    return {
        "interrupted": len(calls) - 2 * len(ended),
        "made": int(made.sum()),
        "repeated": int((made > 1).sum()),
        "asked_again": int(ended.duplicated(["scan_id", "run"]).sum()),
        "lost": lost,
        "differing": differing,
        "left_aside": len(list(out.glob(".*"))),
    }


def measure(folder: Path, n_scans: int, kills: list[str], every: int) -> dict:
    """Run undisturbed and disturbed; one row of the result."""
    manifest = write_scans(folder / "in", n_scans)
    before = time.monotonic()
    calm = start(manifest, folder / "calm", folder / "calm.log", 0)
    if calm.wait():
        raise RuntimeError(f"The undisturbed run ended with status {calm.returncode}; expected 0.")
    between = time.monotonic()
    killed = disturb(manifest, folder / "killed", folder / "killed.log", kills, every)
    row = {
        "scans": n_scans,
        "worker_kills": killed["worker"],
        "program_kills": killed["program"],
        **compare(manifest, folder / "calm", folder / "killed", read_log(folder / "killed.log")),
    }
    row["undisturbed_s"] = round(between - before, 1)
    row["disturbed_s"] = round(time.monotonic() - between, 1)
    return row


def main() -> None:
    """Measure and write ``benchmarks/results/scale.csv``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scans", type=int, default=2000)
    parser.add_argument("--out", default="benchmarks/results/scale.csv")
    args = parser.parse_args()
    kills = ["worker", "worker", "worker", "worker", "program"] * 2 + ["worker"] * 2
    with tempfile.TemporaryDirectory() as folder:
        row = measure(Path(folder), args.scans, kills, args.scans // (len(kills) + 2))
    print(row, flush=True)
    write_table(pd.DataFrame([row]), args.out)


if __name__ == "__main__":
    main()
