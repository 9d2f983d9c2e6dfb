"""Files and plain values: checksums, seeds, tables, and writing that is whole or not at all."""

import csv
import gzip
import hashlib
import io
import json
import os
import platform
import re
import stat
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent
ASIDE = re.compile(r"\.(?P<host>[0-9a-f]{4})-(?P<pid>[0-9a-f]+)-[0-9a-f]{8}\.(?P<name>.+)")
DAY_S = 86400
END_BYTES = 2**20
MOST_COLUMNS = 10_000  # of a table; a line of commas alone would keep pandas busy for hours
FORMULA = r"^(?=\s*[=+@-].)(?!\s*[+-]?\d*\.?\d+(?:[eE][+-]?\d+)?$)"  # and no number


def sha256_file(path: str | os.PathLike) -> str:
    """Checksum of a file's bytes, 64 hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def content_key(*parts: Any, digits: int = 12) -> str:
    """Short name of plain values: equal values give equal keys on every machine.

    The values are such as JSON can hold; dictionaries may come in any order.
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def seed_from(*parts: Any) -> int:
    """Seed from plain values (the master seed, a scan's id), whatever the order of the work."""
    return int(content_key(*parts, digits=16), 16) >> 1


def code_key(*rooms: str, package: Path = PACKAGE) -> str:
    """Hash the sources of some rooms, so that changed code never meets what older code made.

    A room is a folder of the package, with all below it, or a file: ``"cohorts"``, ``"splits.py"``.
    One that does not exist is a `ValueError`: its changes would go unnoticed.
    """
    sources = []
    for room in rooms:
        place = package / room
        found = sorted(place.rglob("*.py")) if place.is_dir() else [place]
        if not found or not all(path.is_file() for path in found):
            raise ValueError(f"{room} is no room of {package.name}; name a folder or a .py file")
        sources += [(path.relative_to(package).as_posix(), sha256_file(path)) for path in found]
    return content_key(*sources)


@contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """Write aside, flush to disk, then rename: the file is there whole or not at all.

    Yields a temporary name in the same folder, which is made if needed, with the same suffixes.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{_host()}-{os.getpid():x}-{uuid.uuid4().hex[:8]}.{path.name}")
    try:
        yield aside
        with open(aside, "rb") as stream:
            os.fsync(stream.fileno())
        os.replace(aside, path)
    finally:
        with suppress(FileNotFoundError):
            aside.unlink()


def sweep(paths: Iterable[str | os.PathLike]) -> int:
    """Remove what `atomic` left aside of some files when the process writing them was killed.

    What a process that runs is writing stays; so does, for a day, what another computer wrote.
    Returns the number of files removed.
    """
    names: dict[Path, set[str]] = {}
    for path in map(Path, paths):
        names.setdefault(path.parent, set()).add(path.name)
    n_removed = 0
    for folder, known in names.items():
        if folder.is_dir():
            n_removed += sum(_remove_dead(path, known) for path in folder.iterdir())
    return n_removed


def sweep_below(folder: str | os.PathLike) -> int:
    """Remove all that killed processes left aside in a folder and below, as `sweep` does.

    A link to a folder, scans on another disk say, is entered where it lies in `folder` itself.
    """
    folder, n_removed = Path(folder), 0
    linked = [path for path in folder.iterdir() if path.is_symlink()] if folder.is_dir() else []
    for top in (folder, *linked):
        for place, _, names in os.walk(top):  # which does not mind folders that vanish meanwhile
            hidden = [name for name in names if name.startswith(".")]
            n_removed += sum(_remove_dead(Path(place, name), None) for name in hidden)
    return n_removed


def _remove_dead(path: Path, known: set[str] | None) -> bool:
    """Remove a file left aside if it belongs to a known name and its writer is gone."""
    match = ASIDE.fullmatch(path.name)
    if match is None or (known is not None and match["name"] not in known):
        return False
    try:
        if match["host"] == _host() and os.name == "posix":
            os.kill(int(match["pid"], 16), 0)  # signal 0 only asks
            return False
        if time.time() - path.stat().st_mtime < DAY_S:
            return False
    except ProcessLookupError:
        pass
    except OSError:  # another user's process, or the file has gone
        return False
    path.unlink(missing_ok=True)
    return True


def _host() -> str:
    """Four hexadecimal digits that tell this computer from others."""
    return f"{zlib.crc32(platform.node().encode()) & 0xFFFF:04x}"


def gzipped(content: bytes) -> bytes:
    """Compress, with the same bytes every time: a gzip member without a time.

    By zlib, though isal is fifteen times as fast: isal 1.9.1 now and then packs the same content
    into other bytes, at its levels 1 and 2 (seen in few of 370 fresh processes).
    """
    return gzip.compress(content, compresslevel=1, mtime=0)


def write_text(path: str | os.PathLike, text: str) -> Path:
    """Write UTF-8 text atomically and return its path."""
    with atomic(path) as aside:
        # a file name that is no UTF-8 becomes text with question marks, not an error
        aside.write_text(text, encoding="utf-8", errors="replace", newline="\n")
    return Path(path)


def write_json(path: str | os.PathLike, value: Any) -> Path:
    """Write a value as indented JSON, atomically, and return its path."""
    return write_text(path, json.dumps(value, indent=2, sort_keys=True, default=str) + "\n")


def read_json(path: str | os.PathLike) -> Any:
    """Read a JSON file; one that is none is a ValueError that names it."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is no JSON: {error}.") from error


