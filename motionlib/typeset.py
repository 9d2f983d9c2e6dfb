"""How a table looks to a reader: in a notebook, on a page, as a file of HTML or LaTeX.

A table of the study has a column for every statistic: ``auc_paper``, ``auc_ours``, ``auc_low`` ...
To be read, the columns of one measure are gathered under one heading as
``paper | ours [low, high] | difference``, fractions become percent and keys become words.  Great
Tables (https://posit-dev.github.io/great-tables) draws the result; the table itself stays as it is.

The pages themselves are templates in ``motionlib/templates``, see `render`.
"""

import re
import sys
from dataclasses import dataclass, field
from functools import cache
from math import isinf
from numbers import Real

import pandas as pd
import yaml
from great_tables import GT, html, loc, style
from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup, escape
from pandas.api.types import is_bool, is_bool_dtype, is_numeric_dtype, is_scalar

from motionlib.files import PACKAGE, content_key
from motionlib.tasks import TASK_WORDS

FRACTIONS = {  # measures that are shown in percent
    *("balanced_accuracy", "specificity", "sensitivity", "accuracy", "sex_f"),
    *("balanced_accuracy_cv", "real_motion_accuracy", "real_motion_specificity", "called_motion"),
    *("resampled_called_motion", "emulated_motion_accuracy", "emulated_motion_specificity"),
}
LABELS = TASK_WORDS | yaml.safe_load((PACKAGE / "templates" / "words.yml").read_text("utf-8"))
HALVES = {"specificity", "sensitivity"}  # their mean is the balanced accuracy
SOURCES = ("paper", "ours", "difference")
STATISTICS = ("mean", "sd", "low", "high")
FOLDED = "All columns"  # opens a table whose first columns stand above it
MISSING = "–"  # in a cell that has no value
WIDE = 28  # characters; a column with longer texts is given room
LONGEST = 60  # rows or columns; of a longer table pandas shows both ends in a notebook
MINUS = "\u2212"


def render(template: str, **values) -> Markup:
    """Fill a template of ``motionlib/templates``, such as ``page.html``, with values.

    In ``.html`` all values are escaped but those that are `markupsafe.Markup`, as what this
    function and `table_html` return is.
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


def table_html(table: pd.DataFrame, caption: str, *, number: str = "") -> Markup:
    """Write a table of the study for a page, which brings its style; it scrolls sideways.

    `caption` says what it shows (a cohort that is the same in all rows is noted below it), `number`
    is the paper's label, such as ``Table II``. Rows of several tasks stand under a heading each.
    """
    title = f"<b>{escape(number)}.</b> {escape(caption)}" if number else escape(caption)
    drawn = _draw(table, title=html(str(title))).as_raw_html()
    (plain,) = re.findall(r"<table.*</table>", drawn, flags=re.DOTALL)
    return render("table.html", name=number or caption, table=Markup(plain))


def to_html(table: pd.DataFrame, *, title: str = "", caption: str = "") -> str:
    """Write a table as one ``<div>`` without outside resources, between `title` and `caption`."""
    return _draw(table, title=title, note=caption).as_raw_html()


def to_latex(table: pd.DataFrame, *, caption: str = "", label: str = "") -> str:
    """Write a table as a LaTeX ``table`` with booktabs and spanning headings."""
    text = _draw(table, title=caption, plain=True).as_latex()
    name = f"\\label{{{label}}}" if label else ""
    # a caption with a number, which a label can refer to
    title = re.compile(r"\\caption\*\{\s*\{\\large (.*?)\}\s*\}")
    text = title.sub(lambda match: f"\\caption{{{match[1]}}}{name}", text)
    return text.replace(MINUS, "$-$")


def show_tables_readably() -> bool:
    """Let the notebook that calls show data frames as `to_notebook` does; False outside one."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        return False
    shell.display_formatter.formatters["text/html"].for_type(pd.DataFrame, to_notebook)
    return True


def to_notebook(table: pd.DataFrame) -> str:
    """Show a table as one ``<div>``; the table itself, which the cell returns, keeps every column.

    A comparison with the paper is gathered and put into words; any other table keeps its columns
    and names, so that code can be written from what is seen. Tables with several levels, with names
    twice, or with more than `LONGEST` rows or columns are left to pandas, with whole texts too.
    """
    axes = (table.index, table.columns)
    plain = all(axis.nlevels == 1 and axis.is_unique for axis in axes)
    if table.empty or max(table.shape) > LONGEST or not plain:
        with pd.option_context("display.max_colwidth", None):
            return table._repr_html_()
    if not any(str(name).endswith("ours") for name in table):
        return _draw(table, words=False).as_raw_html()
    first, folded = to_compare(table)
    html = _draw(first).as_raw_html()
    if folded is None:
        return html
    return f"{html}<details><summary>{FOLDED}</summary>{_draw(folded).as_raw_html()}</details>"


