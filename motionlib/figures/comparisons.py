"""Predictions of many sets, or finished tables, go in; figures that compare them come out."""

from __future__ import annotations

import numpy as np
import pandas as pd

from motionlib.figures.theme import COLOURS, DASHES, MARKERS, new_figure, style_of, styled, title_of
from motionlib.stats.rates import control_rates, learning_curve

FARTHEST = -42.0  # log10 of p; what lies beyond is written, not drawn


def _bars(values, low, high) -> np.ndarray:
    """Distances of the limits from the values, as error bars want them: (2, n), never below 0."""
    values = np.asarray(values, dtype=float)
    ends = np.stack([values - np.asarray(low, float), np.asarray(high, float) - values])
    return np.nan_to_num(np.maximum(ends, 0))


@styled
def plot_controls(predictions: pd.DataFrame, *, n_boot: int = 1000, seed: int = 0):
    """Draw how often clean, altered and moved scans are called motion, for each recipe.

    Parameters
    ----------
    predictions : DataFrame
        As for `control_rates`, or its result.
    n_boot, seed : int
        Draws of patients for the intervals.

    Returns
    -------
    Figure
        One panel a site; controls without motion above the line, with motion below.
    """
    rates = predictions
    if "rate" not in rates:
        rates = control_rates(predictions, n_boot=n_boot, seed=seed)
    controls = sorted(rates["control"].unique(), key=lambda name: name.startswith("motion"))
    controls = list(dict.fromkeys(controls))
    sites, recipes = list(rates["site"].unique()), list(rates["recipe"].unique())
    figure, axes = new_figure(
        1.6 + 3.6 * len(sites), 1.4 + 0.42 * len(controls), len(sites), sharey=True
    )
    n_still = sum(not name.startswith("motion") for name in controls)
    for each, site in zip(axes[0], sites, strict=True):
        for number, recipe in enumerate(recipes):
            part = rates[(rates["site"] == site) & (rates["recipe"] == recipe)]
            if part.empty:
                continue
            place = part["control"].map(controls.index) + 0.16 * (number - (len(recipes) - 1) / 2)
            bars = _bars(part["rate"], part["low"], part["high"])
            each.errorbar(
                part["rate"],
                place,
                xerr=bars,
                color=COLOURS[number],
                marker=MARKERS[number],
                linestyle="none",
                capsize=2,
                label=f"{recipe} recipe",
            )
        each.axhline(n_still - 0.5, color="#555555", linewidth=0.8)
        each.set(xlim=(-0.03, 1.03), xlabel="fraction called motion")
        each.set_title(title_of(site) if site else "own site")
    axes[0, 0].set_yticks(range(len(controls)), [name.replace("_", " ") for name in controls])
    axes[0, 0].set_ylim(len(controls) - 0.5, -0.5)
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(recipes)
    )
    return figure


@styled
def plot_score_by_severity(
    scores: pd.DataFrame, *, x: str = "severity_mm", group: str | None = None, n_bins: int = 8
):
    """Draw scores against how far the head moved.

    Parameters
    ----------
    scores : DataFrame
        ``score`` and the column `x`, one row a scan; optionally `group`, one colour each.
    x : str, default='severity_mm'
        Displacement in mm.
    group : str, optional
        Column that splits the scans.
    n_bins : int, default=8
        Bins of equal numbers of scans, for the line of means.

    Returns
    -------
    Figure
        Points are scans; the line is the mean of each bin with its standard error.
    """
    figure, axes = new_figure(6.0, 3.8)
    each = axes[0, 0]
    parts = [("all scans", scores)] if group is None else list(scores.groupby(group, sort=False))
    names = [str(name) for name, _ in parts]
    for number, (name, part) in enumerate(parts):
        part = part.dropna(subset=[x, "score"])
        style = style_of(str(name), names)
        each.scatter(
            part[x], part["score"], s=12, alpha=0.35, color=style["color"], marker=style["marker"]
        )
        bins = pd.qcut(part[x].rank(method="first"), min(n_bins, len(part)), labels=False)
        means = part.groupby(bins)[[x, "score"]].mean()
        spread = part.groupby(bins)["score"].sem().fillna(0)
        style["linestyle"] = DASHES[number % len(DASHES)]
        each.errorbar(
            means[x], means["score"], spread, capsize=2, label=title_of(str(name)), **style
        )
    each.axhline(0.5, color="#999999", linewidth=0.8, linestyle=":")
    each.set(ylim=(-0.03, 1.03), ylabel="score (probability of motion)")
    each.set_xlabel("realised motion (mm)" if x == "severity_mm" else x.replace("_", " "))
    if group is not None:
        each.legend(fontsize=8)
    return figure


