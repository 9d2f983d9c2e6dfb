"""A table goes in; what a notebook shows of it comes out: short, readable, nothing cut off."""

from __future__ import annotations

import sys
from html import escape

import pandas as pd

from motionlib.files import content_key
from motionlib.typeset import heading, readable, text_of

LONGEST = 60  # rows or columns; of a longer table pandas shows both ends
WIDE = 28  # characters; a column with longer texts is given room
STYLES = [
    {"selector": "th.col_heading", "props": "text-align: center"},
    {"selector": "caption", "props": "text-align: left; caption-side: top"},
]


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
