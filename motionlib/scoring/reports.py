"""Rows of scores and a model folder go in; one HTML page that opens offline comes out.

It names scans by their ``scan_id`` alone: no path, no participant.
"""

from __future__ import annotations

import base64
import io
import os
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from motionlib.files import write_text
from motionlib.preprocess.head import find_head
from motionlib.preprocess.images import read_array
from motionlib.scoring.model import EXCLUDE, KEEP, REVIEW, Judge, read_judge
from motionlib.scoring.own_grades import METRICS, WORDS, Outcome, judged_lines
from motionlib.typeset import label, page, table_html

SHOWN = 6  # pictures of the worst, and of the most uncertain scans
LISTED = 1000  # rows; the table beside has them all
DECISION_WORDS = {KEEP: "to keep", REVIEW: "to review", EXCLUDE: "to exclude"}
CAPTION = (
    "Test patients, whom neither training nor threshold has seen; 95 % intervals by drawing "
    "patients."
)
GRADED = "Test scans: grade by you (rows) and by the model (columns)."
SIDE_PX = 240  # largest side of a slice
MIDDLE_MM = 60.0  # below the top of the head: ventricles in the axial slice


def write_report(
    rows: list[dict[str, Any]], model: str | os.PathLike, path: str | os.PathLike
) -> Path:
    """Write the report of a scoring.

    Parameters
    ----------
    rows : list of dict
        From `score.score_scans`, with ``path`` for the pictures.
    model : path-like
        Model folder.
    path : path-like
        The page to write.

    Returns
    -------
    Path
        The page, with every picture in it.
    """
    judge = read_judge(model)
    scored = sorted((row for row in rows if not row["abstained"]), key=lambda row: -row["p_motion"])
    broken = [row for row in rows if row["abstained"]]
    worst = scored[:SHOWN]
    shown = {row["scan_id"] for row in worst}
    doubt = sorted(scored, key=lambda row: abs(row["p_motion"] - judge.threshold))
    doubt = [row for row in doubt if row["scan_id"] not in shown][:SHOWN]
    sections = [
        ("counts", "Counts", _counts(rows)),
        ("worst", "Highest probability", _pictures(worst, "No scan has a score.")),
        ("uncertain", "Nearest to the threshold", _pictures(doubt, "There is no further scan.")),
        ("abstained", "Without a score", _reasons(broken)),
        ("scans", "All scans, the worst first", _listed(scored)),
    ]
    links = "".join(f'<li><a href="#{key}">{title}</a></li>' for key, title, _ in sections)
    body = "".join(
        f'<section aria-labelledby="{key}"><h2 id="{key}">{title}</h2>{html}</section>\n'
        for key, title, html in sections
    )
    header = (
        '<header><p class="kicker">motionlib score</p><h1>Motion in T1-weighted scans</h1>'
        f'<p class="note"><strong>Model.</strong> {escape(model_line(judge))}</p>'
        f'<nav aria-label="Contents"><ul>{links}</ul></nav></header>'
    )
    footer = (
        "<footer><p>Made by motionlib for research; no medical device. A score is a reason to "
        "look, not a verdict.</p></footer>"
    )
    html = page("Motion in T1-weighted scans", f'{header}<main id="main">\n{body}</main>{footer}')
    return write_text(path, html)


def model_line(judge: Judge) -> str:
    """Say in words which model decided, by which rule."""
    facts = judge.facts
    said = f"{judge.name}, {judge.spacing_mm:g} mm; motion from a probability of "
    said += f"{judge.threshold:.3g} on"
    if judge.review:
        said += f", review between {judge.review[0]:.3g} and {judge.review[1]:.3g}"
    if judge.grade_thresholds:
        mild, severe = judge.grade_thresholds
        said += f"; grade 1 from {mild:.3g} on, grade 2 from {severe:.3g} on"
    said += "; probabilities calibrated" if facts.get("calibration") else "; not calibrated"
    if facts.get("cohort"):
        said += f". Trained on: {str(facts['cohort']).rstrip('.')}"
    if facts.get("card"):
        said += f". Read its card, {facts['card']}, before trusting it"
    return said + "."


def _counts(rows: list[dict[str, Any]]) -> str:
    """Show the numbers of scans by decision."""
    scored = [row for row in rows if not row["abstained"]]
    numbers = {"scans": len(rows), "without a score": len(rows) - len(scored)}
    numbers |= {
        words: sum(row["decision"] == decision for row in scored)
        for decision, words in DECISION_WORDS.items()
    }
    cells = "".join(f"<div><dt>{name}</dt><dd>{n}</dd></div>" for name, n in numbers.items())
    return f'<dl class="headline">{cells}</dl>'


