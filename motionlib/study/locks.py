"""A folder goes in; the right to write into it comes out, alone or as one of several shards."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def only_one(folder: Path, *, shard: str | None = None):
    """Hold the run folder, so that two runners do not write into it at once.

    Shards of one count hold it together, each number once; a whole run holds it alone.  The
    operating system gives the lock back when its holder dies, however it dies.

    Parameters
    ----------
    folder : Path
        Of the run.
    shard : str, optional
        ``"I/N"``.

    Raises
    ------
    BlockingIOError
        If another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+", encoding="utf-8") as stream:
        if shard is None:
            _hold(stream, f"profile {folder.name}", "wait for it, or give --runs")
            yield
            return
        _hold(stream, f"profile {folder.name}", "wait for it, or give --runs", shared=True)
        which, count = (int(word) for word in shard.split("/"))
        what = f"shard {shard} of profile {folder.name}"
        with (
            open(folder / f".lock-shards-of-{count}", "a+", encoding="utf-8") as together,
            open(folder / f".lock-shard-{which}-of-{count}", "a+", encoding="utf-8") as own,
        ):
            _hold(own, what, "every job takes its own")
            _hold(together, what, "wait for it", shared=True)
            _refuse_other_counts(folder, count)
            yield


def _refuse_other_counts(folder: Path, count: int) -> None:
    """Raise if shards of another number run: their shares would overlap with ours."""
    if os.name == "nt":
        return
    for path in sorted(folder.glob(".lock-shards-of-*")):
        other = path.name.rpartition("-")[2]
        if other != str(count):
            with open(path, "a+", encoding="utf-8") as stream:
                what = f"profile {folder.name}, of which {count} shards were asked for,"
                _hold(stream, what, f"wait for its {other} shards")


def _hold(stream, what: str, remedy: str, *, shared: bool = False) -> None:
    """Take a lock and leave one's name in its file, or say who has it."""
    try:
        _lock(stream, shared=shared)
    except (BlockingIOError, PermissionError):
        stream.seek(0)
        holder = stream.read().strip() or "another process"
        raise BlockingIOError(f"{what} is being run by {holder}; {remedy}") from None
    stream.truncate(0)
    stream.write("shards of its trainings" if shared else f"process {os.getpid()}")
    stream.flush()


def _lock(stream, *, shared: bool) -> None:
    """Take a lock without waiting."""
    if os.name == "nt":
        import msvcrt

        if not shared:  # this system's locks are exclusive: shards are kept apart by their own
            stream.seek(2**20)  # far from the text, which others may read
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        return
    import fcntl

    fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
