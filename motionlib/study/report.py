"""A run folder goes in; ``report/index.html`` with all results and notebooks comes out.

The folder ``report/`` holds everything it shows, so that it can be copied and opened anywhere.
"""

from __future__ import annotations

import base64
import shutil
from html import escape
from pathlib import Path

import pandas as pd

from motionlib import files
from motionlib.reportstyle import page
from motionlib.reporttables import label, number, table_html
from motionlib.study import provenance
from motionlib.study.reportboard import scoreboard_html
from motionlib.study.reportpages import notebook_page

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
    facts = provenance.collect_provenance(folder)
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
    notes = provenance.headline(folder)
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
            html.append(table_html(tables[name], caption, number=paper))
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
    from motionlib.study.execute import duration

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
