"""A run of the study: the folder where a notebook finds and leaves its files.

Everything that a run writes lies under ``runs/<profile>/``: tables, figures, predictions, models,
and the provenance of them all.  Notebooks share nothing but these files.
"""

import functools
import inspect
import os
import platform
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from importlib import metadata
from pathlib import Path

import pandas as pd

from motionlib import files, paper
from motionlib.files import repository, runs_root
from motionlib.predictions import check_predictions, load_predictions, select
from motionlib.study.notebooks import run_apart
from motionlib.typeset import show_tables_readably

LAYOUT = 2  # of a run folder; a run of another layout is never read as if it were this one's
DURATION_COLUMNS = ("notebook", "step", "model", "fold", "n", "seconds", "device")  # n steps
DURATION_KEYS = ["step", "model", "fold", "device"]
PARTS = ("cohort", "cache", "models", "tables", "figures", "predictions", "provenance")
PARTS += ("notes", "durations")
MAKERS = {  # artefact (pattern) -> number of the notebook that makes it
    "models/warehouse*": "04", "models/*": "02", "table_1": "01", "table_a1": "01",
    "table_a2": "01", "fig_a*": "01", "table_2": "02", "fig_1": "02", "fig_2": "02",
    "table_3": "03", "table_a3": "03", "table_4": "04", "table_a4": "04", "fig_3": "04",
    **dict.fromkeys(("agreement", "mcnemar", "scoreboard", "timing", "paper_audit"), "06"),
}  # fmt: skip
PACKAGES = (
    *("torch", "torchio", "numpy", "scipy", "pandas", "scikit-learn", "statsmodels", "nibabel"),
    *("simpleitk", "finufft", "nilearn", "matplotlib", "papermill", "dask"),
)


