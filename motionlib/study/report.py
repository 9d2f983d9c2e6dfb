"""A run folder goes in; ``report/index.html`` with all results and notebooks comes out.

The folder ``report/`` holds everything it shows, so that it can be copied and opened anywhere.
"""

from __future__ import annotations

import base64
import io
import re
import shutil
from html import escape
from pathlib import Path

import pandas as pd

from motionlib import files
from motionlib.study import run
from motionlib.typeset import is_fraction, label, number, page, table_html

TABLES = {
    "table_1": ("Table I", "Patients and images of each cohort."),
    "table_2": (
        "Table II",
        "Simulators and severities: synthetic and real motion.",
    ),
    "table_3": ("Table III", "Four networks on the same folds."),
    "table_4": ("Table IV", "Detection of motion in the clinical warehouse, by method."),
    "table_a1": ("Table A.I", "Research cohort: training, validation and test sets."),
    "table_a2": ("Table A.II", "Warehouse: training, validation and test sets by motion grade."),
    "table_a3": ("Table A.III", "Four networks, best fold."),
    "table_a4": ("Table A.IV", "Which layers are fine-tuned, and k-space pre-training."),
    "agreement": ("", "Agreement of the two raters."),
    "mcnemar": ("", "Paired comparisons of methods (McNemar, exact)."),
}
LAST = {
    "timing": ("", "How long the steps took, here and in the paper."),
    "paper_audit": ("", "The published numbers checked by their own arithmetic."),
}
LONGEST_NOTE = 40  # characters; longer notes are prose, not numbers
FIGURES = {
    "fig_1": ("Fig. 1", "The two simulators step by step on one head."),
    "fig_2": ("Fig. 2", "The same motion by both simulators, at growing severity."),
    "fig_3": ("Fig. 3", "ROC curves for severe and for mild motion, by method."),
    "fig_a1": ("Fig. A.1", "How the scans were selected."),
    "fig_a2": ("Fig. A.2", "Examples of real motion, by grade."),
}
NAMES = {
    "table_1": "Table I", "table_2": "Table II", "table_3": "Table III", "table_4": "Table IV",
    "table_a1": "Table A.I", "table_a2": "Table A.II", "table_a3": "Table A.III",
    "table_a4": "Table A.IV", "in_text": "Counts in the text", "agreement": "Agreement of raters",
    "mcnemar": "McNemar's tests", "timing": "Seconds per scan",
}  # fmt: skip
OWN = {  # ways that the paper's table has no label for
    "fine_tuned_recommended": "Conv5FC3 fine-tuned on CDW, recommended recipe",
    "research_only_recommended": "Conv5FC3 trained on research dataset, recommended recipe",
    "fine_tuned_kspace": "Conv5FC3 fine-tuned on CDW, pre-trained on k-space motion",
}
LINES = (("row", "row"), ("metric", "measure"), ("paper", "paper"), ("ours", "ours [95 %]"),
         ("difference", "difference"), ("n", "n"), ("same_order", "same order?"),
         ("cohort", "cohort"), ("reason", "note"))  # fmt: skip
SCROLL = '<div class="scroll" role="region" tabindex="0" aria-label="Table">'
FOLDED = """{%- extends 'basic/index.html.j2' -%}
{%- block codecell -%}
{%- if 'solution' in cell.metadata.get('tags', []) -%}
<details class="solution"><summary>Solution</summary>{{ super() }}</details>
{%- else -%}{{ super() }}{%- endif -%}
{%- endblock codecell -%}
"""
WIDGETS = "application/vnd.jupyter.widget"
MATH = re.compile(r"(?<![\\\w$])\$\$?(?=\S)([^$\n]+?)(?<=\S)\$\$?(?![\w$])")
CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)


