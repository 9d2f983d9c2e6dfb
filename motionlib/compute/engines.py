"""A function over many items: in this process, on its cores, or on a Dask or SLURM cluster.

Results come back in the order of the items whatever the engine, and an item whose function raised,
or whose worker was lost, gives a `Failure` in its place::

    results = submit(make_copy, scans, engine="local:4", label="copies")
    raise_failures(results)

`distributed` and torch are imported where they are used: this room opens without them.
"""

import atexit
import ctypes
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

ENGINES = "inline, local[:N], tcp://host:port, tls://host:port or slurm:FILE.yaml"
RETRIES = 2  # a task whose worker died is tried again this often
_clients: dict[tuple, Any] = {}  # engine and resources -> (client, its cluster or None)
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h
KEEP_BYTES = 2**30
REPORT_EVERY_S = 5.0  # headless logs stay readable


@dataclass(frozen=True)
class Failure:
    """What became of an item whose function raised, or whose worker was lost.

    Parameters
    ----------
    item, error : object, str
        The item as it was given, and what happened, in one line without the exception's class
        (`in_words`).
    details : str
        The traceback, for a person; not compared.
    """

    item: Any
    error: str
    details: str = field(default="", compare=False, repr=False)


def submit(
    function: Callable,
    items: Iterable,
    *,
    engine: str = "inline",
    label: str = "",
    resources: dict[str, float] | None = None,
    batch: int = 1,
    progress: Callable[[str], None] | None = None,
) -> list:
    """Apply a function to every item on an engine.

    Parameters
    ----------
    function : callable
        Takes one item. With another engine than ``inline`` it must be importable by the workers and
        return something small, for instance the path of the file it wrote.
    items : iterable
        The arguments, one a call.
    engine : str, default="inline"
        ``inline`` (this process), ``local`` or ``local:N`` (N processes on this machine, bound to
        127.0.0.1), ``tls://host:port`` (a running Dask scheduler; ``tcp`` on this machine) or
        ``slurm:FILE.yaml`` (jobs asked of SLURM).
    resources : dict, optional
        What one task occupies, for instance ``{"GPU": 1}``; ``inline`` ignores it.
    batch : int, default=1
        Items a task; larger values spare the scheduler when items are many and short.
    label, progress : str, callable or None
        Name of the work in the lines of text that `progress` is called with from time to time.

    Returns
    -------
    list
        One result an item, in their order; a `Failure` where the function raised.

    Raises
    ------
    ValueError
        If the engine is not known, or no worker offers the resources.
    """
    items = list(items)
    if batch < 1:
        raise ValueError(f"batch is {batch}; a task needs at least one item.")
    kind = family(engine)
    meter = Meter(label or getattr(function, "__name__", "work"), len(items), progress)
    if kind == "inline":
        return [meter.count(_guarded(function, item)) for item in items]
    return _over_dask(function, items, _client(engine, resources), resources, batch, meter)


def raise_failures(results: list) -> list:
    """Return results, or raise RuntimeError: how many failed and why the first one did."""
    lost = [result for result in results if isinstance(result, Failure)]
    if lost:
        raise RuntimeError(
            f"{len(lost)} of {len(results)} tasks failed, the first with {lost[0].error}; "
            "finished ones are kept, so correct the cause and run again."
        )
    return results


def close() -> None:
    """Stop the clusters that this process started and forget its clients."""
    while _clients:
        _, (client, cluster) = _clients.popitem()
        client.close()
        if cluster is not None:
            cluster.close()


@contextmanager
def configure_cpu(threads: int | None = None) -> Iterator[int]:
    """Compute with a fixed number of threads, so that results do not depend on the engine.

    Parameters
    ----------
    threads : int, optional
        None reads ``MOTIONLIB_THREADS``, else 1: several runs side by side use several cores better
        than one run with several threads does. The number is yielded.
    """
    import torch

    keep_memory()
    count = threads or int(os.environ.get("MOTIONLIB_THREADS", "1"))
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield count
    finally:
        torch.set_num_threads(before)


def family(engine: str) -> str:
    """Name the engine's family (``local`` of ``local:2``); an unknown one is a ValueError."""
    if not re.fullmatch(r"inline|local(:[1-9]\d*)?|(tcp|tls)://\S+:\d+|slurm:.+", engine):
        raise ValueError(f"Engine {engine!r} is not known; use {ENGINES}.")
    return engine.partition(":")[0]


def default_device() -> str:
    """Device that ``MOTIONLIB_DEVICE`` names, else ``cpu``."""
    return os.environ.get("MOTIONLIB_DEVICE", "cpu")


# Outcomes: one row a scan for commands that do all of a manifest, or a shard of it.


def shard(items: Sequence, which: str) -> list:
    """Pick every N-th item from the I-th on (I from 0), `which` being ``"I/N"``.

    That is what one job of a plain array does; all jobs need the items in the same order.
    """
    first, _, count = which.partition("/")
    if not (first.isdigit() and count.isdigit() and int(first) < int(count)):
        raise ValueError(f"Shard {which!r} is not of the form I/N with 0 <= I < N, such as 0/8.")
    return list(items)[int(first) :: int(count)]


def outcome_name(which: str | None = None) -> str:
    """Name of the table of outcomes; a shard's is ``outcome_I-of-N.tsv``."""
    return f"outcome_{which.replace('/', '-of-')}.tsv" if which else "outcome.tsv"


