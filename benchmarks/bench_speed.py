"""Two states of this repository come in; what each of them needs for the same work, goes out.

An earlier commit is unpacked beside the present tree. Each has a process of its own; they take
turns, round after round, so that a machine whose speed changes slows both. CPU-seconds count every
thread; medians are kept, and the ratio is the median over pairs. Where the time of the present tree
goes is told by a profile, and how much of it is spent in libraries: what would be left if our own
code took no time at all, a floor as long as the libraries are called as they are.

Works that need what is not there (a GPU, the data that MOTIONLIB_DATA names, the earlier commit in
a shallow clone) are told as not measured. `make test` and `make study` are whole commands: put
`time` before them.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import platform
import pstats
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib import import_module
from importlib.metadata import version
from itertools import cycle
from pathlib import Path

import numpy as np

BEFORE = "12f52b7"  # the last commit before speed was looked at as a whole
ROOT = Path(__file__).resolve().parents[1]
FULL, HEAD_2MM = (169, 208, 179), (96, 120, 120)
# work -> unit of `before` and `now`, aim in that unit, or times faster than TorchIO
WORKS = {
    "image_motion, n = 4": ("CPU-s", "12 x TorchIO"),
    "TorchIO Motion, n = 4": ("CPU-s", ""),
    "image_motion, n = 16": ("CPU-s", "12 x TorchIO"),
    "TorchIO Motion, n = 16": ("CPU-s", ""),
    "kspace_motion, nT = 200, eps 1e-3": ("CPU-s", 0.8),
    "acquire, 2 mm head, one coil": ("CPU-s", 0.08),
    "virtual scan at 2 mm, moving": ("CPU-s", 0.12),
    "training step, Conv5FC3, 25x104x90, batch 4": ("CPU-s a scan", 0.015),
    "t1-linear, full-size scan": ("CPU-s", 8.0),
    "score, 40 scans of 2 mm": ("CPU-s a scan", 2 / 15),  # two cores, 15 scans a second
    "MRQy's measures of a 2 mm scan": ("CPU-s", ""),
    "image_motion on a GPU, n = 4": ("s", 1 / 300),
    "kspace_motion on a GPU, nT = 200": ("s", 1 / 20),
}
SLOW = ("TorchIO", "t1-linear", "score")  # half of the rounds


def find(name: str, *places: str):
    """Take an attribute from the first module that exists; rooms were moved since."""
    for place in places:
        try:
            return getattr(import_module(f"motionlib.{place}"), name)
        except (ImportError, AttributeError):
            continue
    raise ImportError(f"{name} is in none of {', '.join(places)}")


def volume_of(shape):
    """A phantom and its affine, voxels so large that it fills a head's box."""
    phantom = find("phantom", "preprocess.images", "volumes")
    volume = phantom(shape)
    edge = 179 / shape[2]
    return volume.reshape(1, *shape).contiguous(), np.diag([edge, edge, edge, 1.0])


def simulators(work: str):
    """Calls of the two simulators, of TorchIO, and of the emulated acquisition."""
    import torch

    places = "motion.sampling", "trajectories", "draws"
    device = "cuda" if "GPU" in work else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        return "no GPU"
    volume, affine = volume_of(HEAD_2MM if "acquire" in work else FULL)
    if "acquire" in work:
        acquire = find("acquire", "motion.acquisition", "acquisition")
        acquisition = find("Acquisition", "motion.acquisition", "acquisition")
        course = find("sample_realistic", *places)(
            translation_mm=(1, 3), rotation_deg=(0.7, 3), rng=1, kind=["steps", "drift"]
        )
        scanner = acquisition(phase_axis=1, noise_sd=0.04)
        return lambda: acquire(volume, course, scanner, affine=affine, rng=0)
    if "kspace" in work:
        move = find("kspace_motion", "motion.kspace_based", "simulate")
        course, options = find("sample_time_course", *places)(200, rng=0), {"axis": 1, "pad_vox": 0}
    else:
        n = int(work.split("n = ")[1])
        drawn = find("sample_segments", *places)(n, signed=False, rng=0)
        moves = drawn.times[1:], drawn.translation_mm[1:], drawn.rotation_deg[1:]
        if "TorchIO" in work:
            return torchio(volume, affine, *moves)
        move = find("image_motion", "motion.image_based", "simulate")
        course = find("Trajectory", "motion.trajectory", "poses")
        course = course.from_torchio(*moves)
        options = {"axis": 2, "center": "world", "direction": "pull", "output": "real"}
    volume = volume.to(device)

    def call():
        move(volume, course, affine=affine, **options)
        if device == "cuda":
            torch.cuda.synchronize()

    return call


