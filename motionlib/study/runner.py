"""A profile goes in; executed notebooks, their stamps and the report come out.

Each notebook is run when something that it depends on has changed since it last finished: its
cells, its parameters, the package, the data manifests, the versions of the libraries, the data, or
a notebook before it.  Everything else is skipped, so the same command resumes a stopped study.
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
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from threading import Event, Thread
from typing import Any, TextIO

from filelock import FileLock, Timeout

from motionlib import files
from motionlib.files import PACKAGE
from motionlib.study.notebooks import Notebook, Study
from motionlib.study.run import collect_provenance, headline

# rooms that run the study or serve others, but compute nothing in it
PLATFORM = ("cli.py", "commands", "scoring", "study")
COMPUTES = ("study/run.py",)  # of a room of the platform
VERSIONS = ("torch", "torchio", "numpy", "scipy", "pandas", "scikit-learn")
REASONS = {
    "source": "its cells have changed",
    "parameters": "its parameters have changed",
    "package": "motionlib has changed",
    "manifests": "data_manifests has changed",
    "versions": "libraries have other versions",
    "data": "the data have changed",
    "upstream": "an earlier notebook runs again or has run since",
}
START_TIMEOUT_S = 300  # a busy computer needs minutes to start a kernel


@dataclass(frozen=True)
class Step:
    """A notebook of the study, its parameters, and why it must run (None: it need not)."""

    notebook: Notebook
    parameters: dict[str, Any]
    parts: dict[str, str]
    reason: str | None
    last_s: float | None

    @property
    def key(self) -> str:
        """Content key of all that the notebook depends on."""
        return files.content_key(self.parts)


def run_study(
    study: Study,
    *,
    say: Callable[[str], None] = print,
    dry_run: bool = False,
    report: Callable[[Path], Path] | None = None,
    every_s: float = 15.0,
) -> Path | None:
    """Run what must run, then build the report.

    Parameters
    ----------
    study : Study
        From `profiles.read_study`.
    say : callable
        Takes one line of text.
    dry_run : bool, default=False
        Only tell what would run and why.
    report : callable, optional
        Builds the report of a run folder and returns its path.
    every_s : float, default=15
        Seconds between two lines about a notebook that runs.

    Returns
    -------
    Path or None
        The report, where one was asked for.

    Raises
    ------
    NotebookFailed
        If a notebook stops; what finished before is kept.
    BlockingIOError
        If another process runs the same profile in the same folder.
    """
    if dry_run:
        tell_plan(study, plan(study), say)
        return None
    check_writable(study.folder)
    with only_one(study.folder):
        files.sweep_below(study.folder)
        steps = plan(study)
        tell_plan(study, steps, say)
        todo = [step for step in steps if step.reason]
        for count, step in enumerate(todo, start=1):
            run_step(study, step, f"[{count}/{len(todo)}]", say, every_s)
        for name, value in headline(study.folder).items():
            say(f"  {name}: {_short(value)}")
        if report is None:
            return None
        index = study.folder / "report" / "index.html"
        return report(study.folder) if todo or not index.is_file() else index


def run_step(
    study: Study, step: Step, count: str, say: Callable[[str], None], every_s: float
) -> None:
    """Run one notebook between its two stamps."""
    stem = step.notebook.stem
    last = f" (last time {duration(step.last_s)})" if step.last_s else ""
    say(f"{count} {stem} runs{last}")
    write_stamp(study.folder, step, step.last_s, done=False)
    environment = {"MOTIONLIB_RUNS": str(study.folder.parent.resolve())}
    for variable in ("MOTIONLIB_DATA", "MOTIONLIB_REFERENCE"):
        if os.environ.get(variable):  # kernels work elsewhere: a relative path would mislead them
            environment[variable] = str(Path(os.environ[variable]).expanduser().resolve())
    output = study.folder / "notebooks" / f"{stem}.ipynb"
    with Ticker(stem, step.last_s, every_s=every_s) as ticker:
        execute(step.notebook, output, step.parameters, environment=environment, progress=ticker)
    write_stamp(study.folder, step, round(ticker.seconds, 1), done=True)
    collect_provenance(study.folder)
    say(f"{count} {stem} done in {duration(ticker.seconds)}")


def tell_plan(study: Study, steps: list[Step], say: Callable[[str], None]) -> None:
    """Say for each notebook whether it runs, and why."""
    todo = sum(step.reason is not None for step in steps)
    say(f"profile {study.profile}: {todo} of {len(steps)} notebooks to run")
    for step in steps:
        last = f", {duration(step.last_s)} the last time" if step.reason and step.last_s else ""
        state = f"runs: {step.reason}{last}" if step.reason else "up to date"
        say(f"  {step.notebook.stem}  {state}")


def check_writable(folder: Path) -> None:
    """Make a run's folder, or say that nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.write_text(folder / ".writable", "")
        (folder / ".writable").unlink(missing_ok=True)
    except OSError as error:
        raise ValueError(
            f"cannot write into the runs folder {folder} ({error.strerror}); "
            "give --runs a folder that you may write to"
        ) from None


