"""The runner of a study: which notebooks must run, and papermill to run them.

Each notebook is run when something that it depends on has changed since it last finished: its
cells, its parameters, the package, the data manifests, the versions of the libraries, the data, or
a notebook before it.  Everything else is skipped, so the same command resumes a stopped study.
A *stamp* in the run folder records what a notebook depended on when it last ran.
"""

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from motionlib import files
from motionlib.files import PACKAGE
from motionlib.study.notebooks import PASSING, Notebook, Study
from motionlib.study.run import check_layout, collect_provenance, headline, versions

PLATFORM = ("cli.py", "commands", "scoring", "study")  # rooms that compute nothing in a notebook
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
PATIENCE_S = 300  # a busy computer needs minutes to start a kernel or to hear from it


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
) -> Path | None:
    """Run what must run, then build the report, and return its path.

    `report` builds the report of a run folder; `dry_run` only tells what would run, and why.
    NotebookFailed if a notebook stops (what finished before is kept); ValueError if the run folder
    cannot be written, or another version of motionlib has made it; BlockingIOError if another
    process runs the same profile in the same folder.
    """
    check_layout(study.folder)
    if dry_run:
        _tell(study, plan(study), say)
        return None
    with only_one(study.folder):
        check_layout(study.folder, mark=True)
        files.sweep_below(study.folder)
        steps = plan(study)
        _tell(study, steps, say)
        todo = [step for step in steps if step.reason]
        for count, step in enumerate(todo, start=1):
            _run_step(study, step, f"[{count}/{len(todo)}]", say)
        for name, value in headline(study.folder).items():
            say(f"  {name}: {value:.4g}" if isinstance(value, float) else f"  {name}: {value}")
        if report is None:
            return None
        index = study.folder / "report" / "index.html"
        return report(study.folder) if todo or not index.is_file() else index


def plan(study: Study, *, package: Path | None = None) -> list[Step]:
    """Decide which notebooks must run, and why."""
    package = package or PACKAGE
    shared = {
        "package": _package_key(package),
        "manifests": _folder_key(study.notebooks[0].path.parent.parent / "data_manifests"),
        "versions": files.content_key({n: versions().get(n, "missing") for n in VERSIONS}),
        "data": files.content_key({n: _data_key(f) for n, f in study.needs.items()}),
    }
    steps: list[Step] = []
    upstream: list[str] = []
    for notebook in study.notebooks:
        chosen = not study.only or notebook.number in study.only
        stamp = _read_stamp(study.folder, notebook)
        values = study.parameters[notebook.stem]
        lasting = {name: value for name, value in values.items() if name not in PASSING}
        parts = {"source": notebook.key, "parameters": files.content_key(lasting), **shared}
        parts["upstream"] = files.content_key(upstream)
        reason = _why(study.folder, notebook, stamp, parts)
        step = Step(notebook, values, parts, reason, stamp.get("seconds"))
        if chosen:
            steps.append(step)
        upstream.append(step.key if chosen else stamp.get("key") or "never")
    return steps


def _why(folder: Path, notebook: Notebook, stamp: dict, parts: dict[str, str]) -> str | None:
    """Say why a notebook must run, or None."""
    if not stamp:
        return "it has not run yet"
    if not stamp.get("key"):
        return "it was stopped before its end"
    changed = [name for name in REASONS if stamp["parts"].get(name) != parts[name]]
    if changed:  # that an earlier notebook runs again is told where nothing else has changed
        changed = [name for name in changed if name != "upstream"] or changed
        return ", ".join(REASONS[name] for name in changed)
    described = folder / "provenance" / f"{notebook.stem}.json"
    if described.is_file():
        manifest = folder / "cohort" / "manifest.tsv"
        now = files.sha256_file(manifest) if manifest.is_file() else None
        if files.read_json(described).get("manifest_sha256") != now:
            return "the cohort's manifest is not the one that it ran with"
    made = [f"notebooks/{notebook.stem}.ipynb", *stamp["makes"]]
    lost = [name for name in made if not (folder / name).is_file()]
    return f"{lost[0]} is not there" if lost else None