class Run:
    """One notebook's place in a run of the study.

    Parameters
    ----------
    name, profile : str
        Stem of the notebook, such as ``"03_architecture_benchmark"``, and scale of the study, such
        as ``smoke`` or ``demo``.
    seed : int
        Master seed of the run, recorded in the provenance.
    runs : path-like, optional
        Folder of all runs; see `runs_root`.
    quiet : bool, default=False
        Leave out the lines that describe computer, versions and manifest; leave tables alone.

    Attributes
    ----------
    folder : Path
        ``runs/<profile>``; in it `cohort` (``manifest.tsv``, ``cohort.json`` and the scans it
        points at), `cache` (prepared manifests and their volumes) and `models` (trainings).

    Raises
    ------
    ValueError
        If the name does not begin with two digits, the profile is not a plain word, or another
        version of motionlib has made the folder of the run.
    """

    def __init__(
        self,
        name: str,
        profile: str,
        seed: int,
        runs: str | os.PathLike | None = None,
        *,
        quiet: bool = False,
    ):
        if not re.fullmatch(r"\d\d_\w+", name):
            raise ValueError(f"run name is {name!r}; expected a notebook's stem, as '03_benchmark'")
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", profile):
            raise ValueError(f"profile is {profile!r}; expected one plain word, such as 'smoke'")
        self.name, self.seed = name, int(seed)
        # a notebook's parameters are variables of the module that calls
        values = inspect.currentframe().f_back.f_globals
        self.profile, self.changed = run_apart(name, profile, runs_root(runs), values)
        if self.changed:
            listed = ", ".join(f"{key} = {value!r}" for key, value in self.changed.items())
            print(f"{listed}: not as in the run {profile}, so this is a run apart, {self.profile}. "
                  f"Other notebooks go on with it by profile = {self.profile!r}.")  # fmt: skip
        self.folder = runs_root(runs) / self.profile
        self.cohort, self.cache, self.models = (self.folder / part for part in PARTS[:3])
        check_layout(self.folder, mark=True)
        self._made: list[str] = []
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        for part in PARTS:
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        self._describe()
        for part in ("predictions", "durations") if self.changed else ():
            self._join(part)
        if not quiet:
            show_tables_readably()
            print("\n".join(filter(None, [*_greeting(self), _prospect(self)])))

    @property
    def cohort_caption(self) -> str:
        """One sentence that tells which cohort the numbers are from, emulated or real."""
        return files.read_json(self.need("cohort/cohort.json"))["caption"]

    @property
    def manifest_sha256(self) -> str | None:
        """Checksum of the cohort's manifest, or None before notebook 01 has written it."""
        path = self.folder / "cohort" / "manifest.tsv"
        return files.sha256_file(path) if path.is_file() else None

    def save_table(self, table: pd.DataFrame, name: str) -> pd.DataFrame:
        """Write ``tables/<name>.csv`` and return the table."""
        path = files.write_table(table, self.folder / "tables" / f"{_plain(name)}.csv")
        self._record(path)
        return table

    def table(self, name: str, **draws) -> pd.DataFrame:
        """Make one table beside the paper's from what this run has written, save and return it.

        Parameters
        ----------
        name, **draws
            One of `paper.tables.TABLES`, such as ``"table_2"``, and `n_boot` and `seed` of its
            intervals, as for `paper.tables.build_table`, whose errors are raised.

        Returns
        -------
        DataFrame
            All rows of the paper's table at every profile; also ``tables/<name>.csv``.
        """
        return self.save_table(paper.build_table(name, self.folder, **draws), name)

    def save_figure(self, figure, name: str, *, alt: str | None = None):
        """Write ``figures/<name>.png`` (150 dpi) and ``.svg``, and return the figure.

        The same figure gives the same bytes. It is closed for pyplot, so that a notebook shows it
        once, as the value of its cell; its size and layout are left alone.

        Parameters
        ----------
        name : str
            The paper's label in lower case, such as ``"fig_3"``.
        alt : str, optional
            What a reader who cannot see the figure should know; the report shows it.
        """
        import matplotlib

        stem = self.folder / "figures" / _plain(name)
        with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
            for suffix, facts in ((".png", {"Software": None}), (".svg", {"Date": None})):
                with files.atomic(stem.with_suffix(suffix)) as aside:
                    figure.savefig(aside, dpi=150, metadata=facts)
                self._record(stem.with_suffix(suffix))
        if alt:
            files.write_text(stem.with_suffix(".txt"), " ".join(alt.split()) + "\n")
        if "matplotlib.pyplot" in sys.modules:
            sys.modules["matplotlib.pyplot"].close(figure)
        return figure

    def save_predictions(self, predictions: pd.DataFrame) -> pd.DataFrame:
        """Write ``predictions/<notebook>.csv``, rebuild ``predictions.csv``, return the rows."""
        rows = check_predictions(predictions)
        self._record(files.write_table(rows, self.folder / "predictions" / f"{self.name}.csv"))
        self._join("predictions")
        return rows

    def predictions(self, experiment: str = "*", *, task: str = "*", model: str = "*"):
        """Rows of ``predictions.csv`` whose keys match patterns such as ``"warehouse/*"``."""
        rows = load_predictions(self.need("predictions.csv").parent)
        return select(rows, experiment, task=task, model=model)

    def need(self, what: str | os.PathLike, *, notebook: str | None = None) -> Path:
        """Path of a file of this run, or a sentence that says which notebook to run first.

        `what` is a path within the run (``"cohort/manifest.tsv"``), an artefact's name
        (``"table_2"``) or a notebook's number (``"02"``); `notebook` the number of the one that
        makes it, where the name alone does not tell.
        """
        inside = Path(what).is_relative_to(self.folder)
        text = Path(what).relative_to(self.folder).as_posix() if inside else str(what)
        if number := re.fullmatch(r"(\d\d)(_\w+)?", text):
            places = sorted((self.folder / "provenance").glob(f"{number[1]}_*.json"))
        else:
            parts = ("", "tables", "figures", "predictions")
            ends = ("", ".csv", ".png")
            places = [self.folder / part / f"{text}{end}" for end in ends for part in parts]
        for place in places:
            if place.exists():
                return place
        # who makes it: who was named, whose number it bears, else as in MAKERS, else notebook 01
        stem = Path(text).stem
        known = [m for key, m in MAKERS.items() if fnmatchcase(stem, key) or fnmatchcase(text, key)]
        digits = re.match(r"\d\d", stem)
        maker = notebook or (digits[0] if digits else (known or ["01"])[0])
        option = "" if self.profile == "smoke" else f" PROFILE={self.profile}"
        raise FileNotFoundError(
            f"profile {self.profile} has no {text} yet. "
            f"Run {maker} first: make nb NB={maker}{option}"
        )

    def note(self, key: str, value) -> None:
        """Keep a headline number, shown at the end of the study and on top of the report."""
        path = self.folder / "notes" / f"{self.name}.json"
        notes = dict(files.read_json(path)) if path.is_file() else {}
        value = value.item() if hasattr(value, "item") else value
        files.write_json(path, [*{**notes, key: value}.items()])  # pairs keep their order

    def duration(
        self,
        step: str,
        seconds: float,
        *,
        model: str = "",
        fold: int | None = None,
        n: int = 1,
        device: str = "cpu",
    ) -> None:
        """Record how long a step took in seconds; a step recorded again replaces its former row.

        `step` says what was done (``"train"``), `model` by which network or method, `fold` on which
        fold of the cross-validation, `n` in how many equal parts (optimiser steps of a training),
        `device` where.
        """
        path = self.folder / "durations" / f"{self.name}.csv"
        row = (self.name, step, model, "" if fold is None else fold, n, f"{seconds:.3f}", device)
        table = pd.DataFrame([map(str, row)], columns=DURATION_COLUMNS)
        if path.is_file():
            old = pd.read_csv(path, dtype=str, keep_default_na=False)
            same = (old[DURATION_KEYS] == table.loc[0, DURATION_KEYS]).all(axis=1)
            table = pd.concat([old.loc[~same], table])
        files.write_table(table, path)
        self._join("durations")

    def durations(self) -> pd.DataFrame:
        """Everything that `duration` recorded in this run, by all notebooks."""
        path = self.folder / "durations.csv"
        return pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=DURATION_COLUMNS)

    def _record(self, path: Path) -> None:
        """Add an artefact to this notebook's provenance."""
        relative = path.relative_to(self.folder).as_posix()
        if relative not in self._made:
            self._made.append(relative)
            self._describe()

    def _describe(self) -> None:
        """Write this notebook's part of the provenance."""
        facts = {"notebook": self.name, "profile": self.profile, "seed": self.seed}
        facts |= {"started": self._started, "makes": sorted(self._made)}
        facts |= {"versions": versions(), "git": _git_state(), "device": device()}
        facts |= {"changed": self.changed, "manifest_sha256": self.manifest_sha256}
        files.write_json(self.folder / "provenance" / f"{self.name}.json", facts)

    def _join(self, part: str) -> None:
        """Rebuild ``<part>.csv`` from the notebooks' own files, in their order."""
        texts = [p.read_text("utf-8") for p in sorted((self.folder / part).glob("[0-9]*.csv"))]
        bodies = [text if i == 0 else text.partition("\n")[2] for i, text in enumerate(texts)]
        if bodies:
            files.write_text(self.folder / f"{part}.csv", "".join(bodies))


