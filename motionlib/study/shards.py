"""A study and one shard's number go in; that shard's trainings come out, and what to do next.

In every notebook the cells that lead to trainings are tagged ``shard``.  A shard runs these cells
and no other in its own process: each takes its share of the trainings there and leaves the rest.
A later run of the whole notebook finds them all and makes the tables.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from motionlib.compute.engines import LeftToOthers
from motionlib.study.notebooks import Notebook, Study, text
from motionlib.study.runner import NotebookFailed, check_writable, only_one, plan

TAG = "shard"


@dataclass
class Share:
    """What a shard has done in one notebook.

    Attributes
    ----------
    trained, found : int
        Trainings of the shard made now, and there before.
    left : int
        Trainings of other shards that were not there when this one met them.
    waits : bool
        Further trainings depend on those of other shards.
    faults : list of str
        One sentence a failure.
    """

    trained: int = 0
    found: int = 0
    left: int = 0
    waits: bool = False
    faults: list[str] = field(default_factory=list)


def run_shard(study: Study, which: str, *, say: Callable[[str], None] = print) -> str:
    """Make one shard's trainings of the chosen notebooks.

    Parameters
    ----------
    study : Study
        From `profiles.read_study`.
    which : str
        ``"I/N"``.
    say : callable
        Takes one line of text.

    Returns
    -------
    str
        What was done and what is left.

    Raises
    ------
    NotebookFailed
        If a training or a cell failed; the other trainings of the shard are made all the same.
    ValueError
        If no chosen notebook trains, or one before them must run first.
    """
    chosen = to_train(study)
    check_writable(study.folder)
    check_cohort(study)
    os.environ["MOTIONLIB_RUNS"] = str(study.folder.parent.resolve())
    os.environ.setdefault("MPLBACKEND", "Agg")
    shares = []
    with only_one(study.folder, shard=which):
        for notebook in chosen:
            say(f"{notebook.stem}, shard {which}")
            waiting = any(share.left or share.waits for share in shares)
            share = run_cells(notebook, study.parameters[notebook.stem], waiting=waiting)
            before = f", {share.found} of them before" if share.found else ""
            say(f"  {share.trained + share.found} trainings done{before}")
            shares.append(share)
    faults = [fault for share in shares for fault in share.faults]
    if faults:
        raise NotebookFailed(f"shard {which}: {faults[0]}")
    return summary(which, shares)


def shard_of(study: Study, engine: str | None) -> str | None:
    """Name the shard that a call asks for (``"I/N"``), or None.

    Raises
    ------
    ValueError
        If only some notebooks were given a shard.
    """
    kind, _, which = (engine or "").partition(":")
    if kind == "shard":
        return which
    for stem, values in study.parameters.items():
        if str(values.get("engine", "")).startswith("shard:"):
            raise ValueError(f"{stem} was given engine {values['engine']}; give it as --engine")
    return None


def to_train(study: Study) -> list[Notebook]:
    """Notebooks of the study that train, in their order.

    Raises
    ------
    ValueError
        If one was asked for that does not.
    """
    training = [one for one in study.notebooks if shared_cells(one)]
    names = ", ".join(one.number for one in training)
    for number in study.only:
        if number not in [one.number for one in training]:
            raise ValueError(
                f"notebook {number} has no trainings to share; expected one of {names or 'none'}"
            )
    return [one for one in training if not study.only or one.number in study.only]


def shared_cells(notebook: Notebook) -> list[str]:
    """Give the sources of the cells that a shard runs, the parameters not among them."""
    code = [cell for cell in notebook.cells if cell["cell_type"] == "code"]
    return [text(cell) for cell in code if TAG in cell["metadata"].get("tags", [])]


def check_cohort(study: Study) -> None:
    """Refuse to train on a cohort that the next run of the study would make anew."""
    first = plan(replace(study, only=()))[0]
    if first.reason:
        raise ValueError(
            f"{first.notebook.stem} must run before shards can train ({first.reason}); give the "
            f"same command with --only {first.notebook.number} and no shard"
        )


def run_cells(notebook: Notebook, values: dict, *, waiting: bool = False) -> Share:
    """Run the cells of a notebook that lead to trainings, in this process.

    A cell that raises `LeftToOthers` has done its share.  One that then misses what it would have
    made waits for the other shards (so does, with `waiting`, one whose earlier notebook is left in
    part): the rest of the notebook is left for the next time.
    """
    from motionlib.study.run import NotYet, Run

    share, lost = Share(), set()
    space = {name: one.default for name, one in notebook.parameters.items()} | values
    Run.keeps_provenance = False
    try:
        for source in shared_cells(notebook):
            try:
                exec(compile(source, notebook.path.name, "exec"), space)
            except LeftToOthers as done:
                share.trained += getattr(done, "trained", 0)
                share.found += getattr(done, "found", 0)
                share.left += getattr(done, "left", 0)
                lost |= assigned(source)
            except (NotYet, NameError) as missing:
                known = isinstance(missing, NotYet) or missing.name in lost
                if known and (share.left or waiting):
                    share.waits = True
                elif not (known and share.faults):
                    share.faults.append(_sentence(notebook, missing))
                return share
            except Exception as error:
                share.faults.append(_sentence(notebook, error))
                lost |= assigned(source)
    finally:
        Run.keeps_provenance = True
    return share


def assigned(source: str) -> set[str]:
    """Names that a cell gives values to."""
    nodes = ast.walk(ast.parse(source))
    return {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def summary(which: str, shares: list[Share]) -> str:
    """Say in one sentence what a shard has done and what comes next."""
    done = sum(share.trained + share.found for share in shares)
    new = sum(share.trained for share in shares)
    words = f"shard {which}: {done} trainings done, {new} of them now; "
    if any(share.waits for share in shares):
        return words + (
            "further trainings need those of the other shards, so run all shards once more when "
            "they have ended"
        )
    left = sum(share.left for share in shares)
    if left:
        words += f"{left} are left to the other shards; when they have ended, "
    else:
        words += "none is left; "
    return words + "run the same command without --engine shard to make the tables"


def _sentence(notebook: Notebook, error: Exception) -> str:
    """Name a fault as the runner of notebooks does."""
    said = " ".join(str(error).split()).rstrip(".")
    return f"{notebook.stem} stopped: {type(error).__name__}: {said}"