def torchio(volume, affine, times, shifts, angles):
    """The same motion by TorchIO 1.2.1."""
    import torchio as tio

    subject = tio.Subject(im=tio.ScalarImage(tensor=volume, affine=affine))
    peer = tio.Motion(degrees=angles, translation=shifts, times=times, image_interpolation="linear")
    return lambda: peer(subject)


def virtual_scan(work: str):
    """Make moving scans of the planned warehouse, one after the other."""
    make_scan = find("make_scan", "cohorts.virtual.cohort", "cohorts.virtual")
    plan = find("plan_warehouse", "cohorts.virtual.plans", "cohorts.plans")
    root = tempfile.mkdtemp()
    planned = [
        {**item, "spacing_mm": 2.0, "seed": 20, "root": root}
        for item in plan(60, 20)
        if item["severity_mm"] and not item["reject"]
    ]
    items = cycle(planned[:8])
    return lambda: make_scan({**next(items), "root": tempfile.mkdtemp(dir=root)})


def training_step(work: str):
    """Train Conv5FC3 on one batch of noise; a call is one scan's share."""
    import torch

    build_network = find("build_network", "networks")
    torch.manual_seed(0)
    network = build_network("Conv5FC3", (25, 104, 90)).to(memory_format=torch.channels_last_3d)
    x, y = torch.randn(4, 1, 25, 104, 90), torch.arange(4) % 2
    x = x.contiguous(memory_format=torch.channels_last_3d)
    # a rate of zero: on a batch learnt by heart gradients would become denormal numbers, and slow
    optimizer = torch.optim.Adam(network.parameters(), lr=0.0, fused=True)

    def call():
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()

    return call


def data(*parts: str) -> list[Path]:
    """Scans below MOTIONLIB_DATA."""
    root = os.environ.get("MOTIONLIB_DATA")
    return sorted(Path(root, *parts).rglob("*_T1w.nii.gz")) if root else []


def preprocess(work: str):
    """Bring one scan of ds000011 to the MNI grid as ``motionlib preprocess`` does."""
    scans = data("ds000011")
    if not scans:
        return "no data"
    preprocess_one = find("preprocess_one", "preprocess.caps", "caps_writer")
    names = find("caps_names", "preprocess.caps", "caps_names")("sub-01", "ses-M000")
    item = {
        "scan_id": "sub-01",
        "source": str(scans[0]),
        "names": {"cropped": names.cropped, "affine": names.affine},
        "backend": "simpleitk",
        "template": None,
        "template_identity": None,
        "orientation": None,
    }
    return lambda: preprocess_one(item | {"out": tempfile.mkdtemp()})


def score(work: str):
    """Score 40 scans by the command; the time of the process counts."""
    scans = data("ixi-2mm")
    if not scans:
        return "no data"
    folder = Path(tempfile.mkdtemp())
    for scan in scans[:40]:
        (folder / scan.name).symlink_to(scan)
    words = [sys.executable, "-m", "motionlib.cli", "score", str(folder), "--no-report", "--out"]
    return lambda: subprocess.run(
        [*words, f"{tempfile.mkdtemp()}/scores.tsv"], capture_output=True, check=True
    )


def measures(work: str):
    """Take MRQy's measures of a 2 mm head."""
    volume, _ = volume_of(HEAD_2MM)
    image_quality = find("image_quality", "iqms")
    air = np.abs(np.random.default_rng(0).normal(0, 30, HEAD_2MM))
    noisy = (1000 * volume[0].numpy() + air).astype(np.float16).astype(np.float32)
    return lambda: image_quality(noisy)


def prepared(work: str):
    """Call that does a work once, or the reason why it cannot be done."""
    makers = {
        "virtual": virtual_scan,
        "training": training_step,
        "t1-linear": preprocess,
        "score": score,
        "MRQy": measures,
    }
    make = next((makers[word] for word in makers if work.startswith(word)), simulators)
    try:
        return make(work)
    except (ImportError, TypeError, KeyError) as error:
        return f"not in that commit ({type(error).__name__})"


def tried(call) -> str:
    """Do a work once, which compiles and plans; the reason if it cannot be done."""
    try:
        call()
    except Exception as error:  # an earlier commit may fail in any way
        return f"{type(error).__name__}: {error}"
    return ""


