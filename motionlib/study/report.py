"""The report of a run: one page with all results, and a page for every executed notebook.

The folder ``report/`` holds everything it shows, so that it can be copied and opened anywhere.
Words and layout stand in ``motionlib/templates`` (``study.html``, ``notebook.html``).
"""

import base64
import io
import re
import shutil
from html import escape
from pathlib import Path

import pandas as pd
import yaml
from markupsafe import Markup

from motionlib import files
from motionlib.paper.claims import claims
from motionlib.study import run
from motionlib.study.runner import duration
from motionlib.typeset import label, number, render, table_html, to_compare

TABLES = "tables.yml"  # in the templates: sections, names of tables and their captions
ANSWER = ("paper", "ours", "low", "high")  # of each measure in the table that it opens with
CLAIMED = {"table_4", "mcnemar"}  # from which the first sentences are written
LEAD = "fig_scoreboard"  # the figure that the report opens with
LONGEST_NOTE = 40  # characters; longer notes are prose, not numbers
WIDGET = "application/vnd.jupyter.widget-view+json"
MATH = re.compile(r"(?<![\\\w$])\$\$?(?=\S)([^$\n]+?)(?<=\S)\$\$?(?![\w$])")
CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)


def build(folder: str | Path) -> Path:
    """Build ``report/index.html`` of a run folder from what is there, and return its path.

    A table or figure not yet made is left out; a folder without tables is a FileNotFoundError.
    """
    folder = Path(folder)
    if not (folder / "tables").is_dir():
        raise FileNotFoundError(f"run {folder.name} has no tables; run the study first")
    report = folder / "report"
    for part in ("tables", "figures"):
        shutil.rmtree(report / part, ignore_errors=True)
        shutil.copytree(folder / part, report / part)
    figures = _figures(folder / "figures")
    titles = _write_pages(folder, report, {figure["name"]: figure["alt"] for figure in figures})
    facts = run.collect_provenance(folder)
    paths = sorted((folder / "tables").glob("*.csv"))
    tables = {path.stem: pd.read_csv(path) for path in paths}
    tables = {name: table for name, table in tables.items() if len(table)}
    times = {stem: duration(seconds) for stem, seconds in facts["durations_s"].items() if seconds}
    html = render(
        "study.html",
        facts=facts,
        notes=[(key, _large(key, value)) for key, value in run.headline(folder).items()
               if len(str(value)) <= LONGEST_NOTE],
        claims=claims(tables["table_4"], tables["mcnemar"]) if set(tables) >= CLAIMED else [],
        lead=next((figure for figure in figures if figure["name"] == LEAD), None),
        **_scoreboard(tables),
        notebooks=[(stem, title, times.get(stem)) for stem, title in titles.items()],
        groups=_typeset(tables),
        figures=[figure for figure in figures if figure["name"] != LEAD],
    )  # fmt: skip
    return files.write_text(report / "index.html", html)


def _write_pages(folder: Path, report: Path, alts: dict[str, str]) -> dict[str, str]:
    """Write one page per executed notebook, return their titles by stem."""
    paths = [path for path in sorted((folder / "notebooks").glob("[0-9][0-9]_*.ipynb"))
             if not path.name.endswith(".partial.ipynb")]  # fmt: skip
    stems = [None, *[path.stem for path in paths], None]
    titles = {}
    for index, path in enumerate(paths, start=1):
        title, html = _notebook_page(path, alts, before=stems[index - 1], after=stems[index + 1])
        files.write_text(report / f"{path.stem}.html", html)
        titles[path.stem] = title
    return titles


def _figures(folder: Path) -> list[dict[str, str]]:
    """Figures with number, picture and the text by which their notebook describes them.

    The paper's come first.
    """
    figures = []
    paths = sorted(folder.glob("*.png"), key=lambda path: (label(path.stem)[:4] != "Fig.", path))
    for path in paths:
        text = path.with_suffix(".txt")
        words = label(path.stem)
        number = words if words.startswith("Fig.") else ""
        alt = text.read_text("utf-8").strip() if text.is_file() else words.removeprefix("fig ")
        facts = {"name": path.stem, "number": number, "alt": alt}
        figures.append(facts | {"data": base64.b64encode(path.read_bytes()).decode()})
    return figures


