"""A comparison table goes in; HTML (great-tables) or LaTeX (booktabs) for a reader comes out."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from functools import cache
from html import escape
from numbers import Number, Real

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup

from motionlib.files import content_key

FRACTIONS = ("balanced_accuracy", "specificity", "sensitivity", "real_motion_accuracy")
FRACTIONS += ("sex_f", "real_motion_specificity", "balanced_accuracy_cv")
FRACTIONS += ("resampled_called_motion",)
LAST = ("n", "n_positive", "n_folds", "cohort", "same_order", "reason")
SKIPPED = ("mean", "sd", "low", "high", "sd_paper")
SOURCES = ("paper", "ours", "difference")
STATISTICS = ("mean", "sd", "low", "high")
REPORT_FRACTIONS = ("balanced_accuracy", "specificity", "sensitivity", "accuracy", "sex_f")
REPORT_FRACTIONS += ("real_motion_accuracy", "real_motion_specificity", "balanced_accuracy_cv")
REPORT_FRACTIONS += ("resampled_called_motion",)
LONG_TEXT = 40  # characters; such a cell is kept wide enough to read
LABELS = {
    "auc": "AUC", "sex_f": "female", "mov01vs2": "severe motion (mov01vs2)",
    "mov0vs1": "mild motion (mov0vs1)", "n_positive": "n with motion", "n_folds": "folds",
    "same_order": "same order?", "real_motion_accuracy": "accuracy on real motion",
}  # fmt: skip
LONGEST = 60  # rows or columns; of a longer table pandas shows both ends
WIDE = 28  # characters; a column with longer texts is given room
STYLES = [
    {"selector": "th.col_heading", "props": "text-align: center"},
    {"selector": "caption", "props": "text-align: left; caption-side: top"},
]


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
        As `tables.build_table` makes it.

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
        As `tables.build_table` makes it.
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
        As `tables.build_table` makes it.
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


def render(template: str, **values) -> Markup:
    """Fill a template of ``motionlib/templates``.

    Parameters
    ----------
    template : str
        File name, such as ``"page.html"``. In ``.html`` all values are escaped but those that are
        `markupsafe.Markup`, as what this function and `table_html` return is.
    **values
        What the template shows.

    Returns
    -------
    Markup
        The text, which other templates take as it is.
    """
    return Markup(_templates().get_template(template).render(values))


@cache
def _templates() -> Environment:
    """Open the templates, whose blocks leave no empty lines behind."""
    return Environment(
        loader=PackageLoader("motionlib"),
        autoescape=select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page(title: str, body: str) -> str:
    """Wrap a body in a page that loads nothing from anywhere."""
    return render("bare.html", title=Markup(title), body=Markup(body))


@dataclass
class Leaf:
    """One column as shown: a measure from one source, with the columns that hold its statistics."""

    measure: str
    source: str | None
    columns: dict[str, str] = field(default_factory=dict)

    @property
    def heading(self) -> str:
        """Words above the column: its source where measures are grouped, else its measure."""
        return self.source or report_heading(self.measure)


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


def table_html(table: pd.DataFrame, caption: str, *, number: str = "") -> Markup:
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
    Markup
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
    return Markup(
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
        words = escape(report_heading(group[0].measure))
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
    return measure in REPORT_FRACTIONS


def report_heading(measure: str) -> str:
    """Words above the columns of a measure, with its unit."""
    return f"{label(measure)} (%)" if is_fraction(measure) else label(measure)


def label(name: str) -> str:
    """Words for a column's name."""
    return LABELS.get(name, name.replace("_", " "))


def show_tables_readably() -> bool:
    """Let the notebook that calls show data frames as `to_notebook` does; False outside one."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        return False
    shell.display_formatter.formatters["text/html"].for_type(pd.DataFrame, to_notebook)
    return True


def to_notebook(table: pd.DataFrame) -> str:
    """Show a table as HTML; the table itself, which the cell returns, keeps every column.

    Parameters
    ----------
    table : DataFrame
        A comparison with the paper is shortened to ``paper | ours [low, high] | difference``,
        fractions in percent; any other table keeps its columns and names. The one cohort of all
        rows goes into the caption, and a column of reasons without any is left out. Tables with
        several levels, with names twice, or with more than `LONGEST` rows or columns are left to
        pandas, whose cells then hold whole texts too.

    Returns
    -------
    str
        One ``<table>`` with its own style.
    """
    axes = (table.index, table.columns)
    plain = all(axis.nlevels == 1 and axis.is_unique for axis in axes)
    if table.empty or max(table.shape) > LONGEST or not plain:
        return _left_to_pandas(table)
    named = all(isinstance(name, str) for name in table)
    compared = named and any(name.endswith("_ours") for name in table)
    shown, heads = readable(table) if compared else (_texts(table), {})
    shown.index = table.index
    caption = None
    if "cohort" in shown and shown["cohort"].nunique() == 1 and shown["cohort"].all():
        caption = f"Cohort: {escape(shown.pop('cohort').iloc[0])}"
    if "reason" in shown and not shown["reason"].any():
        shown.pop("reason")
    wide = [name for name in shown if shown[name].str.len().max() > WIDE]
    left = [name for name in shown if not pd.api.types.is_numeric_dtype(table.get(name))]
    whole = [name for names in heads.values() for name in names]
    left = [name for name in left if name not in whole]
    if heads:
        above = {name: heading(metric) for metric, names in heads.items() for name in names}
        below = {name: name.removeprefix(f"{m}_") for m, names in heads.items() for name in names}
        places = {name: (above.get(name, ""), below.get(name, name)) for name in shown}
        shown.columns = pd.MultiIndex.from_tuples(places.values())
        if not shown.columns.is_unique:
            return _left_to_pandas(table)
        wide, left, whole = ([places[name] for name in names] for names in (wide, left, whole))
    style = shown.style.format(escape="html")
    for axis in (0, 1):
        style = style.format_index(escape="html", axis=axis)
        style = style.format_index_names(escape="html", axis=axis)
    style = style.set_table_attributes('class="dataframe"')
    style = style.set_uuid(content_key(shown.to_csv()))  # two tables of a page have two styles
    style = style.set_table_styles(STYLES).set_properties(subset=left, **{"text-align": "left"})
    style = style.set_properties(subset=whole, **{"white-space": "nowrap"})
    style = style.set_properties(subset=wide, **{"min-width": "14em"})
    if isinstance(table.index, pd.RangeIndex):
        style = style.hide(axis="index")
    return style.set_caption(caption).to_html() if caption else style.to_html()


def _left_to_pandas(table: pd.DataFrame) -> str:
    """Show a table as pandas does, but no text cut off."""
    with pd.option_context("display.max_colwidth", None):
        return table._repr_html_()


def _texts(table: pd.DataFrame) -> pd.DataFrame:
    """Write every value of a plain table as text, floats with three decimals."""
    texts = [[text_of(one, fraction=False, digits=3) for one in table[name]] for name in table]
    made = pd.DataFrame(dict(enumerate(texts)), index=table.index)
    return made.set_axis(table.columns, axis=1)
