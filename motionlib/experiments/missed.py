"""Trained networks and a ladder of motion go in; how often each rung is called motion comes out."""

from __future__ import annotations

import pandas as pd

from motionlib.experiments import copies
from motionlib.experiments.budget import default_device
from motionlib.experiments.pretraining import pretrained, read_prepared
from motionlib.training.prediction import predict_all

RUNGS = ("clean", "resampled", "motion_2-4", "motion_4-6", "motion_6-8")


def called_motion(run, simulator: str, networks, *, engine: str = "inline") -> pd.DataFrame:
    """Share of the test scans that each network calls motion, by what was done to them.

    Parameters
    ----------
    run : motionlib.study.run.Run
        A run in which the networks are trained on motion of 2-4 mm, the paper's way.
    simulator : {"image", "kspace"}
        Of the motion that they were trained on.
    networks : sequence of str
        Architectures.
    engine : str
        Where scans are made and scored.

    Returns
    -------
    DataFrame
        One row a network, one column a rung: false alarms on clean and on resampled scans, then
        sensitivity by the severity of the scan; means over folds, as fractions.
    """
    prepared = {
        rung: read_prepared(run, copies.control_set(run, rung, engine=engine)) for rung in RUNGS
    }
    asked = [
        (network, rung, folder)
        for network in networks
        for folder in pretrained(run, simulator, "2-4", "paper", network)
        for rung in RUNGS
    ]
    pairs = [(folder, prepared[rung]) for _, rung, folder in asked]
    scored = predict_all(pairs, device=default_device(), engine=engine)
    found = pd.DataFrame(asked, columns=["model", "rung", "folder"])
    found["called"] = [one["y_pred"].mean() for one in scored]
    means = found.pivot_table("called", "model", "rung", aggfunc="mean", sort=False)
    return means[list(RUNGS)].rename_axis(columns=None)
