"""Which files are scans: the one module that finds them, in BIDS, CAPS and plain folders.

A BIDS folder is walked by its own rules: images of ``sub-*/[ses-*/]anat`` whose suffix is T1w,
without what ``.bidsignore`` names. ``sourcedata``, ``derivatives``, ``code``, ``.git``, the ``._``
files of macOS and masks named after a scan are thereby no scans. What was left aside is told.
"""

import hmac
import os
import re
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from pathlib import Path

from motionlib.files import write_table

IMAGE_SUFFIXES = (".nii.gz", ".nii")
SPACE = "space-MNI152NLin2009cSym"  # of t1-linear
SHORTEST_KEY = 16  # bytes; a shorter one could be found by trial
LIKE_IMAGES = (*IMAGE_SUFFIXES, ".mgz", ".mgh", ".nrrd", ".mnc", ".img")  # in any case: to be told
NO_SCANS = ("sourcedata", "derivatives", "code")  # folders of BIDS beside its scans
OTHER_DATA = ("func", "dwi", "fmap", "perf", "pet", "meg", "eeg", "ieeg", "beh", "nirs", "mrs")


def find_scans(
    words: list[str],
    *,
    suffixes: tuple[str, ...] = IMAGE_SUFFIXES,
    report: Callable[[str], None] = lambda line: None,
) -> list[tuple[str, str]]:
    """List the scans that the words of a call stand for: images, folders, manifests (``.tsv``).

    Of a CAPS folder each scan's cropped image is taken, of a BIDS folder its T1w images, of another
    its images named ``*_T1w``, or all where there are none; `report` is told what was left aside.
    Returns ids and paths. The id is the manifest's, or the file's name without its suffix; where a
    plain folder holds one name several times, the folders between are part of the ids. Which scans
    cannot stand in a table `faults_of` says. An input that does not exist, or holds no image, is a
    `FileNotFoundError`, a table that is no manifest a `ValueError`.
    """
    rows = []
    for word in words:
        path = Path(word)
        if path.is_dir():
            scans, aside = _folder_rows(path, suffixes)
            rows += scans
            if aside:
                report(f"{path.name}: left aside {told(aside)}")
        elif not path.is_file() and not path.is_symlink():
            raise FileNotFoundError(f"no file or folder {word}: expected an image or a manifest")
        elif path.suffix == ".tsv":
            rows += _manifest_rows(path)
        elif path.name.endswith(suffixes):
            rows.append((stem(path.name, suffixes), str(path)))
        else:
            raise ValueError(
                f"{path.name} is neither an image ({', '.join(suffixes)}) nor a table (.tsv): "
                "expected one of them"
            )
    return rows


def pseudonyms(ids: Iterable[str], key_file: str) -> dict[str, str]:
    """Name scans by HMAC-SHA256 under a secret key: the same key gives the same names.

    An id becomes ``sub-X_scan-Y``, sixteen hexadecimal digits each, of its participant (``sub-...``
    in it, else all of it) and of itself. Only who holds the key can say whose scan it is, by naming
    candidates anew. ValueError if the file, which may end in a line break, holds under 16 bytes.
    """
    key = Path(key_file).read_bytes().strip()
    if len(key) < SHORTEST_KEY:
        raise ValueError(
            f"{Path(key_file).name} holds a key of {len(key)} bytes; expected at least "
            f"{SHORTEST_KEY}, such as 32 random ones"
        )

    def digits(text: str) -> str:
        return hmac.new(key, text.encode("utf-8", "surrogateescape"), "sha256").hexdigest()[:16]

    people = {name: re.search(r"sub-[A-Za-z0-9]+", name) for name in ids}
    return {
        name: f"sub-{digits(person[0] if person else name)}_scan-{digits(name)}" if name else ""
        for name, person in people.items()
    }


def faults_of(scans: list[tuple[str, str]]) -> list[str]:
    """Say of each scan why it cannot stand in a table, or nothing; of equal ids the first can."""
    faults, seen = [], set()
    for scan_id, path in scans:
        again = "an earlier scan has the same id: expected one file per id" * (scan_id in seen)
        faults.append(again if path else "its row has no scan_id or no path: expected both")
        seen.add(scan_id)
    return faults


def bids_images(root: Path, *, folder: str = "anat") -> tuple[list[tuple[str, str, str]], list]:
    """Walk a folder of subjects: its T1w images, and what was left aside.

    Images are (``sub-...``, ``ses-...`` or empty, path relative to `root`), of that `folder` in
    every subject and session. Left aside are `NO_SCANS`, and what else is named like a T1w image.
    """
    ours = re.compile(rf"(sub-[^/]+)/(?:(ses-[^/]+)/)?{folder}/[^/.][^/]*_T1w\.nii(\.gz)?")
    ignored, images, aside = _bidsignore(root), [], []
    for place, folders, names in os.walk(root, followlinks=True):
        here = Path(place).relative_to(root)
        beside = [name for name in sorted(folders) if name in NO_SCANS and not here.parts]
        aside += [f"{name}/" for name in beside]
        passed = (*OTHER_DATA, *beside) if len(here.parts) < 3 else tuple(folders)
        entries = sorted(names + folders)  # a folder can have an image's name
        folders[:] = sorted(name for name in folders if name not in passed and name[0] != ".")
        for name in entries:
            path = (here / name).as_posix()
            found = ours.fullmatch(path)
            if found and not any(_matches(path, rule) for rule in ignored):
                images.append((found[1], found[2] or "", path))
            elif "t1w" in name.lower() and name.lower().endswith(LIKE_IMAGES):
                aside.append(path)
    return images, aside


