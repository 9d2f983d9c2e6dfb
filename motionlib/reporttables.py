"""A result table goes in; a readable HTML table, paper beside ours, comes out.

Columns such as ``balanced_accuracy_paper`` and ``balanced_accuracy_low`` are gathered under one
heading per measure; fractions are shown in percent, values with their spread or interval.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from numbers import Number

import pandas as pd

SOURCES = ("paper", "ours", "difference")
STATISTICS = ("mean", "sd", "low", "high")
FRACTIONS = ("balanced_accuracy", "specificity", "sensitivity", "accuracy", "sex_f")
FRACTIONS += ("real_motion_accuracy", "real_motion_specificity", "balanced_accuracy_cv")
FRACTIONS += ("resampled_called_motion",)
LONG_TEXT = 40  # characters; such a cell is kept wide enough to read
LABELS = {
    "auc": "AUC", "sex_f": "female", "mov01vs2": "severe motion (mov01vs2)",
    "mov0vs1": "mild motion (mov0vs1)", "n_positive": "n with motion", "n_folds": "folds",
    "same_order": "same order?", "real_motion_accuracy": "accuracy on real motion",
}  # fmt: skip


@dataclass
class Leaf:
    """One column as shown: a measure from one source, with the columns that hold its statistics."""

    measure: str
    source: str | None
    columns: dict[str, str] = field(default_factory=dict)

    @property
    def heading(self) -> str:
        """Words above the column: its source where measures are grouped, else its measure."""
        return self.source or heading(self.measure)


def leaves(columns: list[str]) -> list[Leaf]:
    """Gather columns by measure and source, in the order in which they first appear.

    A statistic that names no source (``auc_low``) is ours; the spread over folds is kept where
    the paper prints one too.
    """
    found: dict[tuple[str, str | None], Leaf] = {}
    for column in columns:
        measure, source, statistic = parse(column, columns)
        leaf = found.setdefault((measure, source), Leaf(measure, source))
        leaf.columns[statistic] = column
    for (measure, source), leaf in found.items():
        paper = found.get((measure, "paper"))
        if source == "difference":  # how much two spreads differ says nothing
            leaf.columns.pop("sd", None)
        if source == "ours" and "low" in leaf.columns and not (paper and "sd" in paper.columns):
            leaf.columns.pop("sd", None)
    order = list(dict.fromkeys(leaf.measure for leaf in found.values()))
    return sorted(found.values(), key=lambda leaf: order.index(leaf.measure))


def parse(column: str, columns: list[str]) -> tuple[str, str | None, str]:
    """Take a column's name apart into measure, source and statistic."""
    words = column.split("_")
    source = next((word for word in words if word in SOURCES), None)
    rest = [word for word in words if word != source]
    statistic = rest[-1] if len(rest) > 1 and rest[-1] in STATISTICS else ""
    measure = "_".join(rest[:-1] if statistic else rest)
    if not measure or column in SOURCES:  # a column that is called no more than `paper`
        return column, None, ""
    if statistic and source is None:
        if f"{measure}_ours" in columns:
            source = "ours"
        elif measure not in columns and f"{measure}_mean" not in columns:
            return column, None, ""
    return measure, source, statistic


