"""Command ``manifest``: read a cohort, write its manifest, flow and dropped scans."""

import argparse
import os
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from motionlib.cohorts import COHORTS

    parser.add_argument("cohort", choices=tuple(COHORTS), help="which reader")
    parser.add_argument("root", help="folder of the cohort (virtual: folder to generate it in)")
    parser.add_argument("--out", required=True, help="manifest to write (TSV)")
    parser.add_argument("--table", help="name of the table of grades, where aphp holds several")
    parser.add_argument("--test-fraction", type=float, help="also split: share of the test set")
    parser.add_argument(
        "--test-sizes",
        metavar="COHORT=N,...",
        help="also split: scans of the test set by cohort, or `paper` for those of Tables A.I "
        "and A.II",
    )
    parser.add_argument("--folds", type=int, default=5, help="folds of the split (default: 5)")
    parser.add_argument("--seed", type=int, default=20, help="seed of the split (default: 20)")


def main(args: argparse.Namespace) -> int:
    """Write manifest, flow and dropped scans; 1 if a file is at fault, or none is left."""
    import pandas as pd

    from motionlib.cohorts import read_cohort
    from motionlib.cohorts.sources import FAULTS
    from motionlib.files import write_table
    from motionlib.manifest import write_manifest
    from motionlib.splits import assign_splits

    out = Path(args.out)
    if out.suffix not in (".tsv", ".csv"):
        raise ValueError(f"--out is {out.name}; expected a name that ends in .tsv.")
    if args.table and args.cohort != "aphp":
        raise ValueError(f"--table is for the cohort aphp; {args.cohort} knows its tables by name.")
    sizes = None if args.test_sizes is None else _sizes(args.test_sizes, args.cohort)
    options = {"table": args.table} if args.table else {}
    selection = read_cohort(args.cohort, args.root, **options)
    manifest = selection.manifest.copy()
    if args.test_fraction is not None or sizes is not None:
        manifest = assign_splits(
            manifest,
            test_fraction=args.test_fraction,
            test_sizes=sizes,
            n_folds=args.folds,
            seed=args.seed,
        )
    manifest["path"] = _from_here(manifest["path"], selection.root, out.parent)
    write_manifest(manifest, out)
    write_table(selection.flow, out.with_name(f"{out.stem}_flow{out.suffix}"))
    write_table(selection.dropped, out.with_name(f"{out.stem}_dropped{out.suffix}"))
    with pd.option_context("display.width", 160, "display.max_colwidth", 70):
        print(selection.flow.to_string(index=False))
    print(f"{len(manifest)} scans in {out}")
    dropped = selection.dropped
    faulty = dropped[dropped["step"].isin(FAULTS)]
    for row in faulty.itertuples():
        print(f"{row.scan_id}: {row.reason}", file=sys.stderr)
    return 0 if len(manifest) and not len(faulty) else 1


def _sizes(words: str, cohort: str) -> dict[str, int]:
    """Read ``COHORT=N,...``, or look up the paper's number for the cohort."""
    from motionlib.splits import PAPER_TEST_SIZES

    if words == "paper":
        if cohort not in PAPER_TEST_SIZES:
            raise ValueError(
                f"the paper has no test set of {cohort}, only of {', '.join(PAPER_TEST_SIZES)}; "
                "give --test-sizes COHORT=N"
            )
        return {cohort: PAPER_TEST_SIZES[cohort]}
    pairs = [word.partition("=") for word in words.split(",")]
    if not all(name and number.isdigit() for name, _, number in pairs):
        raise ValueError(f"--test-sizes is {words!r}; expected paper, or COHORT=N,... as adni=171")
    return {name: int(number) for name, _, number in pairs}


def _from_here(paths, root: Path, folder: Path):
    """Paths relative to the manifest's folder, else to MOTIONLIB_DATA."""
    data = os.environ.get("MOTIONLIB_DATA")
    for base in (folder, *([Path(data)] if data else [])):
        if root.resolve().is_relative_to(base.resolve()):
            start = root.resolve().relative_to(base.resolve()).as_posix()
            return paths if start == "." else f"{start}/" + paths
    for path in paths:  # would be read there, whatever MOTIONLIB_DATA says
        if os.path.lexists(folder / path):
            raise ValueError(f"{path} lies beside --out too; write the manifest into {root}")
    print(
        f"The images lie outside the manifest's folder: set MOTIONLIB_DATA={root} to use it.",
        file=sys.stderr,
    )
    return paths
