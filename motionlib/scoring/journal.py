"""Finished pieces of work go in; after a kill they are found again, and only the rest is done."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from motionlib.files import content_key


class Journal:
    """Results appended line by line to a file, each under the key of what it was made from.

    Parameters
    ----------
    path : path-like
        A file of one JSON object a line; made if needed. A torn last line is ignored.

    Attributes
    ----------
    found : dict of str to dict
        What was there when the journal was opened, and what was added since.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.found: dict[str, dict[str, Any]] = {}
        self._torn = False
        if self.path.exists():
            content = self.path.read_bytes()
            self._torn = bool(content) and not content.endswith(b"\n")
            for line in content.splitlines():
                self._take(line)

    def _take(self, line: bytes) -> None:
        """Keep a line if it is whole."""
        try:
            entry = json.loads(line)
            self.found[entry["key"]] = entry["value"]
        except (ValueError, KeyError, TypeError):
            return

    def add(self, entries: dict[str, dict[str, Any]]) -> None:
        """Append results and wait until they are on the disk."""
        if not entries:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps({"key": key, "value": value}) for key, value in entries.items()]
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write("\n" * self._torn + "\n".join(lines) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        self._torn = False
        self.found |= entries


def file_key(path: str | os.PathLike, *parts: Any) -> str | None:
    """Key of a file as it is now: its place, size and time of change.

    Parameters
    ----------
    path : path-like
        The file.
    *parts
        Whatever else the result depends on.

    Returns
    -------
    str or None
        None where the file cannot be read, so that it is tried again next time.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    if not os.access(path, os.R_OK):
        return None
    place = os.fsencode(os.path.abspath(path)).hex()
    return content_key(place, status.st_size, status.st_mtime_ns, *parts, digits=24)