def read_table(
    path: str | os.PathLike,
    required: Sequence[str] = (),
    *,
    missing: Sequence[str] = ("", "n/a"),
    lower: bool = False,
):
    """Read a table that somebody wrote, every cell as text without blanks around it.

    The file is UTF-8; tab-separated without quoting, as BIDS has it, or CSV (commas, semicolons)
    with. `required` are columns that it must have, `missing` cells that mean "not known", which
    become NA; `lower` gives the column names in lower case. All columns are ``string``; empty rows
    are left out. ValueError if it is no table, or has not every column once.
    """
    import pandas as pd  # files is imported where there are no tables too

    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
        header = re.match(r"[^\r\n]*", text.lstrip())[0]
        has_tabs = "\t" in header
        separator = "\t" if has_tabs else max(",;", key=header.count)
        if header.count(separator) >= MOST_COLUMNS:
            raise ValueError(f"{path.name} has more than {MOST_COLUMNS} columns; expected a table.")
        cells = pd.read_csv(
            io.StringIO(text),
            sep=separator,
            quoting=csv.QUOTE_NONE if has_tabs else csv.QUOTE_MINIMAL,
            header=None,  # a row with more cells than the header is a fault, not an index
            dtype="string",
            keep_default_na=False,
        )
    except UnicodeDecodeError as error:
        what = f"its byte {error.start + 1} is part of no letter; save it as UTF-8"
        raise ValueError(f"{path.name} is no UTF-8 table: {what}.") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        what = str(error).splitlines()[0].rpartition("C error: ")[2].rstrip(".")
        raise ValueError(f"{path.name} is no UTF-8 table: {what}.") from error
    cells = cells.apply(lambda column: column.str.strip())
    broken = cells.apply(lambda column: column.str.contains(r"[\r\n]").fillna(False))
    if broken.any(axis=None):  # one quotation mark too many swallows rows so
        row = broken.any(axis=1).idxmax()
        raise ValueError(
            f"{path.name} has a line break inside a cell of row {row}; close the quotation "
            "mark, or write the cell in one line."
        )
    names = [name.lower() if lower else name for name in cells.iloc[0].fillna("")]
    table = cells.iloc[1:].reset_index(drop=True).set_axis(names, axis=1)
    table = table.mask(table.isin(list(missing))).dropna(how="all").reset_index(drop=True)
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise ValueError(f"{path.name} has the column {twice[0]} twice; expected it once.")
    if absent := [name for name in required if name not in table]:
        raise ValueError(
            f"{path.name} has no column {', '.join(absent)}; it has {', '.join(table.columns)}."
        )
    return table


