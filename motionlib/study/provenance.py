"""A run folder and this computer go in; what a reader needs to trust the numbers comes out."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

from motionlib import files
from motionlib.files import PACKAGE

PACKAGES = (
    *("torch", "torchio", "numpy", "scipy", "pandas", "scikit-learn", "statsmodels", "nibabel"),
    *("simpleitk", "finufft", "nilearn", "matplotlib", "papermill", "dask"),
)


class NotYet(FileNotFoundError):  # noqa: N818 - nothing went wrong
    """A file of the run that another notebook makes is not there yet."""


def repository() -> Path:
    """Folder that holds ``notebooks/`` and ``motionlib/``: above the cwd, else the package's."""
    for folder in (Path.cwd(), *Path.cwd().parents, PACKAGE.parent):
        if (folder / "motionlib").is_dir() and (folder / "notebooks").is_dir():
            return folder
    return Path.cwd()


def runs_root(runs: str | os.PathLike | None = None) -> Path:
    """Folder of all runs: the argument, else ``MOTIONLIB_RUNS``, else ``runs/`` of the repository.

    Parameters
    ----------
    runs : path-like, optional
        Overrides the environment variable.
    """
    chosen = runs or os.environ.get("MOTIONLIB_RUNS")
    return Path(chosen).expanduser().resolve() if chosen else repository() / "runs"


def describe() -> dict:
    """Versions, state of the repository and device, as plain values."""
    return {"versions": versions(), "git": git_state(), "device": device()}


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python, motionlib and the packages that numbers depend on; imports none."""
    found = {"python": platform.python_version()}
    for name in ("motionlib", *PACKAGES):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


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
def git_state() -> dict:
    """Commit of the repository and how many files differ from it; empty outside git."""
    root = repository()
    if not (root / ".git").exists() or not shutil.which("git"):
        return {}

    def ask(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    changed = ask("status", "--porcelain", "--untracked-files=no")
    commit = ask("rev-parse", "--verify", "--quiet", "HEAD")
    return {"commit": commit or None, "changed_files": len(changed.splitlines())}


def greeting(name: str, profile: str, seed: int, manifest_sha256: str | None) -> list[str]:
    """At most five lines about a run: computer, versions and data, without paths."""
    machine, found = device(), versions()
    gpu = f"GPU {machine['gpu']}" if machine["gpu"] else "no GPU"
    short = ("torch", "torchio", "numpy", "scikit-learn")
    return [
        f"motionlib {found.get('motionlib', '')} · {name} · profile {profile} · seed {seed}",
        f"{machine['system']} · {machine['cores']} cores · {gpu} · Python {found['python']}",
        " · ".join(f"{name} {found.get(name, 'missing')}" for name in short),
        f"manifest {manifest_sha256[:12]}" if manifest_sha256 else "no manifest yet",
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
    found: dict = {}
    for path in sorted((Path(folder) / "notes").glob("[0-9]*.json")):
        found.update(dict(files.read_json(path)))
    return found