def spent() -> float:
    """CPU-seconds of this process and of those it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def serve() -> None:
    """Do works as they are named on standard input; seconds go to standard output."""
    # an editable installation would answer for rooms that the earlier commit did not have
    sys.meta_path[:] = [f for f in sys.meta_path if "__editable__" not in f.__module__]
    import torch

    torch.set_num_threads(1)
    find("keep_memory", "compute.engines", "compute", "memory")()
    call = None
    for line in sys.stdin:
        order, work = line.rstrip("\n").split("\t")
        if order == "prepare":
            call = prepared(work)
            answer = call if isinstance(call, str) else tried(call)
        elif order == "profile":
            answer = profile(call)
        else:
            clock = time.perf_counter if "GPU" in work else spent
            begun = clock()
            call()
            answer = (clock() - begun) / (40 if "score" in work else 4 if "training" in work else 1)
        print("\t" + json.dumps(answer), flush=True)


def profile(call) -> tuple[str, float]:
    """Functions in which a call spends its time, largest share first; the share of libraries."""
    watch = cProfile.Profile()
    watch.runcall(call)
    shares, libraries = Counter(), 0.0
    for (file, _, name), (_, _, own, _, _) in pstats.Stats(watch).stats.items():
        ours = "motionlib" in Path(file).parts
        libraries += 0 if ours else own
        shares[name.strip("<>").split(".")[-1].replace("' objects>", "")] += own
    total = sum(shares.values())
    top = [(name, own / total) for name, own in shares.most_common(5) if own > 0.05 * total]
    return ", ".join(f"{name} {share:.0%}" for name, share in top), libraries / total


class Tree:
    """One state of the repository, in a process that does works when asked."""

    def __init__(self, folder: Path):
        environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
            cwd=folder,
        )

    def ask(self, order: str, work: str):
        """Send an order and wait for its answer; works may print lines of their own."""
        self.process.stdin.write(f"{order}\t{work}\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("\t"):
                return json.loads(line)
        raise SystemExit(f"The process that does {work!r} has ended.")


def unpacked(commit: str, folder: Path) -> Path | None:
    """Unpack a commit of this repository; None where its history does not reach back so far."""
    packed = subprocess.run(
        ["git", "-C", str(ROOT), "archive", commit, "motionlib"], capture_output=True
    )
    if packed.returncode:
        return None
    subprocess.run(["tar", "x", "-C", str(folder)], input=packed.stdout, check=True)
    return folder


def compare(trees: dict, work: str, rounds: int) -> dict:
    """Time a work in every tree, turn by turn; one row of the table."""
    unit, aim = WORKS[work]
    row = {"work": work, "unit": unit}
    refused = {
        name: answer for name, tree in trees.items() if (answer := tree.ask("prepare", work))
    }
    row["not_measured"] = "; ".join(f"{name}: {why}" for name, why in refused.items())
    seconds = {name: [] for name in trees if name not in refused}
    for _ in range(max(2, rounds // 2) if work.startswith(SLOW) else rounds):
        for name in seconds:
            seconds[name].append(trees[name].ask("time", work))
    row |= {name: float(np.median(values)) for name, values in seconds.items()}
    if len(seconds) == 2:
        pairs = np.array(seconds["before"]) / np.array(seconds["now"])
        row["times_faster"] = float(np.median(pairs))
    row["aim"] = aim if isinstance(aim, str) else f"{aim:.3g}"
    if "now" in seconds and "score" not in work and "GPU" not in work:
        row["where_it_goes"], share = trees["now"].ask("profile", work)
        row["in_libraries"] = share * row["now"]
    return row


def main() -> int:
    """Compare both trees and write ``benchmarks/results/speed.csv``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", default=BEFORE, help="the earlier commit")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="works whose name contains this")
    parser.add_argument("--out", default=str(ROOT / "benchmarks" / "results" / "speed.csv"))
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve()
        return 0
    import pandas as pd
    import torch

    from motionlib.files import write_table

    with tempfile.TemporaryDirectory() as folder:
        earlier = unpacked(args.before, Path(folder))
        trees = {"before": Tree(earlier)} if earlier else {}
        trees["now"] = Tree(ROOT)
        rows = []
        for work in WORKS:
            if args.only in work:
                rows.append(compare(trees, work, args.rounds))
                print({k: v for k, v in rows[-1].items() if v != ""}, flush=True)
        for tree in trees.values():
            tree.process.stdin.close()
    columns = ["work", "unit", "before", "now", "times_faster", "aim"]
    table = pd.DataFrame(rows).reindex(
        columns=[*columns, "in_libraries", "where_it_goes", "not_measured"]
    )
    by_work = table.set_index("work")["now"]
    table["times_torchio"] = [
        by_work.get(work.replace("image_motion", "TorchIO Motion"), float("nan")) / now
        if work.startswith("image_motion, n")
        else float("nan")
        for work, now in by_work.items()
    ]
    names = ("torch", "torchio", "finufft", "numba", "numpy")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    table["device"] = f"{platform.machine()}, {os.cpu_count()} cores, {gpu}"
    table["versions"] = " ".join(f"{name} {version(name)}" for name in names)
    print(table.drop(columns=["device", "versions"]).round(4).to_string(index=False))
    print(f"{table['device'].iloc[0]}; before: {args.before}; {table['versions'].iloc[0]}")
    write_table(table.round(6), args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
