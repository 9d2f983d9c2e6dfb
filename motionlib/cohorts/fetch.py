"""Download of open data sets: IXI, the human ratings of IXI, MR-ART; each file in these steps.

1. what an earlier, cut download left (``NAME.part``) is continued by an HTTP range request, if
   the server still has the same version of the file;
2. the length, and a checksum where one is known, are compared;
3. only then the file gets its name, and a row in ``fetched.tsv``.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

import motionlib
from motionlib.cohorts.ixi import IMAGE
from motionlib.cohorts.ratings import MR_ART_MEASURES, MR_ART_SCORES
from motionlib.files import atomic, read_json, read_table, sha256_file, write_json, write_table

DATASETS = {
    "ixi": "http://biomedic.doc.ic.ac.uk/brain-development/downloads/IXI",
    "ixi-ratings": "https://raw.githubusercontent.com/TheAxonLab/defacing-and-qc-analysis/"
    "5ed9b0669213a3a0746bc9381a4c0edbd2d7d4d1/data",
    "mr-art": "https://s3.amazonaws.com/openneuro.org/ds004173",
}
MR_ART_TABLES = (
    MR_ART_SCORES.as_posix(),
    MR_ART_MEASURES.as_posix(),
    "participants.tsv",
    "dataset_description.json",
)
IXI_RATINGS = ("S1_Data.tsv", "S2_Data.csv")  # verdicts, and MRIQC's measures
TABLES_ALONE = ("tables", "0")  # subsets that hold no image
SUMS = "SHA256SUMS"  # a mirror may offer it; the sources do not
COLUMNS = ["file", "status", "bytes", "sha256", "reason"]
MR_ART_SCAN = re.compile(r"sub-[A-Za-z0-9]+_[A-Za-z0-9_-]*T1w")
CHUNK = 1 << 16  # a cut connection loses at most this
RETRIED = (408, 425, 429, 500, 502, 503, 504)
LONGEST_WAIT_S = 60.0  # however long a busy server asks us to stay away
REPORT_EVERY_S = 5.0


@dataclass(frozen=True)
class Politeness:
    """How patient a download is."""

    attempts: int = 5  # tries of one file
    backoff_s: float = 1.0  # pause after the first failure; it doubles with each
    timeout_s: float = 60.0  # silence after which a connection counts as cut


class DownloadError(Exception):
    """A file could not be fetched; the message is one sentence."""

    def __init__(self, message: str, *, offline: bool = False):
        super().__init__(message)
        self.offline = offline  # not even a connection was made


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

    IXI: the table and the archive of T1 images, unpacked. ``ixi-ratings``: what people saw in 150
    of the scans, and MRIQC's measures, at a fixed commit of the authors' repository. MR-ART:
    scores, MRIQC's measures and other tables first, then the images. A `subset` is a number of
    subjects, or their names separated by commas, whose images alone are fetched; ``tables`` (or 0)
    is no image. `base_url` is a mirror with the same layout; its ``SHA256SUMS`` is used if there.
    Returns a row per file, also written as ``fetched.tsv``, with status ``fetched``, ``kept`` or
    ``failed``. An unknown name is a `ValueError`, a missing connection a `DownloadError`.
    """
    import requests  # only this function needs the network

    if dataset not in DATASETS:
        raise ValueError(f"{dataset!r} is no data set to fetch; expected {', '.join(DATASETS)}.")
    with requests.Session() as session:
        session.headers["User-Agent"] = f"motionlib/{motionlib.__version__}"
        source = _Source(
            session,
            (base_url or DATASETS[dataset]).rstrip("/"),
            Path(dest),
            politeness or Politeness(),
            progress or (lambda line: None),
        )
        try:
            if dataset == "ixi-ratings":
                for name in IXI_RATINGS:
                    source.get(name)
            else:
                (_fetch_ixi if dataset == "ixi" else _fetch_mr_art)(source, subset)
        finally:
            table = source.table()
            if len(table):
                write_table(table, Path(dest) / "fetched.tsv")
    return table


