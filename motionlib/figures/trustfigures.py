"""A coverage-risk curve goes in; its figure comes out."""

from __future__ import annotations

import pandas as pd

from motionlib.figures.theme import COLOURS, new_figure, styled


@styled
def plot_coverage_risk(curve: pd.DataFrame):
    """Draw the errors among decided scans against the share that is decided.

    Parameters
    ----------
    curve : DataFrame
        From `conformal.coverage_risk`.

    Returns
    -------
    Figure
        The dotted line is what leaving random scans to a person would give.
    """
    figure, axes = new_figure(4.8, 3.6)
    axis = axes[0, 0]
    axis.plot(curve["decided"], curve["error"], color=COLOURS[0], label="the most doubtful left")
    axis.plot(
        curve["decided"], curve["error_at_random"], color="#555555", linestyle=":",
        label="random scans left",
    )  # fmt: skip
    top = max(curve["error"].max(), curve["error_at_random"].max(), 0.02)
    axis.set(
        xlabel="share of scans decided",
        ylabel="fraction wrong among them",
        xlim=(0, 1),
        ylim=(0, 1.1 * top),
    )
    axis.legend(fontsize=8)
    return figure
