"""A notebook and its parameters go in; it comes out executed, or with where and why it stopped.

Papermill runs the cells; this room gives it a kernel of the running interpreter, keeps unfinished
output apart from finished, and turns its failures into one sentence.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TextIO

from motionlib import files
from motionlib.files import PACKAGE
from motionlib.study.notebooks import Notebook

START_TIMEOUT_S = 300  # a busy computer needs minutes to start a kernel


class NotebookFailed(Exception):  # noqa: N818 - it tells what happened
    """A notebook stopped before its end; the text says where and why."""


def execute(
    notebook: Notebook,
    output: Path,
    parameters: dict,
    *,
    environment: dict[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Run all cells of a notebook on a fresh kernel.

    Parameters
    ----------
    notebook : Notebook
        The notebook; the kernel's working directory is its folder.
    output : Path
        Executed notebook.  Until it is finished it is called ``NAME.partial.ipynb``.
    parameters : dict
        Values for the ``parameters`` cell.
    environment : dict, optional
        Variables for the kernel beside those of this process.
    progress : callable, optional
        Called with (number of the cell that starts, number of cells).

    Raises
    ------
    NotebookFailed
        If a cell raises, the kernel dies, or the notebook ends before its last cell.
    """
    papermill = _papermill()
    partial = output.with_name(f"{output.stem}.partial.ipynb")
    output.parent.mkdir(parents=True, exist_ok=True)
    reached = {"cell": 0}

    def told(cell: int, cells: int) -> None:
        reached["cell"] = cell
        if progress:
            progress(cell, cells)

    with kernel_environment(output.parent.parent / ".jupyter", environment or {}):
        try:
            executed = papermill.execute_notebook(
                str(notebook.path),
                str(partial),
                parameters=parameters,
                engine_name="told",
                kernel_name="python3",
                cwd=str(notebook.path.parent),
                progress_bar=False,
                start_timeout=START_TIMEOUT_S,
                told=told,
            )
        except papermill.PapermillExecutionError as error:
            cause = f"{error.ename}: {_one_line(error.evalue)}"
            raise NotebookFailed(f"{where(notebook, partial)}: {cause}") from None
        except RuntimeError as error:
            died = type(error).__name__ == "DeadKernelError"
            cause = "its kernel died, most often for want of memory" if died else _one_line(error)
            cell = f"cell {reached['cell']} of {len(notebook.cells)}"
            raise NotebookFailed(f"{notebook.stem} stopped at {cell}: {cause}") from None
    early = [c for c in executed.cells if c.metadata.get("papermill", {}).get("exception")]
    if early:
        raise NotebookFailed(f"{where(notebook, partial)}: the cell left by sys.exit")
    os.replace(partial, output)


def where(notebook: Notebook, partial: Path) -> str:
    """Name the cell at which an executed notebook stopped, counted in the notebook itself."""
    ids = [cell.get("id") for cell in notebook.cells]
    for cell in json.loads(partial.read_text(encoding="utf-8"))["cells"]:
        if cell["metadata"].get("papermill", {}).get("exception") and cell.get("id") in ids:
            number = f"cell {ids.index(cell['id']) + 1} of {len(ids)}"
            return f"{notebook.stem} stopped at {number} (In [{cell['execution_count']}])"
    return f"{notebook.stem} stopped"


@contextmanager
def kernel_environment(folder: Path, extra: dict[str, str]) -> Iterator[None]:
    """Make ``python3`` this very interpreter and keep Jupyter's files under `folder`."""
    argv = [sys.executable, "-Xfrozen_modules=off", "-m", "ipykernel_launcher"]
    # at this level the kernel does not warn about its connection, which stays on this computer
    argv += ["-f", "{connection_file}", "--IPKernelApp.log_level=50"]
    spec = {"argv": argv, "display_name": "Python 3 (motionlib)", "language": "python"}
    files.write_json(folder / "kernels" / "python3" / "kernel.json", spec)
    for part in ("runtime", "ipython"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    package = str(PACKAGE.parent)
    changes = {
        "JUPYTER_PATH": _joined(str(folder), os.environ.get("JUPYTER_PATH")),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "IPYTHONDIR": str(folder / "ipython"),
        "PYTHONPATH": _joined(package, os.environ.get("PYTHONPATH")),
        "PYTHONHASHSEED": "0",
        "MOTIONLIB_PROGRESS": "text",  # the state of a bar would stay in the executed notebook
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        **extra,
    }
    former = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class Ticker:
    """Lines of text about a notebook that runs: cell, time so far, time left as far as known.

    Parameters
    ----------
    label : str
        Name of the notebook.
    expected_s : float, optional
        How long it took the last time.
    every_s : float, default=15
        Seconds between two lines.
    stream : text file, optional
        Where to write; standard output by default.
    """

    def __init__(
        self,
        label: str,
        expected_s: float | None = None,
        *,
        every_s: float = 15.0,
        stream: TextIO | None = None,
    ):
        self.label, self.expected_s, self.every_s = label, expected_s, every_s
        self.stream = stream or sys.stdout
        self.start, self.cell, self.cells = time.monotonic(), 0, 0
        self._stop = Event()

    def __enter__(self) -> Ticker:
        self._thread = Thread(target=self._tell, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        self._thread.join()

    def __call__(self, cell: int, cells: int) -> None:
        """Take note of the cell that starts."""
        self.cell, self.cells = cell, cells

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self.start

    def line(self) -> str:
        """Say what is known now."""
        cell = f"cell {self.cell} of {self.cells}" if self.cells else "starting"
        left = (self.expected_s or 0) - self.seconds
        about = f", about {duration(left)} left" if left > 0 else ""
        return f"    {self.label}: {cell}, {duration(self.seconds)}{about}"

    def _tell(self) -> None:
        while not self._stop.wait(self.every_s):
            print(self.line(), file=self.stream, flush=True)


def duration(seconds: float) -> str:
    """Write 95 as ``1 min 35 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _papermill():
    """Import papermill and teach it to tell which cell starts."""
    import papermill
    from papermill.engines import NBClientEngine, papermill_engines

    class Told(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, told=None, **kwargs):
            begin = nb_man.cell_start
            added = sum(
                "injected-parameters" in c.metadata.get("tags", []) for c in nb_man.nb.cells
            )
            cells = len(nb_man.nb.cells) - added

            def cell_start(cell, cell_index=None, **more):
                told(max(1, cell_index + 1 - (added if cell_index > 1 else 0)), cells)
                return begin(cell, cell_index, **more)

            nb_man.cell_start = cell_start
            return super().execute_managed_notebook(nb_man, kernel_name, **kwargs)

    papermill_engines.register("told", Told)
    for name in ("papermill", "traitlets", "blib2to3"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return papermill


def _joined(first: str, rest: str | None) -> str:
    """Put a folder before a search path."""
    return os.pathsep.join([first, rest]) if rest else first


def _one_line(error: object, most: int = 300) -> str:
    """Message without colours, line breaks and full stop, not longer than `most`."""
    plain = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split()).rstrip(".")
    return plain if len(plain) <= most else plain[: most - 1] + "…"
