"""The scans that the words of a call stand for: images, folders, manifests."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

SUFFIXES = (".nii", ".nii.gz", ".npy")
IMAGES = (".nii", ".nii.gz")


def find_scans(inputs: list[str], *, suffixes: tuple[str, ...] = SUFFIXES) -> list[tuple[str, str]]:
    """List the scans that the words of a call stand for.

    Parameters
    ----------
    inputs : list of str
        Images; folders, whose ``*_T1w`` images are taken, or all where there are none; manifests
        (``.tsv``). Of a CAPS folder each scan's cropped image is taken.
    suffixes : tuple of str
        Endings of an image's name.

    Returns
    -------
    list of (str, str)
        Id and path. The id is the manifest's, or the file's name without its suffix; where a
        folder holds one name several times, the folders between are part of the ids.

    Raises
    ------
    FileNotFoundError
        If an input does not exist, or no image is found.
    ValueError
        If two scans have one id, or a table is no manifest.
    """
    rows = []
    for word in inputs:
        path = Path(word)
        if path.is_dir():
            rows += _folder_rows(path, suffixes)
        elif not path.is_file() and not path.is_symlink():
            raise FileNotFoundError(f"no file or folder {word}: expected an image or a manifest")
        elif path.suffix == ".tsv":
            rows += _manifest_rows(path)
        elif path.name.endswith(suffixes):
            rows.append((_stem(path, suffixes), str(path)))
        else:
            raise ValueError(
                f"{path.name} is neither an image ({', '.join(suffixes)}) nor a table (.tsv): "
                "expected one of them"
            )
    counts = Counter(scan_id for scan_id, _ in rows)
    twice = [scan_id for scan_id, count in counts.items() if count > 1]
    if twice:
        raise ValueError(
            f"{len(twice)} scan ids occur twice, the first is {twice[0]}: expected one file per "
            "id, use a manifest"
        )
    return rows


def _folder_rows(folder: Path, suffixes: tuple[str, ...]) -> list[tuple[str, str]]:
    """List a folder's scans: of a CAPS folder by its reader, else by the names of the files."""
    if any((folder / "subjects").glob("sub-*/ses-*/t1_linear")):
        from motionlib.cohorts import caps  # which other calls do without

        table = caps.read(folder, check_files=False).manifest
        return [(row.scan_id, str(folder / row.path)) for row in table.itertuples()]
    paths = sorted(p for p in folder.rglob("*") if p.name.endswith(suffixes))
    paths = [p for p in paths if "_T1w" in p.name] or paths
    if not paths:
        raise FileNotFoundError(
            f"no image in folder {folder.name}: expected files ending in {', '.join(suffixes)}"
        )
    raw = [p for p in paths if "derivatives" not in p.relative_to(folder).parts]
    paths = raw or paths
    ids = [_stem(p, suffixes) for p in paths]
    if len(set(ids)) < len(ids):
        places = [p.relative_to(folder) for p in paths]
        ids = ["_".join((*p.parts[:-1], _stem(p, suffixes))) for p in places]
    return [(scan_id, str(p)) for scan_id, p in zip(ids, paths, strict=True)]


def _manifest_rows(path: Path) -> list[tuple[str, str]]:
    """Scan ids and paths of a manifest; paths are relative to it, or to MOTIONLIB_DATA."""
    from motionlib.manifest import locate, read_text

    table = read_text(path)
    missing = [name for name in ("scan_id", "path") if name not in table]
    if missing or table.empty:
        raise ValueError(
            f"{path.name} has {len(table)} rows and columns {', '.join(table.columns[:6])}: "
            "expected a manifest with scan_id and path, or MRIQC's group_T1w.tsv"
        )
    if table["scan_id"].isna().any():
        raise ValueError(
            f"{path.name} has {int(table['scan_id'].isna().sum())} rows without scan_id: "
            "expected a name for every scan"
        )
    paths = table["path"].fillna("")
    places = [str(locate(given, path.parent)) for given in paths]
    return list(zip(table["scan_id"].astype(str), places, strict=True))


def _stem(path: Path, suffixes: tuple[str, ...]) -> str:
    """Name of an image without its suffix."""
    suffix = next(s for s in sorted(suffixes, key=len, reverse=True) if path.name.endswith(s))
    return path.name[: -len(suffix)]
