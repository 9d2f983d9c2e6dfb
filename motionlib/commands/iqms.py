"""Command ``iqms``: MRQy's fifteen image-quality measures of every scan, as a table."""

import argparse
import re
import sys
from pathlib import Path

from motionlib.commands import add_engine, add_json, add_pseudonymise, print_json, scans_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``motionlib iqms``."""
    words = (
        "images, folders (their *_T1w images, or all if there are none), manifests (.tsv), "
        "or one MRIQC table (group_T1w.tsv) to import"
    )
    parser.add_argument("input", nargs="+", metavar="INPUT", help=words)
    parser.add_argument("--out", required=True, metavar="FILE.tsv", help="table to write")
    parser.add_argument(
        "--corrected",
        action="store_true",
        help="repaired definitions on a standardised volume (default: MRQy 0.0.3's numbers)",
    )
    parser.add_argument(
        "--assume-orientation", metavar="RAS", help="where the axes lead of files that do not say"
    )
    parser.add_argument("--per-slice", metavar="FILE.tsv", help="also every slice's measures")
    parser.add_argument("--overlay", metavar="DIR", help="also a picture of each foreground")
    parser.add_argument("--cache", metavar="FILE.json", help="resume from, and add to, this file")
    add_pseudonymise(parser)
    add_engine(parser)
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    """Measure every scan; 0 if all have measures, 1 if some have none (the reasons are told)."""
    from motionlib.files import as_cell, write_table, write_text

    if Path(args.out).suffix != ".tsv":
        raise ValueError(f"{args.out} does not end in .tsv; the measures are a tab-separated table")
    if len(args.input) == 1 and _is_mriqc(Path(args.input[0])):
        from motionlib.cohorts.ratings import read_mriqc
        from motionlib.preprocess.finder import pseudonyms

        table = read_mriqc(args.input[0])
        if args.pseudonymise:
            names = dict(pseudonyms(table["scan_id"], args.pseudonymise))
            table = table.assign(scan_id=table["scan_id"].map(names)).sort_values("scan_id")
        write_table(table, args.out)
        print(f"{len(table)} scans, {table.shape[1] - 1} measures of MRIQC", file=sys.stderr)
        print_json(args, {"table": args.out, "scans": len(table), "without_measures": {}})
        return 0
    from motionlib.iqms.tables import COLUMNS, measure_files
    from motionlib.preprocess.finder import IMAGE_SUFFIXES

    scans = scans_of(args, suffixes=(*IMAGE_SUFFIXES, ".npy"))
    rows = measure_files(
        scans,
        engine=args.engine,
        cache=args.cache,
        compat=not args.corrected,
        orientation=args.assume_orientation,
    )
    # written without pandas, whose import would take longer than a scan
    lines = ["\t".join(["scan_id", *COLUMNS])]
    for row in rows:
        cells = ["" if row[name] != row[name] else str(row[name]) for name in COLUMNS]
        lines.append("\t".join(map(as_cell, [row["scan_id"], *cells])))
    write_text(args.out, "\n".join(lines) + "\n")
    measured = [row["slices"] > 0 for row in rows]
    if args.per_slice or args.overlay:
        _write_details([scan for scan, good in zip(scans, measured, strict=True) if good], args)
    for row in rows:
        if not row["slices"]:
            print(f"{row['scan_id']}: {row['reason']}", file=sys.stderr)
    print(f"{sum(measured)} of {len(rows)} scans measured", file=sys.stderr)
    lost = {row["scan_id"]: row["reason"] for row in rows if not row["slices"]}
    print_json(args, {"table": args.out, "scans": len(rows), "without_measures": lost})
    return 0 if all(measured) else 1


def _is_mriqc(path: Path) -> bool:
    """Whether a file is a table whose first column is MRIQC's."""
    if path.suffix not in (".tsv", ".csv") or not path.is_file():
        return False
    with open(path, encoding="utf-8-sig", errors="replace") as stream:
        return re.split("[\t,;]", stream.readline())[0].strip() == "bids_name"


def _write_details(scans: list, args: argparse.Namespace) -> None:
    """Write the per-slice table and the pictures of the foregrounds."""
    import pandas as pd

    from motionlib.files import atomic, write_table
    from motionlib.iqms.measures import measure
    from motionlib.iqms.tables import read_stored

    parts = []
    for scan_id, path in scans:
        volume, affine = read_stored(path, orientation=args.assume_orientation)
        quality = measure(volume, compat=not args.corrected, affine=affine)
        parts.append(quality.table().assign(scan_id=scan_id))
        if args.overlay:
            from motionlib.figures.iqms import show_foreground

            name = re.sub(r"[/\\\0]", "_", scan_id)  # an id from a manifest leads nowhere else
            with atomic(Path(args.overlay) / f"{name}_foreground.png") as aside:
                show_foreground(quality).savefig(aside, dpi=100)
    if args.per_slice and parts:
        table = pd.concat(parts, ignore_index=True)
        lead = ["scan_id", "slice"]
        write_table(table[lead + [c for c in table if c not in lead]], args.per_slice)