def _plain(name: str) -> str:
    """Return an artefact's name if it is one lower-case word."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_]*", name):
        raise ValueError(f"artefact name is {name!r}; expected lower-case words, as 'table_3'")
    return name


def check_layout(folder: Path, *, mark: bool = False) -> None:
    """Refuse a run folder that another version of motionlib has made: a ValueError.

    With `mark` the folder is marked as laid out by this one.
    """
    record = folder / "layout.json"
    if record.is_file():
        known = files.read_json(record)["layout"] == LAYOUT
    else:  # before layouts were marked
        parts = ("stamps", "provenance", "predictions", "cohort")
        patterns = ("[0-9]*.json", "[0-9]*.csv", "cohort.json")
        known = not any(any((folder / p).glob(pattern)) for p in parts for pattern in patterns)
    if not known:
        raise ValueError(
            f"run {folder.name} was made by another version of motionlib, whose files this one "
            "does not read; delete its folder, or name another one with --runs"
        )
    if mark and not record.is_file():
        files.write_json(record, {"layout": LAYOUT})


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python, motionlib and the packages that numbers depend on; imports none."""
    known = {"python": platform.python_version()}
    for name in ("motionlib", *PACKAGES):
        with suppress(metadata.PackageNotFoundError):
            known[name] = metadata.version(name)
    return known


