"""The computer goes in; what is installed, seen and missing comes out, as rows of a table.

Nothing here names a user, a host or an absolute path, so the table can be pasted into an issue.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from motionlib import files
from motionlib.files import PACKAGE
from motionlib.study import run
from motionlib.study.notebooks import data_needed, find_notebooks, notebooks_folder, read_profile

GOOD, ABSENT, BAD = "ok", "absent", "missing"
EXTRAS_FOR = {
    "test": "the tests",
    "hpc": "engine slurm and the dashboard",
    "viewer": "the slice viewer",
    "log": "TensorBoard logs",
    "ants": "preprocess --backend ants",
}


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report: what was looked at, how it stands, and what is known."""

    topic: str
    name: str
    state: str
    detail: str


def examine() -> list[Finding]:
    """Look at packages, devices, engines, data, profiles and runs.

    Returns
    -------
    list of Finding
        State ``ok``, ``absent`` (a choice that is not there) or ``missing`` (needed).
    """
    looks = (packages, devices, engines, data, profiles, runs)
    return [finding for look in looks for finding in look()]


def packages() -> list[Finding]:
    """Core packages and extras against the package's own requirements."""
    try:
        required = metadata.requires("motionlib") or []
    except metadata.PackageNotFoundError:
        return [Finding("packages", "motionlib", BAD, "not installed; run: pip install -e .")]
    core, extras = [], {}
    conflicts = _conflicts()
    for text in required:
        name = re.match(r"[\w.-]+", text)[0]
        fault = "" if _installed(name) else f"{name} is not installed"
        fault = fault or conflicts.get(name.lower(), "")
        extra = re.search(r"extra == [\"'](\w+)[\"']", text)
        if extra:
            extras.setdefault(extra[1], []).append(fault)
        else:
            core.append(fault)
    faults = [fault for fault in core if fault]
    found = [
        Finding("packages", "python", GOOD, run.versions()["python"]),
        Finding("packages", "motionlib", GOOD, metadata.version("motionlib")),
        Finding(
            "packages",
            "core",
            BAD if faults else GOOD,
            "; ".join(faults) or f"{len(core)} packages as required",
        ),
    ]
    for extra, its in extras.items():
        lacking = "; ".join(fault for fault in its if fault)
        use = EXTRAS_FOR.get(extra, "")
        detail = f"for {use}; {lacking}; add with pip install -e .[{extra}]" if lacking else use
        found.append(Finding("packages", f"extra {extra}", ABSENT if lacking else GOOD, detail))
    return found


def devices() -> list[Finding]:
    """Processor, memory and GPU as PyTorch sees them."""
    machine = run.device()
    memory = f", {machine['memory_gib']} GiB" if machine["memory_gib"] else ""
    found = [
        Finding("devices", "cpu", GOOD, f"{machine['system']}, {machine['cores']} cores{memory}")
    ]
    try:
        import torch
    except ImportError:
        return [*found, Finding("devices", "torch", BAD, "not installed; run: make setup")]
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return [*found, Finding("devices", "cuda", GOOD, ", ".join(names))]
    cause = "no GPU found; training runs on the processor"
    if machine["gpu"]:
        cause = f"{machine['gpu']} is there, but this build of torch cannot use it"
    return [*found, Finding("devices", "cuda", ABSENT, cause)]


def engines() -> list[Finding]:
    """Engines that notebooks can compute on."""
    local = shutil.which("dask") or _installed("distributed")
    slurm = shutil.which("sbatch") and _installed("dask-jobqueue")
    why = "jobs of a cluster" if slurm else "needs sbatch and pip install -e .[hpc]"
    return [
        Finding("engines", "inline", GOOD, "in the notebook itself"),
        Finding("engines", "local", GOOD if local else BAD, "worker processes on this computer"),
        Finding("engines", "tcp", GOOD if local else BAD, "workers of a running dask scheduler"),
        Finding(
            "engines", "slurm", GOOD if slurm else ABSENT, "jobs of a cluster" if slurm else why
        ),
    ]


def data() -> list[Finding]:
    """Folders that the environment variables name."""
    found = []
    for variable, use in (
        ("MOTIONLIB_DATA", "real scans, for the profile real"),
        ("MOTIONLIB_REFERENCE", "what other programs computed, for the tests"),
    ):
        value = os.environ.get(variable)
        folder = Path(value).expanduser() if value else None
        if folder is None:
            found.append(Finding("data", variable, ABSENT, f"not set; {use}"))
        elif not folder.is_dir():
            found.append(Finding("data", variable, BAD, "set, but no such folder"))
        else:
            parts = sorted(part.name for part in folder.iterdir() if part.is_dir())
            found.append(Finding("data", variable, GOOD, ", ".join(parts) or "empty"))
    model = PACKAGE / "model" / "weights.safetensors"
    state = GOOD if model.is_file() else ABSENT
    detail = "for motionlib score" if model.is_file() else "none shipped; give score --model DIR"
    return [*found, Finding("data", "model", state, detail)]


def profiles() -> list[Finding]:
    """Profiles of the study and whether their data are at hand."""
    folder = notebooks_folder()
    try:
        stems = [notebook.stem for notebook in find_notebooks(folder)]
    except (FileNotFoundError, ValueError) as error:
        return [Finding("study", "notebooks", BAD, str(error).replace(str(folder), "notebooks"))]
    found = [Finding("study", "notebooks", GOOD, f"{len(stems)} notebooks")]
    for path in sorted((folder / "profiles").glob("*.yml")):
        try:
            data_needed(path.stem, read_profile(path, stems)["needs"])
        except (FileNotFoundError, ValueError) as error:
            found.append(Finding("study", f"profile {path.stem}", ABSENT, str(error)))
        else:
            found.append(Finding("study", f"profile {path.stem}", GOOD, "can run"))
    return found


def runs() -> list[Finding]:
    """Count the finished notebooks of each run."""
    found = []
    for folder in sorted(path.parent for path in files.runs_root().glob("*/stamps")):
        try:
            run.check_layout(folder)
        except ValueError as error:
            found.append(Finding("study", f"run {folder.name}", ABSENT, str(error)))
            continue
        stamps = [files.read_json(path) for path in sorted(folder.glob("stamps/[0-9]*.json"))]
        done = sum(stamp.get("key") is not None for stamp in stamps)
        detail = f"{done} of {len(stamps)} notebooks finished"
        found.append(Finding("study", f"run {folder.name}", GOOD, detail))
    return found


def _conflicts() -> dict[str, str]:
    """Find packages whose version is not the required one, by asking pip."""
    command = [sys.executable, "-m", "pip", "check"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    pattern = r"motionlib \S+ has requirement ([\w.-]+)(.*), but you have \S+ (\S+?)\.?$"
    found = re.findall(pattern, asked.stdout, flags=re.MULTILINE)
    return {name.lower(): f"{name} is {have}, expected {want}" for name, want, have in found}


def _installed(name: str) -> bool:
    """Tell whether a distribution is installed, without importing it."""
    try:
        return bool(metadata.version(name))
    except metadata.PackageNotFoundError:
        return False
