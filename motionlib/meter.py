"""Finished pieces of work are counted; lines about progress, with an estimate, come out."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

REPORT_EVERY_S = 5.0  # headless logs stay readable


class Meter:
    """Count results and report progress as text with an estimate.

    Parameters
    ----------
    label : str
        Name of the work.
    total : int
        Number of results to come.
    report : callable, optional
        Called with a line from time to time, and at the end.
    failure : type
        Of the results that count as failed.
    """

    def __init__(self, label: str, total: int, report: Callable[[str], None] | None, failure: type):
        self.label, self.total, self.report, self.failure = label, total, report, failure
        self.done = self.failed = 0
        self.start = self.last = time.monotonic()

    def count(self, result: Any) -> Any:
        """Note one result and hand it on."""
        self.done += 1
        self.failed += isinstance(result, self.failure)
        now = time.monotonic()
        due = now - self.last >= REPORT_EVERY_S or self.done == self.total
        if self.report is not None and due:
            self.last = now
            left_s = (now - self.start) / self.done * (self.total - self.done)
            lost = f", {self.failed} failed" if self.failed else ""
            self.report(f"{self.label}: {self.done}/{self.total}{lost}, about {left_s:.0f} s left")
        return result