def table_html(table: pd.DataFrame, caption: str, *, number: str = "") -> str:
    """Write a table with caption, header cells that say what they head, and no bare empty cell.

    Parameters
    ----------
    table : DataFrame
        As written by the study.
    caption : str
        What the table shows; a cohort that is the same in all rows is added to it.
    number : str
        The paper's label, such as ``Table II``.

    Returns
    -------
    str
        The table, in a region that scrolls sideways.
    """
    name = number or caption
    table = table.dropna(axis="columns", how="all")
    if "cohort" in table and table["cohort"].nunique(dropna=False) == 1:
        caption = f"{caption} Cohort: {table['cohort'].iloc[0]}."
        table = table.drop(columns="cohort")
    shown = leaves(list(table.columns))
    first = next((leaf for leaf in shown if leaf.source is None), None)
    if first:
        shown = [first, *[leaf for leaf in shown if leaf is not first]]
    groups: list[list[Leaf]] = []
    for leaf in shown:
        if groups and leaf.source and groups[-1][0].measure == leaf.measure:
            groups[-1].append(leaf)
        else:
            groups.append([leaf])
    title = f"<b>{escape(number)}.</b> {escape(caption)}" if number else escape(caption)
    rows = "".join(_row(row, shown) for _, row in table.iterrows())
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(name, quote=True)}">'
        f"<table><caption>{title}</caption><thead>{_head(groups)}</thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _head(groups: list[list[Leaf]]) -> str:
    """One header row, or two where measures have sources."""
    if all(group[0].source is None for group in groups):
        cells = "".join(f'<th scope="col">{escape(g[0].heading)}</th>' for g in groups)
        return f"<tr>{cells}</tr>"
    top, below = [], []
    for group in groups:
        if group[0].source is None:
            top.append(f'<th scope="col" rowspan="2">{escape(group[0].heading)}</th>')
            continue
        words = escape(heading(group[0].measure))
        top.append(f'<th scope="colgroup" class="group" colspan="{len(group)}">{words}</th>')
        below += [f'<th scope="col" class="{leaf.source}">{leaf.heading}</th>' for leaf in group]
    return f"<tr>{''.join(top)}</tr><tr>{''.join(below)}</tr>"


def _row(row: pd.Series, shown: list[Leaf]) -> str:
    """One row; its first cell heads it."""
    cells = []
    for index, leaf in enumerate(shown):
        text = cell(row, leaf)
        numeric = any(isinstance(row[c], Number) for c in leaf.columns.values())
        width = "long" if len(text) > LONG_TEXT and not numeric else ""
        kinds = [k for k in (leaf.source or "", "number" if numeric else "", width) if k]
        style = f' class="{" ".join(kinds)}"' if kinds else ""
        body = escape(text) if text else '<span class="none" aria-label="no value">–</span>'
        cells.append(f'<th scope="row">{body}</th>' if index == 0 else f"<td{style}>{body}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def cell(row: pd.Series, leaf: Leaf) -> str:
    """Text of a cell: value, spread after ± and interval in brackets, as far as they are known."""
    values = {kind: row[name] for kind, name in leaf.columns.items() if not pd.isna(row[name])}
    main = values.get("", values.get("mean"))
    if main is None:
        return ""
    measure, unit = leaf.measure, ""
    if measure in SOURCES and isinstance(row.get("metric"), str):  # one measure per row
        measure = row["metric"]
        unit = " %" if is_fraction(measure) and isinstance(main, Number) else ""
    signed = "difference" in (leaf.source, leaf.measure)
    text = number(main, measure, signed=signed)
    if "sd" in values:
        text += f" ± {number(values['sd'], measure)}"
    if {"low", "high"} <= set(values):
        text += f" [{number(values['low'], measure)} to {number(values['high'], measure)}]"
    return text + unit


def number(value: object, measure: str = "", *, signed: bool = False) -> str:
    """Write a value for reading: fractions in percent, small p as a bound, whole numbers whole."""
    if isinstance(value, str):
        return LABELS.get(value, value)
    if str(value) in {"True", "False"}:
        return "yes" if value else "no"
    value = float(value)
    if value < 0:
        return "\u2212" + number(-value, measure)
    plus = "+" if signed and value > 0 else ""
    if is_fraction(measure) and abs(value) <= 1:
        return f"{plus}{100 * value:.1f}"
    if measure == "auc":
        return f"{plus}{value:.2f}"
    if measure == "p" or measure.startswith("p_"):
        return "< 0.001" if value < 0.001 else f"{value:.3f}"
    if value == round(value) and abs(value) < 1e12:
        return f"{plus}{int(value):,}".replace(",", "\u2009")
    return f"{plus}{value:.4g}"


def is_fraction(measure: str) -> bool:
    """Tell whether a measure is a fraction, which is shown in percent."""
    return measure in FRACTIONS


def heading(measure: str) -> str:
    """Words above the columns of a measure, with its unit."""
    return f"{label(measure)} (%)" if is_fraction(measure) else label(measure)


def label(name: str) -> str:
    """Words for a column's name."""
    return LABELS.get(name, name.replace("_", " "))
