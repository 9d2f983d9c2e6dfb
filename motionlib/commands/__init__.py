"""The commands, one a module; what they use is imported when they run: `--help` answers at once."""

import argparse
import json

ENGINES = (
    "where the work is done: inline (in this process), local:N (N processes of this computer), "
    "tcp://HOST:PORT (workers of a running Dask scheduler), slurm:FILE.yaml (jobs of a cluster)"
)


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Declare ``--engine``."""
    parser.add_argument("--engine", default="inline", metavar="E", help=ENGINES)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Declare ``--json``."""
    words = "print the outcome as one JSON object on standard output, for other programs"
    parser.add_argument("--json", action="store_true", help=words)


def print_json(args: argparse.Namespace, outcome: dict) -> None:
    """Print an outcome as JSON where the caller asked for it."""
    if args.json:
        print(json.dumps(outcome, indent=2, default=str))
