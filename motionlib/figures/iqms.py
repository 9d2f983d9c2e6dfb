"""Figures of image-quality measures: the foreground, harmless changes, what a forest looks at."""

import numpy as np
import pandas as pd

from motionlib.figures.theme import COLOURS, new_figure, styled
from motionlib.iqms.measures import MEASURES, Quality


def plot_fragility(table: pd.DataFrame):
    """Draw the changes of `iqms.fragility` in percent, one panel a set of definitions.

    Colour stops at 100 %; grey means undefined.
    """
    changes = list(dict.fromkeys(table["change"]))
    names = list(dict.fromkeys(table["definitions"]))
    height = 1.3 + 0.36 * len(changes) * len(names)
    figure, axes = new_figure(11, height, 1, len(names), sharex=True)
    axes = axes[:, 0]
    for ax, name in zip(axes, names, strict=True):
        part = table[table["definitions"] == name]
        grid = part.pivot(index="change", columns="measure", values="percent")
        grid = grid.reindex(index=changes, columns=list(MEASURES))
        ax.set_facecolor("lightgrey")
        values = np.ma.masked_invalid(grid.to_numpy())
        image = ax.imshow(values, cmap="PuOr", vmin=-100, vmax=100, aspect="auto")
        for (row, column), value in np.ndenumerate(grid.to_numpy()):
            if np.isfinite(value):
                text = f"{round(value)}" if abs(value) < 1000 else ">1000"
                tone = "white" if abs(value) > 70 else "black"
                ax.text(column, row, text, ha="center", va="center", fontsize=7, color=tone)
        ax.set_yticks(range(len(changes)), changes, fontsize=8)
        ax.set_xticks(range(len(MEASURES)), MEASURES, fontsize=8)
        ax.set_ylabel(name)
    figure.colorbar(image, ax=axes.tolist(), label="change of the measure, %")
    return figure


@styled
def plot_importance(table: pd.DataFrame, *, n: int = 15):
    """Draw the `n` measures whose shuffling costs most AUC (`iqms.importance`), with ranges."""
    top = table.head(n).iloc[::-1]
    figure, axes = new_figure(6, 0.6 + 0.28 * len(top))
    ax = axes[0, 0]
    for row, (low, high) in enumerate(zip(top["low"], top["high"], strict=True)):
        ax.plot([low, high], [row, row], color="0.6", lw=2)
    ax.plot(top["auc_loss"], range(len(top)), "o", color=COLOURS[0])
    ax.axvline(0, color="black", lw=0.8)
    ax.set_yticks(range(len(top)), top["measure"])
    ax.set_xlabel("loss of AUC when shuffled (95 % of folds and shuffles)")
    return figure


def show_foreground(quality: Quality, *, n_slices: int = 5):
    """Draw the outline of the foreground on evenly spaced slices of what `iqms.measure` saw.

    The darkest slices are left out: in mere air MRQy outlines noise.
    First axis to the right, second up; the slice index over each panel.
    """
    mean = quality.per_slice["MEAN"] - quality.per_slice["MEAN"].min()
    index = quality.slice_index[4 * mean >= mean.max()]
    shown = index[np.linspace(0, len(index) - 1, n_slices + 2).round().astype(int)[1:-1]]
    figure, axes = new_figure(2.2 * n_slices, 2.6, n_slices)
    for ax, k in zip(axes[0], shown, strict=True):
        image = quality.volume[:, :, k].T.astype(float)
        ceiling = max(np.percentile(image, 99.5), image.min() + 1e-9)
        ax.imshow(image, cmap="gray", origin="lower", vmin=image.min(), vmax=ceiling)
        mask = quality.mask[:, :, k].T
        if mask.any() and not mask.all():
            ax.contour(mask, levels=[0.5], colors="tab:orange", linewidths=1.2)
        ax.set_title(f"slice {k}", fontsize=9)
        ax.set_axis_off()
    return figure
