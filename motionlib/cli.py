"""The command ``motionlib``: one subcommand a file, an exit status, one sentence per fault."""

import argparse
import errno
import os
import re
import shlex
import sys
from collections import Counter
from contextlib import suppress
from datetime import datetime
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

import motionlib
from motionlib.files import runs_root

SUMMARIES = {
    "study": "run the ordered notebooks of a profile and build the report",
    "manifest": "write the manifest of a cohort",
    "preprocess": "register and crop the scans of a manifest (t1-linear)",
    "simulate": "corrupt one NIfTI image with motion",
    "iqms": "measure the image quality of scans",
    "finetune": "fine-tune a model on your own grades",
    "score": "give each scan its probability of motion",
    "fetch": "download an open data set",
    "doctor": "say what is installed, seen and missing",
}
EXAMPLES = {
    "study": "--profile demo --engine local:4",
    "manifest": "bids my_bids --out scans.tsv",
    "preprocess": "scans.tsv --out caps",
    "simulate": "still_T1w.nii.gz moved_T1w.nii.gz --translation-mm 2 4",
    "iqms": "my_bids --out metrics.tsv",
    "finetune": "grades.tsv --task mov01vs2 --out my_model",
    "score": "my_bids --out scores.tsv",
    "fetch": "ixi data/ixi --subset 20",
    "doctor": "",
}
WRITTEN = {"finetune": ("grades.csv", "predictions.csv")}  # in its folder; others: manifest.tsv
OK, FAILED, WRONG_CALL = 0, 1, 2
PLACE = re.compile(  # an absolute path, but for its last name: it may tell a user or a patient
    r"(?<![\w.:/~…])(?:/|[A-Za-z]:\\)(?:(?:[^/\\\s'\":]| (?![-/]))+[/\\])+"
)
WRONG_CALL_ERRORS = (
    *(ValueError, FileNotFoundError, NotADirectoryError, IsADirectoryError),
    *(PermissionError, FileExistsError),
)