def build(folder: str | Path) -> Path:
    """Build the report of a run from what is there; a table or figure not yet made is left out.

    Parameters
    ----------
    folder : path-like
        ``runs/<profile>``.

    Returns
    -------
    Path
        ``report/index.html``.

    Raises
    ------
    FileNotFoundError
        If the run has no tables folder.
    """
    folder = Path(folder)
    if not (folder / "tables").is_dir():
        raise FileNotFoundError(f"run {folder.name} has no tables; run the study first")
    report = folder / "report"
    for part in ("tables", "figures"):
        shutil.rmtree(report / part, ignore_errors=True)
        shutil.copytree(folder / part, report / part)
    alts = figure_texts(folder / "figures")
    titles = write_pages(folder, report, alts)
    facts = run.collect_provenance(folder)
    tables = {path.stem: pd.read_csv(path) for path in sorted((folder / "tables").glob("*.csv"))}
    sections = [
        ("scoreboard", "Scoreboard", headline_html(folder) + scoreboard_html(tables)),
        ("notebooks", "Notebooks", _notebooks(titles, facts)),
        ("tables", "Tables beside the paper", _tables(tables, list(TABLES))),
        ("figures", "Figures", _figures(folder / "figures", alts)),
        ("more", "More tables", _more(tables)),
        ("provenance", "Provenance", _provenance(facts)),
    ]
    shown = [section for section in sections if section[2]]
    links = "".join(f'<li><a href="#{key}">{title}</a></li>' for key, title, _ in shown)
    body = "".join(
        f'<section aria-labelledby="{key}"><h2 id="{key}">{title}</h2>{html}</section>\n'
        for key, title, html in shown
    )
    caption = (facts["cohort"] or {}).get("caption", "")
    note = f'<p class="note"><strong>Cohort.</strong> {escape(caption)}</p>' if caption else ""
    header = (
        f'<header><p class="kicker">motionlib · profile {escape(facts["profile"])}</p>'
        "<h1>Motion artefacts in T1-weighted brain MRI, beside the paper</h1>"
        f'{note}<nav aria-label="Contents"><ul>{links}</ul></nav></header>'
    )
    footer = (
        "<footer><p>Made by motionlib from the files of one run; nothing is typed in.</p></footer>"
    )
    html = page(
        f"Motion artefacts · profile {escape(facts['profile'])}",
        f'{header}<main id="main">\n{body}</main>{footer}',
    )
    return files.write_text(report / "index.html", html)


def write_pages(folder: Path, report: Path, alts: dict[str, str]) -> dict[str, str]:
    """Write one page per executed notebook, return their titles by stem."""
    paths = [path for path in sorted((folder / "notebooks").glob("[0-9][0-9]_*.ipynb"))
             if not path.name.endswith(".partial.ipynb")]  # fmt: skip
    stems = [None, *[path.stem for path in paths], None]
    titles = {}
    for index, path in enumerate(paths, start=1):
        before, after = stems[index - 1], stems[index + 1]
        title, html = notebook_page(path, alts=alts, before=before, after=after)
        files.write_text(report / f"{path.stem}.html", html)
        titles[path.stem] = title
    return titles


def figure_texts(folder: Path) -> dict[str, str]:
    """Text of each figure for those who cannot see it: the notebook's own, else its title."""
    texts = {}
    for path in sorted(folder.glob("*.png")):
        own = path.with_suffix(".txt")
        _, title = FIGURES.get(path.stem, ("", label(path.stem)))
        texts[path.stem] = own.read_text("utf-8").strip() if own.is_file() else title
    return texts


def headline_html(folder: Path) -> str:
    """Numbers that the notebooks noted, large."""
    notes = run.headline(folder)
    rows = "".join(
        f"<div><dt>{escape(label(key))}</dt><dd>{escape(_large(key, value))}</dd></div>"
        for key, value in notes.items()
        if len(str(value)) <= LONGEST_NOTE
    )
    return f'<dl class="headline">{rows}</dl>' if rows else ""


def _large(key: str, value: object) -> str:
    """Write a noted number in its unit, which the key's last part tells."""
    accuracy = "balanced accuracy" in key and not isinstance(value, str)
    return f"{number(value, 'balanced_accuracy')} %" if accuracy else number(value, key)


def _tables(tables: dict[str, pd.DataFrame], names: list[str]) -> str:
    """Tables with their titles and a link to the numbers."""
    html = []
    for name in names:
        if name in tables and len(tables[name]):
            paper, caption = {**TABLES, **LAST}.get(name, ("", f"{label(name).capitalize()}."))
            html.append(str(table_html(tables[name], caption, number=paper)))
            html.append(f'<p class="more"><a href="tables/{name}.csv">{name}.csv</a></p>')
    return "".join(html)


def _more(tables: dict[str, pd.DataFrame]) -> str:
    """Tables that are not the paper's, folded away."""
    known = {*TABLES, *LAST, "scoreboard"}
    names = [*LAST, *[name for name in tables if name not in known]]
    html = []
    for name in names:
        if name in tables and len(tables[name]):
            inside = _tables(tables, [name])
            html.append(f"<details><summary>{escape(label(name))}</summary>{inside}</details>")
    return "".join(html)


