"""Predictions, trajectories and counts go in; matplotlib figures in one style come out.

Every function returns a new figure and leaves pyplot and the global settings alone. Anatomical
panels live in `slices`, comparisons of many sets in `comparisons`; both can be had from here.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from motionlib.figures.cohort import show_slices
from motionlib.figures.comparisons import (
    plot_controls,
    plot_learning_curve,
    plot_mcnemar_range,
    plot_score_by_severity,
    plot_scoreboard,
)
from motionlib.figures.diagrams import plot_flow, plot_trajectory
from motionlib.figures.theme import METHOD_ORDER, new_figure, style_of, styled, title_of
from motionlib.metrics import classification_metrics, roc
from motionlib.pairing import check_labels, combine_folds
from motionlib.stats.intervals import bootstrap_ci

__all__ = [
    "plot_calibration",
    "plot_confusion",
    "plot_controls",
    "plot_flow",
    "plot_learning_curve",
    "plot_mcnemar_range",
    "plot_roc",
    "plot_score_by_severity",
    "plot_scoreboard",
    "plot_trajectory",
    "show_slices",
]
TASK_ORDER = ("mov01vs2", "mov0vs1")


def _series(predictions: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Name each model's predictions, one row a scan: raters first, then methods in their order."""
    found = []
    for (experiment, model), part in predictions.groupby(["experiment", "model"], sort=False):
        name = experiment.split("/")[-1]
        several = predictions.loc[predictions["experiment"] == experiment, "model"].nunique() > 1
        found.append((model if several else name, combine_folds(part)))
    places = {name: place for place, name in enumerate(METHOD_ORDER)}
    return sorted(found, key=lambda item: places.get(item[0], len(places)))


def _draw_roc(axes, predictions: pd.DataFrame, n_boot: int, seed: int) -> None:
    """Draw one task: curves, operating points, raters."""
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle=":")
    series = _series(predictions)
    curves = [(name, rows) for name, rows in series if not name.startswith("rater")]
    names = [name for name, _ in curves]
    for name, rows in curves:
        style = style_of(name, names)
        curve = roc(rows["y_true"], rows["score"])
        area = bootstrap_ci(
            rows["y_true"],
            rows["score"],
            rows["participant_id"],
            metric="auc",
            n_boot=n_boot,
            seed=seed,
        )
        axes.plot(
            curve["false_positive_rate"],
            curve["sensitivity"],
            color=style["color"],
            linestyle=style["linestyle"],
            label=f"{title_of(name)}: {area.estimate:.2f} [{area.low:.2f}, {area.high:.2f}]",
        )
        _draw_point(axes, rows, style["marker"], style["color"], size=7)
    for name, rows in series:
        if name.startswith("rater"):
            number = name.rsplit("_", 1)[-1]
            label = f"rater {number} (against the consensus)"
            _draw_point(axes, rows, f"${number}$", "black", size=8, label=label)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set(xlabel="1 - specificity", ylabel="sensitivity")


def _draw_point(axes, rows: pd.DataFrame, marker, colour, *, size: float, label=None) -> None:
    """Mark where the decisions of one model or rater lie."""
    found = classification_metrics(rows["y_true"], rows["score"], y_pred=rows["y_pred"])
    axes.plot(
        1 - found["specificity"],
        found["sensitivity"],
        marker=marker,
        color=colour,
        markersize=size,
        markeredgecolor="white" if label is None else colour,
        linestyle="none",
        label=label,
        clip_on=False,
        zorder=5,
    )


