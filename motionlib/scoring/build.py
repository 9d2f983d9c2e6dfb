"""Still heads come in; the model that is shipped, its figures and its card go out (`make model`).

Patients of two folds of eight are kept apart: the shipped network has never seen them, and every
figure on its card is of them or of other sites.  Calibration and threshold come from validation.
Copies lie in a folder named by the code that makes them.
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
    seed_from,
    write_json,
    write_table,
    write_text,
)
from motionlib.metrics import auc
from motionlib.scoring.build_copies import CopyRecipe, judged_copies, make_copies
from motionlib.scoring.model import DIGITS
from motionlib.stats.calibration import best_threshold, fit_calibrator, logit
from motionlib.stats.prior_shift import FEWEST, match_quantiles
from motionlib.training.checkpoints import read_model
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
    "with virtual heads": (CopyRecipe(), ("ixi", "virtual")),
    "virtual heads only": (CopyRecipe(), ("virtual",)),
}
COLUMNS = ["scan_id", "participant_id", "source_participant_id", "cohort", "path", "role", "fold"]
NAME = "motionlib-t1w-2mm"
SOURCES = {"ixi": "IXI"}
CARD = """# Model card: {name}

A probability that a 3-D T1-weighted head scan was corrupted by motion.

* **Network** Conv5FC3 with linear layers of 128 and 50 units, on {planes} sagittal planes of 2 mm
  about the middle of the head; {size_mb:.1f} MB of safetensors.
* **Trained on** {cohort}; {copies} moved and {copies} still copies of each head. The moved ones
  have one to six resting positions or a gliding course, 0.5 to 8 mm and degrees, signed, any axis;
  the still ones were resampled the same way; both at the scan's own voxels or at 2 to 4.5 mm. IXI
  is by brain-development.org, CC BY-SA 3.0; no scan is part of the model.
* **Calibration and threshold** from {n_held} patients of one fold that did not train; the same
  patients chose the epoch. Their still copies and their copies moved by TorchIO's motion of 2-8 mm
  were told apart at {threshold}, where {still_called:.1%} of the still ones (n = {n_still}) are
  called motion. The threshold was fixed before the scans below were looked at.
* **Good for** ranking and sorting whole, defaced or faced T1w heads of 1 to 2 mm voxels; coarser
  ones are scored with more false alarms (`4mm` below), beyond 4 mm they are refused.
* **Not good for** other contrasts, other body parts, motion too small to be seen at 2 mm; grades.
  The motion it has seen is synthetic: before use, have some of your own scans graded and run
  `motionlib finetune`, which gives grades too. It was not tested on patients' real motion.
* **Reproduce** `make model` with `MOTIONLIB_DATA` set; `ARGS=--ablations` for the last table too.

## Share called motion at the threshold

Patients that the network never saw; the motion is TorchIO 1.2.1's own `RandomMotion`, not ours.
`n2`, `n4`: number of moves; ranges in mm and degrees; `native`: made at the scan's own voxels,
`4mm`: after averaging to 4 mm. The heads of ds002748 are stripped of skull and scalp, which the
network has never seen: `score` sends each to review. In brackets 95 % intervals (Wilson), over
scans.

{table}

Balanced accuracy, 4-6 mm with four moves against clean and resampled scans, at native voxels:
{accuracy}.
With two moves, TorchIO's default: {two_moves}.
There the first position owns the middle of k-space, a third of it on average, along the axis that
is filled in time: how far the head moves beyond that changes fine detail only. How little of it
a 2 mm grid keeps is in `benchmarks/results/two_moves.csv`.
"""
ABLATION = """
## What each ingredient does

The same network, trained on fewer copies (four moved and four still ones of each head), once as
recommended and once with something added, taken away or put in its place.
Each row is judged at its own threshold, chosen on copies of its own validation patients as above;
`moved threshold` carries that threshold to the site by the site's ungraded scores.
AUC and balanced accuracy (BA): 4-6 mm with four moves against clean and resampled scans.

