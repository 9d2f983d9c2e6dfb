"""Kill a whole smoke study three times, let the same command finish, and compare with a quiet run.

The killed run is started, and all of its processes get ``kill -9`` at three random moments:
early, in the middle, and when the quiet run has three quarters behind it; then the same command
runs to its end. The files of `EACH` and `TOGETHER` (results, cohort, caches, models; not executed
notebooks, stamps and provenance, which hold times) are compared byte for byte; where bytes
differ, once more without durations. No training may have been done twice: what was finished at a
kill is the same file afterwards, and epochs done before a kill keep their rows, with the seconds
they took. The exit status is 1 where anything else differs.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from motionlib.files import read_json, repository, write_table

PARTS = ((0.05, 0.35), (0.35, 0.7), (0.75, 0.95))  # of the duration: a kill in each
SAME, DURATIONS, OTHER = "same", "differs only in durations", "differs"
DRAWS, ORDER = "draws durations", "differs only in the order of columns"
VERDICTS = (SAME, DURATIONS, DRAWS, ORDER, OTHER)  # the worst last
BAD = (ORDER, OTHER)
EACH = (  # patterns below the run's folder: a row each file
    *("splits.csv", "predictions.csv", "predictions/*.csv", "tables/*.csv"),
    *("durations.csv", "durations/*.csv", "notes/*.json"),
    *("figures/*.svg", "figures/*.png", "figures/*.txt"),
)
TOGETHER = (  # a row each pattern
    *("cohort/**/*", "cache/**/*", "models/*/spec.json", "models/*/model.json"),
    *("models/*/weights.safetensors", "models/*/metrics.csv", "models/trainings.csv"),
)
COLUMNS = {  # that hold durations, or are computed from them
    "timing.csv": ("seconds_ours", "ratio"),
    "table_3.csv": ("training_minutes_ours", "training_minutes_difference"),
    "metrics.csv": ("seconds",),
}
DRAWN = ("fig_cost",)  # figures with durations on an axis: where they differ, nothing is learnt
SCOREBOARD = ("ours", "low", "high", "difference", "same_order")
TIMED = ("training_minutes", "seconds per scan")  # metrics of the scoreboard


def without_durations(path: Path) -> pd.DataFrame:
    """Read a table as text and blank every cell that holds a duration."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if path.parent.name == "durations" or path.name == "durations.csv":
        table["seconds"] = ""
    for name in COLUMNS.get(path.name, ()):
        table[name] = ""
    if path.name == "scoreboard.csv":
        table.loc[table["metric"].isin(TIMED), list(SCOREBOARD)] = ""
    return table


def compare(quiet: Path, killed: Path) -> str:
    """Compare two files: the same bytes, the same but for durations or order, or neither."""
    if not (quiet.is_file() and killed.is_file()):
        return OTHER
    if quiet.read_bytes() == killed.read_bytes():
        return SAME
    if quiet.suffix == ".csv" and without_durations(quiet).equals(without_durations(killed)):
        return DURATIONS
    if quiet.stem in DRAWN:
        return DRAWS
    if quiet.suffix == ".tsv":
        first, second = (pd.read_csv(p, sep="\t", dtype=str) for p in (quiet, killed))
        if sorted(first) == sorted(second) and first.equals(second[list(first)]):
            return ORDER
    return OTHER


def compared(quiet: Path, killed: Path) -> list[dict]:
    """Compare two run folders: one row a file, or a pattern where there are hundreds."""
    rows = []
    for pattern in EACH:
        for name in names(pattern, quiet, killed):
            rows.append(row("file", name, compare(quiet / name, killed / name), ""))
    for pattern in TOGETHER:
        found = names(pattern, quiet, killed)
        verdicts = [compare(quiet / name, killed / name) for name in found]
        worst = max(verdicts, key=VERDICTS.index, default=OTHER)  # no file at all is a fault
        count = f"{len(found)} files"
        bad = [name for name, verdict in zip(found, verdicts, strict=True) if verdict in BAD]
        said = f"{count}; {len(bad)} of them: {bad[0]}" if bad else count
        rows.append(row("files", pattern, worst, said))
    return rows


def names(pattern: str, *folders: Path) -> list[str]:
    """Files that match in any of the folders."""
    found = {p.relative_to(f).as_posix() for f in folders for p in f.glob(pattern) if p.is_file()}
    return sorted(found)


def row(kind: str, name: str, verdict: str, detail: str) -> dict:
    """One row of the result."""
    return {"kind": kind, "name": name, "verdict": verdict, "detail": detail}


def state_of(folder: Path) -> dict[str, dict]:
    """Take down what every training has at a kill: its finished files, or its finished epochs."""
    found = {}
    for one in sorted((folder / "models").glob("*-*")):
        if (one / "DONE").is_file():
            files = {f: (one / f).stat().st_mtime_ns for f in ("DONE", "weights.safetensors")}
            found[one.name] = {"files": files, "history": None}
        elif (one / "last" / "state.json").is_file():
            history = read_json(one / "last" / "state.json")["history"]
            found[one.name] = {"files": None, "history": history}
    return found


