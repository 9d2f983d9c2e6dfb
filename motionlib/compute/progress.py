"""Lines about work that goes on come in; a bar in JupyterLab, few lines elsewhere, come out.

A notebook that papermill or the command line runs gets text: a widget's state would stay in it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

REPORT_EVERY_S = 5.0  # headless logs stay readable


def in_lab() -> bool:
    """Tell whether this is a kernel that a Jupyter server opened for somebody who looks at it.

    Such a server names the notebook to its kernels; papermill and nbconvert do not, and
    `execute.kernel_environment` asks for text.
    """
    asked = os.environ.get("MOTIONLIB_PROGRESS") != "text" and "JPY_SESSION_NAME" in os.environ
    return asked and "ipykernel" in sys.modules


@contextmanager
def progress_of(label: str, total: int) -> Iterator[Callable[[str], None]]:
    """Report on some tasks: a bar where there is a frontend for it, else `text_progress`.

    Parameters
    ----------
    label : str
        Name of the work.
    total : int
        Number of tasks.

    Yields
    ------
    callable
        Takes every line; give it to `compute.submit` and to the tasks of this process.
    """
    if not in_lab():
        yield text_progress()
        return
    bar = Bar(label, total)
    try:
        yield bar
    finally:
        bar.close()


class Bar:
    """A bar of tqdm that counts finished tasks and shows the latest line.

    Parameters
    ----------
    label, total
        As in `progress_of`.
    """

    def __init__(self, label: str, total: int):
        from tqdm.auto import tqdm

        self.bar = tqdm(total=total, desc=label)

    def __call__(self, line: str) -> None:
        """Show a line beside the bar."""
        self.bar.set_postfix_str(line)

    def reach(self, done: int) -> None:
        """Move to a number of finished tasks."""
        self.bar.update(done - self.bar.n)

    def close(self) -> None:
        """Leave the bar as it is."""
        self.bar.close()


def text_progress(
    every_s: float = 15.0,
    say: Callable[[str], None] = print,
    clock: Callable[[], float] = time.monotonic,
) -> Callable[[str], None]:
    """Make a reporter that says a line at most every so many seconds, the first after as many.

    Parameters
    ----------
    every_s : float, default=15
        Seconds between two lines; what takes less stays silent.
    say : callable
        Takes a line that is due.
    clock : callable
        Seconds that pass.

    Returns
    -------
    callable
        Takes every line.
    """
    last = clock()

    def report(line: str) -> None:
        nonlocal last
        if clock() - last >= every_s:
            last = clock()
            say(line)

    return report


class Meter:
    """Count results and report progress, as text with an estimate or on a bar.

    Parameters
    ----------
    label, total
        As in `progress_of`.
    report : callable, optional
        Takes a line.
    """

    def __init__(self, label: str, total: int, report: Callable[[str], None] | None):
        self.label, self.total, self.report = label, total, report
        self.done = self.failed = 0
        self.start = self.last = time.monotonic()

    def count(self, result: Any, *, failed: bool = False) -> Any:
        """Note one result and hand it on."""
        self.done += 1
        self.failed += failed
        if isinstance(self.report, Bar):
            self.report.reach(self.done)
            return result
        now = time.monotonic()
        due = now - self.last >= REPORT_EVERY_S or self.done == self.total
        if self.report is not None and due:
            self.last = now
            left_s = (now - self.start) / self.done * (self.total - self.done)
            lost = f", {self.failed} failed" if self.failed else ""
            self.report(f"{self.label}: {self.done}/{self.total}{lost}, about {left_s:.0f} s left")
        return result
