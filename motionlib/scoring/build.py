"""The making of the shipped model: copies, training, choice, test and card (``make model``).

1. Heads that lie still are listed with folds by patient (`still_heads`). Two folds of eight are
   kept apart: the network never sees them, and every figure on its card is of them or of other
   sites. One more fold validates.
2. Copies with and without motion are made of them (`motionlib.scoring.build_copies`), in a folder
   named by the code that makes them.
3. A network is trained on the copies of the other five folds; with ``--ablations`` one more for
   every entry of `RECIPES`, on fewer copies.
4. Calibration, threshold and range of doubt are chosen on the validation patients.
5. The model folder is written: weights, description, tables and card (`ship`).
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from motionlib import compute
from motionlib.cohorts import read_cohort
from motionlib.cohorts.virtual import cohort
from motionlib.experiments.cohort import data_root
from motionlib.files import (
    PACKAGE,
    atomic,
    code_key,
    read_json,
    seed_from,
    write_json,
    write_table,
    write_text,
)
from motionlib.metrics import classification_metrics
from motionlib.scoring.build_copies import CopyRecipe, make_test_copies, make_training_copies
from motionlib.scoring.model import DIGITS
from motionlib.stats.calibration import best_threshold, fit_calibrator, logit
from motionlib.training.checkpoints import read_model
from motionlib.training.fitting import fit
from motionlib.training.prediction import predict
from motionlib.training.spec import TrainSpec
from motionlib.typeset import render

SEED, FOLDS = 20, 8
TESTED, VALIDATION = (0, 1), 2  # of the folds
SHAPE = (2.0, 48.0)  # voxel and slab in mm; `model.model_input`
CODE = ("cohorts", "preprocess", "motion", "scoring/build_copies.py", "scoring/model.py")
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
    "with virtual heads": (CopyRecipe(), ("ixi", "virtual")),
    "virtual heads only": (CopyRecipe(), ("virtual",)),
}
COLUMNS = ["scan_id", "participant_id", "source_participant_id", "cohort", "path", "role", "fold"]
NAME = "motionlib-t1w-2mm"
COHORTS = {"ixi": "IXI"}  # as the card calls them
STILL_CALLED = 0.02  # of the validation copies without motion, at the threshold
MOVED_MM = ("_2-4", "_4-6", "_6-8")  # mm and degrees
STILL, MOVED = ("clean@native", "resampled@native"), "torchio_n4_4-6@native"


def still_heads(source: str, work: Path, *, engine: str = "inline") -> pd.DataFrame:
    """List the heads that copies are made of, with the columns of `COLUMNS` and absolute paths.

    `source` is ``ixi`` or ``virtual`` (made in `work`), or another site, ``ds000011`` or
    ``ds002748``, which is tested on and never trained on. The role is ``test`` for the folds of
    `TESTED` and for other sites. `FileNotFoundError` if MOTIONLIB_DATA does not hold the scans.
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


def _training_set(name: str, copies: int, work: Path, *, engine: str = "inline") -> Path:
    """Make the copies of one entry of `RECIPES` and the manifest that lists them."""
    recipe, sources = RECIPES[name]
    parts = []
    for source in sources:
        heads = still_heads(source, work, engine=engine).query("role == 'train'")
        made = make_training_copies(
            heads, recipe, work / source, copies=copies, seed=SEED, shape=SHAPE, engine=engine
        )
        table = pd.read_csv(made, sep="\t", dtype={"participant_id": str})
        parts.append(table.assign(path=[str((made.parent / p).resolve()) for p in table["path"]]))
    every = pd.concat(parts, ignore_index=True)
    return write_table(every, work / f"train_{name.replace(' ', '_')}_{copies}.tsv")


def _train_recipes(names, copies: int, work: Path, *, engine: str) -> list[Path]:
    """Train one network a recipe, side by side, and return their run folders."""
    items = [(str(_training_set(n, copies, work, engine=engine)), str(work)) for n in names]
    done = compute.submit(_train, items, engine=engine, label="train", progress=print)
    return [Path(folder) for folder in compute.raise_failures(done)]


def _train(item: tuple[str, str]) -> str:
    """Train one network (a task) and return its run folder."""
    manifest, work = item
    return str(fit(TrainSpec(manifest=manifest, **TRAINING), Path(work) / "models", progress=print))


def _validation_copies(source: str, work: Path, *, engine: str = "inline") -> Path:
    """Make test copies, of another seed, of the patients that choose epoch and threshold."""
    heads = still_heads(source, work, engine=engine).query(f"fold == {VALIDATION}")
    out = work / f"validation_{source}.tsv"
    return make_test_copies(heads, out, shape=SHAPE, seed=SEED, engine=engine)


def _score_copies(run: Path, validation: Path, tests: dict[str, Path]) -> pd.DataFrame:
    """Score the copies of the validation patients and the test copies of every site.

    The rows are those of `predict` with ``site`` (``validation`` for the first) and ``variant``.
    """
    parts = []
    for site, path in {"validation": validation, **tests}.items():
        rows = pd.read_csv(path, sep="\t", dtype={"participant_id": str})
        parts.append(predict(run, rows).assign(site=site, variant=rows["variant"]))
    return pd.concat(parts, ignore_index=True)


