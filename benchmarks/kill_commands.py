"""Kill every long command at random moments, run it again, and compare with an undisturbed run.

``score``, ``iqms``, ``simulate``, ``preprocess``, ``finetune`` and ``fetch`` (from a server on
127.0.0.1) work on small heads. Each run is a process of its own, forked from one that has imported
everything, so that the signals (SIGKILL, SIGTERM, SIGINT in turn) fall into the work and not into
imports. After `CHAIN` signals in a row the same command runs to its end; its files must have the
bytes of the undisturbed run's, but for logs and seconds. Columns of the result:

``kills``, and those by each signal; ``at_work``: signals that came before the command had ended.
``files``, ``differing``: files compared, and those that differ or are on one side only.
``left_aside``: half-written files that stayed behind.
``tracebacks``: of interrupted runs, where one sentence is promised.

The study itself is killed by ``kill_study.py``, workers by ``bench_scale.py``.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import re
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd

from motionlib.files import ASIDE, repository, write_table

sys.path.insert(0, str(repository() / "tests"))
from kill_study import BAD, compare
from scoring_set import write_heads, write_model

from motionlib.cli import main as motionlib
from motionlib.iqms import tables
from motionlib.preprocess.finder import write_scan_table
from motionlib.scoring import score
from motionlib.scoring.score import Journal

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
CHAIN = 5  # signals before a run is left to end
SMALL_CHUNK = 2  # scans between two writes of a journal or cache, so that few scans make several
LOGS = (".log", ".lock")
CHUNK_BYTES, PAUSE_S = 1 << 15, 0.02  # of the server, which would else be done at once


@dataclass(frozen=True)
class Command:
    """One command: the words of its call, in whose working folder ``out`` lies what it writes."""

    name: str
    words: tuple[str, ...]
    status: int = 0  # of an undisturbed run


class Slow(BaseHTTPRequestHandler):
    """Files of a folder, by pieces with pauses, continued where the client asks."""

    files: dict[str, bytes]

    def do_GET(self):
        body = self.files.get(self.path.lstrip("/"))
        if body is None:
            return self.send_error(404)
        span = self.headers.get("Range")
        start = int(span.removeprefix("bytes=").rstrip("-")) if span else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.send_header("ETag", f'"{hashlib.md5(body).hexdigest()}"')
        self.end_headers()
        try:
            for at in range(start, len(body), CHUNK_BYTES):
                self.wfile.write(body[at : at + CHUNK_BYTES])
                time.sleep(PAUSE_S)
        except OSError:  # the client was killed
            self.close_connection = True
        return None

    def log_message(self, *args):
        pass


def mirror() -> str:
    """Start a mirror of MR-ART with four scans, in a process of its own; its address."""
    names = [f"sub-00010{n}_acq-{kind}_T1w" for n in (3, 4) for kind in ("standard", "head")]
    Slow.files = {
        "derivatives/scores.tsv": "\n".join(
            ["bids_name\tscore", *(f"{name}\t1" for name in names)]
        ).encode(),
        "derivatives/mriqc-0.16.1/group_T1w.tsv": "\n".join(
            ["bids_name\tcjv\tefc\tfber", *(f"{name}\t0.4\t0.5\t9" for name in names)]
        ).encode(),
        "participants.tsv": b"participant_id\tsex\tage\nsub-000103\tF\t30\n",
        "dataset_description.json": b"{}",
    }
    for number, name in enumerate(names):
        noise = np.random.default_rng(number).bytes(400_000)
        Slow.files[f"{name[:10]}/anat/{name}.nii.gz"] = gzip.compress(noise, 0, mtime=0)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    if not (pid := os.fork()):
        server.serve_forever()
    server.server_close()
    mirror.pid = pid
    return f"http://127.0.0.1:{server.server_port}"


def commands(folder: Path, url: str) -> list[Command]:
    """Write the input of every command; the words of each call."""
    paths = write_heads(folder / "graded", 16, graded=True)
    model = write_model(folder / "model")
    for name, count in (("scans", 5), ("few", 1)):
        (folder / name).mkdir()
        for path in paths[:count]:
            os.link(path, folder / name / path.name)
    (folder / "scans" / "broken_T1w.nii.gz").write_bytes(b"no image")
    grades = pd.read_csv(write_scan_table([str(folder / "graded")], str(folder)), sep="\t")
    grades["motion_grade"] = 2 * (grades.index % 2)
    write_table(grades, folder / "grades.tsv")
    scans, few, inputs = (str(folder / name) for name in ("scans", "few", "grades.tsv"))
    return [
        Command("fetch", ("fetch", "mr-art", "out", "--base-url", url)),
        Command("score", ("score", scans, "--model", str(model), "--out", "out/s.tsv"), 1),
        Command("iqms", ("iqms", scans, "--out", "out/q.tsv", "--cache", "out/c.json",
                         "--per-slice", "out/p.tsv"), 1),
        Command("simulate", ("simulate", scans, "out", "--positions", "2"), 1),
        Command("finetune", ("finetune", inputs, "--from", str(model), "--task", "mov01vs2",
                             "--out", "out/mine", "--epochs", "4", "--folds", "2")),
        Command("preprocess", ("preprocess", few, "--out", "out", "--cache")),
    ]  # fmt: skip


def start(command: Command, place: Path) -> int:
    """Run a command in a process of its own, in a working folder; its number."""
    place.mkdir(parents=True, exist_ok=True)
    if pid := os.fork():
        return pid
    try:
        os.setsid()
        os.chdir(place)
        log = os.open("said.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        status = motionlib(list(command.words))
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        status = 99
    os._exit(status)


def end(pid: int) -> int:
    """Wait for a process; its status, negative where a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run_quietly(command: Command, place: Path) -> float:
    """Run a command undisturbed; the seconds that it took."""
    begun = time.monotonic()
    status = end(start(command, place))
    if status != command.status:
        raise SystemExit(f"{command.name} ended with {status}; see {place / 'said.log'}")
    return time.monotonic() - begun