def _read_stamp(folder: Path, notebook: Notebook) -> dict:
    """Read what is known about the last time a notebook ran; empty before the first."""
    path = folder / "stamps" / f"{notebook.number}.json"
    stamp = files.read_json(path) if path.is_file() else {}
    return stamp if stamp.get("notebook") == notebook.stem else {}


def _write_stamp(folder: Path, step: Step, seconds: float | None, *, done: bool) -> None:
    """Record that a notebook has started, or (with its key) that it has finished."""
    stem, makes = step.notebook.stem, []
    described = folder / "provenance" / f"{stem}.json"
    if done and described.is_file():
        makes = files.read_json(described)["makes"]
    # as it may be published: of the engine only its kind, no host and no path
    parameters = {k: v.partition(":")[0] if k == "engine" else v
                  for k, v in step.parameters.items()}  # fmt: skip
    stamp = {"notebook": stem, "seconds": seconds, "makes": makes, "parameters": parameters}
    stamp |= {"parts": step.parts, "key": step.key if done else None}
    files.write_json(folder / "stamps" / f"{step.notebook.number}.json", stamp)


def _package_key(package: Path) -> str:
    """Key of the source of the rooms that compute; those that only run the study do not count."""
    rooms = [
        place.name
        for place in sorted(package.iterdir())
        if place.name not in PLATFORM and (place.suffix == ".py" or any(place.rglob("*.py")))
    ]
    return files.code_key(*rooms, package=package)


