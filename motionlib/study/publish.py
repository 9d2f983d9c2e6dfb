"""A finished run goes in; its tables, figures, predictions and provenance come out to commit.

Scans, checkpoints and caches stay where they are.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from motionlib import files
from motionlib.study.provenance import repository, runs_root
from motionlib.study.readme import insert

KEPT = ("predictions.csv", "splits.csv", "provenance.json", "durations.csv")
HEADLINE = "real"  # the profile whose table opens the README
NEVER = ("smoke",)  # its numbers mean nothing


def publish(run: Path, results: Path, *, predictions: bool = True) -> list[str]:
    """Copy what may be committed from a finished run.

    Parameters
    ----------
    run : Path
        Folder of the run, ``runs/<profile>``.
    results : Path
        Folder that receives it, ``results/<profile>``; its former tables and figures go.
    predictions : bool, default=True
        Copy ``predictions.csv`` too, which names scans; leave it out where a licence says so.

    Returns
    -------
    list of str
        Names of the files copied.

    Raises
    ------
    ValueError
        If the run is of a profile that is never published, or is not finished.
    """
    if run.name in NEVER:
        raise ValueError(f"results of the profile {run.name} mean nothing; publish another one")
    stamps = [files.read_json(path) for path in sorted((run / "stamps").glob("[0-9]*.json"))]
    open_ones = [stamp["notebook"] for stamp in stamps if not stamp.get("key")]
    if not stamps or open_ones:
        what = f"{', '.join(open_ones)} not finished" if open_ones else "nothing has run"
        raise ValueError(
            f"profile {run.name} is not finished ({what}); run: make study PROFILE={run.name}"
        )
    copied = []
    for part in ("tables", "figures"):
        shutil.rmtree(results / part, ignore_errors=True)
        for path in sorted((run / part).iterdir()):
            copied.append(f"{part}/{path.name}")
    copied += [name for name in KEPT if (run / name).is_file()]
    if not predictions:
        copied.remove("predictions.csv")
    for name in copied:
        (results / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run / name, results / name)
    return copied


def main(argv: list[str] | None = None) -> int:
    """Publish one profile from the command line (``make results PROFILE=real``)."""
    parser = argparse.ArgumentParser(
        prog="python -m motionlib.study.publish", description=main.__doc__
    )
    parser.add_argument("--profile", required=True)
    parser.add_argument("--runs", metavar="DIR")
    parser.add_argument("--without-predictions", action="store_true")
    args = parser.parse_args(argv)
    results = repository() / "results" / args.profile
    try:
        run = runs_root(args.runs) / args.profile
        copied = publish(run, results, predictions=not args.without_predictions)
        if args.profile == HEADLINE:
            insert(repository() / "README.md", results)
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{len(copied)} files in results/{args.profile}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