def caps_images(root: Path) -> list[dict]:
    """Walk a CAPS folder: t1-linear images as ``participant_id scan_id path is_crop is_caps``."""
    rows = []
    for subject, _, path in bids_images(root / "subjects", folder="t1_linear")[0]:
        # older Clinica wrote sub-1_ses-M00_T1w_space-..., later sub-1_ses-M000_space-...
        scan = stem(path).split("_space-")[0].removesuffix("_T1w")
        row = {"participant_id": subject, "scan_id": f"{scan}_T1w", "path": f"subjects/{path}"}
        rows.append(row | {"is_crop": "_desc-Crop_" in path, "is_caps": f"_{SPACE}_" in path})
    return rows


def stem(path: str, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> str:
    """File name without its image suffix."""
    name = path.rsplit("/", 1)[-1]
    endings = sorted(suffixes, key=len, reverse=True)
    return next((name[: -len(s)] for s in endings if name.endswith(s)), name)


def told(names: list[str]) -> str:
    """Tell some names in words: the first three, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _bidsignore(root: Path) -> list[str]:
    """Patterns of ``.bidsignore``, without slashes about them."""
    path = root / ".bidsignore"
    lines = path.read_text("utf-8", errors="replace").splitlines() if path.is_file() else []
    rules = [line.strip().removeprefix("**/").strip("/") for line in lines]
    return [rule for rule in rules if rule and not rule.startswith("#")]


def _matches(path: str, rule: str) -> bool:
    """Whether a pattern names a file, or a folder above it, as git's patterns do."""
    return any(fnmatch(f"/{path}/", form) for form in (f"*/{rule}/*", f"*/{rule}/"))


def _folder_rows(folder: Path, suffixes) -> tuple[list[tuple[str, str]], list[str]]:
    """Ids and paths of a folder's scans, and what was left aside."""
    if any((folder / "subjects").glob("sub-*/ses-*/t1_linear")):
        # cropped images last, so that of every scan they stay
        rows = sorted(caps_images(folder), key=lambda row: row["is_crop"])
        paths = {row["scan_id"]: row["path"] for row in rows if row["is_caps"]}
        left = sorted({row["path"] for row in rows} - set(paths.values()))
        return [(scan, str(folder / paths[scan])) for scan in sorted(paths)], left
    images, aside = bids_images(folder)
    if images:
        return [(stem(path), str(folder / path)) for _, _, path in images], aside
    paths = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths += [Path(place, name) for name in sorted(names) if not name.startswith(".")]
    like = [path for path in paths if path.name.lower().endswith((*suffixes, *LIKE_IMAGES))]
    paths = sorted(path for path in like if path.name.endswith(suffixes))
    if not paths:
        raise FileNotFoundError(
            f"no image in folder {folder.name}: expected files ending in {', '.join(suffixes)}"
        )
    named = [path for path in paths if stem(path.name, suffixes).endswith("_T1w")]
    chosen = named or [path for path in paths if "_T1w" in path.name] or paths
    outside = [p for p in chosen if not set(NO_SCANS) & set(p.relative_to(folder).parts)]
    chosen = outside or chosen
    ids = [stem(path.name, suffixes) for path in chosen]
    if len(set(ids)) < len(ids):
        places = [path.relative_to(folder) for path in chosen]
        ids = ["_".join((*p.parts[:-1], stem(p.name, suffixes))) for p in places]
    left = sorted(path.relative_to(folder).as_posix() for path in set(like) - set(chosen))
    return [(scan_id, str(path)) for scan_id, path in zip(ids, chosen, strict=True)], left


def _manifest_rows(path: Path) -> list[tuple[str, str]]:
    """Scan ids and paths of a manifest; paths are relative to it, or to MOTIONLIB_DATA."""
    # with pandas, which one file needs not wait for
    from motionlib.manifest import locate, read_text

    table = read_text(path)
    missing = [name for name in ("scan_id", "path") if name not in table]
    if missing or table.empty:
        raise ValueError(
            f"{path.name} has {len(table)} rows and columns {', '.join(table.columns[:6])}: "
            "expected a manifest with scan_id and path, or MRIQC's group_T1w.tsv"
        )
    names = table["scan_id"].fillna("row " + table.index.astype("string").to_series(table.index))
    whole = table["scan_id"].notna() & table["path"].notna()
    places = table["path"].map(lambda given: str(locate(given, path.parent)), na_action="ignore")
    return list(zip(names.astype(str), places.where(whole, ""), strict=True))


def write_scan_table(words: list[str], out: str, *, report=lambda line: None) -> Path:
    """Turn the words of a call into a manifest: the one it names, or ``scans.tsv`` in `out`."""
    import pandas as pd  # see `_manifest_rows`

    if len(words) == 1 and words[0].endswith(".tsv"):
        return Path(words[0])
    if tables := [word for word in words if word.endswith(".tsv")]:
        raise ValueError(f"{tables[0]} is one of {len(words)} inputs; a manifest is given alone")
    scans = find_scans(words, report=report)
    rows = pd.DataFrame(scans, columns=["scan_id", "path"])
    rows["path"] = [str(Path(path).absolute()) for path in rows["path"]]
    rows["participant_id"] = rows["scan_id"].str.extract(r"(sub-[A-Za-z0-9]+)")[0]
    rows["participant_id"] = rows["participant_id"].fillna(rows["scan_id"])
    return write_table(rows, Path(out) / "scans.tsv")