def _fetch_mr_art(source: _Source, subset: str | None) -> None:
    """Scores, tables, then the images that the scores name."""
    tables = [source.get(name) for name in MR_ART_TABLES]
    if tables[0] is None:
        return
    scores = read_table(tables[0], ("bids_name",))
    names = [name for name in scores["bids_name"].dropna() if MR_ART_SCAN.fullmatch(name)]
    subjects = list(dict.fromkeys(name.split("_")[0].removeprefix("sub-") for name in names))
    wanted = _choose(subjects, subset)
    for name in names:
        subject = name.split("_")[0]
        if subject.removeprefix("sub-") in wanted:
            source.get(f"{subject}/anat/{name}.nii.gz")


def _fetch_ixi(source: _Source, subset: str | None) -> None:
    """Fetch the table, then the archive, and unpack the images asked for."""
    source.get("IXI.xls")
    archive = None if subset in TABLES_ALONE else source.get("IXI-T1.tar")
    if archive is None:
        return
    try:
        with tarfile.open(archive) as tar:
            files = {member.name.rsplit("/", 1)[-1]: member for member in tar if member.isfile()}
            members = {name: member for name, member in files.items() if IMAGE.fullmatch(name)}
            wanted = _choose(sorted({name[:6] for name in members}), subset)
            for name, member in sorted(members.items()):
                path = source.dest / "IXI-T1" / name
                is_there = path.is_file() and path.stat().st_size == member.size
                if name[:6] in wanted and not is_there:
                    with atomic(path) as aside, open(aside, "wb") as out:
                        shutil.copyfileobj(tar.extractfile(member), out)
            source.report(f"IXI-T1: images of {len(wanted)} subjects unpacked")
    except (tarfile.TarError, EOFError) as error:
        archive.unlink()
        reason = f"is no whole tar archive ({error}); it was removed, fetch it again"
        source.rows["IXI-T1.tar"] = _row("IXI-T1.tar", "failed", reason=reason)


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


class _Source:
    """Files below one address: what was recorded before, and what becomes of each now."""

    def __init__(self, session, base: str, dest: Path, politeness: Politeness, report):
        self.session, self.base, self.dest = session, base, dest
        self.politeness, self.report = politeness, report
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
            self._download(name, path, self.politeness, sha256=self._listed_sum(name))
        except DownloadError as error:
            if error.offline and not self.rows:
                raise DownloadError(
                    f"There is no connection to {self.base}; fetch again when online, or name a "
                    "mirror with --base-url.",
                    offline=True,
                ) from error
            self.rows[name] = _row(name, "failed", reason=str(error))
            self.report(str(error))
            return None
        size = path.stat().st_size
        self.rows[name] = _row(name, "fetched", size, sha256_file(path))
        self.report(f"{name}: {size / 1e6:.1f} MB")
        return path

    def table(self) -> pd.DataFrame:
        """One row per file; files recorded before and not asked for now stay recorded."""
        rows = {**self.known, **self.rows}
        return pd.DataFrame([rows[name] for name in sorted(rows)], columns=COLUMNS)

    def _listed_sum(self, name: str) -> str | None:
        """SHA-256 of a file, where the source offers a list of them."""
        if self.sums is None:
            self.sums, path = {}, self.dest / f".{SUMS}"
            try:
                self._download(SUMS, path, Politeness(1, 0, self.politeness.timeout_s))
            except DownloadError:  # most sources have no such list
                return None
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            pairs = [line.split(maxsplit=1) for line in lines]
            self.sums = {pair[1].lstrip("*./"): pair[0] for pair in pairs if len(pair) == 2}
            path.unlink()
        return self.sums.get(name)

    def _download(self, name: str, path: Path, politeness: Politeness, sha256=None) -> None:
        """Fetch one file in several attempts; what has come stays for the next call."""
        import requests

        path.parent.mkdir(parents=True, exist_ok=True)
        reason, offline = "", True
        for attempt in range(politeness.attempts):
            if attempt:
                time.sleep(politeness.backoff_s * 2 ** (attempt - 1))
            try:
                _attempt(self.session, f"{self.base}/{name}", path, sha256, politeness, self.report)
                return
            except _Again as error:
                reason, offline = str(error), False
                time.sleep(min(error.wait_s, LONGEST_WAIT_S))
            except requests.RequestException as error:
                # the last part of a nested network error says what happened
                reason = str(error).rsplit(": ", 1)[-1].strip("')( ")[:160] or type(error).__name__
                cut = not isinstance(error, requests.ConnectionError | requests.Timeout)
                offline = offline and not cut and not _part(path).exists()
        raise DownloadError(
            f"{path.name} could not be fetched in {politeness.attempts} attempts: {reason}; "
            "run the same command again, what has come is kept.",
            offline=offline,
        )