def _folder_key(folder: Path) -> str:
    """Key of all files of a folder and below."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return files.content_key(
        {p.relative_to(folder).as_posix(): files.sha256_file(p) for p in paths}
    )


def _data_key(folder: Path, *, depth: int = 1) -> str:
    """Key of the names in a data folder and one below, and of the tables there: scans are many."""
    contents = {}
    for path in sorted(folder.iterdir()):
        if path.is_dir() and depth:
            contents[path.name] = _data_key(path, depth=depth - 1)
        else:
            table = path.suffix in {".tsv", ".csv", ".json"}
            contents[path.name] = files.sha256_file(path) if table else ""
    return files.content_key(contents)


def _tell(study: Study, steps: list[Step], say: Callable[[str], None]) -> None:
    """Say for each notebook whether it runs, and why."""
    todo = sum(step.reason is not None for step in steps)
    say(f"profile {study.profile}: {todo} of {len(steps)} notebooks to run")
    for step in steps:
        last = f", {duration(step.last_s)} the last time" if step.reason and step.last_s else ""
        state = f"runs: {step.reason}{last}" if step.reason else "up to date"
        say(f"  {step.notebook.stem}  {state}")


def _run_step(study: Study, step: Step, count: str, say: Callable[[str], None]) -> None:
    """Run one notebook between its two stamps."""
    stem = step.notebook.stem
    last = f" (last time {duration(step.last_s)})" if step.last_s else ""
    say(f"{count} {stem} runs{last}")
    _write_stamp(study.folder, step, step.last_s, done=False)
    environment = {"MOTIONLIB_RUNS": str(study.folder.parent.resolve())}
    for variable in ("MOTIONLIB_DATA", "MOTIONLIB_REFERENCE"):
        if os.environ.get(variable):  # kernels work elsewhere: a relative path would mislead them
            environment[variable] = str(Path(os.environ[variable]).expanduser().resolve())
    output = study.folder / "notebooks" / f"{stem}.ipynb"
    seconds = _execute(step.notebook, output, step.parameters, environment)
    _write_stamp(study.folder, step, round(seconds, 1), done=True)
    collect_provenance(study.folder)
    say(f"{count} {stem} done in {duration(seconds)}")


class NotebookFailed(Exception):  # noqa: N818 - it tells what happened
    """A notebook stopped before its end; the text says where and why."""


def _execute(
    notebook: Notebook, output: Path, parameters: dict[str, Any], environment: dict[str, str]
) -> float:
    """Run all cells of a notebook on a fresh kernel and return the seconds that it took.

    The kernel works in the notebook's folder; what it prints is printed here too.  Until it is
    finished, the executed notebook is called ``NAME.partial.ipynb``.
    """
    import nbformat
    import papermill  # which takes longer to open than a study that has nothing to run

    for name in ("papermill", "traitlets", "blib2to3"):
        logging.getLogger(name).setLevel(logging.ERROR)
    partial = output.with_name(f"{output.stem}.partial.ipynb")
    output.parent.mkdir(parents=True, exist_ok=True)
    bar = {"desc": notebook.stem, "leave": False} if sys.stderr.isatty() else False
    # papermill fills parameters into paths, and takes a brace in a folder's name for one
    paths = [str(path).replace("{", "{{").replace("}", "}}") for path in (notebook.path, partial)]
    with kernel_environment(output.parent.parent / ".jupyter", environment):
        try:
            executed = papermill.execute_notebook(
                *paths,
                parameters=parameters,
                kernel_name="python3",
                cwd=notebook.path.parent,
                progress_bar=bar,
                stdout_file=sys.stdout,
                start_timeout=PATIENCE_S,
                iopub_timeout=PATIENCE_S,
            )
        except papermill.PapermillExecutionError as error:
            cause = f"{error.ename}: {_one_line(error.evalue)}"
            raise NotebookFailed(f"{where(notebook, partial)}: {cause}") from None
        except (RuntimeError, TimeoutError) as error:
            died = type(error).__name__ == "DeadKernelError"
            cause = "its kernel died, most often for want of memory" if died else _one_line(error)
            raise NotebookFailed(f"{where(notebook, partial)}: {cause}") from None
    if any(cell.metadata.get("papermill", {}).get("exception") for cell in executed.cells):
        raise NotebookFailed(f"{where(notebook, partial)}: the cell left by sys.exit")
    for name in ("input_path", "output_path"):  # whoever gets the notebook learns no folder
        executed.metadata["papermill"][name] = Path(executed.metadata["papermill"][name]).name
    files.write_text(output, nbformat.writes(executed))
    partial.unlink()
    return executed.metadata["papermill"]["duration"]


def where(notebook: Notebook, partial: Path) -> str:
    """Name the last cell that a stopped notebook began, counted in the notebook itself."""
    ids = [cell.get("id") for cell in notebook.cells]
    cells = json.loads(partial.read_text(encoding="utf-8"))["cells"]
    begun = [cell for cell in cells if cell["metadata"].get("papermill", {}).get("start_time")]
    known = [ids.index(cell["id"]) + 1 for cell in begun if cell.get("id") in ids]
    at = f" at cell {known[-1]} of {len(ids)}" if known else " before its first cell"
    return f"{notebook.stem} stopped{at}"


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
    changes = {
        "JUPYTER_PATH": _before(folder, "JUPYTER_PATH"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "IPYTHONDIR": str(folder / "ipython"),
        "PYTHONPATH": _before(PACKAGE.parent, "PYTHONPATH"),
        "PYTHONHASHSEED": "0",
        "MOTIONLIB_PROGRESS": "text",  # the state of a bar would stay in the executed notebook
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        **extra,
    }
    former = {name: os.environ[name] for name in changes if name in os.environ}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name in changes:
            os.environ.pop(name, None)
        os.environ.update(former)


def duration(seconds: float) -> str:
    """Write 95 as ``1 min 35 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _before(folder: Path, variable: str) -> str:
    """Put a folder before a search path."""
    return os.pathsep.join(filter(None, [str(folder), os.environ.get(variable)]))


def _one_line(error: object, most: int = 300) -> str:
    """Message without colours, line breaks and full stop, not longer than `most`."""
    plain = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split()).rstrip(".")
    return plain if len(plain) <= most else plain[: most - 1] + "…"


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the run folder, so that two runners do not write into it at once.

    The operating system gives the lock back when its holder dies, however it dies.  Another
    process that holds it is a BlockingIOError, a folder that cannot be written a ValueError.
    """
    lock, holder = FileLock(folder / ".lock"), folder / ".lock-holder"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        name = holder.read_text("utf-8") if holder.is_file() else "another process"
        raise BlockingIOError(
            f"profile {folder.name} is being run by {name}; wait for it, or give --runs"
        ) from None
    except OSError as error:
        raise ValueError(
            f"cannot write into the runs folder {folder} ({error.strerror}); "
            "give --runs a folder that you may write to"
        ) from None
    try:
        files.write_text(holder, f"process {os.getpid()}")
        yield
    finally:
        lock.release()
