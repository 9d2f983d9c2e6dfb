"""An executed notebook goes in; one HTML page that needs no network comes out."""

from __future__ import annotations

import base64
import io
import re
from html import escape
from pathlib import Path

from motionlib.reportstyle import page

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