def outcome_row(result) -> dict:
    """Make an outcome row; a task that raised, or lost its worker, becomes a failed row."""
    if isinstance(result, Failure):
        return failed_row(result.item["scan_id"], result.error)
    return result


def failed_row(scan_id: str, reason: str) -> dict:
    """Make the outcome row of a scan that could not be done."""
    return {"scan_id": scan_id, "status": "failed", "reason": reason, "path": ""}


# How items reach their function.


def _client(engine: str, resources: dict[str, float] | None):
    """Connect to the engine once a process and resource; later calls find it running."""
    from motionlib.compute.clusters import connect

    key = (engine, tuple(sorted((resources or {}).items())))
    if key in _clients and _clients[key][0].status == "running":
        return _clients[key][0]
    if not _clients:
        atexit.register(close)
    _clients[key] = connect(family(engine), engine, resources)
    return _clients[key][0]


def _over_dask(function, items, client, resources, batch, meter) -> list:
    """Send the items in batches, gather in order; a lost batch becomes failures."""
    from distributed import as_completed

    parts = [items[i : i + batch] for i in range(0, len(items), batch)]
    tasks, resources = [(function, part) for part in parts], resources or None
    futures = client.map(_guarded_batch, tasks, pure=False, retries=RETRIES, resources=resources)
    place = {future: i for i, future in enumerate(futures)}
    results: list = [None] * len(parts)
    waiting = as_completed(futures, loop=client.loop, raise_errors=False)
    futures.clear()  # who holds a future keeps its result on the worker
    for finished in waiting.batches():
        for future, batched in zip(finished, _gather(client, finished), strict=True):
            i = place.pop(future)
            if isinstance(batched, str):
                batched = [Failure(item, batched) for item in parts[i]]
            results[i] = [meter.count(result) for result in batched]
    return [result for part in results for result in part]


def _gather(client, futures) -> list:
    """Fetch results at one go and let go of them; a lost one becomes the reason.

    A result that is still held when its worker dies is computed again.
    """
    try:
        results = client.gather(futures)
    except Exception:
        results = [_result_or_reason(future) for future in futures]
    for future in futures:
        future.release()
    return results


def _result_or_reason(future) -> list | str:
    """Fetch one result, or say why there is none."""
    try:
        return future.result()
    except Exception as error:  # the worker or the scheduler died: still a value
        return in_words(error)


def _guarded_batch(task: tuple) -> list:
    """Run a task's items one after the other."""
    function, part = task
    return [_guarded(function, item) for item in part]


def _guarded(function: Callable, item: Any) -> Any:
    """Call the function; an exception becomes a value, an interrupt stays one."""
    keep_memory()
    try:
        return function(item)
    except Exception as error:
        return Failure(item, in_words(error), traceback.format_exc())


def in_words(error: BaseException) -> str:
    """Say in one line what an exception means; a library's fault is called one, without class."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is"
    if type(error).__module__.startswith("distributed"):
        return "its worker was lost, most often for want of memory"
    if isinstance(error, ValueError | OSError | RuntimeError) and text:
        return text
    return f"an unexpected fault{f', {text}' if text else ''}"


@cache
def keep_memory() -> bool:
    """Tell glibc to keep freed memory up to 1 GiB, and say whether it took the setting.

    By default it gives large arrays back at once, and the next one of the same size pays for
    every page again. Elsewhere than with glibc nothing is done.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    settings = ((M_MMAP_THRESHOLD, KEEP_BYTES), (M_TRIM_THRESHOLD, KEEP_BYTES), (M_TOP_PAD, 2**26))
    return all(libc.mallopt(name, value) == 1 for name, value in settings)


# Progress: a bar in a notebook that somebody has open, lines of text elsewhere.


@contextmanager
def progress_of(label: str, total: int) -> Iterator[Callable[[str], None]]:
    """Report on `total` tasks: a bar where there is a frontend for it, else `text_progress`.

    What it yields takes every line; give it to `submit` and to the tasks of this process.
    """
    if not in_lab():
        yield text_progress()
        return
    bar = _Bar(label, total)
    try:
        yield bar
    finally:
        bar.close()


def in_lab() -> bool:
    """Tell whether this is a kernel that a Jupyter server opened for somebody who looks at it.

    Such a server names the notebook to its kernels; papermill and nbconvert do not, and a kernel
    of the command ``study`` is asked for text.
    """
    asked = os.environ.get("MOTIONLIB_PROGRESS") != "text" and "JPY_SESSION_NAME" in os.environ
    return asked and "ipykernel" in sys.modules


def text_progress(
    every_s: float = 15.0,
    say: Callable[[str], None] = print,
    clock: Callable[[], float] = time.monotonic,
) -> Callable[[str], None]:
    """Make a reporter that says a line at most every so many seconds, the first after as many."""
    last = clock()

    def report(line: str) -> None:
        nonlocal last
        if clock() - last >= every_s:
            last = clock()
            say(line)

    return report


class _Bar:
    """A bar of tqdm that counts finished tasks and shows the latest line."""

    def __init__(self, label: str, total: int):
        from tqdm.auto import tqdm  # only in a notebook

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


class Meter:
    """Count results and report progress, as text with an estimate or on a bar."""

    def __init__(self, label: str, total: int, report: Callable[[str], None] | None):
        self.label, self.total, self.report = label, total, report
        self.done = self.failed = 0
        self.start = self.last = time.monotonic()

    def count(self, result: Any) -> Any:
        """Note one result and hand it on."""
        self.done += 1
        self.failed += isinstance(result, Failure)
        if isinstance(self.report, _Bar):
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
