"""A data set's name and a folder come in; its open files, fetched and checked, come out."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

import motionlib
from motionlib.cohorts.download import DownloadError, Politeness, download
from motionlib.cohorts.ixi import IMAGE
from motionlib.cohorts.ratings import MR_ART_MEASURES, MR_ART_SCORES
from motionlib.files import atomic, sha256_file, write_table

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
