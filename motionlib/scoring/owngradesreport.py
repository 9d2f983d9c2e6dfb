"""The outcome of a fine-tuning on own grades goes in; its report, Markdown and HTML, comes out."""

from __future__ import annotations

from html import escape
from pathlib import Path

import pandas as pd

from motionlib.files import write_text
from motionlib.reportstyle import page
from motionlib.reporttables import label, table_html
from motionlib.scoring.gradelimits import judged_lines
from motionlib.scoring.own_grades import WORDS, Outcome
from motionlib.scoring.ownfigures import METRICS

CAPTION = (
    "Test patients, whom neither training nor threshold has seen; 95 % intervals by drawing "
    "patients."
)


GRADED = "Test scans: grade by you (rows) and by the model (columns)."


def write_reports(outcome: Outcome) -> tuple[Path, Path]:
    """Write both reports into the model folder.

    Parameters
    ----------
    outcome : Outcome
        From `own_grades.fine_tune_own`.

    Returns
    -------
    tuple of Path
        ``report.md``, which is the model's card, and ``report.html``; both hold the same figures.
    """
    return (
        write_text(outcome.folder / "report.md", markdown(outcome)),
        write_text(outcome.folder / "report.html", html(outcome)),
    )


def lines(outcome: Outcome) -> list[str]:
    """Say in sentences what was done."""
    facts = outcome.facts
    return [
        f"Task: {WORDS[outcome.task]} ({outcome.task}).",
        f"Network: {facts['network']}, {facts['voxel_mm']:g} mm, from the model "
        f"{facts['init_from']}; trained blocks: the fully connected ones.",
        f"Chosen on the validation patients alone: threshold {outcome.threshold:.4f}, temperature "
        f"{outcome.temperature:.3f}.",
        outcome.grading.said,
        f"Trained on: {facts['cohort']}.",
        "Good for scans like those it was tuned on; look first where scanner or protocol differ.",
    ]


def markdown(outcome: Outcome) -> str:
    """Report as Markdown."""
    parts = ["# Motion model fine-tuned on own grades", ""]
    parts += [f"- {line}" for line in lines(outcome)]
    if outcome.warnings:
        parts += ["", "## Warnings", "", *[f"- {line}" for line in outcome.warnings]]
    parts += ["", "## Scans", "", _markdown_table(outcome.counts)]
    parts += ["", "## Test", "", CAPTION, "", _markdown_table(_in_words(outcome.metrics))]
    if outcome.grading.table is not None:
        parts += ["", "## Grades", "", *[f"- {line}" for line in judged_lines(outcome.grading)]]
        parts += ["", GRADED, "", _markdown_table(_confusion(outcome))]
    if len(outcome.left_out):
        parts += ["", "## Left out", "", _markdown_table(outcome.left_out)]
    return "\n".join(parts) + "\n"


def html(outcome: Outcome) -> str:
    """Report as a page that opens offline."""
    said = "".join(f"<li>{escape(line)}</li>" for line in lines(outcome))
    warned = "".join(f"<li>{escape(line)}</li>" for line in outcome.warnings)
    body = f'<h2 id="what">What was done</h2><ul>{said}</ul>'
    if warned:
        body += f'<h2 id="warnings">Warnings</h2><ul>{warned}</ul>'
    body += '<h2 id="scans">Scans</h2>' + table_html(
        outcome.counts, "Scans and patients; no patient is in two parts."
    )
    body += '<h2 id="test">Test</h2>' + table_html(outcome.metrics, CAPTION)
    if outcome.grading.table is not None:
        judged = "".join(f"<li>{escape(line)}</li>" for line in judged_lines(outcome.grading))
        body += f'<h2 id="grades">Grades</h2><ul>{judged}</ul>'
        body += table_html(_confusion(outcome), GRADED)
    if len(outcome.left_out):
        body += '<h2 id="left">Left out</h2>' + table_html(
            outcome.left_out.rename(columns={"scan_id": "scan"}), "Graded scans that were not used."
        )
    header = (
        '<header><p class="kicker">motionlib finetune</p>'
        "<h1>Motion model fine-tuned on own grades</h1></header>"
    )
    footer = "<footer><p>Made by motionlib for research; no medical device.</p></footer>"
    title = "Motion model fine-tuned on own grades"
    return page(title, f'{header}<main id="main">\n{body}</main>{footer}')


def _in_words(metrics: pd.DataFrame) -> pd.DataFrame:
    """Figures with their intervals as text."""
    rows = []
    for row in metrics.to_dict("records"):
        words = {"model": row["model"], "scans": row["n"], "with motion": row["n_positive"]}
        for name in METRICS:
            low, high = row[f"{name}_low"], row[f"{name}_high"]
            words[label(name)] = f"{row[name]:.3f} [{low:.3f}, {high:.3f}]"
        rows.append(words)
    return pd.DataFrame(rows)


def _confusion(outcome: Outcome) -> pd.DataFrame:
    """Three rows of counts that name what they count."""
    table = outcome.grading.table
    given = {f"model: {grade}": table[grade].to_numpy() for grade in table.columns}
    return pd.DataFrame({"grade": [f"you: {grade}" for grade in table.index]} | given)


def _markdown_table(table: pd.DataFrame) -> str:
    """Rows between bars."""
    head = [list(map(str, table.columns)), ["---"] * table.shape[1]]
    body = [[str(cell).replace("|", "/") for cell in row] for row in table.to_numpy()]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in head + body)
