"""Tables of rates with patient intervals: controls, learning curve, intervals that are kept."""

from functools import partial

import numpy as np
import pandas as pd
from scipy.stats import norm

from motionlib.compute.engines import raise_failures, submit
from motionlib.stats.intervals import bootstrap_ci, rate_called, summary_intervals


def controls_table(predictions: pd.DataFrame, *, n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Share of each control called motion, by recipe and site, with patient intervals.

    Departs from the paper: it reports no controls.

    Parameters
    ----------
    predictions : DataFrame
        Rows of ``predictions.csv`` whose experiment is ``control/{recipe}/{control}[/{site}]``;
        ValueError if there are none.
    n_boot, seed : int
        Draws of patients and their seed.

    Returns
    -------
    DataFrame
        ``recipe site control still called_motion low high n n_patients``; the mean over the folds'
        models, with the limits of `intervals.rate_called`.
    """
    chosen = _experiments(predictions, "control/{recipe}/{control}", "controls of notebook 02")
    order = {name.split("/")[2]: place for place, name in enumerate(chosen["experiment"].unique())}
    rows = []
    for experiment, part in chosen.groupby("experiment", sort=False):
        recipe, control, *site = experiment.split("/")[1:]
        rate = rate_called(part, n_boot=n_boot, seed=seed)
        rows.append(
            {
                "recipe": recipe,
                "site": "/".join(site) or "same site",
                "control": control,
                "still": not control.startswith("motion"),
                "called_motion": part["y_pred"].mean(),
                "low": rate.low,
                "high": rate.high,
                "n": rate.n,
                "n_patients": rate.n_groups,
            }
        )
    return pd.DataFrame(rows).sort_values(
        ["site", "recipe", "control"],
        key=lambda column: column.map(order) if column.name == "control" else column,
        ignore_index=True,
    )


def learning_curve(predictions: pd.DataFrame, *, n_boot: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Metrics against the number of graded patients.

    From rows ``labels/{n}`` or ``labels/{method}/{n}`` of ``predictions.csv``, a table ``task
    method n_patients metric mean low high`` with intervals by drawing patients.
    """
    chosen = _experiments(predictions, "labels/{method}/{n}", "learning curve of notebook 04")
    rows = []
    for (experiment, task), part in chosen.groupby(["experiment", "task"], sort=False):
        *method, n_patients = experiment.split("/")[1:]
        for metric, interval in summary_intervals(part, n_boot=n_boot, seed=seed).items():
            name = "/".join(method) or "fine_tuned"
            limits = (interval.estimate, interval.low, interval.high)
            rows.append((task, name, int(n_patients), metric, *limits))
    columns = ["task", "method", "n_patients", "metric", "mean", "low", "high"]
    return pd.DataFrame(rows, columns=columns).sort_values(
        ["task", "method", "metric", "n_patients"], ignore_index=True
    )


def kept_intervals(n_studies: int, *, n_boot: int, seed: int, engine: str) -> pd.DataFrame:
    """Draw studies whose balanced accuracy is known, and count how often intervals hold it.

    Each has 30 patients with eight scans, alike in four fifths of their noise. Returns a row for
    drawing patients and one for drawing scans: ``coverage`` and mean ``width``.
    """
    one = partial(_hold_the_truth, n_boot=n_boot, seed=seed)
    options = {"engine": engine, "label": "simulated studies", "batch": 10}
    studies = np.array(raise_failures(submit(one, range(n_studies), **options)))
    rows = {"index": ["patients drawn", "scans drawn"], "columns": ["coverage", "width"]}
    return pd.DataFrame(studies.mean(axis=0), **rows)


def _hold_the_truth(number: int, *, n_boot: int, seed: int) -> list[tuple[float, float]]:
    """Whether each of two intervals of one simulated study holds the truth, and its width."""
    rng, patient = np.random.default_rng([seed, number]), np.repeat(np.arange(30), 8)
    moved = (rng.permutation(30)[patient] < 10).astype(int)
    noise = rng.normal(scale=0.8**0.5, size=30)[patient] + rng.normal(scale=0.2**0.5, size=240)
    score, truth = norm.cdf(noise + 1.6 * (moved - 0.5)), norm.cdf(0.8)
    both = [bootstrap_ci(moved, score, groups, n_boot=n_boot) for groups in (patient, None)]
    return [(float(each.low <= truth <= each.high), each.high - each.low) for each in both]


def _experiments(predictions: pd.DataFrame, pattern: str, source: str) -> pd.DataFrame:
    """Rows of the experiments named by a pattern such as ``labels/{method}/{n}``."""
    start = pattern.partition("/")[0] + "/"
    chosen = predictions[predictions["experiment"].str.startswith(start)]
    if chosen.empty:
        raise ValueError(
            f"Found no experiment named {start}..., expected {pattern}: run the {source} first."
        )
    return chosen
