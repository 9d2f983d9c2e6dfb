"""Learning curves and costs of networks go in; their figures come out."""

from __future__ import annotations

import pandas as pd

from motionlib.figures.theme import new_figure, style_of, styled


@styled
def plot_training(curves: pd.DataFrame):
    """Draw the validation loss by epoch, one panel a simulator, one colour a network.

    Parameters
    ----------
    curves : DataFrame
        ``simulator model fold epoch valid_loss`` (see `experiments.learning_curves`).

    Returns
    -------
    Figure
        Thin lines are folds, the marker is the epoch that was kept.
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
    axes[0, 0].set_ylabel("validation loss (cross-entropy)")
    axes[0, 0].legend(fontsize=8)
    return figure


@styled
def plot_cost(accuracy: pd.DataFrame, sizes: pd.DataFrame, seconds: pd.Series):
    """Draw balanced accuracy with its interval against operations, parameters and time.

    Parameters
    ----------
    accuracy : DataFrame
        ``model balanced_accuracy low high`` as fractions.
    sizes : DataFrame
        From `costs.table`; the rows of grid ``here`` are used.
    seconds : Series
        Of one training, by model.

    Returns
    -------
    Figure
        Three panels.
    """
    here = sizes[sizes["grid"] == "here"].set_index("model").assign(seconds=seconds)
    models = list(accuracy["model"])
    figure, axes = new_figure(11.4, 3.8, 3, sharey=True)
    panels = (
        ("gflop_training", "GFLOP a scan and step"),
        ("parameters", "parameters"),
        ("seconds", "seconds a training"),
    )
    for ax, (column, words) in zip(axes[0], panels, strict=True):
        for row in accuracy.itertuples():
            style = style_of(row.model, models) | {"linestyle": "none"}
            bars = [[row.balanced_accuracy - row.low], [row.high - row.balanced_accuracy]]
            cost = here.loc[row.model, column]
            ax.errorbar(cost, row.balanced_accuracy, bars, capsize=3, label=row.model, **style)
        ax.set(xlabel=words, xscale="log")
    axes[0, 0].set_ylabel("balanced accuracy (95 % interval)")
    axes[0, 2].legend(fontsize=8)
    return figure
