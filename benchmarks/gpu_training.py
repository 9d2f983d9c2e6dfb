"""A GPU comes in; images a second, shares of its rates and minutes of a pre-training go out.

The four networks at the paper's grid, batch 16, forward and backward and Adam: plain eager float32
(as torch comes: its convolutions may use TF32), bf16 autocast with channels last and torch's own
operations, and motionlib's training, which has kernels of its own for the batch norms, pools and
the first convolution of Conv5FC3; volumes resident on the GPU, all in one process. Then a whole
pre-training of Conv5FC3 by `training.fit` on 856 training and 184 validation volumes, against the
paper's 3 h 52 min. Results go to ``results/training_gpu.csv``.

    python benchmarks/gpu_training.py                    # everything, on the first GPU
    python benchmarks/gpu_training.py --only Conv5FC3 --epochs 0
    python benchmarks/gpu_training.py --device cpu --shape 24 28 24 --volumes 16 --scans 16 4 \\
        --epochs 1 --repeats 1                           # without a GPU; writes nothing
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from motionlib.files import write_table
from motionlib.networks import NETWORKS, PAPER_SHAPE, build_network, pooling
from motionlib.preprocess.images import phantom
from motionlib.training.data import VolumeStore, load_prepared
from motionlib.training.fitting import fit
from motionlib.training.spec import TrainSpec

PAPER_MINUTES = {"Conv5FC3": 232, "ResNet3D": 387, "SECNN": 378, "ViT3D": 271}  # Table III
has_kernels = pooling.kernels_at_hand
RESULTS = Path(__file__).parent / "results" / "training_gpu.csv"


def seconds(call, device: torch.device, repeats: int) -> float:
    """Median duration of a call, by the device's own clock."""
    found = []
    for turn in range(repeats + 2):
        if device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            torch.cuda.synchronize(device)
            taken = start.elapsed_time(end) / 1e3
        else:
            begun = time.perf_counter()
            call()
            taken = time.perf_counter() - begun
        if turn >= 2:
            found.append(taken)
    return float(np.median(found))


def hardware(device: torch.device) -> dict[str, float]:
    """Measured copy bandwidth and bf16 matrix rate: what the networks are held against."""
    n = (1 << 30) if device.type == "cuda" else (1 << 22)
    source = torch.empty(n, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copied = 2 * n / seconds(lambda: target.copy_(source), device, 10)
    m = 8192 if device.type == "cuda" else 256
    a, b = (torch.randn(m, m, device=device, dtype=torch.bfloat16) for _ in range(2))
    rate = 2 * m**3 / seconds(lambda: a @ b, device, 10)
    return {"copy_tb_s": copied / 1e12, "bf16_tflop_s": rate / 1e12}


def work_of(name: str, shape) -> dict[str, float]:
    """Operations of a training step of one image, and bytes that layers must read and write."""
    with torch.device("meta"):
        network, x = build_network(name, shape), torch.empty(1, 1, *shape)
        moved = [0]

        def count(module, inputs, output):
            if not list(module.children()):
                moved[0] += inputs[0].numel() + output.numel()

        for module in network.modules():
            module.register_forward_hook(count)
        with FlopCounterMode(display=False) as counter:
            network(x).sum().backward()
    # backward reads the input and the output's gradient and writes the input's gradient
    return {"gflop": counter.get_total_flops() / 1e9, "gbyte_bf16": moved[0] * 2 * 2.5 / 1e9}


WAYS = ("eager float32", "bf16, channels last, torch's operations", "as shipped")


def stepper(name: str, store: VolumeStore, batch: int, device: torch.device, way: str):
    """A call that trains on the next batch in one of the `WAYS`."""
    plain = way == WAYS[0]
    pooling.kernels_at_hand = has_kernels if way == WAYS[2] else lambda: False
    torch.manual_seed(0)
    network = build_network(name, store.shape).to(device)
    if not plain:
        network = network.to(memory_format=torch.channels_last_3d)
    options = {} if plain else {"fused": True}
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, **options)
    y, state = torch.arange(batch, device=device) % 2, {"first": 0}

    def call():
        rows = (np.arange(batch) + state["first"]) % len(store)
        state["first"] += batch
        x = store.batch(rows, device)
        if not plain:
            x = x.contiguous(memory_format=torch.channels_last_3d)
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=not plain):
            logits = network(x)
        nn.functional.cross_entropy(logits.float(), y).backward()
        optimizer.step()

    return call


