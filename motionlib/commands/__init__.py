"""The commands, one a module; what they use is imported when they run: `--help` answers at once."""

import argparse
import json
import sys

ENGINES = (
    "where the work is done: inline (in this process), local:N (N processes of this computer), "
    "tls://HOST:PORT (workers of a running Dask scheduler), slurm:FILE.yaml (jobs of a cluster)"
)


def say(line: str) -> None:
    """Print a line of progress, at once, to standard error."""
    print(line, file=sys.stderr, flush=True)


def tell_outcome(outcome) -> tuple[str, int]:
    """Say why scans of an outcome table failed; return the counts in words, and how many did."""
    for row in outcome.to_dict("records"):
        if row["status"] == "failed":
            say(f"{row['scan_id']}: {row['reason']}")
    counts = outcome["status"].value_counts() if len(outcome) else {}
    said = ", ".join(f"{counts.get(name, 0)} {name}" for name in ("done", "kept", "failed"))
    return said, counts.get("failed", 0)


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Declare ``--engine``."""
    words = f"{ENGINES}; default: inline"
    parser.add_argument("--engine", default="inline", metavar="E", help=words)


def add_pseudonymise(parser: argparse.ArgumentParser) -> None:
    """Declare ``--pseudonymise``."""
    words = "name scans by pseudonyms made with the secret in this file (16 bytes or more)"
    parser.add_argument("--pseudonymise", metavar="KEYFILE", help=words)


def scans_of(args: argparse.Namespace, **options) -> list[tuple[str, str]]:
    """Find the scans of a call; under pseudonyms, and in their order, if it asks for them."""
    from motionlib.preprocess.finder import find_scans, pseudonyms

    if not args.pseudonymise:
        return find_scans(args.input, report=say, **options)
    scans = find_scans(args.input, **options)
    names = pseudonyms([scan_id for scan_id, _ in scans], args.pseudonymise)
    # sorted, since by their first order a list of the files would tell whose is which
    return sorted(((names[scan_id], path) for scan_id, path in scans), key=lambda scan: scan[0])


def add_json(parser: argparse.ArgumentParser) -> None:
    """Declare ``--json``."""
    words = "print the outcome as one JSON object on standard output, for other programs"
    parser.add_argument("--json", action="store_true", help=words)


def print_json(args: argparse.Namespace, outcome: dict) -> None:
    """Print an outcome as JSON where the caller asked for it."""
    if args.json:
        print(json.dumps(outcome, indent=2, default=str))
