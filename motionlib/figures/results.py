"""Figures of results: ROC curves, calibration, controls, learning curves, what a p-value allows."""

import numpy as np
import pandas as pd
from matplotlib.markers import CARETDOWN, CARETLEFT, CARETRIGHT, CARETUP
from matplotlib.ticker import LogLocator

from motionlib.figures.theme import (
    COLOURS,
    MARKERS,
    METHOD_ORDER,
    new_figure,
    sentence_figure,
    style_of,
    styled,
)
from motionlib.metrics import roc
from motionlib.predictions import check_labels, combine_folds, judged_sets
from motionlib.stats.intervals import summary_intervals
from motionlib.stats.rates import learning_curve
from motionlib.typeset import label as title_of

TASK_ORDER = ("mov01vs2", "mov0vs1")
CHANCE = {"color": "#999999", "linewidth": 0.8, "linestyle": ":"}  # line of a coin's decisions
MOST_LINES = 4  # curves in one panel
CARETS = (CARETLEFT, CARETRIGHT, CARETUP, CARETDOWN)
FARTHEST = -42.0  # log10 of p; what lies beyond is written, not drawn


@styled
def plot_roc(predictions: pd.DataFrame, *, n_boot: int = 2000, seed: int = 0):
    """Draw ROC curves with AUC and interval, the operating points, and the raters.

    `predictions` are rows of ``predictions.csv``: one column a task, one curve an experiment (and
    model), at most `MOST_LINES` a panel. As in Table IV a curve is the mean of the folds' models
    (its area their mean AUC) or of all scans out of fold, with intervals by `n_boot` draws of
    patients. Markers on the curves are the decisions in ``y_pred``; models named ``rater...``
    become points, the human ceiling. No rows, or one class only, is a `ValueError`.

    Source: paper Fig. 3, to which the intervals, operating points and raters are added.
    """
    tasks = sorted(predictions["task"].unique(), key=lambda t: ([*TASK_ORDER, t].index(t), t))
    if not tasks:
        raise ValueError("Found no predictions, expected one model's or more: check the selection.")
    series = {task: _series(predictions[predictions["task"] == task]) for task in tasks}
    names = dict.fromkeys(name for task in tasks for name, _ in series[task])
    order = [*METHOD_ORDER, *[name for name in names if name not in METHOD_ORDER]]
    panel = {name: order.index(name) // MOST_LINES for name in names if name[:5] != "rater"}
    lines = sorted(set(panel.values())) or [0]
    heights = (4.8, 1.6) * len(lines)  # a panel, and the names below it
    figure, axes = new_figure(
        4.8 * len(tasks), sum(heights), len(tasks), len(heights), height_ratios=heights
    )
    for column, task in enumerate(tasks):
        scans = predictions[predictions["task"] == task].drop_duplicates("scan_id")
        counts = f"{int(scans['y_true'].sum())} of {len(scans)} scans with motion"
        panels = axes[:, column].reshape(-1, 2)
        for (ax, below), line in zip(panels, lines, strict=True):
            shown = [(n, rows) for n, rows in series[task] if panel.get(n, line) == line]
            _draw_roc(ax, shown, n_boot, seed)
            ax.set_title(f"{title_of(task)}\n{counts}", fontsize=11)
            below.set_axis_off()
            names_below = {"loc": "upper center", "fontsize": 9, "title": "AUC [95 %]"}
            below.legend(*ax.get_legend_handles_labels(), **names_below)
    return figure


@styled
def plot_calibration(predictions: pd.DataFrame, *, n_bins: int = 10):
    """Draw how often motion is there among scans of a given score, with 95 % Wilson limits.

    One line an experiment and model, folds averaged by scan, in `n_bins` bins of as many scans.
    """
    from statsmodels.stats.proportion import proportion_confint

    figure, axes = new_figure(4.8, 5.6, 1, 2, sharex=True, height_ratios=(3, 1))
    top, bottom = axes[:, 0]
    top.plot([0, 1], [0, 1], **CHANCE)
    series = _series(predictions)
    for name, rows in series:
        style = style_of(name, [other for other, _ in series])
        rows = combine_folds(rows)
        y_true, score = check_labels(rows["y_true"], rows["score"])
        bins = pd.qcut(score, n_bins, duplicates="drop", labels=False)
        bins = np.zeros(len(score), dtype=int) if np.isnan(bins).all() else bins
        parts = pd.DataFrame({"y": y_true, "s": score}).groupby(bins)
        seen, mean = parts["y"].mean(), parts["s"].mean()
        low, high = proportion_confint(parts["y"].sum(), parts.size(), method="wilson")
        bars = _bars(seen, low, high)
        top.errorbar(mean, seen, bars, capsize=2, label=title_of(name), **style)
        bottom.hist(score, bins=np.linspace(0, 1, 21), histtype="step", color=style["color"])
    top.set(ylabel="fraction with motion", xlim=(0, 1), ylim=(-0.02, 1.02))
    bottom.set(xlabel="score (mean of the bin)", ylabel="scans")
    top.legend(fontsize=8)
    return figure


@styled
def plot_confusion(first, second, *, labels=None, names=("truth", "called")):
    """Draw a table of counts: labels against calls, or one rater's grades against another's.

    `first` and `second`, shape (n,), are values of the same scans, rows and columns in the order of
    `labels` (default sorted). Each cell holds the count and its percentage of the row.
    """
    first, second = pd.Series(np.asarray(first)), pd.Series(np.asarray(second))
    labels = sorted(set(first.dropna()) | set(second.dropna())) if labels is None else list(labels)
    table = pd.crosstab(first, second).reindex(index=labels, columns=labels, fill_value=0)
    counts = table.to_numpy()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = new_figure(1.6 + 0.9 * len(labels), 1.3 + 0.85 * len(labels))
    ax = axes[0, 0]
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    ax.grid(False)
    for row, column in np.ndindex(counts.shape):
        colour = "white" if share[row, column] > 0.55 else "black"
        text = f"{counts[row, column]}\n{share[row, column]:.0%}"
        ax.text(column, row, text, ha="center", va="center", color=colour, fontsize=9)
    ticks = range(len(labels))
    ax.set_xticks(ticks, [str(label) for label in labels])
    ax.set_yticks(ticks, [str(label) for label in labels])
    ax.set(xlabel=names[1], ylabel=names[0])
    return figure


@styled
def plot_controls(rates: pd.DataFrame):
    """Draw how often clean, altered and moved scans are called motion, for each recipe.

    `rates` come from `stats.controls_table`: one panel a site, those without motion above the line.
    """
    controls = list(rates.sort_values("still", ascending=False, kind="stable")["control"].unique())
    sites = sorted(rates["site"].unique(), key=lambda name: name != "same site")
    recipes = list(rates["recipe"].unique())
    figure, axes = new_figure(
        1.6 + 3.6 * len(sites), 1.4 + 0.42 * len(controls), len(sites), sharey=True
    )
    n_still = rates.loc[rates["still"], "control"].nunique()
    for ax, site in zip(axes[0], sites, strict=True):
        for number, recipe in enumerate(recipes):
            part = rates[(rates["site"] == site) & (rates["recipe"] == recipe)]
            if part.empty:
                continue
            place = part["control"].map(controls.index) + 0.16 * (number - (len(recipes) - 1) / 2)
            bars = _bars(part["called_motion"], part["low"], part["high"])
            style = {"color": COLOURS[number], "marker": MARKERS[number], "linestyle": "none"}
            style |= {"capsize": 2, "label": f"{recipe} recipe"}
            ax.errorbar(part["called_motion"], place, xerr=bars, **style)
        ax.axhline(n_still - 0.5, color="#555555", linewidth=0.8)
        ax.set(xlim=(-0.03, 1.03), xlabel="fraction called motion")
        ax.set_title(title_of(site))
    axes[0, 0].set_yticks(range(len(controls)), [name.replace("_", " ") for name in controls])
    axes[0, 0].set_ylim(len(controls) - 0.5, -0.5)
    _legend_below(figure, axes[0, 0])
    return figure


@styled
def plot_learning_curve(predictions: pd.DataFrame, *, n_boot: int = 1000):
    """Draw what each further graded patient buys, on a logarithmic number of patients.

    `predictions` as for `stats.rates.learning_curve`; bars are 95 % intervals of the balanced
    accuracy over `n_boot` draws.
    """
    curve = learning_curve(predictions, n_boot=n_boot)
    curve = curve[curve["metric"] == "balanced_accuracy"]
    tasks = list(curve["task"].unique())
    figure, axes = new_figure(5.6 * len(tasks), 4.2, len(tasks), sharey=True)
    for ax, task in zip(axes[0], tasks, strict=True):
        methods = list(curve.loc[curve["task"] == task, "method"].unique())
        for number, name in enumerate(methods):
            part = curve[(curve["task"] == task) & (curve["method"] == name)]
            part = part.sort_values("n_patients")
            bars = _bars(part["mean"], part["low"], part["high"])
            style = style_of(name, methods) | {"capsize": 2, "label": title_of(name)}
            beside = 1.02 ** (2 * number - len(methods) + 1)  # bars beside each other, not on top
            ax.errorbar(beside * part["n_patients"], part["mean"], bars, **style)
        ax.axhline(0.5, **CHANCE)
        ax.set_xscale("log")
        ticks = sorted(curve.loc[curve["task"] == task, "n_patients"].unique())
        ax.set_xticks(ticks, [str(tick) for tick in ticks])
        ax.minorticks_off()
        ax.set(title=title_of(task), xlabel="graded patients", ylabel="balanced accuracy")
    _legend_below(figure, axes[0, 0])
    return figure


@styled
def plot_scoreboard(table: pd.DataFrame, *, metric: str = "balanced accuracy"):
    """Draw the paper's and our values of a comparison table, one row a value, one panel a task.

    `table` has ``task label paper ours low high`` as fractions: open diamonds are the paper's
    values, if any, filled circles ours with their interval. A mere ``reason`` is written instead.
    """
    if "ours" not in table:
        return sentence_figure(table["reason"].iloc[0])
    tasks = list(table["task"].unique())
    labels = list(dict.fromkeys(table["label"]))  # one row each, in every panel the same
    figure, axes = new_figure(
        1.8 + 3.7 * len(tasks), 1.3 + 0.36 * len(labels), len(tasks), sharey=True
    )
    for ax, task in zip(axes[0], tasks, strict=True):
        part = table[table["task"] == task]
        place = part["label"].map(labels.index)
        bars = _bars(part["ours"], part["low"], part["high"])
        style = {"fmt": "o", "color": COLOURS[0], "capsize": 2, "label": "ours"}
        ax.errorbar(part["ours"], place, xerr=bars, **style)
        if "paper" in part:
            style = {"color": COLOURS[1], "markerfacecolor": "white", "label": "paper"}
            ax.plot(part["paper"], place, "D", **style)
        ax.set(xlabel=metric, title=title_of(task))
        ax.axvline(0.5, **CHANCE)
    axes[0, 0].set_yticks(range(len(labels)), [title_of(label) for label in labels])
    axes[0, 0].set_ylim(len(labels) - 0.5, -0.5)
    if "paper" in table:
        _legend_below(figure, axes[0, 0])
    return figure


@styled
def plot_mcnemar_range(ranges: pd.DataFrame):
    """Draw which p-values a printed table allows, and where the printed p lies.

    `ranges` has ``label p_low p_high p_printed``; the bar spans every overlap the margins allow.
    """
    figure, axes = new_figure(7.0, 1.2 + 0.4 * len(ranges))
    ax = axes[0, 0]
    place = np.arange(len(ranges))
    low, high = np.log10(ranges["p_low"]), np.log10(ranges["p_high"])
    style = {"height": 0.45, "color": "#BBD4E8", "edgecolor": COLOURS[0], "label": "reachable"}
    ax.barh(place, high - low, left=low, **style)
    ax.plot(np.log10(ranges["p_printed"]), place, "D", color=COLOURS[1], label="printed")
    for row, (left, right) in enumerate(zip(low, high, strict=True)):
        if right < FARTHEST:
            text = f"$10^{{{left:.0f}}}$ to $10^{{{right:.0f}}}$"
            arrow = {"arrowstyle": "-|>", "color": COLOURS[0]}
            ax.annotate(text, (FARTHEST, row), (FARTHEST + 4, row), va="center", arrowprops=arrow)
    ax.set_xlim(max(FARTHEST, min(low.min(), -10)), 1)
    ax.axvline(np.log10(0.05), color="#555555", linewidth=0.9, linestyle="--", label="p = 0.05")
    ax.set_yticks(place, ranges["label"])
    ax.set_ylim(len(ranges) - 0.5, -0.5)
    ax.set(xlabel="log10 of the exact p")
    _legend_below(figure, ax)
    return figure


@styled
def plot_training(curves: pd.DataFrame):
    """Draw the validation loss by epoch, one panel a simulator, one colour a network.

    `curves` come from `experiments.learning_curves`; lines are folds, markers the epochs kept.
    """
    simulators, models = curves["simulator"].unique(), list(curves["model"].unique())
    figure, axes = new_figure(4.4 * len(simulators), 3.8, len(simulators), sharey=True)
    for ax, simulator in zip(axes[0], simulators, strict=True):
        for (model, fold), curve in curves[curves["simulator"] == simulator].groupby(
            ["model", "fold"], sort=False
        ):
            style = style_of(model, models)
            marker = style.pop("marker")
            label = model if fold == 0 else None
            ax.plot(curve["epoch"], curve["valid_loss"], linewidth=1, label=label, **style)
            best = curve.loc[curve["valid_loss"].idxmin()]
            ax.plot(best["epoch"], best["valid_loss"], marker=marker, color=style["color"])
        ax.set(xlabel="epoch", title=f"{simulator} motion, 2-4 mm and degrees", yscale="log")
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter("")
    axes[0, 0].set_ylabel("validation loss (cross-entropy)")
    axes[0, 0].legend(fontsize=8)
    return figure


@styled
def plot_cost(accuracy: pd.DataFrame, sizes: pd.DataFrame, seconds: pd.Series):
    """Draw balanced accuracy with its interval against operations, parameters and time.

    `accuracy` has ``model balanced_accuracy low high``, `sizes` come from `costs.cost_table` (grid
    ``here``), `seconds` are of one training, by model.
    """
    here = sizes[sizes["grid"] == "here"].set_index("model").assign(seconds=seconds)
    models = list(accuracy["model"])
    figure, axes = new_figure(9.6, 3.8, 3, sharey=True)
    panels = {"gflop_training": "GFLOP a scan and step", "millions": "million parameters"}
    panels |= {"seconds": "seconds a training"}
    here["millions"] = here["parameters"] / 1e6
    for ax, (column, words) in zip(axes[0], panels.items(), strict=True):
        for row in accuracy.itertuples():
            style = style_of(row.model, models) | {"linestyle": "none"}
            bars = _bars([row.balanced_accuracy], [row.low], [row.high])
            cost = here.loc[row.model, column]
            ax.errorbar(cost, row.balanced_accuracy, bars, capsize=3, label=row.model, **style)
        ax.set(xlabel=words, xscale="log")
        ax.margins(x=0.15)
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 6)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.minorticks_off()
    axes[0, 0].set_ylabel("balanced accuracy (95 % interval)")
    _legend_below(figure, axes[0, 0])
    return figure