def _row(name: str, status: str, size: int = 0, sha256: str = "", reason: str = "") -> dict:
    """One row of the table."""
    return dict(zip(COLUMNS, (name, status, size, sha256, reason), strict=True))


class _Again(Exception):  # noqa: N818
    """An attempt failed and another may not."""

    def __init__(self, message: str, wait_s: float = 0.0):
        super().__init__(message)
        self.wait_s = wait_s


def _part(path: Path) -> Path:
    """Where the bytes so far are."""
    return path.with_name(path.name + ".part")


def _attempt(session, url: str, path: Path, sha256, politeness: Politeness, report) -> None:
    """Fetch what is missing of a file, check the whole and move it into place."""
    part, note = _part(path), path.with_name(path.name + ".part.json")
    # ask for the rest of the version that was begun; a server without ranges sends the whole
    version = read_json(note)["version"] if note.is_file() and part.is_file() else ""
    start = part.stat().st_size if version else 0
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": version}
    with session.get(url, headers=headers, stream=True, timeout=politeness.timeout_s) as answer:
        status = answer.status_code
        if status == 416:
            part.unlink()
            raise _Again("the server has fewer bytes than came before")
        if status in RETRIED:
            wait_s = answer.headers.get("Retry-After", "0")
            raise _Again(f"the server answered {status}", float(wait_s) if wait_s.isdigit() else 0)
        if status not in (200, 206):
            raise DownloadError(f"{path.name} is not to be had: {status} at {url}.")
        start = start if status == 206 else 0
        size, version, md5 = _announced(answer, start)
        write_json(note, {"version": version})
        told = time.monotonic()
        with open(part, "r+b" if start else "wb") as stream:
            stream.seek(start)
            stream.truncate()
            for chunk in answer.iter_content(CHUNK):
                stream.write(chunk)
                if time.monotonic() - told > REPORT_EVERY_S:
                    told = time.monotonic()
                    whole = f" of {size / 1e6:.0f}" if size else ""
                    report(f"{path.name}: {stream.tell() / 1e6:.0f}{whole} MB")
            stream.flush()
            os.fsync(stream.fileno())
    if size is not None and part.stat().st_size != size:
        raise _Again(f"the connection was cut at {part.stat().st_size} of {size} bytes")
    note.unlink()
    fault = _fault(part, path.name, sha256, md5)
    if fault:
        part.unlink()
        raise _Again(fault)
    os.replace(part, path)


def _announced(answer, start: int) -> tuple[int | None, str, str | None]:
    """Size, version and MD5 of the whole file, as far as the server tells them."""
    told = answer.headers
    size = int(told["Content-Length"]) + start if "Content-Length" in told else None
    whole = told.get("Content-Range", "").rpartition("/")[2]
    if whole.isdigit():
        size = int(whole)
    tag = told.get("ETag", "")
    # the ETag of a plain S3 object is its MD5; a weak one (W/"...") names no bytes
    md5 = tag.strip('"') if re.fullmatch('"[0-9a-f]{32}"', tag) else None
    if "Content-MD5" in told and start == 0:
        md5 = base64.b64decode(told["Content-MD5"]).hex()
    return size, tag if tag.startswith('"') else told.get("Last-Modified", ""), md5


def _fault(part: Path, name: str, sha256: str | None, md5: str | None) -> str | None:
    """Why the bytes are not those of the file, or None."""
    if sha256:
        digest = sha256_file(part)
        return None if digest == sha256.lower() else f"its SHA-256 is {digest}, expected {sha256}"
    if md5:
        with open(part, "rb") as stream:
            digest = hashlib.file_digest(stream, "md5").hexdigest()
        return None if digest == md5 else f"its MD5 is {digest}, not {md5}"
    if name.endswith(".gz"):  # a gzip file carries its own checksum
        from isal import igzip, isal_zlib

        try:
            with igzip.open(part, "rb") as stream:
                while stream.read(CHUNK):
                    pass
        except (OSError, EOFError, isal_zlib.error) as error:
            return f"it is no whole gzip file ({error})"
    return None