def plan(study: Study, *, package: Path | None = None) -> list[Step]:
    """Decide which notebooks must run, and why."""
    package = package or PACKAGE
    shared = {
        "package": package_key(package),
        "manifests": folder_key(study.notebooks[0].path.parent.parent / "data_manifests"),
        "versions": files.content_key({name: _version(name) for name in VERSIONS}),
        "data": files.content_key({n: folder_key(f, depth=1) for n, f in study.needs.items()}),
    }
    steps: list[Step] = []
    upstream: list[str] = []
    for notebook in study.notebooks:
        chosen = not study.only or notebook.number in study.only
        stamp = read_stamp(study.folder, notebook)
        values = study.parameters[notebook.stem]
        # where a notebook computes does not change what it computes
        lasting = {name: value for name, value in values.items() if name != "engine"}
        parts = {"source": notebook.key, "parameters": files.content_key(lasting), **shared}
        parts["upstream"] = files.content_key(upstream)
        reason = why(study.folder, notebook, stamp, parts)
        step = Step(notebook, values, parts, reason, stamp.get("seconds"))
        if chosen:
            steps.append(step)
        upstream.append(step.key if chosen else stamp.get("key") or "never")
    return steps


def why(folder: Path, notebook: Notebook, stamp: dict, parts: dict[str, str]) -> str | None:
    """Say why a notebook must run, or None."""
    if not stamp:
        return "it has not run yet"
    if not stamp.get("key"):
        return "it was stopped before its end"
    changed = [name for name in REASONS if stamp["parts"].get(name) != parts[name]]
    own = [name for name in changed if name != "upstream"]
    if changed:
        return ", ".join(REASONS[name] for name in own or changed)
    made = [f"notebooks/{notebook.stem}.ipynb", *stamp["makes"]]
    gone = [name for name in made if not (folder / name).is_file()]
    return f"{gone[0]} is not there" if gone else None


def read_stamp(folder: Path, notebook: Notebook) -> dict:
    """Read what is known about the last time a notebook ran; empty before the first."""
    path = folder / "stamps" / f"{notebook.number}.json"
    stamp = files.read_json(path) if path.is_file() else {}
    return stamp if stamp.get("notebook") == notebook.stem else {}


def write_stamp(folder: Path, step: Step, seconds: float | None, *, done: bool) -> None:
    """Record that a notebook has started, or (with its key) that it has finished."""
    makes: list[str] = []
    described = folder / "provenance" / f"{step.notebook.stem}.json"
    if done and described.is_file():
        makes = files.read_json(described)["makes"]
    stamp = {"notebook": step.notebook.stem, "seconds": seconds, "makes": makes}
    stamp |= {
        "parameters": _portable(step.parameters),
        "parts": step.parts,
        "key": step.key if done else None,
    }
    files.write_json(folder / "stamps" / f"{step.notebook.number}.json", stamp)


def package_key(package: Path) -> str:
    """Key of the source of the rooms that compute; those that only run the study do not count."""
    sources = {}
    for path in sorted(package.rglob("*.py")):
        relative = path.relative_to(package)
        if relative.parts[0] not in PLATFORM or relative.as_posix() in COMPUTES:
            sources[relative.as_posix()] = files.sha256_file(path)
    return files.content_key(sources)


def folder_key(folder: Path, *, depth: int | None = None) -> str:
    """Key of a folder's files; with `depth`, of the names down to there and of the tables."""
    if depth is None:
        contents = {p.relative_to(folder).as_posix(): files.sha256_file(p)
                    for p in sorted(folder.rglob("*")) if p.is_file()}  # fmt: skip
        return files.content_key(contents)
    names = {}
    for path in sorted(folder.iterdir()):
        if path.is_dir() and depth:
            names[path.name] = folder_key(path, depth=depth - 1)
        elif path.suffix in {".tsv", ".csv", ".json"}:
            names[path.name] = files.sha256_file(path)
        else:
            names[path.name] = ""
    return files.content_key(names)


def _short(value: object) -> str:
    """Write a headline number with at most four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _portable(parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters as they may be published: of the engine only its kind, no host and no path."""
    return {k: v.partition(":")[0] if k == "engine" else v for k, v in parameters.items()}


def _version(name: str) -> str:
    """Version of an installed package, without importing it."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"


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


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the run folder, so that two runners do not write into it at once.

    The operating system gives the lock back when its holder dies, however it dies.

    Raises
    ------
    BlockingIOError
        If another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock, holder = FileLock(folder / ".lock"), folder / ".lock-holder"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        name = holder.read_text("utf-8") if holder.is_file() else "another process"
        raise BlockingIOError(
            f"profile {folder.name} is being run by {name}; wait for it, or give --runs"
        ) from None
    try:
        files.write_text(holder, f"process {os.getpid()}")
        yield
    finally:
        lock.release()
