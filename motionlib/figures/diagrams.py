"""A trajectory or the counts of a selection go in; a diagram comes out."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd

from motionlib.figures.theme import COLOURS, DASHES, new_figure, styled

WIDEST = 5  # columns of boxes side by side


@styled
def plot_trajectory(trajectory, *, steps: bool | None = None):
    """Draw translations and rotations over the time of a scan.

    Parameters
    ----------
    trajectory : Trajectory
        ``times`` (T,) as a fraction of the scan, ``translation_mm`` and ``rotation_deg`` (T, 3).
    steps : bool, optional
        Hold each pose until the next; default: when there are at most 20 poses.

    Returns
    -------
    Figure
        Two panels, three lines each (x, y, z; RAS).
    """
    times = np.append(np.asarray(trajectory.times, dtype=float), 1.0)
    steps = len(times) <= 21 if steps is None else steps
    figure, axes = new_figure(7.5, 2.8, 2, sharex=True)
    panels = {
        "translation (mm)": trajectory.translation_mm,
        "rotation (degrees)": trajectory.rotation_deg,
    }
    for each, (label, values) in zip(axes[0], panels.items(), strict=True):
        values = np.asarray(values, dtype=float)
        values = np.concatenate([values, values[-1:]])
        for axis, name in enumerate(("x, to the right", "y, to the front", "z, to the top")):
            each.plot(
                times,
                values[:, axis],
                color=COLOURS[axis],
                linestyle=DASHES[axis],
                drawstyle="steps-post" if steps else "default",
                label=name,
            )
        each.set(xlabel="time (fraction of the scan)", ylabel=label, xlim=(0, 1))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


@styled
def plot_flow(flow: pd.DataFrame):
    """Draw a selection as boxes with counts, from top to bottom.

    Parameters
    ----------
    flow : DataFrame
        ``step n_in n_out``, optionally ``cohort`` (one column of boxes each) and ``reason``
        (written beside the arrow with the number that left).

    Returns
    -------
    Figure
        In the manner of the paper's Fig. A.1.

    Raises
    ------
    ValueError
        A column is missing or there are no rows.
    """
    missing = [name for name in ("step", "n_in", "n_out") if name not in flow]
    if missing or flow.empty:
        raise ValueError(
            f"Found a flow of {len(flow)} rows without {', '.join(missing) or 'any step'}, "
            "expected step, n_in and n_out: one row a step."
        )
    cohorts = flow["cohort"].fillna("all").astype(str) if "cohort" in flow else None
    columns = [("", flow)] if cohorts is None else list(flow.groupby(cohorts, sort=False))
    columns = [(name, _merge_steps(part)) for name, part in columns]
    deepest = max(len(part) for _, part in columns)
    n_wide = min(len(columns), WIDEST)
    n_rows = -(-len(columns) // n_wide)
    figure, axes = new_figure(2.8 * n_wide, n_rows * (0.7 + 0.9 * deepest), n_wide, n_rows)
    for each in axes.flat:
        each.set_axis_off()
    for each, (name, part) in zip(axes.flat, columns, strict=False):
        _draw_boxes(each, part, deepest)
        each.set_title(name)
    return figure


def _merge_steps(part: pd.DataFrame) -> pd.DataFrame:
    """Give each step one row whose count continues the step before it."""
    rows, before = [], None
    for step, many in part.groupby("step", sort=False):
        lost, came = (many["n_in"] - many["n_out"]).sum(), many["n_in"].sum()
        came = before if before is not None and came < before else came
        if before is None and lost > 0:
            rows.append({"step": "candidates", "n_in": came, "n_out": came, "reason": ""})
        losing = many[many["n_in"] > many["n_out"]]
        said = losing["reason"].dropna().astype(str).unique() if "reason" in many else []
        said = "; ".join(text for text in said[:2] if text)
        rows.append({"step": step, "n_in": came, "n_out": came - lost, "reason": said})
        before = came - lost
    return pd.DataFrame(rows)


def _draw_boxes(axes, part: pd.DataFrame, deepest: int) -> None:
    """Draw one column of boxes joined by arrows."""
    axes.set(xlim=(0, 1), ylim=(0.4 - deepest, 0.5))
    box = {"boxstyle": "round,pad=0.4", "facecolor": "#eef3f8", "edgecolor": COLOURS[0]}
    arrow = {"arrowstyle": "-|>", "color": "#333333", "shrinkA": 0, "shrinkB": 0}
    for row in part.itertuples():
        y, lost = -row.Index, row.n_in - row.n_out
        text = f"{textwrap.fill(row.step, 26)}\nn = {row.n_out:,.0f}"
        axes.text(0.3, y, text, ha="center", va="center", fontsize=8, bbox=box)
        if row.Index:
            axes.annotate("", (0.3, y + 0.26), (0.3, y + 0.74), arrowprops=arrow)
        if lost > 0:
            said = f"-{lost:,.0f}" + (f": {row.reason}" if row.reason else "")
            said = "\n".join(textwrap.wrap(said, 30)[:3])
            axes.text(0.36, y + 0.5, said, va="center", fontsize=7)