def _train_ablations(work: Path, tests: dict[str, Path], engine: str) -> pd.DataFrame:
    """Train every recipe on fewer copies, and judge each at its own threshold."""
    runs, parts = _train_recipes(RECIPES, FEWER, work, engine=engine), []
    for (name, (_, sources)), run in zip(RECIPES.items(), runs, strict=True):
        held = _validation_copies(sources[0], work, engine=engine)
        parts.append(_score_copies(run, held, tests).assign(recipe=name))
    rows = write_table(pd.concat(parts, ignore_index=True), work / "ablation_predictions.csv")
    return compare_recipes(pd.read_csv(rows))


def main(argv: list[str] | None = None) -> int:
    """Make copies, train, judge, choose, ship."""
    parser = argparse.ArgumentParser(
        prog="python -m motionlib.scoring.build", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--work", default="runs/model", help="copies and runs")
    parser.add_argument("--out", default=str(PACKAGE / "model"), help="the model")
    parser.add_argument("--engine", default=f"local:{os.cpu_count() or 1}")
    parser.add_argument("--ablations", action="store_true", help="also every other recipe")
    args = parser.parse_args(argv)
    work = Path(args.work) / code_key(*CODE)
    tests, engine = {}, args.engine
    for site in SITES:
        heads = still_heads(site, work).query("role == 'test'")
        tests[site] = make_test_copies(heads, work / f"test_{site}.tsv", shape=SHAPE, engine=engine)
    (run,) = _train_recipes([SHIPPED], COPIES, work, engine=engine)
    held = _validation_copies(RECIPES[SHIPPED][1][0], work, engine=engine)
    rows = write_table(_score_copies(run, held, tests), work / "predictions.csv")
    ablations = _train_ablations(work, tests, engine) if args.ablations else None
    rows = pd.read_csv(rows)
    chosen = choose_decision(rows[rows["site"] == "validation"])
    tested = rows[rows["site"] != "validation"]
    copies = pd.read_csv(_training_set(SHIPPED, COPIES, work), sep="\t")
    learnt = copies[copies["fold"] != VALIDATION]
    ship(run, chosen, tested, learnt, Path(args.out), ablations=ablations)
    return 0


def ship(
    run: Path,
    chosen: dict,
    predictions: pd.DataFrame,
    trained: pd.DataFrame,
    out: Path,
    *,
    ablations: pd.DataFrame | None = None,
) -> Path:
    """Write the model folder: weights, ``model.json``, ``accuracy.csv``, ``card.md``.

    `run` is the folder of the finished training, `chosen` comes from `choose_decision`;
    `predictions` has ``site variant y_true score`` of the test copies, `trained`
    ``cohort source_participant_id y_true`` of the copies that the network learnt from. With
    `ablations`, of `compare_recipes`, also ``ablations.csv`` and a section of the card.
    """
    out.mkdir(parents=True, exist_ok=True)
    with atomic(out / "weights.safetensors") as aside:
        shutil.copyfile(run / "weights.safetensors", aside)
    people = trained.groupby("cohort")["source_participant_id"].nunique()
    cohort = ", ".join(f"{COHORTS[name]} ({n} patients)" for name, n in people.items())
    facts = read_model(run) | chosen | {
        "name": NAME, "voxel_mm": SHAPE[0], "slab_mm": SHAPE[1], "card": "card.md",
        "cohort": cohort, "copies": int(trained["y_true"].sum()) // int(people.sum()),
        "stripped_seen": False,
    }  # fmt: skip
    write_json(out / "model.json", facts)
    write_table(shares_called_motion(predictions, chosen).round(4), out / "accuracy.csv")
    (out / "ablations.csv").unlink(missing_ok=True)
    if ablations is not None:
        write_table(ablations.round(4), out / "ablations.csv")
    write_text(out / "card.md", card(out))
    return out


def card(folder: Path) -> str:
    """Fill the model card from what a model folder says of itself: description and tables."""
    facts, table = read_json(folder / "model.json"), pd.read_csv(folder / "accuracy.csv")
    sizes = table.groupby("site", sort=False)["n"].first()
    copies = []
    for variant, rows in table.groupby("variant", sort=False):
        by_site = rows.set_index("site").loc[sizes.index].itertuples()
        copies.append([variant, *(f"{r.called:.2f} [{r.low:.2f}, {r.high:.2f}]" for r in by_site)])
    recipes = []
    if (folder / "ablations.csv").is_file():
        for row in pd.read_csv(folder / "ablations.csv").itertuples():
            numbers = (row.auc, row.clean, row.resampled, row.moved, row.balanced_accuracy)
            cells = (f"{number:.2f}" for number in numbers)
            recipes.append([row.recipe, f"{row.site} (n = {row.n})", *cells])

    def accuracies(moves: int) -> str:
        by_site = (f"{site} {balanced_accuracy(table, site, moves):.2f}" for site in sizes.index)
        return ", ".join(by_site)

    return render(
        "card.md",
        facts=facts,
        size_mb=(folder / "weights.safetensors").stat().st_size / 1e6,
        sites=[f"{site} (n = {n})" for site, n in sizes.items()],
        copies=copies,
        accuracy=accuracies(4),
        two_moves=accuracies(2),
        recipes=recipes,
    )


def shares_called_motion(predictions: pd.DataFrame, chosen: dict) -> pd.DataFrame:
    """Share of each test copy called motion at the threshold, by site, with Wilson's interval."""
    rows = []
    for (site, variant), part in predictions.groupby(["site", "variant"], sort=False):
        p = calibrate(part["score"], chosen)
        called = int((p >= chosen["threshold"]).sum())
        low, high = proportion_confint(called, len(part), method="wilson")
        rows.append(
            {"site": site, "variant": variant, "y_true": part["y_true"].iloc[0]}
            | {"called": called / len(part), "low": low, "high": high}
            | {"median_p": float(np.median(p)), "n": len(part)}
        )
    return pd.DataFrame(rows)


def balanced_accuracy(table: pd.DataFrame, site: str, moves: int = 4) -> float:
    """Balanced accuracy of motion of 4-6 mm against clean and resampled scans of a site."""
    rows = table[table["site"] == site].set_index("variant")["called"]
    still = rows[["clean@native", "resampled@native"]].mean()
    return float((rows[f"torchio_n{moves}_4-6@native"] + 1 - still) / 2)


def choose_decision(validation: pd.DataFrame) -> dict:
    """Choose calibration, threshold and range of doubt on copies of validation patients.

    `validation` has ``variant y_true score participant_id`` of test copies of patients that neither
    trained nor are tested. The result is part of ``model.json``: ``calibration``
    (``p = sigmoid(logit / temperature + bias)``), ``threshold`` and ``review`` on the scale of p,
    and what the card says of them. `ValueError` if the scores do not rise with motion.
    """
    # 1. Copies at the scans' own voxels: every still one, and those moved by 2 mm and more.
    rows = validation[validation["variant"].str.endswith("@native")]
    moved = rows["variant"].str.contains("|".join(MOVED_MM))
    rows = rows[(rows["y_true"] == 0) | moved]
    # 2. Platt's calibration.
    calibrator = fit_calibrator("platt", rows["y_true"], rows["score"])
    if calibrator.slope <= 0:
        raise ValueError("the validation scores fall with motion; the network has learnt nothing")
    p = calibrator(rows["score"])
    # 3. The threshold of the best balanced accuracy, but at most `STILL_CALLED` of the still
    #    copies are called motion; in doubt is what lies between one in ten of them and it.
    still = p[rows["y_true"].to_numpy() == 0]
    low, most = np.quantile(still, [0.90, 1 - STILL_CALLED])
    cut = round(max(float(most), best_threshold(rows["y_true"], p)), DIGITS)
    return {
        "calibration": {
            "temperature": round(1 / calibrator.slope, 6),
            "bias": round(calibrator.bias, 6),
        },
        "threshold": cut,
        "review": [round(min(float(low), cut), DIGITS), cut],
        "still_called": float((still >= cut).mean()),
        "n_still": len(still),
        "n_held": int(rows["participant_id"].nunique()),
    }


def compare_recipes(predictions: pd.DataFrame) -> pd.DataFrame:
    """Judge every recipe at each site, by a threshold that no label of the site has touched.

    `predictions` has ``recipe site variant y_true score participant_id``; the site ``validation``
    holds copies of patients that were kept from the network. Judged is motion of 4-6 mm with four
    moves against clean and once resampled heads; ``clean``, ``resampled`` and ``moved`` are the
    shares called motion.
    """
    rows = []
    for recipe, every in predictions.groupby("recipe", sort=False):
        chosen = choose_decision(every[every["site"] == "validation"])
        every = every.assign(score=calibrate(every["score"], chosen))
        threshold = chosen["threshold"]
        for site, part in every[every["site"] != "validation"].groupby("site", sort=False):
            part = part[part["variant"].isin([*STILL, MOVED])]
            called = (part["score"] >= threshold).groupby(part["variant"]).mean()
            values = classification_metrics(part["y_true"], part["score"], threshold=threshold)
            rows.append(
                {"recipe": recipe, "site": site, "auc": values["auc"]}
                | {"clean": called[STILL[0]], "resampled": called[STILL[1]]}
                | {"moved": called[MOVED], "balanced_accuracy": values["balanced_accuracy"]}
                | {"n": part["participant_id"].nunique()}
            )
    return pd.DataFrame(rows)


def calibrate(score, chosen: dict) -> np.ndarray:
    """Probabilities of motion by what `choose_decision` found."""
    z = logit(np.asarray(score)) / chosen["calibration"]["temperature"]
    return 1 / (1 + np.exp(-(z + chosen["calibration"]["bias"])))


if __name__ == "__main__":
    raise SystemExit(main())
