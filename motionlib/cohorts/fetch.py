"""A data set's name and a folder come in; its open files, fetched and checked, come out."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

import motionlib
from motionlib.cohorts.ixi import IMAGE
from motionlib.cohorts.ratings import MR_ART_MEASURES, MR_ART_SCORES
from motionlib.files import atomic, read_json, sha256_file, write_json, write_table

DATASETS = {
    "ixi": "http://biomedic.doc.ic.ac.uk/brain-development/downloads/IXI",
    "mr-art": "https://s3.amazonaws.com/openneuro.org/ds004173",
}
MR_ART_TABLES = (
    MR_ART_SCORES.as_posix(),
    MR_ART_MEASURES.as_posix(),
    "participants.tsv",
    "dataset_description.json",
)
TABLES_ALONE = ("tables", "0")  # subsets that hold no image
SUMS = "SHA256SUMS"  # a mirror may offer it; neither source does
COLUMNS = ["file", "status", "bytes", "sha256", "reason"]
NAME = re.compile(r"sub-[A-Za-z0-9]+_[A-Za-z0-9_-]*T1w")
CHUNK = 1 << 16  # a cut connection loses at most this
RETRIED = (408, 425, 429, 500, 502, 503, 504)
REPORT_EVERY_S = 5.0


def fetch(
    dataset: str,
    dest: str | os.PathLike,
    *,
    base_url: str | None = None,
    subset: str | None = None,
    politeness: Politeness | None = None,
    progress: Callable[[str], None] | None = None,
) -> pd.DataFrame:
    """Download an open data set into a folder; what is there already is kept.

    Parameters
    ----------
    dataset : {"ixi", "mr-art"}
        IXI: the table and the archive of T1 images, unpacked. MR-ART: scores, MRIQC's measures
        and other tables first, then the images.
    dest : path-like
        Folder to fill; ``fetched.tsv`` there lists files, sizes and SHA-256.
    base_url : str, optional
        A mirror with the same layout; its ``SHA256SUMS`` is used if there is one.
    subset : str, optional
        A number of subjects, or their names separated by commas; images of others are left out.
        ``tables`` (or 0) fetches the tables alone.
    politeness : Politeness, optional
        Attempts, pauses, timeout.
    progress : callable, optional
        Called with lines of text.

    Returns
    -------
    pandas.DataFrame
        One row per file: ``file status bytes sha256 reason``; status is ``fetched``, ``kept`` or
        ``failed``.

    Raises
    ------
    ValueError
        If the data set is unknown, or the subset names nobody in it.
    DownloadError
        If there is no connection at all.
    """
    import requests

    if dataset not in DATASETS:
        raise ValueError(f"{dataset!r} is no data set to fetch; expected {', '.join(DATASETS)}.")
    with requests.Session() as session:
        session.headers["User-Agent"] = f"motionlib/{motionlib.__version__}"
        job = _Job(
            session,
            (base_url or DATASETS[dataset]).rstrip("/"),
            Path(dest),
            politeness or Politeness(),
            progress or (lambda line: None),
        )
        try:
            (_fetch_ixi if dataset == "ixi" else _fetch_mr_art)(job, subset)
        finally:
            table = job.table()
            if len(table):
                write_table(table, Path(dest) / "fetched.tsv")
    return table


class _Job:
    """Files of one data set: what is recorded, and what becomes of each."""

    def __init__(self, session, base: str, dest: Path, politeness: Politeness, say):
        self.session, self.base, self.dest = session, base, dest
        self.politeness, self.say = politeness, say
        record = dest / "fetched.tsv"
        known = pd.read_csv(record, sep="\t") if record.is_file() else pd.DataFrame(columns=COLUMNS)
        known = known[known["status"] != "failed"]
        self.known = {row["file"]: row for row in known.to_dict("records")}
        self.rows: dict[str, dict] = {}
        self.sums: dict[str, str] | None = None

    def get(self, name: str) -> Path | None:
        """Fetch one file by its name below the base address; None if it failed."""
        path = self.dest / name
        known = self.known.get(name)
        if known and path.is_file() and path.stat().st_size == known["bytes"]:
            self.rows[name] = {**known, "status": "kept", "reason": ""}
            return path
        try:
            download(
                self.session,
                f"{self.base}/{name}",
                path,
                sha256=self._sum(name),
                politeness=self.politeness,
                progress=self.say,
            )
        except DownloadError as error:
            if error.offline and not self.rows:
                raise DownloadError(
                    f"There is no connection to {self.base}; fetch again when online, or name a "
                    "mirror with --base-url.",
                    offline=True,
                ) from error
            self.rows[name] = _row(name, "failed", reason=str(error))
            self.say(str(error))
            return None
        size = path.stat().st_size
        self.rows[name] = _row(name, "fetched", size, sha256_file(path))
        self.say(f"{name}: {size / 1e6:.1f} MB")
        return path

    def _sum(self, name: str) -> str | None:
        """Look up the expected checksum, where the source offers a list."""
        if self.sums is None:
            self.sums = {}
            path = self.dest / f".{SUMS}"
            once = Politeness(1, 0, self.politeness.timeout_s)
            try:
                download(self.session, f"{self.base}/{SUMS}", path, politeness=once)
            except DownloadError as error:
                if error.offline:
                    return None
            else:
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
                pairs = [line.split(maxsplit=1) for line in lines]
                self.sums = {p[1].lstrip("*./"): p[0] for p in pairs if len(p) == 2}
                path.unlink()
        return self.sums.get(name)

    def table(self) -> pd.DataFrame:
        """One row per file; files recorded before and not asked for now stay recorded."""
        rows = {**self.known, **self.rows}
        return pd.DataFrame([rows[name] for name in sorted(rows)], columns=COLUMNS)


def _row(name: str, status: str, size: int = 0, sha256: str = "", reason: str = "") -> dict:
    """One row of the table."""
    return dict(zip(COLUMNS, (name, status, size, sha256, reason), strict=True))


def _choose(subjects: list[str], subset: str | None) -> set[str]:
    """Subjects asked for: all, the first few, or those named."""
    if subset is None:
        return set(subjects)
    if subset in TABLES_ALONE:
        return set()
    if subset.isdigit() and subset not in subjects and subset[0] != "0":
        return set(subjects[: int(subset)])
    wanted = {name.strip().removeprefix("sub-") for name in subset.split(",") if name.strip()}
    unknown = sorted(wanted - set(subjects))
    if unknown or not wanted:
        raise ValueError(f"The subset names {', '.join(unknown) or 'nobody'}, not in the data set.")
    return wanted


def _fetch_mr_art(job: _Job, subset: str | None) -> None:
    """Scores, tables, then the images that the scores name."""
    tables = [job.get(name) for name in MR_ART_TABLES]
    if tables[0] is None:
        return
    scores = pd.read_csv(tables[0], sep="\t", dtype="string")
    if "bids_name" not in scores:
        raise ValueError("scores.tsv has no column bids_name; is the base address MR-ART's?")
    names = [name for name in scores["bids_name"].dropna() if NAME.fullmatch(name)]
    subjects = list(dict.fromkeys(name.split("_")[0].removeprefix("sub-") for name in names))
    wanted = _choose(subjects, subset)
    for name in names:
        subject = name.split("_")[0]
        if subject.removeprefix("sub-") in wanted:
            job.get(f"{subject}/anat/{name}.nii.gz")


def _fetch_ixi(job: _Job, subset: str | None) -> None:
    """Fetch the table, then the archive, and unpack the images asked for."""
    job.get("IXI.xls")
    if subset in TABLES_ALONE:
        return
    archive = job.get("IXI-T1.tar")
    if archive is None:
        return
    try:
        with tarfile.open(archive) as tar:
            members = dict(_images(tar))
            subjects = sorted({name[:6] for name in members})
            wanted = _choose(subjects, subset)
            for name, member in sorted(members.items()):
                path = job.dest / "IXI-T1" / name
                if name[:6] in wanted and not (
                    path.is_file() and path.stat().st_size == member.size
                ):
                    with atomic(path) as aside, open(aside, "wb") as out:
                        stream = tar.extractfile(member)
                        while chunk := stream.read(1 << 20):
                            out.write(chunk)
            job.say(f"IXI-T1: images of {len(wanted)} subjects unpacked")
    except (tarfile.TarError, EOFError) as error:
        archive.unlink()
        reason = f"is no whole tar archive ({error}); it was removed, fetch it again"
        job.rows["IXI-T1.tar"] = _row("IXI-T1.tar", "failed", reason=reason)


def _images(tar: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """Images in the archive, by their bare names; anything else is left in it."""
    for member in tar:
        name = member.name.rsplit("/", 1)[-1]
        if member.isfile() and IMAGE.fullmatch(name):
            yield name, member


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
