"""A site's profile file goes in; a SLURM cluster of Dask workers and its job script come out."""

from __future__ import annotations

import os
from pathlib import Path

SLURM_NEEDS = {"workers", "cores", "memory", "walltime"}
SLURM_KNOWS = {
    *("queue", "account", "gpus", "interface", "host", "python", "prologue", "directives"),
    *("log_directory", "local_directory", "lifetime"),
}


def slurm_cluster(file: str | os.PathLike, **overrides):
    """Make (not start) the SLURM cluster that a profile file describes.

    Parameters
    ----------
    file : path-like
        YAML with `workers` (jobs to ask for), `cores`, `memory`, `walltime`, and optionally
        `queue`, `account`, `gpus` (0 or 1 a job), `interface`, `python`, `prologue` (list of shell
        lines), `directives` (list of extra ``#SBATCH`` options), `log_directory`,
        `local_directory`, `lifetime` (shorter than the walltime, so that workers hand over), `host`
        (address of this scheduler). Without a GPU a job runs one worker a core.

    Returns
    -------
    cluster : dask_jobqueue.SLURMCluster
        Its `job_script()` is what will be submitted.
    workers : int
        Jobs to ask for.

    Raises
    ------
    FileNotFoundError
        If the profile is not there.
    ValueError
        If a key is unknown or missing, or dask-jobqueue is not installed.
    """
    import yaml

    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"SLURM profile {file} is not there; give slurm:FILE.yaml.")
    profile = {**(yaml.safe_load(path.read_text(encoding="utf-8")) or {}), **overrides}
    unknown = sorted(set(profile) - SLURM_NEEDS - SLURM_KNOWS)
    missing = sorted(SLURM_NEEDS - set(profile))
    if unknown or missing:
        raise ValueError(
            f"SLURM profile {path.name} has unknown keys {unknown} and lacks {missing}; known keys "
            f"are {sorted(SLURM_NEEDS | SLURM_KNOWS)}."
        )
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise ValueError(
            "Engine slurm needs dask-jobqueue; install motionlib with its [hpc] extra."
        ) from error
    gpus, cores = int(profile.get("gpus", 0)), int(profile["cores"])
    if gpus > 1:
        raise ValueError(f"A job asks for {gpus} GPUs; ask for one a job and for more workers.")
    extra = ["--resources", f"GPU={gpus}"] if gpus else []
    if "lifetime" in profile:
        extra += ["--lifetime", str(profile["lifetime"]), "--lifetime-stagger", "5m"]
    processes = 1 if gpus else cores
    options = {
        "cores": processes,  # one thread a process; a GPU's other cores feed it
        "processes": processes,
        "job_cpu": cores,
        "memory": str(profile["memory"]),
        "walltime": str(profile["walltime"]),
        "worker_extra_args": extra,
        "job_script_prologue": ["export OMP_NUM_THREADS=1", *profile.get("prologue", [])],
        "job_extra_directives": [
            *([f"--gres=gpu:{gpus}"] if gpus else []),
            *profile.get("directives", []),
        ],
        "scheduler_options": {"dashboard_address": "127.0.0.1:0"},
    }
    for name in ("queue", "account", "interface", "python", "log_directory", "local_directory"):
        if name in profile:
            options[name] = profile[name]
    if "host" in profile:
        options["scheduler_options"]["host"] = profile["host"]
    return SLURMCluster(**options), int(profile["workers"])