class Parser(argparse.ArgumentParser):
    """Argument parser that says what is wrong in one sentence."""

    def error(self, message: str):
        """Print the fault, what may have been meant and where to read more; exit with status 2."""
        if choice := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message):
            near = get_close_matches(choice[1], re.findall(r"[\w.-]+", choice[2]), n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {choice[2]}"
            message = f"{message[: choice.start()]}invalid choice: {choice[1]!r}; {hint}"
        self.exit(WRONG_CALL, f"{self.prog}: {message}; see {self.prog} --help\n")


def available() -> list[str]:
    """Names of the commands, in the order of the help page."""
    return list(SUMMARIES)


def build_parser(chosen: str | None = None) -> argparse.ArgumentParser:
    """Parser of all commands; only the chosen one brings its options (and its imports)."""
    parser = Parser(prog="motionlib", description=motionlib.__doc__, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=motionlib.__version__)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for name in available():
        summary = SUMMARIES[name]
        command = subparsers.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == chosen:
            import_module(f"motionlib.commands.{name}").add_arguments(command)
            more = f"\n\n{command.epilog}" if command.epilog else ""
            command.epilog = f"example:\n  motionlib {name} {EXAMPLES[name]}{more}"
    return parser


class Logged:
    """A stream whose lines also go, with the time, into a log file that begins with the call.

    `waiting` holds the call until there is a first line, and lines until the work has made the
    log's folder, for a call that is refused leaves nothing; several streams share it.
    """

    def __init__(self, stream, path: Path, waiting: list[str]):
        self.stream, self.path, self.waiting, self.rest = stream, path, waiting, ""

    def write(self, text: str) -> int:
        """Write to the stream, and what has become whole lines to the log."""
        *lines, self.rest = (self.rest + text).split("\n")
        if lines := [line.rpartition("\r")[2].rstrip() for line in lines if line.strip()]:
            self.keep(lines)
        return self.stream.write(text)

    def keep(self, lines: list[str]) -> None:
        """Put lines into the log, after those that wait; in a place not made yet they wait."""
        time = datetime.now().astimezone().isoformat(timespec="seconds")
        self.waiting += lines
        with suppress(OSError), open(self.path, "a", encoding="utf-8") as file:
            file.writelines(f"{time} {PLACE.sub('…/', line)}\n" for line in self.waiting)
            self.waiting.clear()

    def __getattr__(self, name: str):
        """Be the stream in everything else."""
        return getattr(self.stream, name)


def log_file(args: argparse.Namespace) -> Path | None:
    """Say where a call keeps what it prints: beside its table, in its folder, or in its run's."""
    if args.command == "study" and not args.dry_run:
        return runs_root(args.runs) / Path(args.profile).stem / "study.log"
    out = Path(getattr(args, "out", ""))
    if getattr(args, "dry_run", False) or not out.name:
        return None
    return out.with_suffix(".log") if out.suffix else out / f"{args.command}.log"


def main(argv: list[str] | None = None) -> int:
    """Run one command: 0 done; 1 failed in part or whole (the finished is kept); 2 wrong call."""
    try:
        return _run(sys.argv[1:] if argv is None else list(argv))
    finally:
        for name in ("stdout", "stderr"):
            if isinstance(stream := getattr(sys, name), Logged):
                setattr(sys, name, stream.stream)


def _run(words: list[str]) -> int:
    """Run one command, with its faults in words."""
    chosen = next((word for word in words if not word.startswith("-")), None)
    try:
        parser = build_parser(chosen)
        args, rest = parser.parse_known_args(words)
        if rest:
            help_page = " ".join(filter(None, ["motionlib", args.command, "--help"]))
            fault = f"unrecognised arguments: {' '.join(rest)}; see {help_page}"
            return _say(chosen, fault, WRONG_CALL)
        if args.command is None:
            parser.print_help()
            return WRONG_CALL
        _keep_inputs(words, vars(args).get("out") or vars(args).get("output"), args.command)
        if path := log_file(args):
            masked = getattr(args, "pseudonymise", None)
            names = [*args.input, *(getattr(args, "site_scans", None) or ())] if masked else ()
            shown = ["…" if word in names else word for word in words]
            waiting = [shlex.join(["motionlib", *shown])]
            sys.stdout = Logged(sys.stdout, path, waiting)
            sys.stderr = Logged(sys.stderr, path, waiting)
        status = import_module(f"motionlib.commands.{args.command}").main(args)
        if isinstance(sys.stdout, Logged):
            sys.stdout.keep([])
        return OK if status is None else int(status)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else FAILED
    except KeyboardInterrupt:
        return _say(chosen, "interrupted; what is finished is kept, repeat to go on", FAILED)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - the reader of our output has gone
        return FAILED
    except Exception as error:
        if os.environ.get("MOTIONLIB_DEBUG") == "1":
            raise
        faults = getattr(error, "faults", None)
        if faults is not None:
            print(faults.to_string(index=False), file=sys.stderr)
        status = WRONG_CALL if isinstance(error, WRONG_CALL_ERRORS) else FAILED
        return _say(chosen, sentence(error), status)


def _keep_inputs(words: list[str], out: str | None, command: str) -> None:
    """Refuse, before any work, an output that cannot be written or that the call reads."""
    place, given = Path(out or ""), Counter(words) - Counter([out])
    read = {Path(word).resolve() for word in given if os.path.isfile(word)}
    wanted = {"score": "table", "iqms": "table", "preprocess": "folder", "finetune": "folder"}
    kind = wanted.get(command) if out else None
    if kind and place.exists() and place.is_dir() != (kind == "folder"):
        raise ValueError(f"{out} is there and is no {kind}; expected the name of a {kind} to write")
    for path in (place, *(place / name for name in WRITTEN.get(command, ("manifest.tsv",)))):
        if path.resolve() in read:
            raise ValueError(f"{path.name} is read by this call; name another place to write")


def sentence(error: BaseException) -> str:
    """Say in one sentence what an exception means to the caller."""
    if isinstance(error, ModuleNotFoundError):
        return f"the package {error.name} is not installed; motionlib doctor lists what is missing"
    if isinstance(error, OSError) and error.strerror:
        what = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
        full = error.strerror == os.strerror(errno.ENOSPC)
        return what + full * "; what is finished is kept, so free some space and repeat"
    from motionlib.compute.engines import in_words  # not above: a package may be missing

    where = "" if isinstance(error, WRONG_CALL_ERRORS) else " (MOTIONLIB_DEBUG=1 shows where)"
    return in_words(error) + where


def _say(command: str | None, text: str, status: int) -> int:
    """Print one sentence to stderr and return the status."""
    prefix = f"motionlib {command}" if command in SUMMARIES else "motionlib"
    stream = sys.stderr
    if status == WRONG_CALL and isinstance(stream, Logged) and stream.waiting:
        stream = stream.stream  # a call that began nothing leaves no log
    print(f"{prefix}: {text}", file=stream)
    return status


if __name__ == "__main__":
    sys.exit(main())
