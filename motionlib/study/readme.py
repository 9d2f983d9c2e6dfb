"""A published run goes in; the README's headline table, between its two marks, comes out."""

from __future__ import annotations

from pathlib import Path

from motionlib import files
from motionlib.paper import tables

START, END = "<!-- headline:start -->", "<!-- headline:end -->"
WORDS = {
    "mov01vs2": "severe motion",
    "mov0vs1": "mild motion",
    "annotators": "annotators",
    "fine_tuned": "network, fine-tuned",
    "research_only": "network, research data only",
    "from_scratch": "network, from scratch",
    "fine_tuned_recommended": "recommended recipe, fine-tuned",
    "research_only_recommended": "recommended recipe, research data only",
    "fine_tuned_kspace": "k-space pre-training, fine-tuned",
    "forest_research": "forest, research data",
    "forest_clinical": "forest, warehouse",
}


def headline_lines(folder: Path) -> list[str]:
    """Write the headline table of a published run as Markdown lines."""
    table = tables.headline(folder)
    lines = [
        "| task | method | BA, paper | BA, ours [95 %] | AUC, ours [95 %] | scans |",
        "|---|---|---|---|---|---|",
    ]
    for row in table.fillna("").itertuples():
        names = f"{WORDS.get(row.task, row.task)} | {WORDS.get(row.method, row.method)}"
        lines.append(f"| {names} | {row.ba_paper} | {row.ba_ours} | {row.auc_ours} | {row.n} |")
    return lines


def insert(readme: Path, folder: Path) -> str:
    """Put the headline table of a published run into a README, between its marks.

    Raises
    ------
    ValueError
        If the marks are not there.
    """
    text = readme.read_text(encoding="utf-8")
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f"{readme.name} lacks {START} and {END}; put them where the table goes")
    body = "\n".join(headline_lines(folder))
    text = f"{before}{START}\n{body}\n{END}{after}"
    files.write_text(readme, text)
    return text


def is_current(readme: Path, folder: Path) -> bool:
    """Say whether a README shows the headline of a published run, to the digit."""
    between = readme.read_text(encoding="utf-8").partition(START)[2].partition(END)[0]
    return between.strip().splitlines() == headline_lines(folder)