def as_cell(text: str) -> str:
    """Put a text on one line, and an apostrophe before what a spreadsheet takes for a formula."""
    return re.sub(FORMULA, "'", re.sub(r"[\t\r\n]+", " ", text))


def write_table(table, path: str | os.PathLike) -> Path:
    """Write a DataFrame atomically, as CSV or (suffix ``.tsv``) tab-separated without quoting.

    Its index is left out; missing values become empty cells, formulas text (`as_cell`).
    """
    options, kinds = {"sep": ","}, dict.fromkeys(table.select_dtypes("category"), object)
    table = table.astype(kinds).replace(FORMULA, "'", regex=True)
    if str(path).endswith(".tsv"):  # has no quoting: a cell may hold neither tab nor line break
        table = table.replace(r"[\t\r\n]+", " ", regex=True)
        options = {"sep": "\t", "quoting": csv.QUOTE_NONE}
    with atomic(path) as aside:
        table.to_csv(aside, index=False, lineterminator="\n", errors="replace", **options)
    return Path(path)


def check_file(path: Path) -> None:
    """Refuse what is no readable regular file, before anything could block on it."""
    try:
        status = path.stat()
    except FileNotFoundError:
        kind = "a link to nothing" if path.is_symlink() else "not there"
        raise FileNotFoundError(f"{path.name} is {kind}; expected an image.") from None
    except OSError as error:
        raise ValueError(f"{path.name} cannot be reached: {error.strerror}.") from None
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path.name} is no regular file; expected an image.")
    if status.st_size == 0:
        raise ValueError(f"{path.name} is empty (0 bytes); expected an image.")
    if not os.access(path, os.R_OK):
        raise ValueError(f"{path.name} may not be read; change its permissions.")


def anonymous(text: str, path: str | os.PathLike) -> str:
    """Reason in one clause that names no file: its name may tell whose scan it is."""
    for name in filter(None, (str(path), os.path.abspath(path), Path(path).name)):
        for written in (name, " ".join(name.split())):  # as a message on one line has it
            text = text.replace(written, "the file")
    return text.rstrip(".")


def identity(path: str | os.PathLike) -> list:
    """Tell what changes when a file does: place, size, time of change, and checksum of its ends.

    The ends are its first and last megabyte: a gzip ends with a checksum of all that is in it, a
    small file is read whole, and of a large, uncompressed one a change in the middle shows by time.
    The errors are those of `check_file`.
    """
    path = Path(path)
    check_file(path)
    status = path.stat()
    try:
        with open(path, "rb") as stream:
            ends = hashlib.sha256(stream.read(END_BYTES))
            stream.seek(max(stream.tell(), status.st_size - END_BYTES))
            ends.update(stream.read())
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read: {error.strerror}.") from None
    return [os.path.abspath(path), status.st_size, status.st_mtime_ns, ends.hexdigest()]


def repository() -> Path:
    """Folder that holds ``notebooks/`` and ``motionlib/``: above the cwd, else the package's.

    Where there is none, as beside an installed wheel, the cwd.
    """
    for folder in (Path.cwd(), *Path.cwd().parents, PACKAGE.parent):
        if (folder / "motionlib").is_dir() and (folder / "notebooks" / "profiles").is_dir():
            return folder
    return Path.cwd()


def shipped(name: str) -> Path:
    """Folder ``notebooks`` or ``data_manifests``: beside the package, else packed into its wheel.

    FileNotFoundError if the package is neither in its repository nor a wheel with these folders.
    """
    for folder in (PACKAGE.parent / name, PACKAGE / "_study" / name):
        if (folder.parent / "notebooks" / "profiles").is_dir() and folder.is_dir():
            return folder
    raise FileNotFoundError(f"motionlib has no {name}; install it from its repository or its wheel")


def runs_root(runs: str | os.PathLike | None = None) -> Path:
    """Folder of all runs: the argument, ``MOTIONLIB_RUNS``, or ``runs/`` of the repository."""
    chosen = runs or os.environ.get("MOTIONLIB_RUNS")
    return Path(chosen).expanduser().resolve() if chosen else repository() / "runs"
