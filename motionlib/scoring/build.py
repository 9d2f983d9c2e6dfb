"""Still heads come in; the model that is shipped, its figures and its card go out (`make model`).

Patients of two folds of eight are kept apart: the shipped network has never seen them, and every
figure on its card is of them or of other sites.  Calibration and threshold come from validation.
Copies lie in a folder named by the code that makes them.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import pandas as pd

from motionlib import compute
from motionlib.cohorts import read_cohort
from motionlib.cohorts.virtual import cohort
from motionlib.experiments.assemble import data_root
from motionlib.files import PACKAGE, code_key, seed_from, write_table
from motionlib.scoring.build_copies import CopyRecipe, make_copies
from motionlib.scoring.modelcard import ship
from motionlib.scoring.modelchoice import choose, compared
from motionlib.scoring.modeltests import judged_copies
from motionlib.training.fitting import fit
from motionlib.training.prediction import predict
from motionlib.training.spec import TrainSpec

SEED, FOLDS, TESTED, VALIDATION = 20, 8, (0, 1), 2
SHAPE = (2.0, 48.0)  # voxel and slab in mm; `modelinput.model_input`
CODE = ("cohorts", "preprocess", "motion", "scoring")
SITES = ("ixi", "ds000011", "ds002748")
VIRTUAL = (110, 24, 24)  # patients like ADNI's, MSSEG's and BITE's
TRAINING = {
    "network": "Conv5FC3", "epochs": 10, "batch_size": 4, "learning_rate": 2e-4,
    "schedule": "cosine", "dropout": 0.2, "options": (("hidden", (128, 50)),), "seed": SEED,
    "fold": VALIDATION,
}  # fmt: skip
SHIPPED = "recommended"
COPIES, FEWER = 10, 4  # moved and still copies of a head: of the shipped model, of the ablation
RECIPES = {  # the shipped one, then what is added to it, taken from it, or put in its place
    SHIPPED: (CopyRecipe(), ("ixi",)),
    "untouched negatives": (CopyRecipe(matched=False), ("ixi",)),
    "the paper's severity": (CopyRecipe(realistic=False), ("ixi",)),
    "with nuisances": (CopyRecipe(nuisance=True), ("ixi",)),
    "with an emulated scanner": (CopyRecipe(acquired=True), ("ixi",)),
    "with virtual heads": (CopyRecipe(), ("ixi", "virtual")),
    "virtual heads only": (CopyRecipe(), ("virtual",)),
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
        heads, _ = cohort.make_cohort(
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


def training_set(name: str, copies: int, work: Path, *, engine: str = "inline") -> Path:
    """Make the copies of one entry of `RECIPES` and the manifest that lists them."""
    recipe, sources = RECIPES[name]
    parts = []
    for source in sources:
        heads = still_heads(source, work, engine=engine).query("role == 'train'")
        made = make_copies(
            heads, recipe, work / source, copies=copies, seed=SEED,
            spacing_mm=SHAPE[0], slab_mm=SHAPE[1], engine=engine,
        )  # fmt: skip
        table = pd.read_csv(made, sep="\t", dtype={"participant_id": str})
        parts.append(table.assign(path=[str((made.parent / p).resolve()) for p in table["path"]]))
    every = pd.concat(parts, ignore_index=True)
    return write_table(every, work / f"train_{name.replace(' ', '_')}_{copies}.tsv")


def trained(names, copies: int, work: Path, *, engine: str) -> list[Path]:
    """Train one network a recipe, side by side, and return their run folders."""
    items = [(str(training_set(n, copies, work, engine=engine)), str(work)) for n in names]
    done = compute.submit(_train, items, engine=engine, label="train", progress=print)
    return [Path(folder) for folder in compute.raise_failures(done)]


def _train(item: tuple[str, str]) -> str:
    manifest, work = item
    return str(fit(TrainSpec(manifest=manifest, **TRAINING), Path(work) / "models", progress=print))


def validation_copies(source: str, work: Path, *, engine: str = "inline") -> Path:
    """Make test copies, of another seed, of the patients that choose epoch and threshold."""
    heads = still_heads(source, work, engine=engine).query(f"fold == {VALIDATION}")
    out = work / f"validation_{source}.tsv"
    return judged_copies(heads, out, shape=SHAPE, seed=SEED, engine=engine)


def judged(run: Path, validation: Path, tests: dict[str, Path]) -> pd.DataFrame:
    """Score the copies of the validation patients and the test copies of every site.

    Returns
    -------
    DataFrame
        Rows of `predict` with ``site`` (``validation`` for the first) and ``variant``.
    """
    parts = []
    for site, path in {"validation": validation, **tests}.items():
        rows = pd.read_csv(path, sep="\t", dtype={"participant_id": str})
        parts.append(predict(run, rows).assign(site=site, variant=rows["variant"]))
    return pd.concat(parts, ignore_index=True)


def ablation(work: Path, tests: dict[str, Path], engine: str) -> pd.DataFrame:
    """Train every recipe on fewer copies, and judge each at its own threshold."""
    runs, parts = trained(RECIPES, FEWER, work, engine=engine), []
    for (name, (_, sources)), run in zip(RECIPES.items(), runs, strict=True):
        held = validation_copies(sources[0], work, engine=engine)
        parts.append(judged(run, held, tests).assign(recipe=name))
    rows = write_table(pd.concat(parts, ignore_index=True), work / "ablation_predictions.csv")
    return compared(pd.read_csv(rows))


def main(argv: list[str] | None = None) -> int:
    """Make copies, train, judge, choose, ship."""
    parser = argparse.ArgumentParser(prog="python -m motionlib.scoring.build", description=__doc__)
    parser.add_argument("--work", default="runs/model", help="copies and runs")
    parser.add_argument("--out", default=str(PACKAGE / "model"), help="the model")
    parser.add_argument("--engine", default=f"local:{os.cpu_count() or 1}")
    parser.add_argument("--ablations", action="store_true", help="also every other recipe")
    args = parser.parse_args(argv)
    work = Path(args.work) / code_key(*CODE)
    tests, engine = {}, args.engine
    for site in SITES:
        heads = still_heads(site, work).query("role == 'test'")
        tests[site] = judged_copies(heads, work / f"test_{site}.tsv", shape=SHAPE, engine=engine)
    (run,) = trained([SHIPPED], COPIES, work, engine=engine)
    held = validation_copies(RECIPES[SHIPPED][1][0], work, engine=engine)
    rows = write_table(judged(run, held, tests), work / "predictions.csv")
    ablations = ablation(work, tests, engine) if args.ablations else None
    rows = pd.read_csv(rows)
    is_held = rows["site"] == "validation"
    copies = pd.read_csv(training_set(SHIPPED, COPIES, work), sep="\t")
    learnt = copies[copies["fold"] != VALIDATION]
    ship(run, choose(rows[is_held]), rows[~is_held], learnt, Path(args.out), ablations=ablations)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