def gradient(name: str, store: VolumeStore, batch: int, device: torch.device, way: str):
    """All gradients of the first batch at fresh weights, without dropout, as one vector."""
    pooling.kernels_at_hand = has_kernels if way == WAYS[2] else lambda: False
    torch.manual_seed(0)
    network = build_network(name, store.shape, dropout=0.0).to(device)
    x, y = (
        store.batch(np.arange(batch) % len(store), device),
        torch.arange(batch, device=device) % 2,
    )
    if way != WAYS[0]:
        network = network.to(memory_format=torch.channels_last_3d)
    with torch.autocast(device.type, torch.bfloat16, enabled=way != WAYS[0]):
        logits = network(x)
    nn.functional.cross_entropy(logits.float(), y).backward()
    return torch.cat([p.grad.flatten() for p in network.parameters()])


def compare(names, store, batch: int, device: torch.device, repeats: int) -> list[dict]:
    """Plain and shipped training of every network, in this process."""
    measured, rows = hardware(device), []
    for name in names:
        work, speed = work_of(name, store.shape), {}
        exact = gradient(name, store, batch, device, WAYS[0])
        for way in WAYS:
            if device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(device)
            try:
                call = stepper(name, store, batch, device, way)
                taken = seconds(call, device, repeats)
            except torch.OutOfMemoryError:
                rows.append({"network": name, "way": way, "reason": "out of memory"})
                continue
            speed[way] = batch / taken
            peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else np.nan
            del call
            apart = gradient(name, store, batch, device, way) - exact
            traffic = work["gbyte_bf16"] * (2 if way == WAYS[0] else 1) * speed[way] / 1e3
            rows.append(
                {
                    "network": name,
                    "way": way,
                    "images_per_s": speed[way],
                    "gradient_distance": float(apart.norm() / exact.norm()),
                    "times_eager": speed[way] / speed.get(WAYS[0], np.nan),
                    "tflop_s": work["gflop"] * speed[way] / 1e3,
                    "share_of_matrix_rate": work["gflop"]
                    * speed[way]
                    / 1e3
                    / measured["bf16_tflop_s"],
                    "share_of_copy_bandwidth": traffic / measured["copy_tb_s"],
                    "peak_memory_gib": peak / 2**30,
                    **measured,
                }
            )
            print(rows[-1], flush=True)
    return rows


def volumes(folder: Path, shape, n_files: int, n_train: int, n_valid: int) -> Path:
    """A prepared manifest of the paper's size; its rows share a few files, each read anew."""
    rng, rows = np.random.default_rng(0), []
    heads = [phantom(tuple(shape), seed=i)[0].numpy() for i in range(2)]
    for i in range(n_files):
        volume = heads[i // 2 % 2] + rng.normal(0, 0.02, shape).astype(np.float32)
        if i % 2:
            volume = 0.5 * (volume + np.roll(volume, rng.integers(2, 6), axis=1))  # a ghost
        np.save(folder / f"{i}.npy", volume.astype(np.float16))
    for i in range(n_train + n_valid):
        row = {"scan_id": f"s{i}", "participant_id": f"p{i}", "path": f"{i % n_files}.npy"}
        rows.append(row | {"y_true": i % 2, "role": "train", "fold": int(i >= n_train)})
    pd.DataFrame(rows).to_csv(folder / "prepared.tsv", sep="\t", index=False)
    return folder / "prepared.tsv"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shape", nargs=3, type=int, default=PAPER_SHAPE)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--volumes", type=int, default=32, help="files behind the manifest's rows")
    parser.add_argument("--scans", nargs=2, type=int, default=(856, 184), help="train, validate")
    parser.add_argument("--epochs", type=int, default=50, help="of the whole training; 0 for none")
    parser.add_argument("--repeats", type=int, default=10)
    asked = parser.parse_args()
    if asked.device.startswith("cuda") and not torch.cuda.is_available():
        print("No CUDA device is visible; run this on a machine with a GPU.", file=sys.stderr)
        return 2
    device = torch.device(asked.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = volumes(folder, asked.shape, asked.volumes, *asked.scans)
        store = VolumeStore(load_prepared(manifest).head(asked.volumes), device=asked.device)
        rows = compare(asked.only, store, asked.batch, device, asked.repeats)
        del store
        if asked.epochs:
            half = "bf16" if device.type == "cuda" else "float32"
            spec = TrainSpec(
                asked.only[0],
                str(manifest),
                fold=1,
                epochs=asked.epochs,
                batch_size=asked.batch,
                precision=half,
            )
            start = time.perf_counter()
            run = fit(spec, folder / "runs", device=asked.device, progress=print)
            minutes = (time.perf_counter() - start) / 60
            history = pd.read_csv(run / "metrics.csv")
            rows.append(
                {
                    "network": asked.only[0],
                    "way": f"training.fit, {asked.epochs} epochs of {asked.scans[0]} volumes",
                    "images_per_s": asked.scans[0] / history["seconds"].median(),
                    "minutes": minutes,
                    "paper_minutes": PAPER_MINUTES[asked.only[0]],
                }
            )
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    if device.type == "cuda":
        gpu = torch.cuda.get_device_name(device)
        write_table(table.assign(device=gpu, torch=torch.__version__), RESULTS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
