"""Rows of scores and a model folder go in; one HTML page that opens offline comes out.

It names scans by their ``scan_id`` alone: no path, no participant.
"""

from __future__ import annotations

import os
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from motionlib.files import write_text
from motionlib.reportstyle import page
from motionlib.reporttables import table_html
from motionlib.scoring.model import EXCLUDE, KEEP, REVIEW, Judge, read_judge
from motionlib.scoring.scanpicture import picture_uri

SHOWN = 6  # pictures of the worst, and of the most uncertain scans
LISTED = 1000  # rows; the table beside has them all
WORDS = {KEEP: "to keep", REVIEW: "to review", EXCLUDE: "to exclude"}


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
        for decision, words in WORDS.items()
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
    words = f"{row['scan_id']}: probability {row['p_motion']:.3f}, {WORDS[row['decision']]}"
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