def repeated(before: dict[str, dict], folder: Path) -> list[str]:
    """Name the trainings of which something was done again after a kill."""
    again = []
    for name, had in before.items():
        one = folder / "models" / name
        if had["files"] is not None:
            now = {f: (one / f).stat().st_mtime_ns for f in had["files"] if (one / f).is_file()}
            same = now == had["files"]
        else:
            now = pd.read_csv(one / "metrics.csv").head(len(had["history"]))
            then = pd.DataFrame(had["history"])[now.columns]
            same = np.allclose(then.to_numpy(float), now.to_numpy(float), rtol=1e-12)
        if not same:
            again.append(name)
    return again


def start(runs: Path, log: Path) -> subprocess.Popen:
    """Start the study as a user does."""
    words = ["-m", "motionlib.cli", "study", "--profile", "smoke", "--runs", str(runs)]
    with open(log, "ab") as stream:
        return subprocess.Popen(
            [sys.executable, *words],
            stdout=stream,
            stderr=subprocess.STDOUT,
            cwd=repository(),
            start_new_session=True,
        )


def kill(process: subprocess.Popen) -> int:
    """``kill -9`` the runner, its kernel and its workers; how many those were."""
    runner = psutil.Process(process.pid)
    every = [runner, *runner.children(recursive=True)]  # a kernel has a session of its own
    for one in every:
        try:
            os.kill(one.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()
    return len(every)


def moments(seed: int) -> np.ndarray:
    """Draw moments early, in the middle and late, as shares of the quiet run's duration."""
    return np.random.default_rng(seed).uniform(*np.transpose(PARTS))


def where(log: Path) -> str:
    """Tell which notebook ran last, by the log."""
    lines = [line for line in log.read_text().splitlines() if ": cell " in line or " runs" in line]
    lines = [line for line in lines if "runs: " not in line]
    return lines[-1].strip().partition(",")[0].removesuffix(" runs") if lines else "the start"


def killed_runs(runs: Path, duration_s: float, seed: int) -> tuple[list[dict], list[dict]]:
    """Kill three times and then let it finish; rows, and what every training had at each kill."""
    folder, log = runs / "smoke", runs / "log.txt"
    rows, states, shares = [], [], moments(seed)
    for number, (share, wait) in enumerate(zip(shares, np.diff(shares, prepend=0), strict=True), 1):
        log.write_text("")
        process = start(runs, log)
        try:
            process.wait(timeout=wait * duration_s)
        except subprocess.TimeoutExpired:
            count = kill(process)
        else:
            raise SystemExit(f"the study ended before kill {number}; its log is {log}")
        states.append(state_of(folder))
        done = sum(had["files"] is not None for had in states[-1].values())
        said = f"at {share:.0%}: {where(log)}; {count} processes; {done} trainings finished"
        part = [name for name, had in states[-1].items() if had["history"] is not None]
        said += f", {len(part)} begun" if part else ""
        rows.append(row("kill", f"kill {number}", "killed", said))
        print(rows[-1]["detail"], flush=True)
    log.write_text("")
    if start(runs, log).wait():
        raise SystemExit(f"the study did not finish after the kills; its log is {log}")
    return rows, states


def trainings(quiet: Path, killed: Path, states: list[dict]) -> list[dict]:
    """Rows about the trainings: the same folders, all finished, none done twice."""
    ours, theirs = (sorted(p.parent.name for p in f.glob("models/*/DONE")) for f in (quiet, killed))
    every = sorted(p.name for p in killed.glob("models/*-*") if p.is_dir())
    again = sorted({name for state in states for name in repeated(state, killed)})
    same = ours == theirs == every
    said = f"{len(ours)} in the quiet run, {len(theirs)} in the killed one"
    kept = len({name for state in states for name in state})
    return [
        row("trainings", "folders", SAME if same else OTHER, said),
        row(
            "trainings",
            "done twice",
            OTHER if again else SAME,
            f"{len(again)} of {kept} begun before a kill{': ' if again else ''}{', '.join(again)}",
        ),
    ]


def main() -> int:
    """Run both studies and write the comparison; 1 where something differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", help="folder for both runs (default: a temporary one)")
    parser.add_argument("--seed", type=int, default=20, help="of the moments (default: 20)")
    parser.add_argument("--out", default="benchmarks/results/kill_study.csv")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(args.work or name).resolve()
        quiet, killed = work / "quiet", work / "killed"
        for folder in (quiet, killed):
            if folder.exists() and any(folder.iterdir()):
                parser.error(f"{folder.name}/ of the work folder is not empty; give another")
            folder.mkdir(parents=True, exist_ok=True)
        begun = time.monotonic()
        if start(quiet, quiet / "log.txt").wait():
            raise SystemExit(f"the quiet study did not finish; its log is {quiet / 'log.txt'}")
        duration_s = time.monotonic() - begun
        print(f"quiet run: {duration_s:.0f} s", flush=True)
        rows, states = killed_runs(killed, duration_s, args.seed)
        rows += trainings(quiet / "smoke", killed / "smoke", states)
        rows += compared(quiet / "smoke", killed / "smoke")
    table = pd.DataFrame(rows)
    write_table(table, args.out)
    counts = table[table["kind"] != "kill"].groupby("verdict").size()
    print("; ".join(f"{n} rows: {verdict}" for verdict, n in counts.items()))
    bad = table[table["verdict"].isin(BAD)]
    for one in bad[["kind", "name", "verdict", "detail"]].to_numpy():
        print(" ", " | ".join(filter(None, one)))
    return 1 if len(bad) else 0


if __name__ == "__main__":
    sys.exit(main())
