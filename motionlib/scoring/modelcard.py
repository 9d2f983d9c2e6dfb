"""A trained network and its test scores come in; a model folder with its card goes out."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from motionlib.files import atomic, write_json, write_table, write_text
from motionlib.scoring.modelchoice import calibrated
from motionlib.training.checkpoints import read_model

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