{table}
"""
STILL_CALLED = 0.02  # of the validation copies without motion, at the threshold
MOVED_MM = ("_2-4", "_4-6", "_6-8")  # mm and degrees
STILL, MOVED = ("clean@native", "resampled@native"), "torchio_n4_4-6@native"


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


def ship(
    run: Path,
    chosen: dict,
    predictions: pd.DataFrame,
    trained: pd.DataFrame,
    out: Path,
    *,
    ablations: pd.DataFrame | None = None,
) -> Path:
    """Write the model folder: weights, ``model.json``, ``card.md``, ``accuracy.csv``.

    Parameters
    ----------
    run : Path
        Folder of the finished training.
    chosen : dict
        Of `modelbuild.choose`.
    predictions : DataFrame
        ``site variant y_true score`` of test copies.
    trained : DataFrame
        ``cohort source_participant_id y_true`` of the copies that the network learnt from.
    out : Path
        Folder to write.
    ablations : DataFrame, optional
        Of `modelchoice.compared`; then also ``ablations.csv`` and a section of the card.

    Returns
    -------
    Path
        `out`.
    """
    table = shares(predictions, chosen)
    out.mkdir(parents=True, exist_ok=True)
    with atomic(out / "weights.safetensors") as aside:
        shutil.copyfile(run / "weights.safetensors", aside)
    model = read_model(run)
    people = trained.groupby("cohort")["source_participant_id"].nunique()
    cohort = ", ".join(f"{SOURCES[name]} ({n} patients)" for name, n in people.items())
    copies = int(trained["y_true"].sum()) // int(people.sum())
    facts = model | chosen | {
        "name": NAME, "voxel_mm": 2.0, "slab_mm": 48.0, "cohort": cohort, "card": "card.md",
        "stripped_seen": False,
    }  # fmt: skip
    write_json(out / "model.json", facts)
    write_table(table.round(4), out / "accuracy.csv")
    said = CARD.format(
        name=NAME, planes=model["shape"][0], cohort=cohort, threshold=chosen["threshold"],
        copies=copies, **{k: chosen[k] for k in ("n_held", "n_still", "still_called")},
        size_mb=(out / "weights.safetensors").stat().st_size / 1e6,
        table=_markdown(table), accuracy=_accuracies(table, 4), two_moves=_accuracies(table, 2),
    )  # fmt: skip
    (out / "ablations.csv").unlink(missing_ok=True)
    if ablations is not None:
        write_table(ablations.round(4), out / "ablations.csv")
        said += ABLATION.format(table=_ablation_table(ablations))
    write_text(out / "card.md", said)
    return out


def shares(predictions: pd.DataFrame, chosen: dict) -> pd.DataFrame:
    """Share of each test copy called motion at the threshold, by site.

    Returns
    -------
    DataFrame
        ``site variant y_true called low high median_p n``.
    """
    rows = []
    for (site, variant), part in predictions.groupby(["site", "variant"], sort=False):
        p = calibrated(part["score"], chosen)
        called = int((p >= chosen["threshold"]).sum())
        low, high = proportion_confint(called, len(part), method="wilson")
        rows.append(
            {"site": site, "variant": variant, "y_true": part["y_true"].iloc[0]}
            | {"called": called / len(part), "low": low, "high": high}
            | {"median_p": float(np.median(p)), "n": len(part)}
        )
    return pd.DataFrame(rows)


def balanced_accuracy(own: pd.DataFrame, site: str, moves: int = 4) -> float:
    """Balanced accuracy of motion of 4-6 mm against clean and resampled scans of a site."""
    rows = own[own["site"] == site].set_index("variant")["called"]
    still = rows[["clean@native", "resampled@native"]].mean()
    return float((rows[f"torchio_n{moves}_4-6@native"] + 1 - still) / 2)


def _accuracies(own: pd.DataFrame, moves: int) -> str:
    sites = own["site"].unique()
    return ", ".join(f"{site} {balanced_accuracy(own, site, moves):.2f}" for site in sites)


def _markdown(own: pd.DataFrame) -> str:
    """Table of the shares, one row a copy, one column a site."""
    sites = list(own["site"].unique())
    sizes = own.groupby("site")["n"].first()
    lines = ["| copy | " + " | ".join(f"{site} (n = {sizes[site]})" for site in sites) + " |"]
    lines.append("|---" * (len(sites) + 1) + "|")
    for variant, rows in own.groupby("variant", sort=False):
        by_site = rows.set_index("site")
        cells = [
            f"{by_site.called[s]:.2f} [{by_site.low[s]:.2f}, {by_site.high[s]:.2f}]" for s in sites
        ]
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _ablation_table(ablations: pd.DataFrame) -> str:
    """Markdown of `modelchoice.compared`."""
    lines = ["| recipe | site | AUC | clean | resampled | moved | BA | BA, moved threshold |"]
    lines.append("|---" * 8 + "|")
    for row in ablations.itertuples():
        numbers = (row.auc, row.clean, row.resampled, row.moved, row.balanced_accuracy)
        numbers = (*numbers, row.balanced_accuracy_moved_threshold)
        cells = " | ".join("–" if np.isnan(value) else f"{value:.2f}" for value in numbers)
        lines.append(f"| {row.recipe} | {row.site} (n = {row.n}) | {cells} |")
    return "\n".join(lines)


def choose(validation: pd.DataFrame) -> dict:
    """Choose calibration, threshold and range of doubt on copies of validation patients.

    Parameters
    ----------
    validation : DataFrame
        ``variant y_true score participant_id`` of `modeltests.judged_copies`, of patients that
        neither trained nor are tested. Copies at the scans' own voxels count: every still one, and
        the moved ones of `MOVED_MM`.

    Returns
    -------
    dict
        ``calibration`` (``p = sigmoid(logit / temperature + bias)``), ``threshold`` and ``review``
        on the scale of p, and what the card says of them. The threshold is the one of the best
        balanced accuracy, but at most `STILL_CALLED` of the still copies are called motion; in
        doubt is what lies between one in ten of them and the threshold.

    Raises
    ------
    ValueError
        If the scores do not rise with motion.
    """
    rows = validation[validation["variant"].str.endswith("@native")]
    moved = rows["variant"].str.contains("|".join(MOVED_MM))
    rows = rows[(rows["y_true"] == 0) | moved]
    map_ = fit_calibrator("platt", rows["y_true"], rows["score"])
    if map_.slope <= 0:
        raise ValueError("the validation scores fall with motion; the network has learnt nothing")
    p = map_(rows["score"])
    still = p[rows["y_true"].to_numpy() == 0]
    low, most = np.quantile(still, [0.90, 1 - STILL_CALLED])
    cut = round(max(float(most), best_threshold(rows["y_true"], p)), DIGITS)
    return {
        "calibration": {"temperature": round(1 / map_.slope, 6), "bias": round(map_.bias, 6)},
        "threshold": cut,
        "review": [round(min(float(low), cut), DIGITS), cut],
        "still_called": float((still >= cut).mean()),
        "n_still": len(still),
        "n_held": int(rows["participant_id"].nunique()),
    }


def compared(predictions: pd.DataFrame) -> pd.DataFrame:
    """Judge every recipe at each site, by thresholds that no label of the site has touched.

    Parameters
    ----------
    predictions : DataFrame
        ``recipe site variant y_true score participant_id``; the site ``validation`` holds copies
        of patients that were kept from the network.

    Returns
    -------
    DataFrame
        ``recipe site auc clean resampled moved balanced_accuracy balanced_accuracy_moved_threshold
        n``: motion of 4-6 mm with four moves against clean and once resampled heads; ``clean``,
        ``resampled`` and ``moved`` are the shares called motion at the validation threshold.
        ``..._moved_threshold``: that threshold carried to the site by its ungraded scores
        (`priorshift.match_quantiles`, told only that two in three did not move); NaN where a site
        has too few.
    """
    rows = []
    for recipe, every in predictions.groupby("recipe", sort=False):
        held = every[every["site"] == "validation"]
        chosen = choose(held)
        every = every.assign(score=calibrated(every["score"], chosen))
        still = every.loc[held.index[held["variant"].isin(STILL)], "score"]
        threshold = chosen["threshold"]
        for site, part in every[every["site"] != "validation"].groupby("site", sort=False):
            part = part[part["variant"].isin([*STILL, MOVED])]
            called = (part["score"] >= threshold).groupby(part["variant"]).mean()
            rows.append(
                {"recipe": recipe, "site": site, "auc": auc(part["y_true"], part["score"])}
                | {"clean": called[STILL[0]], "resampled": called[STILL[1]]}
                | {"moved": called[MOVED], "balanced_accuracy": _accuracy(part, threshold)}
                | {"balanced_accuracy_moved_threshold": _carried(part, still, threshold)}
                | {"n": part["participant_id"].nunique()}
            )
    return pd.DataFrame(rows)


def calibrated(score, chosen: dict) -> np.ndarray:
    """Probabilities of motion by what `choose` found."""
    z = logit(np.asarray(score)) / chosen["calibration"]["temperature"]
    return 1 / (1 + np.exp(-(z + chosen["calibration"]["bias"])))


def _carried(rows: pd.DataFrame, still, threshold: float) -> float:
    """Balanced accuracy at a threshold carried by ungraded scores; NaN where they are too few."""
    if len(rows) < FEWEST:
        return float("nan")
    shift = match_quantiles(rows["score"], still, 2 / 3)
    return _accuracy(rows, shift.threshold(threshold))


def _accuracy(rows: pd.DataFrame, threshold: float) -> float:
    """Balanced accuracy at a threshold."""
    right = (rows["score"] >= threshold) == (rows["y_true"] == 1)
    return float(right.groupby(rows["y_true"]).mean().mean())


if __name__ == "__main__":
    raise SystemExit(main())
