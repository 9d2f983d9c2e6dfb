"""Phantoms come in; what fine-tuning saves by computing a frozen prefix once goes out.

The same fine-tuning of the fully connected layers runs twice, with the features of the frozen
convolutions computed in every epoch and computed once. CPU seconds of the epochs after the first
are compared, so that the first pass over the convolutions, which both need, counts for neither.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from bench_training import GRID, phantoms

from motionlib.files import write_table
from motionlib.networks import NETWORKS
from motionlib.training.fitting import fit
from motionlib.training.prediction import predict
from motionlib.training.spec import TrainSpec
from motionlib.training.transfer import fine_tune

RESULTS = Path(__file__).parent / "results" / "transfer.csv"
EPOCHS = {False: (1, 4), True: (1, 21)}  # cached epochs are short: more of them, for the clock
COMPARED = 3  # epochs after which the two ways' probabilities are compared


def tuned(source, spec, folder: Path, *, cache: bool, epochs: int) -> tuple[Path, float]:
    """A fine-tuned run and the CPU seconds it took."""
    start = time.process_time()
    run = fine_tune(source, replace(spec, epochs=epochs), folder / f"{cache}", cache=cache)
    return run, time.process_time() - start


def compare(network: str, folder: Path, shape, n: int) -> dict:
    """Seconds an epoch both ways, and how far apart their probabilities end."""
    manifest = phantoms(folder / "data", shape, n)
    spec = TrainSpec(network, str(manifest), fold=0, epochs=1, learning_rate=1e-3)
    source = fit(spec, folder / "source")
    spec, seconds, scores = replace(spec, seed=3), {}, {}
    for cache, (few, many) in EPOCHS.items():
        _, short = tuned(source, spec, folder, cache=cache, epochs=few)
        _, long = tuned(source, spec, folder, cache=cache, epochs=many)
        seconds[cache] = (long - short) / (many - few)
        run, _ = tuned(source, spec, folder, cache=cache, epochs=COMPARED)
        scores[cache] = predict(run, manifest)["score"].to_numpy()
    before = predict(source, manifest)["score"].to_numpy()
    return {
        "network": network,
        "grid": "x".join(map(str, shape)),
        "n": n,
        "plain_cpu_s_per_epoch": round(seconds[False], 4),
        "cached_cpu_s_per_epoch": round(seconds[True], 4),
        "times_faster": round(seconds[False] / seconds[True], 1),
        "max_difference": float(np.abs(scores[True] - scores[False]).max()),
        "max_change_by_tuning": round(float(np.abs(scores[True] - before).max()), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scans", type=int, default=48)
    parser.add_argument("--networks", nargs="+", default=["Conv5FC3"], choices=sorted(NETWORKS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for network in arguments.networks:
            for shape in (GRID, (64, 64, 64)):
                place = Path(folder) / network / str(shape[0])
                rows.append(compare(network, place, shape, arguments.scans))
                print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    write_table(table, RESULTS)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
