"""A finished run comes in; whether an ordinal head grades motion better than two networks goes out.

The two outputs of the network are read as "any motion" and "severe motion" and trained together on
all grades, from the same pre-trained folds and with the same epochs as the networks that learn
severe motion against the rest, and mild against none.  Judged on the same test scans.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from motionlib.compute.engines import configure_cpu
from motionlib.experiments.cohort import Cohort, open_cohort
from motionlib.experiments.copies import read_prepared, warehouse_set
from motionlib.experiments.pretraining import pretrained
from motionlib.files import seed_from, write_table
from motionlib.stats.intervals import bootstrap_ci
from motionlib.stats.paired import delong
from motionlib.study.run import Run
from motionlib.training.checkpoints import load_model
from motionlib.training.data import VolumeStore

RESULTS = Path(__file__).parent / "results"
BATCH, RATE = 4, 1e-4


def train(source: Path, store, train, held, grades, *, epochs: int, seed: int):
    """Train a pre-trained network on both limits at once; keep the lowest validation loss."""
    network = load_model(source).network
    network.train().to(memory_format=torch.channels_last_3d)
    above = torch.from_numpy(np.stack([grades >= 1, grades >= 2], 1).astype(np.float32))
    moved = above[train].mean(0)
    loss_of = torch.nn.BCEWithLogitsLoss(pos_weight=(1 - moved) / moved)
    optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
    best, kept = np.inf, None
    for epoch in range(1, epochs + 1):
        torch.manual_seed(seed_from(seed, "dropout", epoch))
        order = np.random.default_rng(seed_from(seed, "order", epoch)).permutation(train)
        network.train()
        for batch in np.array_split(order, max(1, len(order) // BATCH)):
            optimizer.zero_grad(set_to_none=True)
            loss_of(network(store.batch(batch)), above[batch]).backward()
            optimizer.step()
        loss = float(loss_of(logits(network, store, held), above[held]))
        if loss < best:
            best, kept = loss, {k: v.clone() for k, v in network.state_dict().items()}
    network.load_state_dict(kept)
    return network


@torch.inference_mode()
def logits(network, store, rows) -> torch.Tensor:
    """Both outputs of some scans, shape (n, 2)."""
    network.eval()
    return torch.cat(
        [network(store.batch(part)) for part in np.array_split(rows, len(rows) // 16 + 1)]
    )


def ordinal_scores(
    run: Run, cohort: Cohort, prepared: pd.DataFrame, *, epochs: int
) -> pd.DataFrame:
    """Scores of the test scans for both tasks, mean over the folds' networks."""
    grade = cohort.manifest.set_index("scan_id")["motion_grade"]
    grades = grade.loc[prepared["scan_id"]].to_numpy().astype(int)
    store = VolumeStore(prepared)
    trains, test = (prepared["role"] == "train").to_numpy(), (prepared["role"] == "test").to_numpy()
    found = []
    for fold, source in enumerate(pretrained(run, "image", "2-4", "paper")):
        held = trains & (prepared["fold"] == fold).to_numpy()
        rows = (np.flatnonzero(trains & ~held), np.flatnonzero(held))
        network = train(source, store, *rows, grades, epochs=epochs, seed=run.seed)
        found.append(torch.sigmoid(logits(network, store, np.flatnonzero(test))).numpy())
    mean = np.mean(found, axis=0)
    scans = prepared.loc[test, ["scan_id", "participant_id"]]
    return scans.assign(grade=grades[test], mov0vs1=mean[:, 0], mov01vs2=mean[:, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run, such as runs/demo")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    run = Run("04_fine_tuning", args.run.name, 20, args.run.parent, quiet=True)
    cohort = open_cohort(run)
    prepared = read_prepared(cohort, warehouse_set(cohort, "mov01vs2"))
    with configure_cpu():
        ordinal = ordinal_scores(run, cohort, prepared, epochs=args.epochs)
    rows = []
    for task, binary in (("mov01vs2", "freeze/all"), ("mov0vs1", "warehouse/fine_tuned")):
        own = run.predictions(binary, task=task)
        own = own[own["fold"] == -1].merge(ordinal, on=["scan_id", "participant_id"])
        test = delong(own["y_true"], own[task], own["score"])
        for name, score in (("ordinal head", own[task]), (f"two classes ({binary})", own["score"])):
            area = bootstrap_ci(own["y_true"], score, own["participant_id"], metric="auc")
            row = {"run": run.profile, "task": task, "head": name, "auc": area.estimate}
            row |= {"low": area.low, "high": area.high, "p_delong": test.p_value}
            rows.append(row | {"n": len(own), "n_positive": int(own["y_true"].sum())})
    table = pd.DataFrame(rows).round(4)
    write_table(table, args.out / "ordinal_head.csv")
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