@styled
def plot_roc(predictions: pd.DataFrame, *, n_boot: int = 1000, seed: int = 0):
    """Draw ROC curves with AUC and interval, the operating points, and the raters.

    Parameters
    ----------
    predictions : DataFrame
        Rows of ``predictions.csv``; one panel a task, one curve an experiment (and model). Folds
        are averaged by scan unless fold -1 is there. Models named ``rater...`` become points:
        the human ceiling.
    n_boot, seed : int
        Draws of patients for the intervals.

    Returns
    -------
    Figure
        Markers on the curves are the decisions in ``y_pred``.

    Raises
    ------
    ValueError
        No rows, or one class only.

    Notes
    -----
    Source: paper Fig. 3, to which the intervals, operating points and raters are added.
    """
    tasks = sorted(predictions["task"].unique(), key=lambda t: ([*TASK_ORDER, t].index(t), t))
    if not tasks:
        raise ValueError("Found no predictions, expected one model's or more: check the selection.")
    most = max(
        len(part[["experiment", "model"]].drop_duplicates())
        for _, part in predictions.groupby("task")
    )
    legend = 0.5 + 0.19 * most
    figure, axes = new_figure(
        4.6 * len(tasks), 4.7 + legend, len(tasks), 2, height_ratios=(4.7, legend)
    )
    for each, below, task in zip(*axes, tasks, strict=True):
        rows = predictions[predictions["task"] == task]
        _draw_roc(each, rows, n_boot, seed)
        below.set_axis_off()
        below.legend(
            *each.get_legend_handles_labels(), loc="upper center", fontsize=8, title="AUC [95 %]"
        )
        scans = rows.drop_duplicates("scan_id")
        each.set_title(f"{task}: {int(scans['y_true'].sum())} of {len(scans)} scans with motion")
    return figure


@styled
def plot_calibration(predictions: pd.DataFrame, *, n_bins: int = 10):
    """Draw how often motion is there among scans of a given score.

    Parameters
    ----------
    predictions : DataFrame
        Rows of ``predictions.csv``; one line an experiment and model, folds averaged by scan.
    n_bins : int, default=10
        Bins of equal numbers of scans.

    Returns
    -------
    Figure
        Reliability above, histogram of scores below; the vertical bars are 95 % Wilson limits.
    """
    from statsmodels.stats.proportion import proportion_confint

    figure, axes = new_figure(4.8, 5.6, 1, 2, sharex=True, height_ratios=(3, 1))
    top, bottom = axes[:, 0]
    top.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle=":")
    series = _series(predictions)
    for name, rows in series:
        style = style_of(name, [each for each, _ in series])
        y_true, score = check_labels(rows["y_true"], rows["score"])
        bins = pd.qcut(score, n_bins, duplicates="drop", labels=False)
        bins = np.zeros(len(score), dtype=int) if np.isnan(bins).all() else bins
        parts = pd.DataFrame({"y": y_true, "s": score}).groupby(bins)
        seen, mean = parts["y"].mean(), parts["s"].mean()
        low, high = proportion_confint(parts["y"].sum(), parts.size(), method="wilson")
        above = [np.maximum(seen - low, 0), np.maximum(high - seen, 0)]
        top.errorbar(mean, seen, above, capsize=2, label=title_of(name), **style)
        bottom.hist(score, bins=np.linspace(0, 1, 21), histtype="step", color=style["color"])
    top.set(ylabel="fraction with motion", xlim=(0, 1), ylim=(-0.02, 1.02))
    bottom.set(xlabel="score (mean of the bin)", ylabel="scans")
    top.legend(fontsize=8)
    return figure


@styled
def plot_confusion(first, second, *, labels=None, names=("truth", "called")):
    """Draw a table of counts: labels against calls, or one rater's grades against another's.

    Parameters
    ----------
    first, second : array-like, shape (n,)
        Values of the same scans; rows and columns of the table.
    labels : sequence, optional
        Order of the values; default sorted.
    names : tuple of str, default=('truth', 'called')
        Axis labels.

    Returns
    -------
    Figure
        Each cell holds the count and its percentage of the row.
    """
    first, second = pd.Series(np.asarray(first)), pd.Series(np.asarray(second))
    labels = sorted(set(first.dropna()) | set(second.dropna())) if labels is None else list(labels)
    table = pd.crosstab(first, second).reindex(index=labels, columns=labels, fill_value=0)
    counts = table.to_numpy()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = new_figure(1.6 + 0.9 * len(labels), 1.3 + 0.85 * len(labels))
    each = axes[0, 0]
    each.imshow(share, cmap="Blues", vmin=0, vmax=1)
    each.grid(False)
    for row, column in np.ndindex(counts.shape):
        colour = "white" if share[row, column] > 0.55 else "black"
        text = f"{counts[row, column]}\n{share[row, column]:.0%}"
        each.text(column, row, text, ha="center", va="center", color=colour, fontsize=9)
    ticks = range(len(labels))
    each.set_xticks(ticks, [str(label) for label in labels])
    each.set_yticks(ticks, [str(label) for label in labels])
    each.set(xlabel=names[1], ylabel=names[0])
    return figure
