"""Command ``score``: the probability of motion of every scan, and a page about them."""

import argparse
import sys
from collections import Counter
from pathlib import Path

from motionlib.commands import add_engine, add_json, add_pseudonymise, print_json, say, scans_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``motionlib score``."""
    words = "images (.nii, .nii.gz), BIDS, CAPS or plain folders, manifests (.tsv)"
    parser.add_argument("input", nargs="+", metavar="INPUT", help=words)
    parser.add_argument("--out", required=True, metavar="FILE.tsv", help="table to write")
    parser.add_argument("--model", metavar="DIR", help="model folder (default: the shipped model)")
    parser.add_argument(
        "--site-scans",
        nargs="+",
        metavar="INPUT",
        help="ungraded scans of the same scanner and protocol, 20 or more and most of them still, "
        "that set from where on a scan is doubted; the word same: the scans that are scored",
    )
    parser.add_argument("--report", metavar="FILE.html", help="default: beside the table")
    parser.add_argument("--no-report", action="store_true", help="write the table alone")
    parser.add_argument(
        "--device", choices=("cpu", "cuda", "auto"), default="cpu", help="default: cpu"
    )
    parser.add_argument("--dry-run", action="store_true", help="say how many scans would be read")
    add_pseudonymise(parser)
    add_engine(parser)
    add_json(parser)
    parser.add_argument(
        "--batch-size", type=int, default=16, metavar="N", help="scans a GPU batch (default: 16)"
    )


def main(args: argparse.Namespace) -> int:
    """Score every scan; 0 if all have a probability, 1 if some have none (the reasons are told)."""
    if args.report and args.no_report:
        raise ValueError("--report and --no-report exclude each other; give one of them")
    from motionlib.preprocess.finder import find_scans

    scans = scans_of(args)
    from motionlib.scoring.model import default_model
    from motionlib.scoring.score import plan_scores, score_scans

    model = Path(args.model) if args.model else default_model()
    if args.dry_run:
        counts = plan_scores(scans, model, args.out, device=args.device)
        say(f"{len(scans)} scans: {', '.join(f'{n} {what}' for what, n in counts.items())}")
        print_json(args, {"scans": len(scans), "model": str(model), **counts})
        return 0
    site = scans if args.site_scans == ["same"] else args.site_scans and find_scans(args.site_scans)
    rows = score_scans(
        scans,
        model,
        args.out,
        site=site,
        device=args.device,
        engine=args.engine,
        batch_size=args.batch_size,
        progress=say,
    )
    report = None
    if not args.no_report:
        from motionlib.scoring.reports import write_report

        report = args.report or str(Path(args.out).with_suffix(".html"))
        print(f"report: {write_report(rows, model, report)}", file=sys.stderr)
    broken = [row for row in rows if row["abstained"]]
    for row in broken:
        print(f"{row['scan_id']}: {row['reason']}", file=sys.stderr)
    counts = Counter(row["decision"] for row in rows if not row["abstained"])
    decisions = ", ".join(f"{counts[name]} {name}" for name in ("keep", "review", "exclude"))
    decisions += f"; {len(broken)} of {len(rows)} scans have no score" * bool(broken)
    print(f"{len(rows) - len(broken)} of {len(rows)} scans scored: {decisions}", file=sys.stderr)
    outcome = {"table": args.out, "report": report, "model": str(model), "scans": len(rows)}
    outcome |= {"without_score": {row["scan_id"]: row["reason"] for row in broken}, **counts}
    print_json(args, outcome)
    return 1 if broken else 0