def _scoreboard(tables: dict[str, pd.DataFrame]) -> dict:
    """Make what the report opens with, as far as the tables are there."""
    shown: dict = {"answer": "", "in_short": "", "cells": []}
    if "table_4" in tables:
        caption = "Detection of motion in routine scans, by method; intervals over patients (95 %)."
        shown["answer"] = table_html(answer(tables["table_4"]), caption)
    if "scoreboard" in tables:
        board = tables["scoreboard"]
        shown["in_short"] = table_html(in_short(board), "Every table of the paper in one line.")
        for name, part in board.groupby("table", sort=False):
            caption = f"{label(name)}: every printed number beside ours with its 95 % interval."
            shown["cells"].append((label(name), table_html(part.drop(columns="table"), caption)))
    return shown


def answer(whole: pd.DataFrame) -> pd.DataFrame:
    """Keep of Table IV what answers the study's question: severe and mild motion by method."""
    parts = [f"{m}_{p}" for m in ("balanced_accuracy", "auc") for p in ANSWER]
    shown = whole[["task", *[n for n in (*parts, "cohort") if n in whole]]].copy()
    shown.insert(1, "method", whole["method"].map(label))
    return shown


def in_short(board: pd.DataFrame) -> pd.DataFrame:
    """Count, for each table of the paper, the cells measured, met and ranked as printed.

    From the table ``scoreboard``: a row a table, where ``3 of 6`` says how many of how many cells;
    empty where no cell of the table has an interval or an order.
    """
    rows = []
    for name, part in board.groupby("table", sort=False):
        known = part["low"].notna() & part["high"].notna()
        inside = part["paper"].between(part["low"], part["high"])[known]
        ordered = part["same_order"].dropna().astype(bool)
        rows.append(
            {
                "table": label(name),
                "numbers printed": len(part),
                "measured here": int(part["ours"].notna().sum()),
                "paper's value within our 95 % interval": _of(inside),
                "same order as printed": _of(ordered),
            }
        )
    return pd.DataFrame(rows)


def _of(flags: pd.Series) -> str | None:
    """Write how many flags of how many are set."""
    return f"{int(flags.sum())} of {len(flags)}" if len(flags) else None


def _typeset(tables: dict[str, pd.DataFrame]) -> list[tuple[str, list[dict]]]:
    """Draw the tables that are there, by section; what `TABLES` does not list comes last.

    Of each the columns that are compared, and if more are hidden the whole table.
    """
    sections = yaml.safe_load((files.PACKAGE / "templates" / TABLES).read_text("utf-8"))
    listed = {name for captions in sections.values() for name in captions} | {"scoreboard"}
    others = {name: f"{label(name).capitalize()}." for name in tables if name not in listed}
    groups = []
    for title, captions in {**sections, "Other tables": others}.items():
        drawn = []
        for name in [name for name in captions if name in tables]:
            first, whole = to_compare(tables[name])
            caption = captions[name]
            if isinstance(caption, dict):
                whole = tables[name]
                first, caption = whole.filter(caption["first"].split()), caption["caption"]
            number = label(name) if label(name).startswith("Table") else ""
            table = table_html(first, caption, number=number)
            more = "" if whole is None else table_html(whole, caption, number=number)
            drawn.append({"name": name, "table": table, "more": more})
        groups.append((title, drawn))
    return [(title, drawn) for title, drawn in groups if drawn]


def _large(key: str, value: object) -> str:
    """Write a noted number in its unit, which the key's last part tells."""
    accuracy = "balanced accuracy" in key and not isinstance(value, str)
    return f"{number(value, 'balanced_accuracy')} %" if accuracy else number(value, key)