def to_compare(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Keep the columns that are compared: what heads a row, the paper's and our values, counts.

    Left out are the specificity and sensitivity of a balanced accuracy, the paper's words for a
    method that has ours, and of more than two measures the differences. Returns these columns, and
    the whole table, or None where nothing is left out.
    """
    table = table.dropna(axis="columns", how="all")
    columns = gather(list(table))
    printed, own = ({c.measure for c in columns if c.source == s} for s in ("paper", "ours"))
    known = printed & own
    measures = known - HALVES if "balanced_accuracy" in known else known
    doubled = {"label", "architecture"} if {"method", "model"} & set(table) else set()
    sources = SOURCES if len(measures) <= 2 else ("paper", "ours")
    kept = [
        column
        for column in columns
        if (column.measure in measures and column.source in sources)
        or (not column.source and column.measure == "n")
        or (not column.source and not column.is_numeric(table) and column.measure not in doubled)
    ]
    names = {name for column in kept for name in column.parts.values()}
    if not measures or len(kept) == len(columns):
        return table, None
    return table[[name for name in table if name in names]], table


def _draw(table: pd.DataFrame, *, title="", note="", words: bool = True, plain=False) -> GT:
    """Lay out a table: headings above measures, texts left, numbers right, blanks marked.

    `words`: gather the columns of a measure and name them; `plain`: no styles, as for LaTeX.
    """
    notes = [note] if note else []
    if words:
        table = table.dropna(axis="columns", how="all")
        if "cohort" in table and table["cohort"].nunique(dropna=False) == 1:
            notes.insert(0, f"Cohort: {table['cohort'].iloc[0]}.")
            table = table.drop(columns="cohort")
    grouped = words and not plain and "task" in table and len(table.columns) > 1
    # 1. The texts, under names of their own: two headings may be alike.
    gathered = gather(list(table)) if words else [Column(str(n), parts={"": n}) for n in table]
    columns = {f"c{i}": column for i, column in enumerate(gathered)}
    rows = table.to_dict("records")
    texts = {name: [cell(row, column) for row in rows] for name, column in columns.items()}
    for name, column in columns.items() if not words else ():  # keys stay as code knows them
        known = table[column.parts[""]]
        texts[name] = [
            v if isinstance(v, str) else t for v, t in zip(known, texts[name], strict=True)
        ]
    labels = {name: column.heading for name, column in columns.items()}
    numeric = [name for name, column in columns.items() if column.is_numeric(table)]
    # 2. What heads a row: an index with a meaning, else a first column of text.
    first = next(iter(columns), None)
    head = first if first not in numeric and not plain else None
    if not isinstance(table.index, pd.RangeIndex):
        head, labels["index"] = "index", str(table.index.name or "")
        texts = {"index": [number(value) for value in table.index]} | texts
    shown = pd.DataFrame(texts)
    group = next((n for n, c in columns.items() if grouped and c.measure == "task"), None)
    group = group if group and shown[group].nunique() > 1 else None
    if group:
        shown[group] = shown[group].replace(MISSING, "all scans")
    if group == head:  # the tasks head groups of rows, the column after them a row
        head = next(name for name in columns if name != group)
    key = content_key(shown.to_csv(), str(title), notes)
    drawn = GT(shown, rowname_col=head, groupname_col=group, id=f"t{key}")
    if head:
        drawn = drawn.tab_stubhead(labels.pop(head)).tab_options(stub_border_style="none")
    drawn = drawn.cols_label(labels).cols_align("left").cols_align("right", columns=numeric)
    # 3. One heading above the sources of a measure; title above all, notes below.
    for measure in dict.fromkeys(c.measure for c in gathered if c.source and c.measure):
        below = [name for name, c in columns.items() if c.source and c.measure == measure]
        drawn = drawn.tab_spanner(label=heading(measure), columns=below)
    if title:
        drawn = drawn.tab_header(title=title)
    for text in notes:
        drawn = drawn.tab_source_note(text)
    if plain:
        return drawn
    # 4. Numbers stay on one line, long texts have room, ours stand out.
    long = [name for name in columns if name not in numeric and shown[name].str.len().max() > WIDE]
    ours = [name for name, column in columns.items() if column.source == "ours"]
    for css, names in (
        ("white-space: nowrap;", numeric),
        ("min-width: 14em;", long),
        ("font-weight: 600; background: var(--ours);", ours),
    ):
        names = [name for name in names if name not in (head, group)]
        drawn = drawn.tab_style(style.css(css), loc.body(columns=names)) if names else drawn
    return drawn


@dataclass
class Column:
    """One column as shown: a measure from one source, with the columns of its statistics."""

    heading: str
    source: str | None = None
    parts: dict[str, str] = field(default_factory=dict)
    measure: str = ""

    def is_numeric(self, table: pd.DataFrame) -> bool:
        """Tell whether the column holds numbers."""
        kinds = [table[name].dtype for name in self.parts.values()]
        return all(is_numeric_dtype(kind) and not is_bool_dtype(kind) for kind in kinds)


def gather(names: list[str]) -> list[Column]:
    """Gather columns by measure and source, in the order in which measures first appear.

    A statistic that names no source (``auc_low``) is ours; the spread over folds is kept where
    the paper prints one too.
    """
    known: dict[tuple[str, str | None], Column] = {}
    for name in names:
        measure, source, statistic = parse(name, names)
        column = Column(source or heading(measure), source, {}, measure)
        known.setdefault((measure, source), column).parts[statistic] = name
    for (measure, source), column in known.items():
        paper = known.get((measure, "paper"))
        if source == "difference":  # how much two spreads differ says nothing
            column.parts.pop("sd", None)
        if source == "ours" and "low" in column.parts and not (paper and "sd" in paper.parts):
            column.parts.pop("sd", None)
    order = list(dict.fromkeys(column.measure for column in known.values()))
    return sorted(known.values(), key=lambda column: order.index(column.measure))


def parse(name: str, names: list[str]) -> tuple[str, str | None, str]:
    """Take a column's name apart into measure, source and statistic.

    In a table with one measure a row, the sources are columns without a measure.
    """
    words = name.split("_")
    source = next((word for word in words if word in SOURCES), None)
    rest = [word for word in words if word != source]
    statistic = rest[-1] if rest and rest[-1] in STATISTICS else ""
    measure = "_".join(rest[:-1] if statistic else rest)
    if statistic and source is None:
        if "_".join(filter(None, [measure, "ours"])) in names:
            source = "ours"
        elif name in ("low", "high") and "low" in names[1:]:  # limits of the column before them
            measure = names[names.index("low") - 1]
        elif not measure or (measure not in names and f"{measure}_mean" not in names):
            return name, None, ""
    return measure, source, statistic


def cell(row: dict, column: Column) -> str:
    """Text of a cell: value, spread after ± and interval in brackets, as far as they are known."""
    values = {kind: row[name] for kind, name in column.parts.items() if not _missing(row[name])}
    main = values.get("", values.get("mean"))
    if main is None:
        return MISSING
    measure = column.measure
    if measure == "metric":
        return heading(main)
    if column.source and not measure:  # one measure a row
        measure = str(row.get("metric", ""))
    if column.source == "difference" and _is_p(measure):  # how far two p lie apart says nothing
        return MISSING
    text = number(main, measure, signed=column.source == "difference")
    if "sd" in values:
        text += f" ± {number(values['sd'], measure)}"
    if {"low", "high"} <= set(values):
        text += f" [{number(values['low'], measure)}, {number(values['high'], measure)}]"
    return text


def number(value: object, measure: str = "", *, signed: bool = False) -> str:
    """Write a value for reading: fractions in percent, small p as a bound, whole numbers whole."""
    if isinstance(value, str):
        return LABELS.get(value, value)
    if _missing(value):
        return MISSING
    if is_bool(value):
        return "yes" if value else "no"
    if not isinstance(value, Real) or isinf(value):
        return str(value)
    if value < 0:
        return MINUS + number(-value, measure)
    value = float(value)
    plus = "+" if signed and value > 0 else ""
    if measure in FRACTIONS and value <= 1:
        return f"{plus}{100 * value:.1f}"
    if measure == "auc":
        return f"{plus}{value:.2f}"
    if _is_p(measure):
        return "< 0.001" if value < 0.001 else f"{value:.3f}"
    if 1e3 <= value < 1e12 or value == round(value):
        return f"{plus}{value:,.0f}"
    return f"{plus}{value:.4g}"


def _is_p(measure: str) -> bool:
    """Tell whether a measure is a p-value."""
    return measure == "p" or measure.startswith(("p_", "p of"))


def _missing(value: object) -> bool:
    """Tell whether a value is none."""
    return value is None or (is_scalar(value) and pd.isna(value))


def heading(measure: str) -> str:
    """Words above the columns of a measure, with its unit."""
    return f"{label(measure)} (%)" if measure in FRACTIONS else label(measure)


def label(name: str) -> str:
    """Words for a name of a table, a column or a measure."""
    return LABELS.get(name, name.replace("_", " "))
