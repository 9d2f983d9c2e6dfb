"""Command ``preprocess``: t1-linear of every scan of a manifest, into a CAPS folder."""

import argparse
from pathlib import Path

from motionlib.commands import add_engine, say, tell_outcome


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    words = "manifest (.tsv), or images, BIDS, CAPS or plain folders, listed in scans.tsv of DIR"
    parser.add_argument("input", nargs="+", metavar="INPUT", help=words)
    parser.add_argument("--out", required=True, help="CAPS folder to write to")
    parser.add_argument(
        "--backend",
        choices=("simpleitk", "ants"),
        default="simpleitk",
        help="simpleitk (default) needs nothing else; ants, as Clinica, needs antspyx",
    )
    parser.add_argument("--template", help="template in MNI152 space, for instance Clinica's")
    parser.add_argument(
        "--assume-orientation", metavar="RAS", help="where the axes lead of files that do not say"
    )
    add_engine(parser)
    parser.add_argument(
        "--shard",
        metavar="I/N",
        help="only every N-th scan, from the I-th on (I from 0): writes outcome_I-of-N.tsv; when "
        "all shards have ended, the same call without --shard keeps their scans and writes "
        "outcome.tsv and the manifests",
    )
    parser.add_argument("--cache", action="store_true", help="also write float16 arrays")


def main(args: argparse.Namespace) -> int:
    """Preprocess and print what became of every scan that failed."""
    from motionlib.files import write_text
    from motionlib.preprocess.caps import preprocess_manifest
    from motionlib.preprocess.finder import write_scan_table
    from motionlib.typeset import render

    if args.shard and args.engine != "inline":
        raise ValueError("--shard and --engine exclude each other; give one of them.")
    outcome = preprocess_manifest(
        write_scan_table(args.input, args.out, report=say),
        args.out,
        backend=args.backend,
        template=args.template,
        engine=args.engine,
        shard=args.shard,
        cache=args.cache,
        orientation=args.assume_orientation,
        progress=say,
    )
    said, n_failed = tell_outcome(outcome)
    if args.shard:
        name = f"outcome_{args.shard.replace('/', '-of-')}.tsv"
        print(
            f"{said} of shard {args.shard}; one row per scan in {args.out}/{name}; when all shards "
            "have ended, run the same command without --shard for outcome.tsv and the manifests"
        )
    else:
        page = render("preprocess.html", rows=outcome.to_dict("records"), said=said)
        index = write_text(Path(args.out) / "qc" / "index.html", page)
        print(f"{said}; one row per scan in {args.out}/outcome.tsv; pictures: {index}")
    return 1 if n_failed else 0