def _notebook_page(
    path: Path, alts: dict[str, str], *, before: str | None = None, after: str | None = None
) -> tuple[str, Markup]:
    """Turn an executed notebook into a page; return its first heading and the page.

    `alts` are texts in place of figures, `before` and `after` the stems of the neighbouring pages.
    """
    # imported here: opening nbconvert takes longer than a study that has nothing to run
    import nbformat
    from nbconvert import HTMLExporter

    notebook = nbformat.read(path, as_version=4)
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    first = re.search(r"^# (.+)$", prose, flags=re.MULTILINE)
    title = first[1].strip() if first else path.stem
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = with_formulas(cell.source)
    _mend_outputs(notebook.cells, alts)
    exporter = HTMLExporter(
        template_name="basic",
        raw_template=(files.PACKAGE / "templates" / "cells.html.j2").read_text("utf-8"),
        embed_images=True,
        exclude_anchor_links=True,
    )
    html, _ = exporter.from_notebook_node(notebook)
    content = Markup(_mend_tables(html))
    values = {"title": f"{title} · motionlib", "before": before, "after": after}
    return title, render("notebook.html", content=content, **values)


def with_formulas(markdown: str) -> str:
    """Replace ``$...$`` outside code by pictures, so that formulas show without a network."""
    parts = CODE.split(markdown)
    for index in range(0, len(parts), 2):
        parts[index] = MATH.sub(lambda match: formula(match[1]), parts[index])
    return "".join(parts)


def formula(tex: str) -> str:
    """Draw a formula as an inline picture; what cannot be drawn stays text."""
    from matplotlib import mathtext, rc_context
    from matplotlib.font_manager import FontProperties

    drawn = io.BytesIO()
    try:
        with rc_context({"mathtext.fontset": "stix", "svg.hashsalt": "formula"}):
            properties = FontProperties(size=13)
            mathtext.math_to_image(f"${tex}$", drawn, prop=properties, format="svg")
    except (ValueError, RuntimeError):
        return f"<code>{escape(tex)}</code>"
    undated = re.sub(rb"<metadata>.*?</metadata>", b"", drawn.getvalue(), flags=re.DOTALL)
    data = base64.b64encode(undated).decode()
    alt = escape(tex, quote=True)
    return f'<img class="math" alt="{alt}" src="data:image/svg+xml;base64,{data}">'


def _mend_outputs(cells: list, alts: dict[str, str]) -> None:
    """Give each picture a text, that of its figure or the prose above it; of widgets keep texts."""
    prose = ""
    for cell in cells:
        if cell.cell_type == "markdown":
            plain = re.sub(r"<[^>]+>|[#>*`_]", "", cell.source).strip()
            prose = " ".join(plain.split())[:200] or prose
            continue
        names = re.findall(r"['\"](fig_\w+)['\"]", cell.get("source", ""))
        known = [alts[name] for name in names if name in alts]
        text = known[0] if known else f"Figure of the step: {prose}"
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            data.pop(WIDGET, None)  # which needs JupyterLab
            for kind in ("image/png", "image/jpeg"):
                if kind in data:
                    output.setdefault("metadata", {}).setdefault(kind, {})["alt"] = text


def _mend_tables(html: str) -> str:
    """Say of each header cell what it heads, and let wide tables scroll on their own."""

    def mended(match: re.Match) -> str:
        table = re.sub(' border="1"', "", match[0])
        head, middle, rest = table.partition("</thead>")
        head = re.sub(r"<th(?![^>]*scope)(?=[ >])", '<th scope="col"', head)
        head = head.replace('<th scope="col"></th>', "<td></td>")
        rest = re.sub(r"<th(?![^>]*scope)(?=[ >])", '<th scope="row"', rest)
        return render("table.html", name="Table", table=Markup(head + middle + rest))

    html = re.sub(r"<style( scoped)?>.*?</style>", "", html, flags=re.DOTALL)
    return re.sub(r"<table.*?</table>", mended, html, flags=re.DOTALL)
