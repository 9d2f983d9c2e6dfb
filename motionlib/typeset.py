"""A comparison table goes in; HTML (great-tables) or LaTeX (booktabs) for a reader comes out."""

from __future__ import annotations

import math
from numbers import Real

import numpy as np
import pandas as pd

FRACTIONS = ("balanced_accuracy", "specificity", "sensitivity", "real_motion_accuracy")
FRACTIONS += ("sex_f", "real_motion_specificity", "balanced_accuracy_cv")
FRACTIONS += ("resampled_called_motion",)
LAST = ("n", "n_positive", "n_folds", "cohort", "same_order", "reason")
SKIPPED = ("mean", "sd", "low", "high", "sd_paper")


def text_of(value, *, fraction: bool, digits: int | None = None) -> str:
    """Write one value: fractions as percent, p-values with an exponent, blanks as nothing."""
    if isinstance(value, str):
        return value
    if value is None or (pd.api.types.is_scalar(value) and pd.isna(value)):
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if not isinstance(value, Real) or math.isinf(value):
        return str(value)
    if fraction:
        return f"{100 * value:.1f}"
    if value == int(value):
        return f"{int(value):,}"
    value = float(value)
    return f"{value:.1e}" if abs(value) < 1e-3 else f"{value:.{digits or 2}f}"


def readable(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """Shorten a comparison table to what is read: ``paper | ours [low, high] | difference``.

    Parameters
    ----------
    table : DataFrame
        As `tables.build` makes it.

    Returns
    -------
    tuple
        The table as text, and for each metric the columns that stand under its heading.
    """
    metrics = [name.removesuffix("_paper") for name in table if name.endswith("_paper")]
    metrics = [name for name in metrics if f"{name}_ours" in table]
    columns: dict[str, list[str]] = {}
    heads: dict[str, list[str]] = {}
    taken: set[str] = set()
    for metric in metrics:
        parts = ("paper", "ours", "difference", *SKIPPED)
        taken |= {f"{metric}_{part}" for part in parts}
    plain = [name for name in table if name not in taken]
    last = [name for name in LAST if name in plain]
    for name in plain:
        if name not in last:
            columns[name] = _column(table, name)
    for metric in metrics:
        fraction = metric in FRACTIONS
        parts = ("paper", "sd_paper", "ours", "sd", "low", "high")
        texts = (_column(table, f"{metric}_{part}", fraction) for part in parts)
        paper, sd_paper, ours, sd, low, high = texts
        columns[f"{metric}_paper"] = [
            f"{a} ± {b}" if a and b else a for a, b in zip(paper, sd_paper, strict=True)
        ]
        columns[f"{metric}_ours"] = [
            value + (f" ± {s}" if s and p else "") + (f" [{a}, {b}]" if a else "") if value else ""
            for value, s, p, a, b in zip(ours, sd, sd_paper, low, high, strict=True)
        ]
        columns[f"{metric}_difference"] = _column(table, f"{metric}_difference", fraction)
        heads[metric] = [f"{metric}_{part}" for part in ("paper", "ours", "difference")]
    for name in last:
        columns[name] = _column(table, name)
    return pd.DataFrame(columns), heads


def _column(table: pd.DataFrame, name: str, fraction: bool | None = None) -> list[str]:
    """One column as text; blanks where the table has no such column."""
    if name not in table:
        return [""] * len(table)
    if fraction is None:
        stem = name
        for end in ("_low", "_high", "_mean", "_sd"):
            stem = stem.removesuffix(end)
        fraction = stem in FRACTIONS and table[name].dtype != object
    return [text_of(value, fraction=fraction) for value in table[name]]


def heading(name: str) -> str:
    """Words for a column or a metric."""
    words = name.replace("_", " ")
    unit = " (%)" if name in FRACTIONS else ""
    return words + unit


def to_html(table: pd.DataFrame, *, title: str = "", caption: str = "") -> str:
    """Typeset a table as HTML that stands alone.

    Parameters
    ----------
    table : DataFrame
        As `tables.build` makes it.
    title : str, optional
        Heading above the table.
    caption : str, optional
        Note below it: the cohort's sentence.

    Returns
    -------
    str
        One ``<div>`` with its own style, no outside resources.
    """
    from great_tables import GT

    shown, heads = readable(table)
    made = GT(shown, id="table-" + (title or "paper").lower().replace(" ", "-")[:40])
    for metric, columns in heads.items():
        made = made.tab_spanner(label=heading(metric), columns=columns)
    labels = {name: heading(name) for name in shown}
    for metric, columns in heads.items():
        labels |= {name: name.removeprefix(f"{metric}_") for name in columns}
    made = made.cols_label(**labels)
    if title:
        made = made.tab_header(title=title)
    if caption:
        made = made.tab_source_note(caption)
    return made.as_raw_html()


def to_latex(table: pd.DataFrame, *, caption: str = "", label: str = "") -> str:
    r"""Typeset a table as LaTeX with booktabs and spanning headings.

    Parameters
    ----------
    table : DataFrame
        As `tables.build` makes it.
    caption, label : str, optional
        Of the floating table.

    Returns
    -------
    str
        A ``table`` environment; needs ``\usepackage{booktabs,multirow}``.
    """
    shown, heads = readable(table)
    above = {name: heading(metric) for metric, names in heads.items() for name in names}
    pairs = []
    for name in shown:
        metric = next((m for m, names in heads.items() if name in names), None)
        below = name.removeprefix(f"{metric}_") if metric else heading(name)
        pairs.append((_escape(above.get(name, "")), _escape(below)))
    shown = shown.map(_escape)
    if heads:
        shown.columns = pd.MultiIndex.from_tuples(pairs)
    else:
        shown.columns = [below for _, below in pairs]
    return shown.to_latex(
        index=False,
        escape=False,
        caption=_escape(caption) or None,
        label=label or None,
        multicolumn_format="c",
        column_format="l" * len(shown.columns),
    )


def _escape(text: str) -> str:
    """Protect what LaTeX reads as commands."""
    for sign in "\\&%$#_{}":
        text = text.replace(sign, r"\textbackslash " if sign == "\\" else f"\\{sign}")
    return text.replace("~", r"\textasciitilde ").replace("^", r"\textasciicircum ")