@styled
def plot_coverage_risk(curve: pd.DataFrame):
    """Draw the errors among decided scans against the share that is decided.

    `curve` comes from `conformal.coverage_risk`; the dotted line leaves random scans to a person.
    """
    figure, axes = new_figure(4.8, 3.6)
    ax = axes[0, 0]
    ax.plot(curve["decided"], curve["error"], color=COLOURS[0], label="the most doubtful left")
    dotted = {"color": "#555555", "linestyle": ":", "label": "random scans left"}
    ax.plot(curve["decided"], curve["error_at_random"], **dotted)
    top = max(curve["error"].max(), curve["error_at_random"].max(), 0.02)
    ax.set(xlabel="share of scans decided", ylabel="fraction wrong among them")
    ax.set(xlim=(0, 1), ylim=(0, 1.1 * top))
    ax.legend(fontsize=8)
    return figure


def _series(predictions: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Name each model's predictions: methods in their order, then raters."""
    series = []
    for (experiment, model), part in predictions.groupby(["experiment", "model"], sort=False):
        name = experiment.split("/")[-1]
        several = predictions.loc[predictions["experiment"] == experiment, "model"].nunique() > 1
        series.append((model if several else name, part))
    places = {name: place for place, name in enumerate(METHOD_ORDER)}
    return sorted(series, key=lambda item: places.get(item[0], len(places)))


def _draw_roc(axes, series: list[tuple[str, pd.DataFrame]], n_boot: int, seed: int) -> None:
    """Draw one panel: curves, operating points, raters."""
    axes.plot([0, 1], [0, 1], **CHANCE)
    names = [name for name, _ in series if not name.startswith("rater")]
    for name, rows in series:
        measured = summary_intervals(rows, n_boot=n_boot, seed=seed)
        if name in names:
            style, area = style_of(name, names), measured["auc"]
            label = f"{title_of(name)}: {area.estimate:.2f} [{area.low:.2f}, {area.high:.2f}]"
            line = {"color": style["color"], "linestyle": style["linestyle"], "label": label}
            axes.plot(*_mean_curve(rows), **line)
            point = {"marker": style["marker"], "color": style["color"], "markersize": 8}
            point |= {"markeredgecolor": "white"}
        else:  # triangles that meet in the rater's point from different sides
            label = f"{name.replace('_', ' ')}, against the consensus"
            number = sum(other < name for other, _ in series if other.startswith("rater"))
            point = {"marker": CARETS[number % 4], "color": "black", "markersize": 10}
            point |= {"markerfacecolor": COLOURS[4 + number % 4], "label": label}
        place = 1 - measured["specificity"].estimate, measured["sensitivity"].estimate
        axes.plot(*place, linestyle="none", clip_on=False, zorder=5, **point)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set(xlabel="1 - specificity", ylabel="sensitivity")


def _mean_curve(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Average the models' ROC curves at each false-positive rate: rates and sensitivities."""
    curves = [roc(part["y_true"], part["score"]) for part in judged_sets(rows)]
    curves = [curve[["false_positive_rate", "sensitivity"]].to_numpy().T for curve in curves]
    rates = np.unique(np.concatenate([alarms for alarms, _ in curves]))
    # where a curve rises at one rate, `np.interp` takes the last point: turned round, the first
    ends = [
        [np.interp(way * rates, way * alarms[::way], hits[::way]) for way in (-1, 1)]
        for alarms, hits in curves
    ]
    return np.repeat(rates, 2), np.mean(ends, axis=0).T.ravel()


def _bars(values, low, high) -> np.ndarray:
    """Distances of the limits from the values, as error bars want them: (2, n), never below 0."""
    values = np.asarray(values, dtype=float)
    ends = np.stack([values - np.asarray(low, float), np.asarray(high, float) - values])
    return np.nan_to_num(np.maximum(ends, 0))


def _legend_below(figure, axes) -> None:
    """Put the names of one panel's series under the figure, in a row if they are short enough."""
    handles, labels = axes.get_legend_handles_labels()
    letters = 9 * figure.get_figwidth() - 7 * len(labels)  # that fit beside the marks
    wide = len(labels) if len("".join(labels)) <= letters else 1
    figure.legend(handles, labels, loc="outside lower center", ncols=wide)