@styled
def plot_learning_curve(
    predictions: pd.DataFrame,
    *,
    metric: str = "balanced_accuracy",
    n_boot: int = 1000,
    seed: int = 0,
):
    """Draw what each further graded patient buys.

    Parameters
    ----------
    predictions : DataFrame
        As for `learning_curve`, or its result.
    metric : str, default='balanced_accuracy'
        What is drawn.
    n_boot, seed : int
        Draws of patients for the intervals.

    Returns
    -------
    Figure
        Logarithmic number of patients; bars are 95 % intervals.
    """
    curve = predictions
    if "n_patients" not in curve:
        curve = learning_curve(predictions, n_boot=n_boot, seed=seed)
    curve = curve[curve["metric"] == metric]
    tasks = list(curve["task"].unique())
    figure, axes = new_figure(4.8 * len(tasks), 3.8, len(tasks), sharey=True)
    for each, task in zip(axes[0], tasks, strict=True):
        methods = list(curve.loc[curve["task"] == task, "method"].unique())
        for name in methods:
            part = curve[(curve["task"] == task) & (curve["method"] == name)]
            part = part.sort_values("n_patients")
            bars = _bars(part["mean"], part["low"], part["high"])
            each.errorbar(
                part["n_patients"],
                part["mean"],
                bars,
                capsize=2,
                label=title_of(name),
                **style_of(name, methods),
            )
        each.axhline(0.5, color="#999999", linewidth=0.8, linestyle=":")
        each.set_xscale("log")
        ticks = sorted(curve.loc[curve["task"] == task, "n_patients"].unique())
        each.set_xticks(ticks, [str(tick) for tick in ticks])
        each.minorticks_off()
        each.set(title=task, xlabel="graded patients", ylabel=metric.replace("_", " "))
    named = axes[0, 0].get_legend_handles_labels()
    figure.legend(*named, loc="outside lower center", ncols=len(named[1]))
    return figure


@styled
def plot_scoreboard(table: pd.DataFrame):
    """Draw the paper's and our values of a comparison table, one row each.

    Parameters
    ----------
    table : DataFrame
        ``label paper ours low high``, optionally ``task`` (one panel each); fractions.

    Returns
    -------
    Figure
        Open diamonds are the paper's values, filled circles ours with their interval.
    """
    tasks = list(table["task"].unique()) if "task" in table else [None]
    tallest = max(len(table) if task is None else (table["task"] == task).sum() for task in tasks)
    figure, axes = new_figure(1.8 + 3.7 * len(tasks), 1.3 + 0.36 * tallest, len(tasks))
    for number, (each, task) in enumerate(zip(axes[0], tasks, strict=True)):
        part = table if task is None else table[table["task"] == task]
        place = np.arange(len(part))
        bars = _bars(part["ours"], part["low"], part["high"])
        each.errorbar(
            part["ours"],
            place,
            xerr=bars,
            fmt="o",
            color=COLOURS[0],
            capsize=2,
            label="ours",
        )
        each.plot(
            part["paper"], place, "D", color=COLOURS[1], markerfacecolor="white", label="paper"
        )
        labels = [title_of(label) if number == 0 else "" for label in part["label"]]
        each.set_yticks(place, labels)
        each.set_ylim(len(part) - 0.5, -0.5)
        each.set(xlabel="balanced accuracy", title=task or "")
        each.axvline(0.5, color="#999999", linewidth=0.8, linestyle=":")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


@styled
def plot_mcnemar_range(ranges: pd.DataFrame):
    """Draw which p-values a printed table allows, and where the printed p lies.

    Parameters
    ----------
    ranges : DataFrame
        ``label p_low p_high p_printed``.

    Returns
    -------
    Figure
        Logarithmic p; the bar spans every overlap that the margins allow.
    """
    figure, axes = new_figure(7.0, 1.2 + 0.4 * len(ranges))
    each = axes[0, 0]
    place = np.arange(len(ranges))
    low, high = np.log10(ranges["p_low"]), np.log10(ranges["p_high"])
    each.barh(
        place,
        high - low,
        left=low,
        height=0.45,
        color="#BBD4E8",
        edgecolor=COLOURS[0],
        label="reachable",
    )
    each.plot(np.log10(ranges["p_printed"]), place, "D", color=COLOURS[1], label="printed")
    for row, (left, right) in enumerate(zip(low, high, strict=True)):
        if right < FARTHEST:
            text = f"$10^{{{left:.0f}}}$ to $10^{{{right:.0f}}}$"
            arrow = {"arrowstyle": "-|>", "color": COLOURS[0]}
            each.annotate(text, (FARTHEST, row), (FARTHEST + 4, row), va="center", arrowprops=arrow)
    each.set_xlim(max(FARTHEST, min(low.min(), -10)), 1)
    each.axvline(np.log10(0.05), color="#555555", linewidth=0.9, linestyle="--", label="p = 0.05")
    each.set_yticks(place, ranges["label"])
    each.set_ylim(len(ranges) - 0.5, -0.5)
    each.set(xlabel="log10 of the exact p")
    figure.legend(*each.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure
