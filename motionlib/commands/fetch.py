"""Command ``fetch``: download an open data set, resumable and checked."""

import argparse
import sys

from motionlib.commands import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("dataset", choices=("ixi", "ixi-ratings", "mr-art"), help="which data set")
    parser.add_argument("dest", help="folder to fill")
    parser.add_argument("--base-url", help="address of a mirror with the same layout")
    parser.add_argument(
        "--subset", help="number of subjects, names separated by commas, or tables (no images)"
    )
    parser.add_argument("--attempts", type=int, default=5, help="tries of each file (default: 5)")
    words = "seconds of silence allowed (default: 60)"
    parser.add_argument("--timeout", type=float, default=60.0, help=words)


def main(args: argparse.Namespace) -> int:
    """Fetch, and say what became of the files."""
    from motionlib.cohorts.fetch import DownloadError, Politeness, fetch

    if args.attempts < 1 or args.timeout <= 0:
        raise ValueError("--attempts must be at least 1 and --timeout above 0.")
    try:
        table = fetch(
            args.dataset,
            args.dest,
            base_url=args.base_url,
            subset=args.subset,
            politeness=Politeness(args.attempts, timeout_s=args.timeout),
            progress=say,
        )
    except DownloadError as error:
        print(f"motionlib fetch: {error}", file=sys.stderr)
        return 1
    counts = table["status"].value_counts()
    said = ", ".join(f"{counts.get(name, 0)} {name}" for name in ("fetched", "kept", "failed"))
    print(f"{said}; listed in {args.dest}/fetched.tsv")
    return 1 if counts.get("failed", 0) else 0
