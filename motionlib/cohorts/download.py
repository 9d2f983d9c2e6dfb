"""One address and one file name come in; the checked file, or one sentence why not, comes out."""

from __future__ import annotations

import base64
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from motionlib.files import read_json, sha256_file, write_json

CHUNK = 1 << 16  # a cut connection loses at most this
RETRIED = (408, 425, 429, 500, 502, 503, 504)
REPORT_EVERY_S = 5.0


class DownloadError(Exception):
    """A file could not be fetched; the message is one sentence.

    Attributes
    ----------
    offline : bool
        True where not even a connection was made.
    """

    def __init__(self, message: str, *, offline: bool = False):
        super().__init__(message)
        self.offline = offline


@dataclass(frozen=True)
class Politeness:
    """How patient a download is.

    Attributes
    ----------
    attempts : int
        Tries of one file.
    backoff_s : float
        Pause after the first failure; it doubles with each.
    timeout_s : float
        Silence after which a connection counts as cut.
    """

    attempts: int = 5
    backoff_s: float = 1.0
    timeout_s: float = 60.0


def download(
    session,
    url: str,
    path: str | os.PathLike,
    *,
    sha256: str | None = None,
    politeness: Politeness | None = None,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Fetch a file: resumed, checked, and moved into place only when whole.

    Parameters
    ----------
    session : requests.Session
        Keeps the connection open.
    url : str
        Where it is.
    path : path-like
        Where it goes; bytes so far are kept beside it as ``.part``.
    sha256 : str, optional
        Expected checksum. Without it the server's MD5 (``ETag`` of a plain S3 object, or
        ``Content-MD5``) and the length are compared, and gzip files are read to their end.
    politeness : Politeness, optional
        Attempts, pauses, timeout.
    progress : callable, optional
        Called with a line of text every few seconds.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    DownloadError
        If it is not there, or all attempts failed; what has come so far is kept.
    """
    import requests

    politeness = politeness or Politeness()
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    said, offline = "", True
    for attempt in range(politeness.attempts):
        if attempt:
            time.sleep(politeness.backoff_s * 2 ** (attempt - 1))
        try:
            expected = _continue(session, url, path, politeness, progress)
            return _finish(path, sha256, expected)
        except _Try as error:
            said, offline = str(error), False
            time.sleep(min(error.wait_s, 60.0))
        except (requests.ConnectionError, requests.Timeout) as error:
            said, offline = _short(error), offline and not _part(path).exists()
        except requests.RequestException as error:
            said, offline = _short(error), False
    raise DownloadError(
        f"{path.name} could not be fetched in {politeness.attempts} attempts: {said}; "
        "run the same command again, what has come is kept.",
        offline=offline,
    )


class _Try(Exception):  # noqa: N818
    """An attempt failed and another may not."""

    def __init__(self, message: str, wait_s: float = 0.0):
        super().__init__(message)
        self.wait_s = wait_s


def _part(path: Path) -> Path:
    """Where the bytes so far are."""
    return path.with_name(path.name + ".part")


def _note(path: Path) -> Path:
    """Where the version of the bytes so far is remembered."""
    return path.with_name(path.name + ".part.json")


def _continue(session, url, path, politeness, progress) -> dict:
    """Fetch what is missing of the part; what the server says of the whole."""
    part, note = _part(path), _note(path)
    version = read_json(note).get("version") if note.is_file() and part.is_file() else None
    have = part.stat().st_size if version else 0
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": version}
    with session.get(url, headers=headers, stream=True, timeout=politeness.timeout_s) as answer:
        if answer.status_code == 416:
            part.unlink()
            raise _Try("the server has fewer bytes than came before")
        if answer.status_code in RETRIED:
            wait = answer.headers.get("Retry-After", "0")
            wait_s = float(wait) if wait.isdigit() else 0.0
            raise _Try(f"the server answered {answer.status_code}", wait_s)
        if answer.status_code not in (200, 206):
            raise DownloadError(f"{path.name} is not to be had: {answer.status_code} at {url}.")
        start = have if answer.status_code == 206 else 0
        expected = _expected(answer, start)
        if expected["version"]:
            write_json(note, {"version": expected["version"]})
        _receive(answer, part, start, expected["size"], path.name, progress)
    if expected["size"] is not None and part.stat().st_size != expected["size"]:
        raise _Try(f"the connection was cut at {part.stat().st_size} of {expected['size']} bytes")
    return expected


def _expected(answer, start: int) -> dict:
    """Size, version and MD5 of the whole file, as far as the server tells."""
    said = answer.headers
    length = said.get("Content-Length")
    size = None if length is None else int(length) + start
    if answer.status_code == 206 and "/" in said.get("Content-Range", ""):
        ending = said["Content-Range"].rsplit("/", 1)[1]
        size = int(ending) if ending.isdigit() else size
    tag = said.get("ETag", "")
    plain = tag.strip('"').lower()
    md5 = plain if len(plain) == 32 and set(plain) <= set("0123456789abcdef") else None
    if "Content-MD5" in said and start == 0:
        md5 = base64.b64decode(said["Content-MD5"]).hex()
    strong = tag if tag.startswith('"') else said.get("Last-Modified", "")
    return {"size": size, "version": strong, "md5": md5}


def _receive(answer, part: Path, start: int, size, name: str, progress) -> None:
    """Append the body to the part, telling how far it is."""
    last = time.monotonic()
    with open(part, "r+b" if start else "wb") as stream:
        stream.seek(start)
        stream.truncate()
        for chunk in answer.iter_content(CHUNK):
            stream.write(chunk)
            if progress is not None and time.monotonic() - last > REPORT_EVERY_S:
                last = time.monotonic()
                share = f" of {size / 1e6:.0f}" if size else ""
                progress(f"{name}: {stream.tell() / 1e6:.0f}{share} MB")
        stream.flush()
        os.fsync(stream.fileno())


def _finish(path: Path, sha256: str | None, expected: dict) -> Path:
    """Compare checksums and move the part into place."""
    part = _part(path)
    fault = _fault(part, path.name, sha256, expected)
    _note(path).unlink(missing_ok=True)
    if fault:
        part.unlink()
        raise _Try(fault)
    os.replace(part, path)
    return path


def _fault(part: Path, name: str, sha256: str | None, expected: dict) -> str | None:
    """Why the bytes are not those of the file, or None."""
    if sha256:
        found = sha256_file(part)
        return None if found == sha256.lower() else f"its SHA-256 is {found}, expected {sha256}"
    if expected["md5"]:
        with open(part, "rb") as stream:
            found = hashlib.file_digest(stream, "md5").hexdigest()
        return None if found == expected["md5"] else f"its MD5 is {found}, not {expected['md5']}"
    if name.endswith(".gz"):
        from isal import igzip, isal_zlib

        try:
            with igzip.open(part, "rb") as stream:
                while stream.read(CHUNK):
                    pass
        except (OSError, EOFError, isal_zlib.error) as error:
            return f"it is no whole gzip file ({error})"
    return None


def _short(error: Exception) -> str:
    """Last part of a nested network error."""
    return str(error).rsplit(": ", 1)[-1].strip("')( ")[:160] or type(error).__name__
