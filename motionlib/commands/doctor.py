"""Say what is installed, which devices, engines and data are seen, and what is missing."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``motionlib doctor``."""
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def main(args: argparse.Namespace) -> int:
    """Print the findings; 0 if nothing needed is missing, else 1."""
    import json
    from dataclasses import asdict
    from itertools import groupby

    from motionlib.study.doctor import BAD, examine

    findings = examine()
    missing = [finding.name for finding in findings if finding.state == BAD]
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
        return 1 if missing else 0
    for topic, rows in groupby(findings, key=lambda finding: finding.topic):
        print(topic)
        for row in rows:
            print(f"  {row.state:<8}{row.name:<22}{row.detail}")
    usable = [f.name.partition(" ")[2] for f in findings if f.detail == "can run"]
    print(f"profiles that can run: {', '.join(usable) or 'none'}")
    if missing:
        print(f"missing: {', '.join(missing)}")
    return 1 if missing else 0