def _figures(folder: Path, alts: dict[str, str]) -> str:
    """Figures of the paper first, then the others, each with its text and a scalable version."""
    names = [name for name in FIGURES if name in alts]
    names += [name for name in alts if name not in FIGURES]
    html = []
    for name in names:
        paper, title = FIGURES.get(name, ("", f"{label(name).capitalize()}."))
        data = base64.b64encode((folder / f"{name}.png").read_bytes()).decode()
        alt = escape(alts[name], quote=True)
        bold = f"<b>{paper}.</b> " if paper else ""
        html.append(
            f'<figure><img alt="{alt}" src="data:image/png;base64,{data}">'
            f"<figcaption>{bold}{escape(title)} "
            f'<a href="figures/{name}.svg">Scalable version</a></figcaption></figure>'
        )
    return "".join(html)


def _notebooks(titles: dict[str, str], facts: dict) -> str:
    """Links to the executed notebooks, with how long they took."""
    from motionlib.study.runner import duration

    rows = []
    for stem, title in titles.items():
        seconds = facts["durations_s"].get(stem)
        took = f" <span>({duration(seconds)})</span>" if seconds else ""
        rows.append(f'<li><a href="{stem}.html">{escape(title)}</a>{took}</li>')
    return f"<ul>{''.join(rows)}</ul>" if rows else ""


def _provenance(facts: dict) -> str:
    """Versions, computer, seeds and the manifest's checksum, as one table."""
    device, git = facts["device"], facts["git"]
    computer = [device.get("system"), f"{device.get('cores')} cores", device.get("gpu") or "no GPU"]
    commit = (git.get("commit") or "none")[:12]
    changed = f", {git['changed_files']} files changed since" if git.get("changed_files") else ""
    rows = [
        ("Computer", ", ".join(str(part) for part in computer if part)),
        ("Commit", f"{commit}{changed}"),
        ("Manifest (SHA-256)", facts["manifest_sha256"] or "none"),
        ("Seeds", ", ".join(str(seed) for seed in sorted(set(facts["seeds"].values())))),
        *[(name, version) for name, version in facts["versions"].items()],
    ]
    table = pd.DataFrame(rows, columns=["what", "value"]).astype(str)
    return table_html(table, "What the numbers were made with.")


def scoreboard_html(tables: dict[str, pd.DataFrame]) -> str:
    """Write the section that the report opens with, from the tables that are there."""
    html = ""
    if "table_4" in tables:
        caption = "Detection of motion in routine scans, by method; intervals over patients (95 %)."
        html += str(table_html(answer(tables["table_4"]), caption))
    if "scoreboard" in tables and len(tables["scoreboard"]):
        board = tables["scoreboard"]
        html += str(table_html(in_short(board), "Every table of the paper in one line."))
        html += (
            '<p class="more">Other patients, other scanners: agreement of numbers is no proof and '
            "disagreement no refutation; the order of the methods is what can be compared. "
            '<a href="tables/scoreboard.csv">scoreboard.csv</a></p>'
        )
        for name, part in board.groupby("table", sort=False):
            title = NAMES.get(name, label(name))
            inside = str(table_html(lines(part), f"{title}: every printed number beside ours."))
            html += f"<details><summary>{escape(title)}, cell by cell</summary>{inside}</details>"
    return html


def answer(whole: pd.DataFrame) -> pd.DataFrame:
    """Keep of Table IV what answers the study's question: severe and mild motion by method."""
    method = whole["method"].replace(OWN).str.replace("_", " ")
    method = whole["label"].fillna(method) if "label" in whole else method
    parts = [n for n in whole if n.startswith(("balanced_accuracy_", "auc_"))]
    shown = whole[["task", *parts, *[n for n in ("n", "cohort") if n in whole]]].copy()
    shown.insert(1, "method", method)
    return shown


def in_short(board: pd.DataFrame) -> pd.DataFrame:
    """Count, for each table of the paper, the cells measured, met and ranked as printed.

    Parameters
    ----------
    board : DataFrame
        From `scoreboard.scoreboard`.

    Returns
    -------
    DataFrame
        A row a table, as text: ``3 of 6`` says how many of how many cells; empty where no cell
        of the table has an interval or an order.
    """
    rows = []
    for name, part in board.groupby("table", sort=False):
        ours, known = part["ours"].notna(), part["low"].notna() & part["high"].notna()
        inside = part["paper"].between(part["low"], part["high"])[known]
        ordered = part["same_order"].dropna().astype(bool)
        rows.append(
            {
                "table": NAMES.get(name, label(name)),
                "numbers printed": len(part),
                "measured here": int(ours.sum()),
                "paper's value within our 95 % interval": _of(inside),
                "same order as printed": _of(ordered),
            }
        )
    return pd.DataFrame(rows)


