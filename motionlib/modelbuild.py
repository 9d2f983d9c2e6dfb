"""Still heads come in; the model that is shipped, its figures and its card go out (`make model`).

Patients of two folds of eight are kept apart: the shipped network has never seen them, and every
figure on its card is of them or of other sites.  Calibration and threshold come from validation.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import pandas as pd

from motionlib.assemble import data_root
from motionlib.calibration import logit
from motionlib.cohorts import read_cohort, virtual
from motionlib.files import seed_from, write_table
from motionlib.modelcard import ship
from motionlib.modelcopies import CopyRecipe, make_copies
from motionlib.modeltests import judged_copies
from motionlib.training import TrainSpec, fit, predict

SEED, FOLDS, TESTED, VALIDATION = 20, 8, (0, 1), 2
SHAPE = (2.0, 48.0)  # voxel and slab in mm; `modelinput.model_input`
SITES = ("ixi", "ds000011", "ds002748")
VIRTUAL = (110, 24, 24)  # patients like ADNI's, MSSEG's and BITE's
STILL_CALLED = 0.02  # of the validation copies without motion, at the threshold
TRAINING = {
    "network": "Conv5FC3", "epochs": 10, "batch_size": 4, "learning_rate": 2e-4,
    "schedule": "cosine", "dropout": 0.2, "options": (("hidden", (128, 50)),), "seed": SEED,
    "fold": VALIDATION,
}  # fmt: skip
RECIPES = {  # the shipped one, then what is added to it, taken from it, or put in its place
    "recommended": (CopyRecipe(), {"ixi": 10}),
    "untouched negatives": (CopyRecipe(matched=False), {"ixi": 10}),
    "the paper's severity": (CopyRecipe(realistic=False), {"ixi": 10}),
    "with nuisances": (CopyRecipe(nuisance=True), {"ixi": 10}),
    "with an emulated scanner": (CopyRecipe(acquired=True), {"ixi": 10}),
    "with virtual heads": (CopyRecipe(), {"ixi": 10, "virtual": 4}),
    "virtual heads only": (CopyRecipe(), {"virtual": 6}),
}
COLUMNS = ["scan_id", "participant_id", "source_participant_id", "cohort", "path", "role", "fold"]


def still_heads(source: str, work: Path, *, engine: str = "inline") -> pd.DataFrame:
    """List the heads that copies are made of, with folds by patient.

    Parameters
    ----------
    source : {"ixi", "virtual", "ds000011", "ds002748"}
        The last two are other sites: they are tested on and never trained on.
    work : Path
        Where virtual heads are written.
    engine : str
        Where they are made.

    Returns
    -------
    DataFrame
        ``scan_id participant_id source_participant_id cohort path role fold``; role ``test`` for
        the folds of `TESTED` and for other sites.

    Raises
    ------
    FileNotFoundError
        If MOTIONLIB_DATA does not hold the scans.
    """
    if source == "virtual":
        root = work / "heads"
        heads, _ = virtual.make_cohort(
            root, n_research=VIRTUAL, n_real_motion=0, n_warehouse=0, seed=SEED, engine=engine
        )
    else:
        places = {"ixi": "ixi-2mm", "ds002748": "ds002748-1p5mm"}
        root = data_root() / places.get(source, source)
        heads = read_cohort("bids", root).manifest.assign(cohort=source)
    people = np.sort(heads["source_participant_id"].unique())
    order = np.random.default_rng(seed_from(SEED, "folds of", source)).permutation(people)
    fold = {name: place % FOLDS for place, name in enumerate(order)}
    folds = heads["source_participant_id"].map(fold)
    kept_apart = folds.isin(TESTED) | (source not in ("ixi", "virtual"))
    return heads.assign(
        path=[str((root / path).resolve()) for path in heads["path"]],
        role=np.where(kept_apart, "test", "train"),
        fold=folds,
    )[COLUMNS]


def training_set(name: str, work: Path, *, engine: str = "inline") -> Path:
    """Make the copies of one entry of `RECIPES` and the manifest that lists them."""
    recipe, sources = RECIPES[name]
    parts = []
    for source, copies in sources.items():
        heads = still_heads(source, work, engine=engine).query("role == 'train'")
        made = make_copies(
            heads, recipe, work / source, copies=copies, seed=SEED,
            spacing_mm=SHAPE[0], slab_mm=SHAPE[1], engine=engine,
        )  # fmt: skip
        table = pd.read_csv(made, sep="\t", dtype={"participant_id": str})
        parts.append(table.assign(path=[str((made.parent / p).resolve()) for p in table["path"]]))
    every = pd.concat(parts, ignore_index=True)
    return write_table(every, work / f"train_{name.replace(' ', '_')}.tsv")


def judged(run: Path, name: str, tests: dict[str, Path]) -> pd.DataFrame:
    """Score the test copies of every site with one network: rows of `predict`, named."""
    parts = []
    for site, path in tests.items():
        rows = pd.read_csv(path, sep="\t", dtype={"participant_id": str})
        scored = predict(run, rows)
        parts.append(scored.assign(recipe=name, site=site, variant=rows["variant"]))
    return pd.concat(parts, ignore_index=True)


def choose(y_true, score) -> dict:
    """Choose calibration, threshold and range of doubt on validation copies.

    Parameters
    ----------
    y_true, score : array-like, shape (n,)
        Labels and scores of copies of patients that neither trained nor are tested.

    Returns
    -------
    dict
        ``calibration`` (``p = sigmoid(logit / temperature + bias)``), ``threshold`` and ``review``
        on the scale of p. At the threshold `STILL_CALLED` of the still copies are called motion;
        in doubt is what lies between one in ten of them and the threshold.
    """
    from sklearn.linear_model import LogisticRegression

    z, y = logit(score), np.asarray(y_true, dtype=int)
    plain = LogisticRegression(C=1e6).fit(z[:, None], y)
    slope, bias = float(plain.coef_[0, 0]), float(plain.intercept_[0])
    if slope <= 0:
        raise ValueError("the validation scores fall with motion; the network has learnt nothing")
    p = 1 / (1 + np.exp(-(slope * z + bias)))
    low, cut = np.quantile(p[y == 0], [0.90, 1 - STILL_CALLED])
    return {
        "calibration": {"temperature": round(1 / slope, 4), "bias": round(bias, 4)},
        "threshold": round(float(cut), 4),
        "review": [round(float(low), 4), round(float(cut) - 1e-4, 4)],
    }


def main(argv: list[str] | None = None) -> int:
    """Make copies, train, judge, choose, ship."""
    parser = argparse.ArgumentParser(prog="python -m motionlib.modelbuild", description=__doc__)
    parser.add_argument("--work", default="runs/model", help="copies and runs")
    parser.add_argument("--out", default=str(Path(__file__).with_name("model")), help="the model")
    parser.add_argument("--engine", default=f"local:{os.cpu_count() or 1}")
    parser.add_argument("--ablations", action="store_true", help="also every other recipe")
    args = parser.parse_args(argv)
    work, tests, parts = Path(args.work), {}, []
    for site in SITES:
        heads = still_heads(site, work).query("role == 'test'")
        tests[site] = judged_copies(
            heads, work / f"test_{site}.tsv", shape=SHAPE, engine=args.engine
        )
    for name in RECIPES if args.ablations else ["recommended"]:
        manifest = training_set(name, work, engine=args.engine)
        run = fit(TrainSpec(manifest=str(manifest), **TRAINING), work / "models", progress=print)
        parts.append(judged(run, name, tests))
        if name == "recommended":
            shipped, table = run, pd.read_csv(manifest, sep="\t", dtype={"participant_id": str})
            held = predict(run, table[table["fold"] == VALIDATION].reset_index(drop=True))
    figures = write_table(pd.concat(parts, ignore_index=True), work / "predictions.csv")
    ship(shipped, choose(held["y_true"], held["score"]), pd.read_csv(figures), Path(args.out))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
