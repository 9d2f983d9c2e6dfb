"""The command ``motionlib``: one subcommand a file, an exit status, one sentence per fault."""

from __future__ import annotations

import argparse
import os
import pkgutil
import sys
from importlib import import_module

import motionlib
from motionlib import commands

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
OK, FAILED, WRONG_CALL = 0, 1, 2
WRONG_CALL_ERRORS = (
    *(ValueError, FileNotFoundError, NotADirectoryError, IsADirectoryError),
    *(PermissionError, FileExistsError),
)


class Parser(argparse.ArgumentParser):
    """Argument parser that says what is wrong in one sentence."""

    def error(self, message: str):
        """Print the fault and where to read more, then exit with status 2."""
        self.exit(WRONG_CALL, f"{self.prog}: {message}; see {self.prog} --help\n")


def available() -> list[str]:
    """Names of the commands that are installed, in the order of the help page."""
    installed = {module.name for module in pkgutil.iter_modules(commands.__path__)}
    return [name for name in SUMMARIES if name in installed]


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
        )
        if name == chosen:
            import_module(f"motionlib.commands.{name}").add_arguments(command)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command: 0 done; 1 failed in part or whole (the finished is kept); 2 wrong call."""
    words = sys.argv[1:] if argv is None else list(argv)
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
        status = import_module(f"motionlib.commands.{args.command}").main(args)
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


def sentence(error: BaseException) -> str:
    """Say in one sentence what an exception means to the caller."""
    if isinstance(error, ModuleNotFoundError):
        return f"the package {error.name} is not installed; motionlib doctor lists what is missing"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    from motionlib.compute.engines import in_words  # not above: a package may be missing

    where = "" if isinstance(error, WRONG_CALL_ERRORS) else " (MOTIONLIB_DEBUG=1 shows where)"
    return in_words(error) + where


def _say(command: str | None, text: str, status: int) -> int:
    """Print one sentence to stderr and return the status."""
    prefix = f"motionlib {command}" if command in SUMMARIES else "motionlib"
    print(f"{prefix}: {text}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
