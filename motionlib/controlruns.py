"""Pre-trained networks go in; what they call still, altered and moved copies comes out."""

from __future__ import annotations

import itertools

import pandas as pd

from motionlib import studydata
from motionlib.experiments import device_wanted, pretrained, read_prepared, rows_of
from motionlib.studycohort import manifest_of
from motionlib.training import predict
from motionlib.variants import CONTROLS, LADDER, SEVERITIES


def controls(run, recipes=("paper", "recommended"), *, simulator="image", engine="inline"):
    """Score clean scans changed in every way that is not motion, and a ladder of motion.

    Returns
    -------
    DataFrame
        Rows ``control/{recipe}/{control}``, and ``control/{recipe}/{control}/{cohort}`` for every
        other site that the cohort has scans of.
    """
    manifest = manifest_of(run)
    elsewhere = manifest.loc[manifest["role"] == "other_site", "cohort"].unique()
    parts = []
    for recipe in recipes:
        folders = pretrained(run, simulator, "2-4", recipe)
        for control, site in itertools.product((*CONTROLS, *LADDER), ("", *elsewhere)):
            role = "other_site" if site else "test"
            prepared = studydata.control_set(run, control, role=role, engine=engine)
            rows = read_prepared(run, prepared)
            rows = rows[rows["cohort"] == site] if site else rows
            name = f"control/{recipe}/{control}" + (f"/{site}" if site else "")
            for fold, folder in enumerate(folders):
                found = predict(folder, rows, device=device_wanted())
                parts.append(rows_of(found, name, "synthetic", "Conv5FC3", fold))
    return pd.concat(parts, ignore_index=True)


def called_by_severity(run, simulators, networks, *, engine: str = "inline") -> pd.DataFrame:
    """Share of the test patients' heads that each network calls motion, still and by severity.

    Parameters
    ----------
    run : motionlib.runs.Run
        A run whose networks are pre-trained by the paper's recipe.
    simulators, networks : sequence of str
        The cells; each network sees motion of the simulator that it was trained on.
    engine : str
        Where copies are made.

    Returns
    -------
    DataFrame
        ``simulator model`` and the shares of ``clean``, ``resampled`` and moved copies, mean over
        the folds.
    """
    rows = []
    for simulator, network in itertools.product(simulators, networks):
        folders = pretrained(run, simulator, "2-4", "paper", network)
        row = {"simulator": simulator, "model": network}
        moved = {severity: f"{simulator}_{severity}_paper" for severity in SEVERITIES}
        for name, variant in {"clean": "clean", "resampled": "resampled", **moved}.items():
            prepared = studydata.control_set(run, variant, engine=engine)
            found = [predict(folder, prepared, device=device_wanted()) for folder in folders]
            row[name] = pd.concat(found)["y_pred"].mean()
        rows.append(row)
    return pd.DataFrame(rows)
