"""Scans go in as files, folders or a manifest; a table of fifteen measures per scan comes out."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

SUFFIXES = (".nii", ".nii.gz", ".npy")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``motionlib iqms``."""
    parser.add_argument(
        "input",
        nargs="+",
        metavar="INPUT",
        help="images, folders (their *_T1w images, or all if there are none), manifests (.tsv), "
        "or one MRIQC table (group_T1w.tsv) to import",
    )
    parser.add_argument("--out", required=True, metavar="FILE.tsv", help="table to write")
    parser.add_argument(
        "--corrected",
        action="store_true",
        help="repaired definitions on a standardised volume (default: MRQy 0.0.3's numbers)",
    )
    parser.add_argument("--per-slice", metavar="FILE.tsv", help="also every slice's measures")
    parser.add_argument("--overlay", metavar="DIR", help="also a picture of each foreground")
    parser.add_argument("--cache", metavar="FILE.json", help="resume from, and add to, this file")
    parser.add_argument("--engine", default="inline", metavar="E", help="default: inline")


def main(args: argparse.Namespace) -> int:
    """Measure every scan; 0 if all have measures, 1 if some have none (the reasons are told)."""
    from motionlib.files import write_table, write_text

    if len(args.input) == 1 and _is_mriqc(Path(args.input[0])):
        from motionlib.cohorts.ratings import read_mriqc

        table = read_mriqc(args.input[0])
        write_table(table, args.out)
        print(f"{len(table)} scans, {table.shape[1] - 1} measures of MRIQC", file=sys.stderr)
        return 0
    scans = find_scans(args.input)
    from motionlib.iqms import COLUMNS, measure_files

    rows = measure_files(scans, engine=args.engine, cache=args.cache, compat=not args.corrected)
    lines = ["\t".join(["scan_id", *COLUMNS])]
    for row in rows:
        cells = ["" if row[name] != row[name] else str(row[name]) for name in COLUMNS]
        lines.append("\t".join([row["scan_id"], *cells]))
    write_text(args.out, "\n".join(lines) + "\n")
    measured = [row["slices"] > 0 for row in rows]
    if args.per_slice or args.overlay:
        _write_details([scan for scan, good in zip(scans, measured, strict=True) if good], args)
    for row in rows:
        if not row["slices"]:
            print(f"{row['scan_id']}: {row['reason']}", file=sys.stderr)
    print(f"{sum(measured)} of {len(rows)} scans measured", file=sys.stderr)
    return 0 if all(measured) else 1


def find_scans(inputs: list[str]) -> list[tuple[str, str]]:
    """List the scans that the words of a call stand for.

    Parameters
    ----------
    inputs : list of str
        Images, folders, manifests.

    Returns
    -------
    list of (str, str)
        Id and path; the id is the manifest's, or the file's name without its suffix.

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
            found = sorted(p for p in path.rglob("*") if p.name.endswith(SUFFIXES))
            found = [p for p in found if "_T1w" in p.name] or found
            if not found:
                raise FileNotFoundError(
                    f"no image in folder {path.name}: expected files ending in "
                    f"{', '.join(SUFFIXES)}"
                )
            rows += [(_stem(p), str(p)) for p in found]
        elif not path.is_file():
            raise FileNotFoundError(f"no file or folder {word}: expected an image or a manifest")
        elif path.suffix == ".tsv":
            rows += _manifest_rows(path)
        elif path.name.endswith(SUFFIXES):
            rows.append((_stem(path), str(path)))
        else:
            raise ValueError(
                f"{path.name} is neither an image ({', '.join(SUFFIXES)}) nor a table (.tsv): "
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


def _manifest_rows(path: Path) -> list[tuple[str, str]]:
    """Scan ids and paths of a manifest; paths are relative to it, or to MOTIONLIB_DATA."""
    import os

    import pandas as pd

    table = pd.read_csv(path, sep="\t", dtype=str)
    missing = [name for name in ("scan_id", "path") if name not in table]
    if missing or table.empty:
        raise ValueError(
            f"{path.name} has {len(table)} rows and columns {', '.join(table.columns[:6])}: "
            "expected a manifest with scan_id and path, or MRIQC's group_T1w.tsv"
        )
    data = os.environ.get("MOTIONLIB_DATA")
    rows = []
    for scan_id, given in zip(table["scan_id"], table["path"].fillna(""), strict=True):
        located = path.parent / given
        if data and not located.is_file() and (Path(data) / given).is_file():
            located = Path(data) / given
        rows.append((scan_id, str(located)))
    return rows


def _is_mriqc(path: Path) -> bool:
    """Whether a file is a table whose first column is MRIQC's."""
    if path.suffix != ".tsv" or not path.is_file():
        return False
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.readline().split("\t")[0].strip() == "bids_name"


def _stem(path: Path) -> str:
    suffix = next(s for s in sorted(SUFFIXES, key=len, reverse=True) if path.name.endswith(s))
    return path.name[: -len(suffix)]


def _write_details(scans: list, args: argparse.Namespace) -> None:
    """Write the per-slice table and the pictures of the foregrounds."""
    import pandas as pd

    from motionlib.files import atomic, write_table
    from motionlib.iqms import measure, read_stored

    parts = []
    for scan_id, path in scans:
        volume, affine = read_stored(path)
        quality = measure(volume, compat=not args.corrected, affine=affine)
        parts.append(quality.table().assign(scan_id=scan_id))
        if args.overlay:
            from motionlib.fragility import show_foreground

            with atomic(Path(args.overlay) / f"{scan_id}_foreground.png") as aside:
                show_foreground(quality).savefig(aside, dpi=100)
    if args.per_slice and parts:
        table = pd.concat(parts, ignore_index=True)
        lead = ["scan_id", "slice"]
        write_table(table[lead + [c for c in table if c not in lead]], args.per_slice)
