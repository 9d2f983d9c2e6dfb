"""The doctor: what is installed, seen and missing on this computer, as rows of a table.

Nothing here names a user, a host or an absolute path, so the table can be pasted into an issue.
"""

import os
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from motionlib import files
from motionlib.study import run
from motionlib.study.notebooks import data_needed, find_notebooks, notebooks_folder, read_profile

GOOD, ABSENT, BAD = "ok", "absent", "missing"
EXTRAS_FOR = {
    "test": "the tests",
    "hpc": "engine slurm and the dashboard",
    "ants": "preprocess --backend ants",
    "docs": "make docs",
    "browser": "make browser",
}


@dataclass(frozen=True)
class Finding:
    """One row: what was looked at, how it stands, and what is known.

    `state` is ``ok``, ``absent`` (a choice that is not there) or ``missing``: without it not even
    scans can be scored.
    """

    topic: str
    name: str
    state: str
    detail: str


def examine() -> list[Finding]:
    """Look at packages, devices, engines, data, profiles and runs."""
    looks = (packages, devices, engines, data, profiles, runs)
    return [finding for look in looks for finding in look()]


def packages() -> list[Finding]:
    """Core packages and extras against the package's own requirements."""
    try:
        required = [Requirement(line) for line in metadata.requires("motionlib") or []]
    except metadata.PackageNotFoundError:
        return [Finding("packages", "motionlib", BAD, "not installed; run: pip install -e .")]
    core = [r for r in required if r.marker is None or r.marker.evaluate({"extra": ""})]
    faults = "; ".join(filter(None, map(_fault, core)))
    detail = faults or f"{len(core)} packages as required"
    rows = [
        Finding("packages", "python", GOOD, run.versions()["python"]),
        Finding("packages", "motionlib", GOOD, metadata.version("motionlib")),
        Finding("packages", "core", BAD if faults else GOOD, detail),
    ]
    for extra in metadata.metadata("motionlib").get_all("Provides-Extra", []):
        use = EXTRAS_FOR.get(extra, extra)
        its = [r for r in required if r.marker and r.marker.evaluate({"extra": extra})]
        faults = "; ".join(filter(None, map(_fault, its)))
        detail = f"for {use}; {faults}; add with pip install -e .[{extra}]" if faults else use
        rows.append(Finding("packages", f"extra {extra}", ABSENT if faults else GOOD, detail))
    return rows


def _fault(requirement: Requirement) -> str:
    """Say what is wrong with an installed package, or nothing; none is imported."""
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement.name} is not installed"
    if requirement.specifier.contains(version, prereleases=True):
        return ""
    return f"{requirement.name} is {version}, expected {requirement.specifier}"


def devices() -> list[Finding]:
    """Processor, memory, place of compiled code, and GPU as PyTorch sees them."""
    machine = run.device()
    memory = f", {machine['memory_gib']} GiB" if machine["memory_gib"] else ""
    detail = f"{machine['system']}, {machine['cores']} cores{memory}"
    rows = [Finding("devices", "cpu", GOOD, detail), _compiled_code()]
    try:
        import torch  # seconds, which no other command of this room spends
    except ImportError:
        return [*rows, Finding("devices", "torch", BAD, "not installed; run: make setup")]
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return [*rows, Finding("devices", "cuda", GOOD, ", ".join(names))]
    cause = "no GPU found; training runs on the processor"
    if machine["gpu"]:
        cause = f"{machine['gpu']} is there, but this build of torch cannot use it"
    return [*rows, Finding("devices", "cuda", ABSENT, cause)]


def engines() -> list[Finding]:
    """Engines that notebooks can compute on."""
    dask = BAD if _fault(Requirement("distributed")) else GOOD
    slurm = shutil.which("sbatch") and not _fault(Requirement("dask-jobqueue"))
    detail = "jobs of a cluster" if slurm else "needs sbatch and pip install -e .[hpc]"
    return [
        Finding("engines", "inline", GOOD, "in the notebook itself"),
        Finding("engines", "local", dask, "worker processes on this computer"),
        Finding("engines", "tcp", dask, "workers of a running dask scheduler"),
        Finding("engines", "slurm", GOOD if slurm else ABSENT, detail),
    ]


def data() -> list[Finding]:
    """Folders that the environment variables name, and the shipped model."""
    rows = []
    for variable, use in (
        ("MOTIONLIB_DATA", "real scans, for the profile real"),
        ("MOTIONLIB_REFERENCE", "what other programs computed, for the tests"),
    ):
        folder = Path(os.environ.get(variable, "")).expanduser()
        if not os.environ.get(variable):
            rows.append(Finding("data", variable, ABSENT, f"not set; {use}"))
        elif not folder.is_dir():
            rows.append(Finding("data", variable, ABSENT, "set, but no such folder: correct it"))
        else:
            parts = sorted(part.name for part in folder.iterdir() if part.is_dir())
            rows.append(Finding("data", variable, GOOD, ", ".join(parts) or "empty"))
    if (files.PACKAGE / "model" / "weights.safetensors").is_file():
        return [*rows, Finding("data", "model", GOOD, "for motionlib score")]
    return [*rows, Finding("data", "model", ABSENT, "none shipped; give score --model DIR")]


def profiles() -> list[Finding]:
    """Profiles of the study and whether their data are at hand."""
    folder = notebooks_folder()
    try:
        stems = [notebook.stem for notebook in find_notebooks(folder)]
    except (FileNotFoundError, ValueError) as error:
        return [Finding("study", "notebooks", ABSENT, str(error).replace(str(folder), "notebooks"))]
    rows = [Finding("study", "notebooks", GOOD, f"{len(stems)} notebooks")]
    for path in sorted((folder / "profiles").glob("*.yml")):
        try:
            data_needed(path.stem, read_profile(path, stems)["needs"])
        except (FileNotFoundError, ValueError) as error:
            rows.append(Finding("study", f"profile {path.stem}", ABSENT, str(error)))
        else:
            rows.append(Finding("study", f"profile {path.stem}", GOOD, "can run"))
    return rows


def runs() -> list[Finding]:
    """Count the finished notebooks of each run."""
    rows = []
    for folder in sorted(path.parent for path in files.runs_root().glob("*/stamps")):
        stamps = [files.read_json(path) for path in sorted(folder.glob("stamps/[0-9]*.json"))]
        done = sum(stamp.get("key") is not None for stamp in stamps)
        state, detail = GOOD, f"{done} of {len(stamps)} notebooks finished"
        try:
            run.check_layout(folder)
        except ValueError as error:
            state, detail = ABSENT, str(error)
        rows.append(Finding("study", f"run {folder.name}", state, detail))
    return rows


def _compiled_code() -> Finding:
    """Whether compiled functions outlive their process, by compiling one."""
    try:
        from motionlib.compute.compiled import keeps_code  # numba may be what is missing
    except ImportError:
        return Finding("devices", "compiled code", BAD, "numba is not installed; run: make setup")
    if keeps_code():
        return Finding("devices", "compiled code", GOOD, "kept on disk")
    why = "in memory, each process anew: name a folder to write to in NUMBA_CACHE_DIR"
    return Finding("devices", "compiled code", ABSENT, why)