def strike(command: Command, place: Path, after_s: float, which: signal.Signals) -> bool:
    """Start a command and send it a signal; whether it was still at work."""
    pid = start(command, place)
    time.sleep(after_s)
    ended, _ = os.waitpid(pid, os.WNOHANG)
    if ended:
        return False
    os.kill(pid, which)
    end(pid)
    return True


def same(quiet: Path, killed: Path) -> bool:
    """Compare two files: bytes, or what they hold where order and seconds are no result."""
    if not (quiet.is_file() and killed.is_file()):
        return False
    if quiet.suffix == ".journal":
        return Journal(quiet).entries == Journal(killed).entries
    if quiet.name == "fetched.tsv":  # says "kept" of what an earlier call fetched
        one, other = (
            pd.read_csv(path, sep="\t").drop(columns="status") for path in (quiet, killed)
        )
        return one.equals(other)
    if quiet.name == "outcome.tsv":  # says "kept" too, and the seconds that a scan took
        one, other = (
            pd.read_csv(path, sep="\t").replace({"status": {"kept": "done"}})
            for path in (quiet, killed)
        )
        return one.drop(columns="cpu_s", errors="ignore").equals(
            other.drop(columns="cpu_s", errors="ignore")
        )
    if quiet.parent.name == "qc" and quiet.suffix in (".json", ".html"):  # the same two things
        one, other = (
            re.sub(r'"cpu_s": [0-9.]+', "", path.read_text()).replace("kept", "done")
            for path in (quiet, killed)
        )
        return one == other
    return compare(quiet, killed) not in BAD


def compared(quiet: Path, killed: Path) -> tuple[int, list[str], int]:
    """Count files, name those that differ, and count what was left half-written."""
    names = {p.relative_to(top) for top in (quiet, killed) for p in top.rglob("*") if p.is_file()}
    aside = {name for name in names if ASIDE.fullmatch(name.name) or name.name.endswith(".part")}
    results = sorted(n for n in names - aside if not n.name.endswith(LOGS))
    differing = [n.as_posix() for n in results if not same(quiet / n, killed / n)]
    return len(results), differing, len(aside)


def measure(command: Command, folder: Path, n_kills: int, seed: int) -> dict:
    """Run one command quietly, then through its kills; a row of the result."""
    rng = np.random.default_rng(seed)
    warm_up(command, folder / "warm")
    quiet = folder / "quiet" / command.name
    duration_s = run_quietly(command, quiet)
    row = {"command": command.name, "kills": n_kills, "at_work": 0}
    row |= {which.name: 0 for which in SIGNALS}
    row |= {"reruns": 0, "files": 0, "differing": 0, "left_aside": 0, "tracebacks": 0}
    faults: Counter = Counter()
    for first in range(0, n_kills, CHAIN):
        place = folder / f"killed-{first}" / command.name
        for number in range(first, min(first + CHAIN, n_kills)):
            which = SIGNALS[number % len(SIGNALS)]
            row[which.name] += 1
            row["at_work"] += strike(command, place, rng.uniform(0.02, 0.95) * duration_s, which)
        run_quietly(command, place)
        count, differing, aside = compared(quiet / "out", place / "out")
        row["reruns"] += 1
        row["files"] += count
        row["differing"] += len(differing)
        row["left_aside"] += aside
        row["tracebacks"] += (place / "said.log").read_text().count("Traceback")
        faults.update(differing)
    row["quiet_s"] = round(duration_s, 2)
    print(row, *faults, flush=True)
    return row


def main() -> int:
    """Kill every command and write ``benchmarks/results/kills.csv``; 1 where something differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10, help="of each command (default: 10)")
    parser.add_argument("--command", action="append", help="only this command")
    parser.add_argument("--seed", type=int, default=20, help="of the moments (default: 20)")
    parser.add_argument("--work", type=Path, help="folder to keep (default: a temporary one)")
    parser.add_argument("--out", default="benchmarks/results/kills.csv")
    args = parser.parse_args()
    score.CHUNK = tables.CHUNK = SMALL_CHUNK
    os.environ.pop("MOTIONLIB_DATA", None)
    with tempfile.TemporaryDirectory() as name:
        folder = (args.work or Path(name)).resolve()
        url = mirror()
        try:
            every = commands(folder / "in", url)
            rows = []
            for command in every:
                if not args.command or command.name in args.command:
                    rows.append(measure(command, folder, args.kills, args.seed))
                    write_table(pd.DataFrame(rows), args.out)
        finally:
            os.kill(mirror.pid, signal.SIGTERM)
            end(mirror.pid)
    table = pd.DataFrame(rows)
    bad = int(table[["differing", "tracebacks"]].sum().sum())
    print(f"{table['kills'].sum()} kills, {table['files'].sum()} files compared, {bad} faults")
    return 1 if bad else 0


def warm_up(command: Command, folder: Path) -> None:
    """Run a command once in this process, so that all it imports is there for its forks."""
    here, place = Path.cwd(), folder / command.name
    place.mkdir(parents=True)
    os.chdir(place)
    try:
        with open(os.devnull, "w") as nowhere:
            former = sys.stdout, sys.stderr
            sys.stdout = sys.stderr = nowhere
            try:
                motionlib(list(command.words))
            finally:
                sys.stdout, sys.stderr = former
    finally:
        os.chdir(here)
    if threading.active_count() > 1:
        print(f"{command.name} leaves threads", flush=True)


if __name__ == "__main__":
    sys.exit(main())