def lines(board: pd.DataFrame) -> pd.DataFrame:
    """Write the rows of one table of the scoreboard for reading, units and intervals included."""
    found = pd.DataFrame({title: board[name] for name, title in LINES})
    found["row"] = [label(str(row)).replace("_", " ") for row in board["row"]]
    found["measure"] = [
        label(metric) + (" (%)" if is_fraction(metric) else "") for metric in board["metric"]
    ]
    for name, title in (("paper", "paper"), ("ours", "ours [95 %]"), ("difference", "difference")):
        found[title] = [
            _written(value, _unit(metric), signed=name == "difference")
            for value, metric in zip(board[name], board["metric"], strict=True)
        ]
    for place, (low, high, metric) in enumerate(
        zip(board["low"], board["high"], board["metric"], strict=True)
    ):
        if pd.notna(low) and pd.notna(high):
            ends = f" [{number(low, _unit(metric))} to {number(high, _unit(metric))}]"
            found.iloc[place, found.columns.get_loc("ours [95 %]")] += ends
    return found


def _written(value: float, unit: str, *, signed: bool) -> str | None:
    """Write a number; None where there is none, and for how far two p-values lie apart."""
    return (
        None if pd.isna(value) or (signed and unit == "p") else number(value, unit, signed=signed)
    )


def _unit(metric: str) -> str:
    return "p" if metric.startswith("p of") else metric


def _of(flags: pd.Series) -> str | None:
    """Write how many flags of how many are set."""
    return f"{int(flags.sum())} of {len(flags)}" if len(flags) else None


def notebook_page(
    path: Path, *, alts: dict[str, str], before: str | None = None, after: str | None = None
) -> tuple[str, str]:
    """Turn an executed notebook into a page.

    Parameters
    ----------
    path : Path
        The executed notebook.
    alts : dict
        Name of a figure (``fig_1``) -> text for those who cannot see it.
    before, after : str, optional
        Stems of the neighbouring pages.

    Returns
    -------
    title : str
        First heading of the notebook.
    html : str
        The page.
    """
    import nbformat
    from nbconvert import HTMLExporter

    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = with_formulas(cell.source)
    describe_images(notebook.cells, alts)
    drop_widgets(notebook.cells)
    exporter = HTMLExporter(
        template_name="basic",
        raw_template=FOLDED,
        embed_images=True,
        exclude_anchor_links=True,
    )
    html, _ = exporter.from_notebook_node(notebook)
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    first = re.search(r"^# (.+)$", prose, flags=re.MULTILINE)
    title = first[1].strip() if first else path.stem
    links = ['<a href="index.html">All results</a>']
    if before:
        links.insert(0, f'<a href="{before}.html" rel="prev">Before: {before}</a>')
    if after:
        links.append(f'<a href="{after}.html" rel="next">Next: {after}</a>')
    pager = f'<nav class="pager" aria-label="Notebooks">{"".join(links)}</nav>'
    body = f'<main id="main">{pager}{mend_tables(html)}{pager}</main>'
    return title, page(f"{escape(title)} · motionlib", body)


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


def describe_images(cells: list, alts: dict[str, str]) -> None:
    """Give each picture a text: that of its figure, else the prose above it."""
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
            for kind in ("image/png", "image/jpeg"):
                if kind in output.get("data", {}):
                    output.setdefault("metadata", {}).setdefault(kind, {})["alt"] = text


def drop_widgets(cells: list) -> None:
    """Replace widgets, which need JupyterLab, by a sentence."""
    for cell in cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if any(kind.startswith(WIDGETS) for kind in data):
                for kind in [k for k in data if k.startswith((WIDGETS, "text/"))]:
                    del data[kind]
                data["text/plain"] = "Interactive in JupyterLab (make lab)."


def mend_tables(html: str) -> str:
    """Say of each header cell what it heads, and let wide tables scroll on their own."""

    def mended(match: re.Match) -> str:
        table = re.sub(r' (border="1"|style="[^"]*")', "", match[0])
        head, middle, rest = table.partition("</thead>")
        head = re.sub(r"<th(?![^>]*scope)(?=[ >])", '<th scope="col"', head)
        head = head.replace('<th scope="col"></th>', "<td></td>")
        rest = re.sub(r"<th(?![^>]*scope)(?=[ >])", '<th scope="row"', rest)
        return f"{SCROLL}{head}{middle}{rest}</div>"

    html = re.sub(r"<style scoped>.*?</style>", "", html, flags=re.DOTALL)
    return re.sub(r"<table.*?</table>", mended, html, flags=re.DOTALL)
