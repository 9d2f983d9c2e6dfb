"""The flow of a selection: who stayed, and who left at which step and why."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from motionlib.manifest import complete, validate

FLOW_COLUMNS = ["step", "n_in", "n_out", "reason"]
DROPPED_COLUMNS = ["scan_id", "step", "reason"]
FLOW = ["step", "cohort", "n_in", "n_out", "reason"]
REAL_MOTION = ", motion test"
REJECTED = "straight reject: truncated, or not a three-dimensional T1w image"


@dataclass(frozen=True)
class Selection:
    """What a cohort reader returns; unpacks as ``manifest, flow``."""

    manifest: pd.DataFrame  # the scans that stayed; paths relative to root
    flow: pd.DataFrame  # a row per step: step n_in n_out reason
    dropped: pd.DataFrame  # a row per scan that left: scan_id step reason
    root: Path  # the folder that the manifest's paths start from

    def __iter__(self) -> Iterator[pd.DataFrame]:
        return iter((self.manifest, self.flow))


class ScanFilter:
    """Candidate scans, one row each with ``scan_id``, that pass one test after the other.

    `step` and `reason`, how the candidates came together, are the first row of the flow.
    """

    def __init__(self, table: pd.DataFrame, step: str, reason: str = ""):
        self.table = table.reset_index(drop=True)
        self._flow = [(step, len(table), len(table), reason)]
        self._dropped: list[pd.DataFrame] = []

    def drop(self, step: str, bad: pd.Series, reason: str | pd.Series) -> None:
        """Let the scans that `bad` marks leave, for one reason or one each; missing is False."""
        bad = bad.astype("boolean").fillna(False).to_numpy(dtype=bool)
        each = reason if isinstance(reason, pd.Series) else pd.Series(reason, self.table.index)
        left = pd.DataFrame(
            {"scan_id": self.table["scan_id"][bad], "step": step, "reason": each[bad]}
        )
        said = "; ".join(f"{n} {text}" for text, n in _kinds(left["reason"]))
        n_out = len(self.table) - len(left)
        self._flow.append((step, len(self.table), n_out, said))
        self._dropped.append(left)
        self.table = self.table[~bad].reset_index(drop=True)

    def note(self, step: str, reason: str) -> None:
        """Add a step at which no scan leaves, to say what was done."""
        self._flow.append((step, len(self.table), len(self.table), reason))

    def select(self, root: Path) -> Selection:
        """Validate what stayed and return it with the flow; its paths start from `root`."""
        manifest = validate(complete(self.table)) if len(self.table) else complete(self.table)
        flow = pd.DataFrame(self._flow, columns=FLOW_COLUMNS)
        left = [part for part in self._dropped if len(part)]
        dropped = pd.concat(left, ignore_index=True) if left else pd.DataFrame()
        return Selection(manifest, flow, dropped.reindex(columns=DROPPED_COLUMNS), root)


def _kinds(reasons: pd.Series) -> list[tuple[str, int]]:
    """Reasons without their particulars (after the first colon), most frequent first."""
    short = reasons.astype("string").str.split(":").str[0]
    return sorted(short.value_counts().items(), key=lambda pair: (-pair[1], pair[0]))


def flow_label(cohort: str, role: str) -> str:
    """Name under which a scan is counted: a motion test is no part of its cohort's flow."""
    return f"{cohort}{REAL_MOTION}" if role == "real_motion" else str(cohort)


def count_scans(manifest: pd.DataFrame, step: str, reason: str, failed=()) -> pd.DataFrame:
    """Count what came of each cohort, and what of it is a straight reject, as rows of a flow.

    `manifest` has ``cohort role straight_reject``, `step` says how the scans came (``read``,
    ``generated``), `reason` what to say about them, `failed` holds rows ``cohort reason`` of scans
    that should have come. A row for what came, one for every failure, one for straight rejects.
    """
    pairs = zip(manifest["cohort"], manifest["role"].astype(str), strict=True)
    names = np.array([flow_label(*pair) for pair in pairs], dtype=object)
    rejected = manifest["straight_reject"].fillna(0).to_numpy(int) == 1
    rows = []
    for name in dict.fromkeys([*names, *(one["cohort"] for one in failed)]):
        n, n_rejects = (names == name).sum(), (rejected & (names == name)).sum()
        rows.append((step, name, n, n, reason))
        rows += [(step, name, 1, 0, one["reason"]) for one in failed if one["cohort"] == name]
        if n_rejects:
            rows.append(("straight rejects removed", name, n, n - n_rejects, REJECTED))
    return pd.DataFrame(rows, columns=FLOW)
