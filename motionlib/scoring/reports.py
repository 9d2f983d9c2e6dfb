"""The pages that ``motionlib score`` and ``motionlib finetune`` write.

A page is one HTML file that opens offline, with its pictures in it. It names scans by ``scan_id``
alone: no path, no participant. Its words stand in the package's templates.
"""

import base64
import io
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from motionlib.files import write_text
from motionlib.preprocess.head import find_head
from motionlib.preprocess.images import read_array
from motionlib.scoring.model import EXCLUDE, KEEP, REVIEW, read_rule
from motionlib.scoring.own_grades import Outcome
from motionlib.tasks import TASK_WORDS
from motionlib.typeset import render, table_html

SHOWN = 6  # pictures of the worst, and of the most uncertain scans
LISTED = 1000  # rows of a table; the one that `score` writes has them all
SIDE_PX = 240  # largest side of a slice
MIDDLE_MM = 60.0  # below the top of the head: ventricles in the axial slice


def write_report(
    rows: list[dict[str, Any]], model: str | os.PathLike, path: str | os.PathLike
) -> Path:
    """Write the page of a scoring: `rows` are those of `score.score_scans`, `model` its folder."""
    rule = rows[0]["rule"] if rows else read_rule(model)
    scored = sorted((row for row in rows if not row["abstained"]), key=lambda row: -row["p_motion"])
    abstained = [row for row in rows if row["abstained"]]
    worst = scored[:SHOWN]
    shown = {row["scan_id"] for row in worst}
    doubt = sorted(scored, key=lambda row: abs(row["p_motion"] - rule.threshold))
    doubt = [row for row in doubt if row["scan_id"] not in shown][:SHOWN]
    counts = {"scans": len(rows), "without a score": len(abstained)}
    for decision in (KEEP, REVIEW, EXCLUDE):
        counts[f"to {decision}"] = sum(row["decision"] == decision for row in scored)
    page = render(
        "score.html",
        rule=rule,
        counts=counts,
        worst=[row | {"picture": picture_uri(row["path"])} for row in worst],
        doubt=[row | {"picture": picture_uri(row["path"])} for row in doubt],
        abstained=_reasons(abstained),
        scored=_listed(scored),
    )
    return write_text(path, page)


def _reasons(abstained: list[dict[str, Any]]) -> str:
    """Table of the scans without a score, and why; nothing if there are none."""
    if not abstained:
        return ""
    table = pd.DataFrame(
        [{"scan": r["scan_id"], "reason": r["reason"]} for r in abstained[:LISTED]]
    )
    return table_html(table, f"{len(abstained)} scans have no score; a person has to look at them.")


def _listed(scored: list[dict[str, Any]]) -> str:
    """Table of the scores, the worst first; nothing if there are none."""
    if not scored:
        return ""
    names = {"scan_id": "scan", "p_motion": "probability of motion", "grade": "grade"}
    names |= {"decision": "decision", "reason": "remark"}
    table = pd.DataFrame(scored[:LISTED])[list(names)].rename(columns=names)
    table["remark"] = table["remark"].replace("", None)
    caption = "Probability of motion and decision."
    if len(scored) > LISTED:
        caption += f" The first {LISTED} of {len(scored)}; the table beside has all."
    return table_html(table, caption)


def write_tuning_report(outcome: Outcome) -> Path:
    """Write the page of a fine-tuning, ``report.html`` in the model folder: the model's card."""
    left_out = outcome.left_out.rename(columns={"scan_id": "scan"})
    page = render(
        "finetune.html",
        outcome=outcome,
        task=TASK_WORDS[outcome.facts["task"]],
        counts=table_html(outcome.counts, "Scans and patients; no patient is in two parts."),
        metrics=table_html(
            outcome.metrics,
            "Test patients, whom neither training nor threshold has seen; 95 % intervals by "
            "drawing patients.",
        ),
        confusion=_confusion(outcome.grading.table),
        left_out=len(left_out) and table_html(left_out, "Graded scans that were not used."),
    )
    return write_text(outcome.folder / "report.html", page)


def _confusion(table: pd.DataFrame | None) -> str:
    """Three rows of counts that name what they count; nothing where no grades are given."""
    if table is None:
        return ""
    given = {f"model: {grade}": table[grade].to_numpy() for grade in table.columns}
    named = pd.DataFrame({"grade": [f"you: {grade}" for grade in table.index]} | given)
    return table_html(named, "Test scans: grade by you (rows) and by the model (columns).")


def picture_uri(path: str | os.PathLike) -> str:
    """Picture of a scan's middle slices as ``data:image/png;base64,...``; nothing if it is lost."""
    try:
        slices = middle_slices(*read_array(path))
    except (FileNotFoundError, ValueError, MemoryError):
        return ""
    stream = io.BytesIO()
    Image.fromarray(slices).save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def middle_slices(array: np.ndarray, affine) -> np.ndarray:
    """Cut a scan, (I, J, K) in RAS, through the middle of its head, (rows, columns) of uint8.

    Sagittal, coronal, axial side by side, in proportion, head or front up, the head's left on left.
    """
    shape = np.array(array.shape)
    side = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
    # 1. Where to cut: through the head, or the image where no head is found.
    middle_mm = (shape - 1) / 2 * side
    with suppress(ValueError):
        head = find_head(array, affine)
        middle_mm = np.array([*head.centre_mm, head.top_mm - MIDDLE_MM])
    at = np.clip(np.round(middle_mm / side), 0, shape - 1).astype(int)
    # 2. Square pixels, as fine as the voxels or as the picture allows: the nearest voxel of each.
    pixel = max(side.min(), (shape * side).max() / SIDE_PX)
    panels = []
    for axis in range(3):
        across, up = (other for other in range(3) if other != axis)
        plane = np.take(array, at[axis], axis=axis)
        places = [
            np.minimum(np.arange(0, n * side[a], pixel) / side[a], n - 1).astype(int)
            for n, a in zip(plane.shape, (across, up), strict=True)
        ]
        panels.append(plane[np.ix_(*places)].T[::-1])
    # 3. Side by side on black, the brightest half per cent cut off.
    tall = max(panel.shape[0] for panel in panels)
    bright = max(float(np.percentile(array, 99.5)), 1e-12)
    framed = [
        np.pad(panel, ((0, tall - panel.shape[0]), (0, 4)), constant_values=0) for panel in panels
    ]
    return (np.clip(np.concatenate(framed, axis=1) / bright, 0, 1) * 255).astype(np.uint8)