@functools.cache
def device() -> dict:
    """Operating system, cores, memory in GiB and GPU of this computer; no names, no paths."""
    gpu = None
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        gpu = asked.stdout.strip().replace("\n", ", ") if asked.returncode == 0 else None
    memory = None
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    system = f"{platform.system()} {platform.machine()}"
    return {"system": system, "cores": os.cpu_count(), "memory_gib": memory, "gpu": gpu or None}


@functools.cache
def _git_state() -> dict:
    """Commit of the repository and how many files differ from it; empty outside git."""
    root = repository()
    if not (root / ".git").exists() or not shutil.which("git"):
        return {}

    command = ["git", "-C", str(root), "status", "--porcelain=v2", "--branch"]
    command += ["--untracked-files=no"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    commits = [line.split()[-1] for line in asked if line.startswith("# branch.oid")]
    known = bool(commits) and commits[0] != "(initial)"
    changed = sum(not line.startswith("#") for line in asked)
    return {"commit": commits[0] if known else None, "changed_files": changed}


def _prospect(run: Run) -> str:
    """Say what to expect: nothing of smoke; time, where the study has not run a notebook yet."""
    if run.profile.startswith("smoke"):
        return "Profile smoke tests the machinery: NETWORKS THAT HAVE LEARNT NOTHING."
    record = repository() / "results" / run.profile / "provenance.json"
    seconds = files.read_json(record)["durations_s"].get(run.name) if record.is_file() else 0
    if not seconds or (run.folder / "stamps" / f"{run.name[:2]}.json").is_file():
        return ""
    return f"Not run by the study yet: some {seconds / 60:.0f} min on two cores, less what is there"


def _greeting(run: Run) -> list[str]:
    """At most five lines about a run: computer, versions and data, without paths."""
    machine, known = device(), versions()
    gpu = f"GPU {machine['gpu']}" if machine["gpu"] else "no GPU"
    short = ("torch", "torchio", "numpy", "scikit-learn")
    return [
        f"motionlib {known.get('motionlib', '')} · {run.name} · profile {run.profile} "
        f"· seed {run.seed}",
        f"{machine['system']} · {machine['cores']} cores · {gpu} · Python {known['python']}",
        " · ".join(f"{name} {known.get(name, 'missing')}" for name in short),
        f"manifest {run.manifest_sha256[:12]}" if run.manifest_sha256 else "no manifest yet",
    ]


def collect_provenance(folder: str | os.PathLike) -> dict:
    """Merge the notebooks' parts into ``provenance.json`` of a run folder, and return it."""
    folder = Path(folder)
    parts = [files.read_json(path) for path in sorted((folder / "provenance").glob("[0-9]*.json"))]
    if not parts and (folder / "provenance.json").is_file():
        return files.read_json(folder / "provenance.json")  # a published copy keeps its own
    stamps = [files.read_json(path) for path in sorted((folder / "stamps").glob("[0-9]*.json"))]
    newest = max(parts, key=lambda part: part["started"], default={})
    cohort = folder / "cohort" / "cohort.json"
    whole = {
        "profile": newest.get("profile", folder.name),
        "seeds": {part["notebook"]: part["seed"] for part in parts},
        "manifest_sha256": newest.get("manifest_sha256"),
        "cohort": files.read_json(cohort) if cohort.is_file() else None,
        **{key: newest.get(key, {}) for key in ("versions", "git", "device")},
        "parameters": {stamp["notebook"]: stamp["parameters"] for stamp in stamps},
        "durations_s": {stamp["notebook"]: stamp["seconds"] for stamp in stamps},
        "artefacts": {part["notebook"]: part["makes"] for part in parts},
    }
    files.write_json(folder / "provenance.json", whole)
    return whole


def headline(folder: str | os.PathLike) -> dict:
    """Headline numbers that the notebooks of a run noted, in their order."""
    paths = sorted((Path(folder) / "notes").glob("[0-9]*.json"))
    return {key: value for path in paths for key, value in files.read_json(path)}