def _pictures(rows: list[dict[str, Any]], none: str) -> str:
    """Slices of some scans with what was said about them."""
    if not rows:
        return f"<p>{none}</p>"
    said = (
        "<p>Sagittal, coronal and axial slice through the middle of the head, as scanned; in the "
        "last two the left of the head is on the left.</p>"
    )
    return said + "".join(_figure(row) for row in rows)


def _figure(row: dict[str, Any]) -> str:
    """One scan's slices."""
    words = (
        f"{row['scan_id']}: probability {row['p_motion']:.3f}, {DECISION_WORDS[row['decision']]}"
    )
    caption = escape(words + (f"; {row['reason']}" if row["reason"] else "") + ".")
    try:
        uri = picture_uri(row["path"])
    except (FileNotFoundError, ValueError, MemoryError):
        return f"<p>{caption} Its file can no longer be read.</p>"
    alt = escape(f"Three slices of {words}.", quote=True)
    return f'<figure><img alt="{alt}" src="{uri}"><figcaption>{caption}</figcaption></figure>'


def _reasons(broken: list[dict[str, Any]]) -> str:
    """List what has no score, and why."""
    if not broken:
        return "<p>Every scan has a score.</p>"
    table = pd.DataFrame([{"scan": r["scan_id"], "reason": r["reason"]} for r in broken[:LISTED]])
    return table_html(table, f"{len(broken)} scans have no score; a person has to look at them.")


def _listed(scored: list[dict[str, Any]]) -> str:
    """All scores, sorted."""
    if not scored:
        return "<p>No scan has a score.</p>"
    names = {"scan_id": "scan", "p_motion": "probability of motion", "grade": "grade"}
    names |= {"decision": "decision", "reason": "remark"}
    table = pd.DataFrame(scored[:LISTED])[list(names)].rename(columns=names)
    table["remark"] = table["remark"].replace("", None)
    caption = "Probability of motion and decision."
    if len(scored) > LISTED:
        caption += f" The first {LISTED} of {len(scored)}; the table beside has all."
    return table_html(table, caption)


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
    body += '<h2 id="scans">Scans</h2>' + str(
        table_html(outcome.counts, "Scans and patients; no patient is in two parts.")
    )
    body += '<h2 id="test">Test</h2>' + str(table_html(outcome.metrics, CAPTION))
    if outcome.grading.table is not None:
        judged = "".join(f"<li>{escape(line)}</li>" for line in judged_lines(outcome.grading))
        body += f'<h2 id="grades">Grades</h2><ul>{judged}</ul>'
        body += str(table_html(_confusion(outcome), GRADED))
    if len(outcome.left_out):
        body += '<h2 id="left">Left out</h2>' + str(
            table_html(
                outcome.left_out.rename(columns={"scan_id": "scan"}),
                "Graded scans that were not used.",
            )
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


def middle_slices(array: np.ndarray, affine) -> np.ndarray:
    """Cut a scan through the middle of its head.

    Parameters
    ----------
    array : ndarray, shape (I, J, K)
        RAS intensities.
    affine : array-like, shape (4, 4)
        Voxel indices to mm.

    Returns
    -------
    ndarray of uint8, shape (rows, columns)
        Sagittal, coronal and axial slice side by side, in proportion, head up or front up, left of
        the head on the left.
    """
    side = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
    middle_mm = (np.array(array.shape) - 1) / 2 * side
    try:
        found = find_head(array, affine)
        middle_mm = np.array([*found.centre_mm, found.top_mm - MIDDLE_MM])
    except ValueError:  # shown as it is
        pass
    at = np.clip(np.round(middle_mm / side), 0, np.array(array.shape) - 1).astype(int)
    pixel = max(side.min(), (np.array(array.shape) * side).max() / SIDE_PX)
    panels = []
    for axis in range(3):
        across, up = (other for other in range(3) if other != axis)
        plane = np.take(array, at[axis], axis=axis)
        places = [
            np.minimum(np.arange(0, n * side[a], pixel) / side[a], n - 1).astype(int)
            for n, a in zip(plane.shape, (across, up), strict=True)
        ]
        panels.append(plane[np.ix_(*places)].T[::-1])
    tall = max(panel.shape[0] for panel in panels)
    bright = max(float(np.percentile(array, 99.5)), 1e-12)
    framed = [
        np.pad(panel, ((0, tall - panel.shape[0]), (0, 4)), constant_values=0) for panel in panels
    ]
    return (np.clip(np.concatenate(framed, axis=1) / bright, 0, 1) * 255).astype(np.uint8)


def picture_uri(path: str | os.PathLike) -> str:
    """Picture of a scan's middle slices as ``data:image/png;base64,...``.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file can no longer be read.
    """
    stream = io.BytesIO()
    Image.fromarray(middle_slices(*read_array(path))).save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
