"""Run the ordered notebooks of a profile and build the report."""

import argparse
import os
import shlex
import signal
import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

from motionlib.commands import ENGINES, add_json, print_json
from motionlib.files import runs_root


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``motionlib study``."""
    parser.add_argument("--profile", default="demo", help="scale of the study (default: demo)")
    parser.add_argument("--only", metavar="02,03", help="run only these notebooks")
    parser.add_argument("--engine", metavar="E", help=f"{ENGINES} (default: the profile's, inline)")
    parser.add_argument("--runs", metavar="DIR", help="folder of all runs (default: runs/)")
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a parameter for every notebook that has it; NN.NAME=VALUE for one notebook",
    )
    parser.add_argument("--notebooks", metavar="DIR", help="folder of the notebooks")
    parser.add_argument("--dry-run", action="store_true", help="say what would run, and why")
    add_json(parser)
    from motionlib.study.notebooks import profile_descriptions

    parser.epilog = "profiles:\n" + "\n".join(
        f"  {name:<10}{words}" for name, words in profile_descriptions().items()
    )


def main(args: argparse.Namespace) -> int:
    """Run the study; 0 done, 1 a notebook stopped."""
    outcome = {"profile": args.profile, "dry_run": args.dry_run, "report": None}
    with redirect_stdout(sys.stderr) if args.json else nullcontext():
        status = _run(args, outcome)
    print_json(args, outcome | {"status": status})
    return status


def _run(args: argparse.Namespace, outcome: dict) -> int:
    """Run the study and note in `outcome` what has come of it."""
    from motionlib.study.notebooks import notebooks_folder, read_study
    from motionlib.study.run import headline
    from motionlib.study.runner import NotebookFailed, run_study

    notebooks = Path(args.notebooks).resolve() if args.notebooks else notebooks_folder()
    study = read_study(
        args.profile,
        notebooks=notebooks,
        runs=runs_root(args.runs),
        only=args.only,
        engine=args.engine,
        settings=args.set,
    )
    folder = runs_root(args.runs) / study.profile
    outcome["folder"] = folder
    former = signal.signal(signal.SIGTERM, _interrupt)  # a cluster that takes its node back
    index = None
    try:
        index = run_study(study, say=_say, dry_run=args.dry_run, report=_report)
    except NotebookFailed as failure:
        print(f"{failure}; resume: {resume_command(args)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted; resume: {resume_command(args)}", file=sys.stderr)
        return 1
    except BlockingIOError as busy:
        print(f"motionlib study: {busy}", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGTERM, former)
    if index is not None:
        outcome |= {"report": index, **headline(folder)}
        _say(f"report: {_near(index)}")
    return 0


def resume_command(args: argparse.Namespace) -> str:
    """Spell the command that goes on where this one stopped."""
    words = []
    for name in ("only", "engine", "runs", "notebooks"):
        if getattr(args, name):
            words += [f"--{name}", str(getattr(args, name))]
    for setting in args.set:
        words += ["--set", setting]
    if os.environ.get("MAKELEVEL"):
        extra = f' ARGS="{shlex.join(words)}"' if words else ""
        return f"make study PROFILE={args.profile}{extra}"
    return shlex.join(["motionlib", "study", "--profile", args.profile, *words])


def _interrupt(*_) -> None:
    """Stop in good order, as on Ctrl-C."""
    raise KeyboardInterrupt


def _report(folder: Path) -> Path:
    """Build the report, which needs nbconvert only where it is built."""
    from motionlib.study.report import build

    return build(folder)


def _say(line: str) -> None:
    """Print a line at once, also into a log file."""
    print(line, flush=True)


def _near(path: Path) -> Path:
    """Path as seen from here, where it lies below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
