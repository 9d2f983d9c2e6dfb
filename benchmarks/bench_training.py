"""Phantoms come in; milliseconds of a training step on this CPU, way beside way, go out.

Contestants take turns, round after round, so that a busy machine slows all alike; the median over
rounds is kept. CPU time counts every thread of the process. Three questions: which way of computing
a step is fastest, whether two runs side by side use two cores better than one run with two threads,
and what fine-tuning saves by computing a frozen prefix once.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from motionlib.files import write_table
from motionlib.networks import NETWORKS, build_network
from motionlib.networks.pooling import padded_max_pool
from motionlib.training.data import VolumeStore, load_prepared
from motionlib.training.fitting import fit
from motionlib.training.spec import TrainSpec
from motionlib.training.transfer import fine_tune

GRID = (43, 52, 45)  # the demo's: 4 mm
BATCH = 16
CHANNELS_LAST = torch.channels_last_3d
RESULTS = Path(__file__).parent / "results" / "training_cpu.csv"


class Pool(nn.Module):
    """The published pool, as a module of its own."""

    def forward(self, x):
        return padded_max_pool(x)


def published_conv5fc3():
    """Conv5FC3 of torch's own modules in the published order."""
    network = build_network("Conv5FC3", GRID)
    blocks = OrderedDict(network.named_children())
    for name, block in blocks.items():
        if name.startswith("block"):
            norm = nn.BatchNorm3d(block[1].num_features)
            blocks[name] = nn.Sequential(block[0], norm, nn.ReLU(), Pool())
    return nn.Sequential(blocks)


def step(network, *, channels_last: bool, half: bool):
    """A call that trains on one batch of noise."""
    x, y = torch.randn(BATCH, 1, *GRID), torch.arange(BATCH) % 2
    if channels_last:
        network = network.to(memory_format=CHANNELS_LAST)
        x = x.contiguous(memory_format=CHANNELS_LAST)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)

    def call():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = network(x)
        nn.functional.cross_entropy(logits.float(), y).backward()
        optimizer.step()

    return call


def steps() -> dict[str, object]:
    """Every way of computing a step."""
    torch.manual_seed(0)
    ways = {
        "Conv5FC3, torch's modules": step(published_conv5fc3(), channels_last=False, half=False),
        "Conv5FC3, + channels last": step(published_conv5fc3(), channels_last=True, half=False),
        "Conv5FC3, + channels last, bf16 (not reproducible)": step(
            published_conv5fc3(), channels_last=True, half=True
        ),
    }
    for name in NETWORKS:
        network = build_network(name, GRID)
        ways[f"{name}, as shipped"] = step(network, channels_last=True, half=False)
    return ways


def measure(calls: dict, rounds: int, per: int) -> list[dict]:
    """Median CPU and wall milliseconds of each call, turn by turn, per scan."""
    seconds = {name: [] for name in calls}
    for turn in range(rounds + 1):  # the first compiles and allocates; it is not counted
        for name, call in calls.items():
            cpu, wall = time.process_time(), time.perf_counter()
            call()
            if turn:
                seconds[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    rows = []
    for name, pairs in seconds.items():
        cpu, wall = 1e3 * np.median(pairs, axis=0) / per
        rows.append({"what": name, "cpu_ms_per_scan": cpu, "wall_ms_per_scan": wall})
    return rows


def side_by_side(processes: int, threads: int, repeats: int) -> dict:
    """Throughput of equal trainings that run at once, each in its own process."""
    command = [sys.executable, __file__, "--worker", str(threads), str(repeats)]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    for worker in running:
        worker.stdout.readline()  # ready
    start = time.perf_counter()
    for worker in running:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    cpu = [float(worker.communicate()[0].split()[-1]) for worker in running]
    wall, scans = time.perf_counter() - start, processes * repeats * BATCH
    return {
        "what": f"Conv5FC3, {processes} runs at once of {threads} threads",
        "cpu_ms_per_scan": 1e3 * sum(cpu) / scans,
        "wall_ms_per_scan": 1e3 * wall / scans,
    }


def work(threads: int, repeats: int) -> None:
    """One of the trainings of `side_by_side`."""
    torch.set_num_threads(threads)
    call = step(build_network("Conv5FC3", GRID), channels_last=True, half=False)
    call()
    print("ready", flush=True)
    sys.stdin.readline()
    cpu = time.process_time()
    for _ in range(repeats):
        call()
    print(time.process_time() - cpu, flush=True)


def phantoms(folder: Path, shape, n: int) -> Path:
    """A prepared manifest of `n` noisy volumes, half of them striped."""
    folder.mkdir(parents=True)
    rng, rows = np.random.default_rng(0), []
    for i in range(n):
        volume = rng.random(shape, np.float32)
        volume[:, :: 3 if i % 2 else 1] += 0.5
        np.save(folder / f"{i}.npy", volume.astype(np.float16))
        row = {"scan_id": f"s{i}", "participant_id": f"p{i}", "path": f"{i}.npy", "y_true": i % 2}
        rows.append(row | {"role": "train", "fold": i // 2 % 4})
    pd.DataFrame(rows).to_csv(folder / "prepared.tsv", sep="\t", index=False)
    return folder / "prepared.tsv"


def data_path(folder: Path, rounds: int) -> list[dict]:
    """Cost of gathering a batch, plain and augmented."""
    table = load_prepared(phantoms(folder, GRID, BATCH))
    calls = {}
    for kind in ("none", "flip", "nuisance"):
        store = VolumeStore(table, augment=kind)
        calls[f"batch of volumes, augment={kind}"] = lambda store=store: store.batch(
            range(BATCH), epoch=1
        )
    return measure(calls, rounds, BATCH)


def fine_tuning(folder: Path, shape, n: int) -> list[dict]:
    """Milliseconds a scan and epoch of fine-tuning the linear layers, cached and not."""
    manifest = phantoms(folder / "data", shape, n)
    spec = TrainSpec("Conv5FC3", str(manifest), fold=0, epochs=1)
    source, rows = fit(spec, folder / "source"), []
    for cache in (False, True):
        times = {}
        for epochs in (1, 3) if not cache else (1, 11):
            run_spec = replace(spec, epochs=epochs, seed=3)
            start = time.process_time()
            fine_tune(source, run_spec, folder / f"{cache}", cache=cache)
            times[epochs] = time.process_time() - start
        (few, one), (many, more) = times.items()
        label = "prefix cached" if cache else "prefix computed in every epoch"
        grid = "x".join(str(n) for n in shape)
        cpu = 1e3 * (more - one) / (many - few) / n
        rows.append({"what": f"fine-tune fc1-fc3 at {grid}, {label}", "cpu_ms_per_scan": cpu})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--worker", nargs=2, type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return work(*arguments.worker)
    rows, rounds = [], arguments.rounds
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for row in measure(steps(), rounds, BATCH):
            rows.append({"part": "step", "threads": threads, **row})
    torch.set_num_threads(1)
    for processes, threads in ((1, 1), (1, 2), (2, 1)):
        row = side_by_side(processes, threads, 2 * rounds)
        rows.append({"part": "two cores", "threads": processes * threads, **row})
    with tempfile.TemporaryDirectory() as folder:
        for row in data_path(Path(folder) / "path", rounds):
            rows.append({"part": "data path", "threads": 1, **row})
        for shape, n in ((GRID, 64), ((64, 64, 64), 48)):
            for row in fine_tuning(Path(folder) / str(shape[0]), shape, n):
                rows.append({"part": "fine-tuning", "threads": 1, **row})
    table = pd.DataFrame(rows).round(2)
    write_table(table, RESULTS)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
